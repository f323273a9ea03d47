"""The memory budget holds, whatever the size of a tensor; many small tensors cost in proportion."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hostile import checkpoint, entry, noise, peak_anonymous, refused, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Trio = tuple[Path, Path, Path]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MIB = 1 << 20


def one_tensor(root: Path, size: int) -> Trio:
    """Three checkpoints of one bfloat16 tensor of `size` bytes each, made without holding it."""
    header = json.dumps({"big": entry("BF16", [size // 2], 0, size)}).encode()
    folders = []
    for seed, role in enumerate(("t", "g", "s")):
        folder = root / role
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        part = noise(seed, 8 * MIB).tobytes()
        with (folder / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _ in range(size // len(part)):
                file.write(part)
        folders.append(folder)
    target, minuend, subtrahend = folders
    return target, minuend, subtrahend


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    root = tmp_path_factory.mktemp("medium")
    yield one_tensor(root, 128 * MIB)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    root = tmp_path_factory.mktemp("big")
    yield one_tensor(root, 1 << 30)
    shutil.rmtree(root)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out"
    shutil.rmtree(tmp_path)


def command(kind: str, inputs: Trio) -> list[str | Path]:
    """A transfer, one of several α, or an extraction in an encoding."""
    if kind == "sweep":
        return ["transfer", *inputs, "--alphas", "0.25,0.5,0.75,1"]
    return ["transfer", *inputs] if kind == "transfer" else ["extract", *inputs[1:], "--encoding", kind]


def holds(inputs: Trio, out: Path, kind: str, budget: int, io: str) -> None:
    args = command(kind, inputs)
    more = ["--memory", f"{budget}MiB", "--threads", "4", "--io", io, "--json"]
    peak, windows = peak_anonymous([*args, "-o", out, *more])
    assert windows > 1
    assert peak > 10 * MIB
    assert peak <= (budget + 64) * MIB


@pytest.mark.parametrize(("budget", "io"), [(16, "mmap"), (16, "pread"), (64, "direct"), (256, "pread")])
def test_a_budget_holds(budget: int, io: str, medium: Trio, out: Path) -> None:
    holds(medium, out, "transfer", budget, io)


@pytest.mark.parametrize(("budget", "io"), [(24, "pread"), (64, "mmap"), (128, "direct")])
def test_a_budget_holds_for_several_alphas(budget: int, io: str, medium: Trio, out: Path) -> None:
    holds(medium, out, "sweep", budget, io)


@pytest.mark.parametrize("budget", [40, 64])
@pytest.mark.parametrize("encoding", ["packed", "dense"])
def test_a_budget_holds_with_exceptions(encoding: str, budget: int, medium: Trio, out: Path) -> None:
    """Unrelated donors: the exceptions are twice as large as the vector, and frames as large as they get."""
    holds(medium, out, encoding, budget, "pread")


@pytest.mark.slow
@pytest.mark.parametrize("budget", [16, 64, 256])
@pytest.mark.parametrize("io", ["mmap", "pread", "direct"])
def test_a_budget_holds_for_a_gigabyte(budget: int, io: str, big: Trio, out: Path) -> None:
    holds(big, out, "transfer", budget, io)


class Cgroup:
    """A memory cgroup, version 1 or 2, with a limit."""

    def __init__(self, limit: int) -> None:
        one, two = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        self.version = 1 if (one / "memory.limit_in_bytes").exists() else 2
        name = f"taskvec-test-{os.getpid()}"
        self.path = (one if self.version == 1 else two) / name
        try:
            self.path.mkdir()
            file = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
            (self.path / file).write_text(str(limit))
        except OSError as error:
            if self.path.exists():
                self.path.rmdir()
            pytest.skip(f"no memory cgroup may be made here: {error}")

    def join(self) -> None:
        (self.path / "cgroup.procs").write_text("0")

    def kills(self) -> int:
        file = "memory.oom_control" if self.version == 1 else "memory.events"
        counts = dict(line.split() for line in (self.path / file).read_text().splitlines())
        return int(counts["oom_kill"])


@pytest.fixture
def cgroup() -> Iterator[Callable[[int], Cgroup]]:
    made: list[Cgroup] = []

    def make(limit: int) -> Cgroup:
        made.append(Cgroup(limit))
        return made[-1]

    yield make
    for one in made:
        one.path.rmdir()


def fits(inputs: Trio, out: Path, group: Cgroup, *extra: str) -> None:
    code, stdout, stderr = run(["transfer", *inputs, "-o", out, "--json", *extra], preexec_fn=group.join)
    assert code == 0, stderr
    assert group.kills() == 0
    assert json.loads(stdout)["bytes"]["read"] > 3 * out.joinpath("model.safetensors").stat().st_size - MIB


@pytest.mark.parametrize(
    ("io", "sync"),
    [("auto", "--quiet"), ("mmap", "--no-sync"), ("pread", "--no-sync"), ("direct", "--quiet")],
)
def test_a_small_cgroup(io: str, sync: str, medium: Trio, out: Path, cgroup: Callable[[int], Cgroup]) -> None:
    """The default budget of a quarter of the cgroup, in less memory than one tensor takes."""
    fits(medium, out, cgroup(80 * MIB), "--io", io, sync)


@pytest.mark.slow
@pytest.mark.parametrize("io", ["auto", "mmap", "pread", "direct"])
def test_a_gigabyte_in_a_quarter_of_it(
    io: str, big: Trio, out: Path, cgroup: Callable[[int], Cgroup]
) -> None:
    fits(big, out, cgroup(256 * MIB), "--io", io)


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("kind", ["transfer", "packed"])
def test_the_least_budget_is_named_and_works(kind: str, io: str, medium: Trio, out: Path) -> None:
    args = [*command(kind, medium), "-o", out, "--io", io, "--memory"]
    said = refused(run([*args, "1MiB"]), 2, "--memory", "the least that works is ")
    assert not out.exists()
    least = said.split("the least that works is ")[1].split()[0].rstrip(".")
    assert least.endswith("KiB")
    below = f"{int(least.removesuffix('KiB')) - 1}KiB"
    refused(run([*args, below]), 2, f"the least that works is {least}")
    assert run([*args, least])[0] == 0
    assert (out / ("taskvec.json" if kind == "transfer" else "vector.json")).exists()


def many(root: Path, count: int) -> Trio:
    def folder(role: str, seed: int) -> Path:
        values = noise(seed, 16 * count).reshape(count, 16)
        return checkpoint(root / role, {f"model.block.{at}.weight": values[at] for at in range(count)})

    return folder("t", 1), folder("g", 2), folder("s", 3)


def least(args: list[Path | str]) -> int:
    """The least budget that a run names, in bytes."""
    said = refused(run([*args, "--memory", "1MiB"]), 2, "the least that works is ")
    return int(said.split("the least that works is ")[1].split("KiB")[0]) << 10


def test_many_tensors_need_little_memory(tmp_path: Path) -> None:
    """Names, headers and plan of three inputs are within the budget, and in proportion to the tensors."""
    few, count = 10_000, 40_000
    some, inputs = many(tmp_path / "few", few), many(tmp_path / "many", count)
    of_few, of_all = (least(["transfer", *trio, "-o", tmp_path / "none"]) for trio in (some, inputs))
    assert (of_all - of_few) / (count - few) < 600
    budget = -(-of_all // MIB)
    args = ["transfer", *inputs, "-o", tmp_path / "out", "--json", "--threads", "1", "--memory"]
    peak, _ = peak_anonymous([*args, f"{budget}MiB"])
    assert peak <= (budget + 64) * MIB
    manifest = json.loads((tmp_path / "out" / "taskvec.json").read_text())
    assert [one["action"] for one in manifest["tensors"]] == ["combined"] * count


def test_many_small_tensors_cost_in_proportion(tmp_path: Path) -> None:
    seconds = {}
    for count in (10_000, 40_000):
        inputs = many(tmp_path / str(count), count)
        taken = []
        for repeat in range(2):
            began = time.monotonic()
            args = ["transfer", *inputs, "-o", tmp_path / f"out{count}-{repeat}", "--json"]
            code, stdout, stderr = run(args, preexec_fn=lambda: os.environ.pop("TASKVEC_SIMD", None))
            taken.append(time.monotonic() - began)
            assert code == 0, stderr
            assert json.loads(stdout)["tensors"]["combined"] == count
        seconds[count] = min(taken)
    assert seconds[40_000] < 10
    # Four times the work; a quadratic step would make it sixteen.
    assert seconds[40_000] < 8 * seconds[10_000] + 0.5
    data = (tmp_path / "out40000-0" / "model.safetensors").read_bytes()
    assert len(np.frombuffer(data, np.uint8)) > 40_000 * 32


def test_the_default_budget_grows_for_many_tensors(tmp_path: Path, cgroup: Callable[[int], Cgroup]) -> None:
    """Too little for the headers is an error if it was asked for, not if it is a quarter of the memory."""
    inputs = many(tmp_path, 60_000)
    limit = 112 * MIB
    args: list[Path | str] = ["check", *inputs, "--threads", "2"]
    assert limit // 4 < least(args) < limit * 2 // 3
    refused(run([*args, "--memory", str(limit // 4)]), 2, "the least that works is ")
    group = cgroup(limit)
    code, _, stderr = run([*args, "--quiet"], preexec_fn=group.join)
    assert code == 0, stderr
    assert group.kills() == 0
