"""What the process must be before lm-eval is imported: it is there, offline if asked, and silent."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .._core import version
from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..records import Json

DEVICE = r"auto|cpu|cuda(:[0-9]{1,3})?"
"""What a device is called."""

SCORING = ("torch", "transformers", "lm_eval", "datasets", "accelerate")
"""What scores models."""
# matplotlib too: its lack must not be found out after hours of scoring.
STUDYING = (*SCORING, "matplotlib")
"""What a whole study needs, its report included."""
# Without the third, building some tasks calls out although the first two forbid it.
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
_FLAGS = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_HUB_OFFLINE"),
    ("evaluate.config", "HF_EVALUATE_OFFLINE"),
)
_LOUD = ("lm_eval", "transformers", "datasets", "evaluate", "huggingface_hub", "httpx", "accelerate")


def missing(needed: tuple[str, ...] = STUDYING) -> str | None:
    """The one sentence to say where what is needed is not installed; None where it is."""
    absent = [name for name in needed if find_spec(name) is None]
    if not absent:
        return None
    return f'{", ".join(absent)} not installed; get what scores models with: pip install "taskvec[eval]"'


def prepare(*, offline: bool, needed: tuple[str, ...] = STUDYING) -> bool:
    """Call before anything heavy is imported; returns whether the process is offline from now on.

    Raises:
        UsageError: the extra `eval` is not installed, or a library that reads the flags when it is imported
            was imported without them.
    """
    if said := missing(needed):
        raise UsageError(said)
    if not (offline or _is_on("HF_HUB_OFFLINE")):
        return False
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    for module, flag in _FLAGS:
        if module in sys.modules and not getattr(sys.modules[module], flag, True):
            raise UsageError(
                f"{module.partition('.')[0]} was imported with the network on, too late to run offline;"
                " set HF_HUB_OFFLINE=1 before the first import, or use the command line"
            )
    return True


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}


def about(device: str) -> Json:
    """What here decides answers: `versions`, and of the device its torch name and what it is called.

    Raises:
        UsageError: there is no such device.
    """
    import torch

    there = torch.cuda.is_available()
    if not re.fullmatch(DEVICE, device):
        raise UsageError(f"device {device!r} is not one of auto, cpu, cuda, cuda:1")
    if device == "auto":
        device = "cuda" if there else "cpu"
    if device != "cpu" and (not there or int(device.partition(":")[2] or 0) >= torch.cuda.device_count()):
        raise UsageError(f"device {device} is not there; give cpu, or auto to take what there is")
    versions = {
        "taskvec": version,
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "transformers": library("transformers").__version__,
        "lm_eval": library("lm_eval").__version__,
        "numpy": library("numpy").__version__,
    }
    named = device if device == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})"
    return {"versions": versions, "device": device, "named": named}


def library(name: str) -> Any:
    """A module of lm-eval, transformers or datasets; they come without types that a checker could follow."""
    return import_module(name)


def _no_bar(items: Any, **_: Any) -> Any:
    return items


@contextmanager
def quiet() -> Generator[None]:
    """Bars, advice and warnings of the libraries stay away; what they print goes to standard error."""
    datasets, task = library("datasets"), library("lm_eval.api.task")
    transformers_logging = library("transformers.utils.logging")
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    verbosity = transformers_logging.get_verbosity()
    bars = datasets.are_progress_bars_disabled(), not transformers_logging.is_progress_bar_enabled()
    tqdm = task.tqdm
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        transformers_logging.set_verbosity(logging.CRITICAL)
        transformers_logging.disable_progress_bar()
        datasets.disable_progress_bars()
        # The one bar that lm-eval has no switch for.
        task.tqdm = _no_bar
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        task.tqdm = tqdm
        if not bars[0]:
            datasets.enable_progress_bars()
        if not bars[1]:
            transformers_logging.enable_progress_bar()
        transformers_logging.set_verbosity(verbosity)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
