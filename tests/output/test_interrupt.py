"""Ctrl-C, SIGTERM, a second run on the same output, and callbacks that raise."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

import taskvec
from hostile import PARTIAL, SLOW, await_journal, finish, freeze_midway, refused, run, start, sums, trio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ELEMENTS = 36 << 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    root = tmp_path_factory.mktemp("trio")
    yield trio(root, ELEMENTS)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def straight(inputs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("straight")
    assert run(["transfer", *inputs, "-o", root / "out", *SLOW])[0] == 0
    found = sums(root / "out")
    shutil.rmtree(root)
    return found


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out"
    shutil.rmtree(tmp_path)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKVEC_SIMD", "scalar")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_that_can_go_on(
    number: int, code: int, inputs: tuple[Path, Path, Path], straight: dict[str, str], out: Path
) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW, "--json")
    process = start(args)
    await_journal(process, out)
    asked = time.monotonic()
    process.send_signal(number)
    found, stdout, stderr = finish(process)
    assert time.monotonic() - asked < 3
    assert found == code
    sentence = "stopped; run the same command again to continue"
    assert stderr == f"taskvec: stopping; interrupt again to stop at once\ntaskvec: {sentence}\n"
    assert json.loads(stdout)["error"] == sentence
    assert [path.name for path in out.iterdir()] == [PARTIAL]
    code, stdout, _ = run(args)
    assert code == 0
    assert json.loads(stdout)["engine"]["resumed_bytes"] > 0
    assert sums(out) == straight


def test_a_second_run_on_the_same_output_is_turned_away(
    inputs: tuple[Path, Path, Path], straight: dict[str, str], out: Path
) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW)
    first = freeze_midway(args, out)
    refused(run(args), 4, str(out), "another taskvec run is writing there")
    refused(run([*args, "--no-resume", "--alpha", "2", "--overwrite"]), 4, "another taskvec run")
    first.send_signal(signal.SIGCONT)
    assert finish(first)[0] == 0
    assert sums(out) == straight


@pytest.mark.usefixtures("slow")
def test_ctrl_c_through_the_python_api(
    inputs: tuple[Path, Path, Path], straight: dict[str, str], out: Path
) -> None:
    options = {"threads": 1, "memory": "16MiB", "rounding": "stochastic"}

    def press() -> None:
        deadline = time.monotonic() + 30
        journal = out / PARTIAL / "journal"
        while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size > 400):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    before = threading.active_count()
    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        taskvec.transfer(*inputs, out, **options)
    thread.join()
    assert threading.active_count() == before
    assert [path.name for path in out.iterdir()] == [PARTIAL]
    assert taskvec.transfer(*inputs, out, **options).engine.resumed_bytes > 0
    assert sums(out) == straight


class Enough(Exception):
    """Not an error that taskvec knows."""


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("verb", ["transfer", "diff", "verify"])
def test_what_a_callback_raises_is_passed_on(
    verb: str, inputs: tuple[Path, Path, Path], out: Path, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []

    def progress(phase: str, done: int, total: int) -> None:
        seen.append((phase, done, total))
        raise Enough

    calls = {
        "transfer": lambda: taskvec.transfer(
            *inputs, out, threads=1, memory="16MiB", rounding="stochastic", progress=progress
        ),
        "diff": lambda: taskvec.diff(*inputs[:2], threads=1, progress=progress),
        "verify": lambda: taskvec.verify(tmp_path / "made", progress=progress),
    }
    if verb == "verify":
        taskvec.transfer(*inputs, tmp_path / "made", sync=False)
    with pytest.raises(Enough):
        calls[verb]()
    assert len(seen) == 1
    phase, done, total = seen[0]
    assert phase
    assert 0 <= done <= total
    if verb == "transfer":
        assert [path.name for path in out.iterdir()] == [PARTIAL]


def test_progress_is_told_to_the_end(inputs: tuple[Path, Path, Path], out: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    taskvec.transfer(*inputs, out, progress=lambda *state: seen.append(state))
    assert all(done <= total for _, done, total in seen)
    assert seen[-1][0] in {"writing", "syncing", "hashing"}
