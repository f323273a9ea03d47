"""Prepares the process before lm-eval is imported: checks that it is installed, sets offline mode and quiet.

lm-eval, transformers and datasets read their environment variables once, when they are imported.
"""

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
"""The names that a device may have, as a regular expression."""

SCORING = ("torch", "transformers", "lm_eval", "datasets", "accelerate")
"""Packages needed to score models."""
# With matplotlib, so that a run does not fail at its report after hours of scoring.
STUDYING = (*SCORING, "matplotlib")
"""Packages needed for a whole study, including its report."""
# Without the third, some tasks use the network when they are built, although the first two forbid it.
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
_FLAGS = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_HUB_OFFLINE"),
    ("evaluate.config", "HF_EVALUATE_OFFLINE"),
)
_LOUD = ("lm_eval", "transformers", "datasets", "evaluate", "huggingface_hub", "httpx", "accelerate")


def missing(needed: tuple[str, ...] = STUDYING) -> str | None:
    """A sentence that names the needed packages that are not installed; None if all are."""
    absent = [name for name in needed if find_spec(name) is None]
    if not absent:
        return None
    return f'{", ".join(absent)} not installed; run pip install "taskvec[eval]"'


def prepare(*, offline: bool, needed: tuple[str, ...] = STUDYING) -> bool:
    """Must be called before the libraries are imported; returns whether the process is offline from now on.

    Raises:
        UsageError: the extra `eval` is not installed, or a library was imported before without offline mode.
    """
    if said := missing(needed):
        raise UsageError(said)
    if not (offline or _is_on("HF_HUB_OFFLINE")):
        return False
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    for module, flag in _FLAGS:
        if module in sys.modules and not getattr(sys.modules[module], flag, True):
            raise UsageError(
                f"{module.partition('.')[0]} was imported without offline mode, and cannot change to it now;"
                " set HF_HUB_OFFLINE=1 before the first import, or use the command line"
            )
    return True


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}


def about(device: str) -> Json:
    """What can change answers on this machine: `versions`, torch's name of the `device`, and `named`.

    `named` is the device with the name of the GPU.

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
        raise UsageError(f"device {device} does not exist here; give cpu, or auto to use what is available")
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
    """A module of lm-eval, transformers or datasets, untyped, since a type checker cannot follow them."""
    return import_module(name)


def _no_bar(items: Any, **_: Any) -> Any:
    return items


@contextmanager
def quiet() -> Generator[None]:
    """Silences the libraries' progress bars, log messages and warnings; their prints go to standard error."""
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
        # lm-eval has no setting to hide this bar.
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
