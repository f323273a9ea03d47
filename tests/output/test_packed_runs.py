"""A packed vector has the same bytes however it is made, also by runs that were stopped."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hostile import PARTIAL, SLOW_EXTRACT, checkpoint, kill_midway, noise, run, sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ELEMENTS = 10 << 20
MIB = 1 << 20


@pytest.fixture(scope="module")
def donors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Two checkpoints of two shards: tensors that change a little, by unrelated values, and in float32."""
    root, rng = tmp_path_factory.mktemp("donors"), np.random.default_rng(0)
    little = noise(1, ELEMENTS)
    changed = little.copy()
    changed[rng.random(ELEMENTS) < 0.1] ^= 3
    wide = [rng.standard_normal(ELEMENTS // 8).astype(np.float32) for _ in range(2)]
    for role, one, seed, values in (("g", changed, 3, wide[0]), ("s", little, 4, wide[1])):
        tensors = {"a.little": one, "b.bias": noise(seed, 77), "c.other": noise(seed, ELEMENTS), "d": values}
        checkpoint(root / role, tensors, shards=2)
    yield root / "g", root / "s"
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def straight(donors: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of a run that nothing interrupted."""
    root = tmp_path_factory.mktemp("straight")
    assert run(["extract", *donors, "-o", root / "v", *SLOW_EXTRACT])[0] == 0
    found = sums(root / "v")
    assert "vector-00002-of-00002.safetensors" in found
    shutil.rmtree(root)
    return found


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out"
    shutil.rmtree(tmp_path)


WAYS = [
    ("--threads", "4", "--memory", "256MiB", "--io", "mmap"),
    ("--threads", "3", "--memory", "60MiB", "--io", "pread", "--no-sync"),
    ("--threads", "2", "--io", "direct"),
]


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_the_same_bytes_however_the_work_is_done(
    way: tuple[str, ...], donors: tuple[Path, Path], straight: dict[str, str], out: Path
) -> None:
    assert run(["extract", *donors, "-o", out, *way])[0] == 0
    assert sums(out) == straight


def resumed(answer: tuple[int, str, str]) -> int:
    assert answer[0] == 0, answer
    found: dict[str, Any] = json.loads(answer[1])
    return found["engine"]["resumed_bytes"]


@pytest.mark.parametrize("way", [SLOW_EXTRACT, *WAYS], ids=" ".join)
def test_a_killed_run_goes_on(
    way: tuple[str, ...], donors: tuple[Path, Path], straight: dict[str, str], out: Path
) -> None:
    kill_midway(("extract", *donors, "-o", out, *SLOW_EXTRACT), out, 2000)
    assert {path.name for path in (out / PARTIAL).iterdir()} == {"files", "journal", "lock"}
    assert 0 < resumed(run(["extract", *donors, "-o", out, *way, "--json"])) < 6 * ELEMENTS
    assert sums(out) == straight


def test_killed_twice(donors: tuple[Path, Path], straight: dict[str, str], out: Path) -> None:
    args = ("extract", *donors, "-o", out, *SLOW_EXTRACT)
    kill_midway(args, out)
    kill_midway(args, out, (out / PARTIAL / "journal").stat().st_size + 3000)
    assert resumed(run([*args, "--json"])) > 4 * MIB
    assert sums(out) == straight


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def zeroed(content: bytes) -> bytes:
    """Space that was promised, and data that did not reach the disk before the power went."""
    return cut(content) + bytes(len(content) - len(cut(content)))


def flipped(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [cut, zeroed, flipped])
def test_frames_that_did_not_reach_the_disk(
    damage: Any, donors: tuple[Path, Path], straight: dict[str, str], out: Path
) -> None:
    args = ("extract", *donors, "-o", out, *SLOW_EXTRACT, "--json")
    kill_midway(args, out, 6000)
    path = out / PARTIAL / "files" / "vector-00001-of-00002.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert 0 < resumed(run(args)) < 6 * ELEMENTS
    assert sums(out) == straight


@pytest.mark.parametrize("keep", [True, False])
def test_files_that_are_gone(
    keep: bool, donors: tuple[Path, Path], straight: dict[str, str], out: Path
) -> None:
    """The second file is kept, or all of them are lost."""
    args = ("extract", *donors, "-o", out, *SLOW_EXTRACT, "--json")
    kill_midway(args, out, 6000)
    files = sorted((out / PARTIAL / "files").iterdir())
    for path in files[: 1 if keep else None]:
        path.unlink()
    assert resumed(run(args)) == 0
    assert sums(out) == straight


def test_the_other_encoding_starts_anew(
    donors: tuple[Path, Path], straight: dict[str, str], out: Path
) -> None:
    args = ("extract", *donors, "-o", out, *SLOW_EXTRACT, "--json")
    kill_midway((*args, "--encoding", "dense"), out)
    assert resumed(run(args)) == 0
    assert sums(out) == straight
