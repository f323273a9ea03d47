"""A sweep survives whatever interrupts it: the same command goes on, and what is finished stays as it is."""

from __future__ import annotations

import json
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from hostile import PARTIAL, SLOW, await_journal, checkpoint, finish, noise, run, start, sums, trio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Trio = tuple[Path, Path, Path]

MIB = 1 << 20
ALPHAS = ("0.25", "0.5", "1")
FOLDERS = [f"alpha-{alpha}" for alpha in ALPHAS]
SWEEP = ("--alphas", ",".join(ALPHAS), "--json")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    root = tmp_path_factory.mktemp("trio")
    yield trio(root, 18 * MIB)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def straight(inputs: Trio, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The digests of runs with one α that nothing interrupted."""
    root = tmp_path_factory.mktemp("straight")
    for alpha, name in zip(ALPHAS, FOLDERS, strict=True):
        assert run(["transfer", *inputs, "-o", root / name, *SLOW, "--alpha", alpha])[0] == 0
    found = {name: sums(root / name) for name in FOLDERS}
    shutil.rmtree(root)
    return found


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out"
    shutil.rmtree(tmp_path)


def resumed(answer: tuple[int, str, str]) -> list[int]:
    """The bytes that each output kept from an earlier run."""
    code, stdout, stderr = answer
    assert code == 0, stderr
    return [one["engine"]["resumed_bytes"] for one in json.loads(stdout)["results"]]


def found(out: Path) -> dict[str, dict[str, str]]:
    return {path.name: sums(path) for path in out.iterdir()}


def stop_midway(args: tuple[Any, ...], out: Path, number: signal.Signals, size: int = 2000) -> int:
    """Ends a run by a signal when some of its windows are done; its exit code."""
    process = start(args)
    await_journal(process, out / FOLDERS[0], size)
    process.send_signal(number)
    code = finish(process)[0]
    assert {path.name for path in out.iterdir()} == set(FOLDERS)
    for folder in out.iterdir():
        assert [path.name for path in folder.iterdir()] == [PARTIAL]
    return code


# Ctrl-C is heard ten times a second, so it has to come early in a run as short as this.
@pytest.mark.parametrize(
    ("number", "size"), [(signal.SIGKILL, 300), (signal.SIGKILL, 4000), (signal.SIGINT, 300)]
)
def test_stopped_at_some_point(
    number: signal.Signals, size: int, inputs: Trio, straight: dict[str, dict[str, str]], out: Path
) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW, *SWEEP)
    code = stop_midway(args, out, number, size)
    assert code == (130 if number == signal.SIGINT else -number)
    kept = resumed(run(args))
    assert min(kept) > 0
    assert max(kept) < 36 * MIB
    assert found(out) == straight


def test_no_resume_starts_anew(inputs: Trio, straight: dict[str, dict[str, str]], out: Path) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW, *SWEEP)
    stop_midway(args, out, signal.SIGKILL)
    assert resumed(run([*args, "--no-resume"])) == [0, 0, 0]
    assert found(out) == straight


def test_outputs_that_got_less_far_catch_up(
    inputs: Trio, straight: dict[str, dict[str, str]], out: Path
) -> None:
    """Each output keeps its own blocks, whatever the others have lost."""
    args = ("transfer", *inputs, "-o", out, *SLOW, *SWEEP)
    stop_midway(args, out, signal.SIGKILL, 4000)
    shard = out / FOLDERS[1] / PARTIAL / "files" / "model-00001-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[3 * MIB + 5] ^= 0xFF
    shard.write_bytes(content)
    (out / FOLDERS[2] / PARTIAL / "journal").unlink()
    first, second, third = resumed(run(args))
    assert (first > 3 * MIB, second, third) == (True, 3 * MIB, 0)
    assert found(out) == straight


def test_another_list_goes_on_with_what_it_shares(
    inputs: Trio, straight: dict[str, dict[str, str]], out: Path
) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW)
    stop_midway((*args, *SWEEP), out, signal.SIGKILL)
    first, second = resumed(run([*args, "--alphas", "0.5,2", "--json"]))
    assert first > 0
    assert second == 0
    assert sums(out / "alpha-0.5") == straight["alpha-0.5"]
    # A run with this α alone is the same job.
    code, stdout, _ = run(["transfer", *inputs, "-o", out / "alpha-1", *SLOW, "--alpha", "1", "--json"])
    assert code == 0
    assert json.loads(stdout)["engine"]["resumed_bytes"] > 0
    assert sums(out / "alpha-1") == straight["alpha-1"]


def test_an_output_in_the_way_leaves_what_was_begun(
    inputs: Trio, straight: dict[str, dict[str, str]], out: Path
) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW)
    stop_midway((*args, *SWEEP), out, signal.SIGKILL)
    (out / "alpha-2").mkdir()
    (out / "alpha-2" / "mine").write_text("precious")
    code, _, stderr = run([*args, "--alphas", "0.25,0.5,1,2"])
    assert code == 2
    assert "alpha-2" in stderr
    shutil.rmtree(out / "alpha-2")
    assert min(resumed(run([*args, *SWEEP]))) > 0
    assert found(out) == straight


@pytest.fixture(scope="module")
def committing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[tuple[Any, ...], Path]]:
    """A sweep killed when the first output was in place and the last on its way there, and its command."""
    root = tmp_path_factory.mktemp("committing")
    # Many small files beside the weights, so that the renames take long enough to be caught.
    folders = [checkpoint(root / role, {"a": noise(seed, 5000)}) for seed, role in enumerate("tgs")]
    for number in range(3000):
        (folders[0] / f"extra-{number:04}.txt").write_text(str(number))
    args = ("transfer", *folders, "--no-sync", *SWEEP, "-o")
    for attempt in range(10):
        out = root / f"out{attempt}"
        process = start((*args, out))
        last = out / FOLDERS[-1]
        while not (last / PARTIAL / "commit.json").exists() and process.poll() is None:
            time.sleep(0.0002)
        process.send_signal(signal.SIGKILL)
        finish(process)
        if (last / PARTIAL / "commit.json").exists() and not (last / "taskvec.json").exists():
            break
    else:
        pytest.skip("the renames were too quick to be caught")
    yield args[:-1], out
    shutil.rmtree(root)


def alone(args: tuple[Any, ...], root: Path) -> dict[str, dict[str, str]]:
    """What each α gives on its own."""
    for alpha, name in zip(ALPHAS, FOLDERS, strict=True):
        assert run([*args[:5], "--alpha", alpha, "-o", root / name])[0] == 0
    return found(root)


def test_killed_among_the_renames(committing: tuple[tuple[Any, ...], Path], tmp_path: Path) -> None:
    args, before = committing
    out = shutil.copytree(before, tmp_path / "out")
    assert (out / FOLDERS[0] / "taskvec.json").exists()
    code, stdout, stderr = run([*args, "-o", out])
    assert code == 0, stderr
    assert json.loads(stdout)["bytes"]["read"] == 0, "nothing is computed again"
    assert found(out) == alone(args, tmp_path / "alone")


def test_killed_when_an_output_was_not_built(
    committing: tuple[tuple[Any, ...], Path], tmp_path: Path
) -> None:
    """The finished outputs stay as they are, the other one is computed."""
    args, before = committing
    out = shutil.copytree(before, tmp_path / "out")
    shutil.rmtree(out / FOLDERS[-1])
    code, stdout, stderr = run([*args, "-o", out])
    assert code == 0, stderr
    read = [one["bytes"]["read"] for one in json.loads(stdout)["results"]]
    assert read[:2] == [0, 0]
    assert read[2] > 0
    assert found(out) == alone(args, tmp_path / "alone")


@pytest.mark.parametrize("left", ["all", "commit.json", "lock"])
def test_killed_while_cleaning_up(
    left: str, committing: tuple[tuple[Any, ...], Path], tmp_path: Path
) -> None:
    """The first staging folder is gone, of the second more or less is left, the third is whole."""
    args, before = committing
    out, whole = shutil.copytree(before, tmp_path / "out"), tmp_path / "whole"
    shutil.copytree(before, whole)
    assert run([*args, "-o", whole])[0] == 0
    for name in FOLDERS:
        partial = out / name / PARTIAL
        for path in (whole / name).iterdir():
            shutil.copy(path, out / name)
        shutil.rmtree(partial / "files")
        if name == FOLDERS[0]:
            shutil.rmtree(partial)
        elif name == FOLDERS[1] and left != "all":
            for path in partial.iterdir():
                if path.name not in (left, "lock"):
                    path.unlink()
    code, stdout, stderr = run([*args, "-o", out])
    assert code == 0, stderr
    assert json.loads(stdout)["bytes"]["read"] == 0
    assert found(out) == found(whole)
    code, _, stderr = run([*args, "-o", out])
    assert code == 2, "a sweep that is complete is not written again"
    assert "exists and is not empty" in stderr


def test_an_older_output_is_not_taken_for_a_finished_one(
    committing: tuple[tuple[Any, ...], Path], tmp_path: Path
) -> None:
    args, before = committing
    out = shutil.copytree(before, tmp_path / "out")
    # The first was written by another command: this one, with a shorter list, cannot have finished it.
    shutil.rmtree(out / FOLDERS[0] / PARTIAL)
    code, _, stderr = run([*args[:5], "--alphas", "0.25,0.5", "-o", out])
    assert code == 2
    assert f"{FOLDERS[0]} exists and is not empty" in stderr


def test_changed_inputs_leave_nothing(tmp_path: Path) -> None:
    """The change is noticed at the end, when every output is complete but none in place."""
    paths = trio(tmp_path, 12 * MIB)
    out = tmp_path / "out"
    process = start(("transfer", *paths, "-o", out, *SLOW, *SWEEP))
    await_journal(process, out / FOLDERS[0])
    path = paths[1] / "model.safetensors"
    path.write_bytes(path.read_bytes())
    code, _, stderr = finish(process)
    assert code == 3, stderr
    assert not out.exists()
