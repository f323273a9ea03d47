"""What several test files share."""

from __future__ import annotations

import atexit
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from command import Answer
from hubserver import Hub
from made_family import write_family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from transformers import PreTrainedModel

    from adapters import Adapted


# Before any of the libraries that read these is imported: no test may want the network, nor leave prepared
# data where the user keeps theirs.
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
os.environ.update(dict.fromkeys(_OFFLINE, "1"))
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="taskvec-tests-")
atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


# Seconds for one test with its fixtures: several times what the slowest takes on a busy machine.
LONGEST, LONGEST_SLOW = 600, 7200
# Then the process ends: a test that hangs outside Python cannot be failed alone.
GRACE = 60
_terminal: list[int] = []


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the real standard error: while tests run, pytest has a file in its place."""
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        _terminal.append(os.dup(2))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """No test hangs: it fails after a while, and what does not even see the alarm ends the whole run."""

    def late(_number: int, _frame: object) -> None:
        pytest.fail(f"does not end within {seconds} s")

    seconds = int(os.environ.get("TASKVEC_TEST_SECONDS") or LONGEST)
    if item.get_closest_marker("slow"):
        seconds = max(seconds, LONGEST_SLOW)
    before = signal.signal(signal.SIGALRM, late) if hasattr(signal, "SIGALRM") else None
    if before is not None:
        signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=_terminal[0])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        if before is not None:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """A test and the processes it starts hear signals, also where whoever started pytest ignores them.

    `nohup`, `&` in a script and some build servers do, and children inherit what is ignored.
    """
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in wanted}
    ignored = [number for number, handler in before.items() if handler is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, wanted[number])
    yield
    for number in ignored:
        signal.signal(number, before[number])


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature family, to be read only: folders base, sft, grpo and instruct."""
    root = tmp_path_factory.mktemp("family")
    write_family(root, seed=0)
    return root


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied bfloat16 Qwen3 in several shards, to be read only: folders t, g, s and the vector v."""
    # Not at the top: transformers takes seconds, and most test files need none of it.
    import torch
    from transformers import Qwen3Config

    from livemodels import SIZES, save_family

    config = Qwen3Config(**SIZES, tie_word_embeddings=True)
    return save_family(tmp_path_factory.mktemp("qwen"), config, torch.bfloat16, "120KB")


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    """Two small models and an adapter on the first, to be read only."""
    # Not at the top: peft takes seconds too.
    from adapters import write_adapted

    return write_adapted(tmp_path_factory.mktemp("adapted"))


@pytest.fixture
def base(adapted: Adapted) -> Path:
    """The model that the adapter was trained on."""
    return adapted.base


@pytest.fixture
def target(adapted: Adapted) -> Path:
    """Another model of its shape."""
    return adapted.target


@pytest.fixture
def adapter(adapted: Adapted) -> Path:
    """The adapter."""
    return adapted.adapter


@pytest.fixture
def model(qwen: Path) -> PreTrainedModel:
    """`qwen`'s target, loaded as it is stored."""
    import torch

    from livemodels import load

    return load(qwen / "t", torch.bfloat16)


@pytest.fixture(scope="session")
def hub_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The one process behind `hub`."""
    with Hub(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture
def hub(hub_process: Hub) -> Hub:
    """An empty Hub that behaves well; commands meet it with `taskvec(..., **hub.env(tmp_path / "home"))`."""
    hub_process.reset()
    return hub_process


@pytest.fixture
def taskvec(tmp_path: Path) -> Callable[..., Answer]:
    """Runs the command line in a process of its own, in an empty folder."""

    def run(*args: str | Path, **environment: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "taskvec", *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONUTF8": "1", **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run
