"""Measures packed vectors: how small they are, and how long it takes to apply them.

    python benches/bench_packed.py
    python benches/bench_packed.py --sizes-only
    python benches/bench_packed.py --size 1.5b --pairs 5 --limit 256M

Sizes: for each share of changed values, one tensor of bf16 weights and a donor whose values moved by a few
ulp at so many random places. The folder is compared with the order-0 floor, H(mask) + changes × H(values),
which numpy computes from the exact differences, and with other forms of the same differences. Every vector
is first read back: applied with α = 1 to the subtrahend in float32, it must give the minuend.

Times: `apply` from a packed vector against `apply` from a dense one (warm), against `transfer` from the
donors and `cp` of the target (cold, within a memory limit if there is one), in alternating pairs. The
first output is compared with that of `transfer`. Speed of a core: `cargo bench --bench kernel packed`.

Needs numpy, zstandard and the installed package, on Linux. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zstandard

import checkpoints
import machine
import oracle
from measure import Run, run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SHARES = (0.007, 0.01, 0.02, 0.05, 0.14, 0.2, 0.3, 0.5, 0.9)
ALPHA = "0.7"


def write_tensor(folder: Path, bits: NDArray[np.uint16]) -> Path:
    """A checkpoint of one bf16 matrix."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}\n")
    entry = {"dtype": "BF16", "shape": [bits.size // 1024, 1024], "data_offsets": [0, bits.nbytes]}
    header = json.dumps({"weight": entry}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(bits.tobytes())
    return folder


def moved(bits: NDArray[np.uint16], share: float, seed: int) -> NDArray[np.uint16]:
    """The same weights, with so many of them moved by 1 to some ulp, as training in bf16 does."""
    draws = np.random.default_rng(seed)
    places = np.flatnonzero(draws.random(bits.size) < share)
    steps = draws.geometric(0.6, places.size) * draws.choice([-1, 1], places.size)
    found = bits.copy()
    found[places] = (found[places].astype(np.int32) + steps).astype(np.uint16)
    return found


def entropy(counts: NDArray[np.int64]) -> float:
    """Bits of each symbol, if they are independent."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def others(exact: NDArray[np.float32]) -> dict[str, float]:
    """Bytes of the same differences in forms that are in use elsewhere, and their floor."""
    places = np.flatnonzero(exact.view(np.uint32))
    bits = exact.view(np.uint32)[places]
    values = (bits >> 16).astype(np.uint16)
    # Differences of a few ulp are bfloat16, so that all bits are in the upper half.
    assert not (bits & 0xFFFF).any()
    counts = np.bincount(values, minlength=1 << 16)
    mask = entropy(np.array([places.size, exact.size - places.size]))
    gaps = np.diff(places, prepend=-1) - 1
    gap_bytes = np.minimum(gaps, 65535).astype(np.uint16).tobytes() + b"\0" * (4 * int((gaps > 65534).sum()))
    bitmap = np.packbits(exact.view(np.uint32) != 0).tobytes()
    small = zstandard.ZstdCompressor(level=1).compress
    return {
        "floor": (exact.size * mask + places.size * entropy(counts)) / 8,
        "dense bf16": 2.0 * exact.size,
        "u16 gaps + values": len(gap_bytes) + values.nbytes,
        "the same, zstd-1": len(small(gap_bytes)) + len(small(values.tobytes())),
        "bitmap + values": len(bitmap) + values.nbytes,
        "the same, zstd-1 ": len(small(bitmap)) + len(small(values.tobytes())),
    }


def folder_bytes(folder: Path) -> int:
    """What `du` counts, but for what the file system adds."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def taskvec(*words: str | Path) -> None:
    """Runs a command, which must succeed."""
    subprocess.run([sys.executable, "-m", "taskvec", *map(str, words), "--quiet"], check=True)


def sizes(work: Path, elements: int) -> None:
    """The table of sizes."""
    draws = np.random.default_rng(1)
    base = checkpoints.to_bf16(draws.normal(0, 0.02, elements).astype(np.float32))
    subtrahend = write_tensor(work / "s", base)
    names = ["dense bf16", "u16 gaps + values", "the same, zstd-1", "bitmap + values", "the same, zstd-1 "]
    print(f"\nTimes smaller than dense bf16, and share of the floor; one tensor of {elements:,} elements\n")
    columns = [
        "changed",
        "floor",
        "packed",
        "folder / floor",
        "file / floor",
        *(name.strip() for name in names[1:]),
    ]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for share in SHARES:
        other = moved(base, share, 2)
        minuend = write_tensor(work / "g", other)
        shutil.rmtree(work / "v", ignore_errors=True)
        taskvec("extract", minuend, subtrahend, "-o", work / "v")
        shutil.rmtree(work / "back", ignore_errors=True)
        taskvec("apply", subtrahend, work / "v", "-o", work / "back", "--dtype", "f32")
        exact = checkpoints.to_f32(other) - checkpoints.to_f32(base)
        data = (work / "back" / "model.safetensors").read_bytes()
        restored = np.frombuffer(data[-4 * elements :], np.float32)
        if not np.array_equal(restored, checkpoints.to_f32(base) + exact):
            raise SystemExit(f"{share:.1%}: the vector does not give the differences back")
        bytes_of = others(exact)
        packed = folder_bytes(work / "v")
        dense, floor = bytes_of["dense bf16"], bytes_of["floor"]
        cells = [
            f"{np.count_nonzero(exact) / elements:.1%}",
            f"{dense / floor:.1f}",
            f"**{dense / packed:.1f}**",
        ]
        alone = (work / "v" / "vector.safetensors").stat().st_size
        cells += [
            f"{floor / packed:.3f}",
            f"{floor / alone:.3f}",
            *(f"{dense / bytes_of[name]:.1f}" for name in names[1:]),
        ]
        print(f"| {' | '.join(cells)} |")


class Times:
    """Alternating runs over one family."""

    def __init__(self, work: Path, family: dict[str, Path], cgroup: machine.MemoryCgroup | None) -> None:
        """Writes both vectors, and checks that they give what `transfer` gives."""
        self.target, self.donors = family["instruct"], [family["grpo"], family["sft"]]
        self.out, self.cgroup = work / "out", cgroup
        self.vectors = {name: work / name for name in ("packed", "dense")}
        for name, folder in self.vectors.items():
            shutil.rmtree(folder, ignore_errors=True)
            taskvec("extract", *self.donors, "-o", folder, "--encoding", name)
        shutil.rmtree(work / "checked", ignore_errors=True)
        taskvec("transfer", self.target, *self.donors, "-o", work / "checked", "--alpha", ALPHA)
        for folder in self.vectors.values():
            shutil.rmtree(self.out, ignore_errors=True)
            taskvec("apply", self.target, folder, "-o", self.out, "--alpha", ALPHA)
            oracle.require_equal_files(self.out, work / "checked")

    def once(self, command: Sequence[str | Path], inputs: Sequence[Path], cold: bool) -> Run:
        """One run without output, dirty pages, or (cold) cached inputs."""
        shutil.rmtree(self.out, ignore_errors=True)
        os.sync()
        files = [path for folder in inputs for path in sorted(folder.glob("*.safetensors"))]
        (machine.drop_cache if cold else machine.warm_cache)(files)
        return run([str(word) for word in command], self.cgroup if cold else None)

    def apply(self, encoding: str, cold: bool) -> Run:
        """One `apply`."""
        vector = self.vectors[encoding]
        words = ["apply", self.target, vector, "-o", self.out, "--alpha", ALPHA, "--json"]
        return self.once([sys.executable, "-m", "taskvec", *words], [self.target, vector], cold)

    def transfer(self) -> Run:
        """One cold `transfer` of the same vector."""
        words = ["transfer", self.target, *self.donors, "-o", self.out, "--alpha", ALPHA, "--json"]
        return self.once([sys.executable, "-m", "taskvec", *words], [self.target, *self.donors], True)

    def copy(self) -> Run:
        """One cold copy of the target, on the disk when it ends."""
        command = f"cp -r '{self.target}' '{self.out}' && sync -f '{self.out}'"
        return self.once(["sh", "-c", command], [self.target], True)


def pairs(name: str, count: int, ours: Callable[[], Run], theirs: Callable[[], Run]) -> str:
    """A line: the median of the ratios, with each going first in turn."""
    a: list[float] = []
    b: list[float] = []
    for number in range(count):
        for which in (0, 1) if number % 2 else (1, 0):
            taken = (ours, theirs)[which]().seconds
            (a, b)[which].append(taken)
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    middle = statistics.median(ratios)
    return (
        f"| {name} | {statistics.median(a):.2f} | {statistics.median(b):.2f} "
        f"| **{middle:.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
    )


def times(work: Path, families: Path, size: str, count: int, limit: int | None) -> None:
    """The table of times."""
    family = checkpoints.write_family(families, checkpoints.layout_named(size), ("sft", "grpo", "instruct"))
    found = Times(work, family, machine.MemoryCgroup(limit) if limit else None)
    small, large = (folder_bytes(found.vectors[name]) / 1e6 for name in ("packed", "dense"))
    within = f", cold ones within {limit >> 20} MiB" if limit else ""
    print(f"\n{size}, α = {ALPHA}, packed {small:.0f} MB, dense {large:.0f} MB, {count} pairs{within}\n")
    print("| apply from packed against | s | other, s | ratio in pairs (min to max) |\n|---|---|---|---|")
    print(
        pairs(
            "apply from dense, warm",
            count,
            lambda: found.apply("packed", False),
            lambda: found.apply("dense", False),
        )
    )
    print(pairs("transfer, cold", count, lambda: found.apply("packed", True), found.transfer))
    print(pairs("cp of the target, cold", count, lambda: found.apply("packed", True), found.copy))


def main() -> None:
    """Measures and prints."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--elements", type=int, default=1 << 26, help="of the tensor in the table of sizes")
    parser.add_argument("--sizes-only", action="store_true", help="leave the times out")
    parser.add_argument("--size", default="0.5b", choices=tuple(checkpoints.QWEN2))
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs (default: 5)")
    parser.add_argument("--limit", help="hard memory limit of the cold runs, such as 256M: needs root")
    parser.add_argument(
        "--dir", type=Path, default=cache / "taskvec-bench", help="where everything is written"
    )
    options = parser.parse_args()
    work = options.dir / "packed"
    work.mkdir(parents=True, exist_ok=True)
    print(f"- {machine.describe(work)}")
    print(f"- taskvec {version('taskvec')}, Python {platform.python_version()}, numpy {np.__version__}")
    sizes(work, options.elements)
    if not options.sizes_only:
        limit = (
            int(options.limit[:-1]) << {"K": 10, "M": 20, "G": 30}[options.limit[-1]]
            if options.limit
            else None
        )
        times(work, options.dir / "families", options.size, options.pairs, limit)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
