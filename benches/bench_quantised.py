"""Times quantised targets: transfer to bf16 against the floor, grafts against `cp`, quantising again.

    python benches/bench_quantised.py
    python benches/bench_quantised.py --size 1.5b --pairs 5

The target is a family's model in FP8, blocks of 128×128 with F32 scales, written here by numpy and torch;
the donors are bf16. The floor reads and writes the same bytes without arithmetic, in the fastest of its
modes. Runs alternate, warm (inputs in the page cache) and cold (dropped from it), and are durable. Before
anything is timed, the output is compared with torch's arithmetic, and the graft with the donor's bytes.
Speed of a core: `cargo bench --bench kernel dequantise`.

Needs numpy, torch, safetensors, rustc and the installed package, on Linux. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch.nn import functional

import checkpoints
import machine
import rivals
from measure import Run, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Its functions' types are given in part only.
TENSORS: Any = safetensors.torch
ALPHA = 0.7
SIDE = 128
CONFIG: dict[str, object] = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [SIDE, SIDE],
}


def stored(folder: Path) -> Iterator[tuple[str, str, torch.Tensor]]:
    """File, name and value of every tensor."""
    for path in sorted(folder.glob("*.safetensors")):
        for name, value in sorted(TENSORS.load_file(path).items()):
            yield path.name, name, value


def spread(scale: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The scale of every element."""
    return scale.repeat_interleave(SIDE, 0).repeat_interleave(SIDE, 1)[: shape[0], : shape[1]]


def quantise(source: Path, folder: Path, factor: float = 1.0) -> Path:
    """The same model (times a factor) in FP8: every projection, with a scale for each block."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, torch.Tensor]] = {}
    index: dict[str, str] = {}
    for file, name, value in stored(source):
        mine = files.setdefault(file, {})
        if "_proj.weight" not in name:
            mine[name] = value
            continue
        wide = value.float() * factor
        rows, columns = wide.shape
        padded = functional.pad(wide, (0, -columns % SIDE, 0, -rows % SIDE)).abs()
        blocks = padded.view(-(-rows // SIDE), SIDE, -(-columns // SIDE), SIDE).amax((1, 3))
        scale = blocks.clamp(min=1e-4) / 448
        mine[name] = (wide / spread(scale, wide.shape)).clamp(-448, 448).to(torch.float8_e4m3fn)
        mine[f"{name}_scale_inv"] = scale
    for file, tensors in files.items():
        TENSORS.save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    if len(files) > 1:
        document = {"metadata": {}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(document))
    config = json.loads((source / "config.json").read_text()) | {"quantization_config": CONFIG}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def require_right(out: Path, target: Path, donors: Sequence[Path]) -> None:
    """Compares every element of the output with torch's."""
    own = {name: value for _, name, value in stored(target)}
    minuend, subtrahend = ({name: value for _, name, value in stored(donor)} for donor in donors)
    seen = 0
    for _, name, value in stored(out):
        base = own[name].float()
        if f"{name}_scale_inv" in own:
            base = base * spread(own[f"{name}_scale_inv"], base.shape)
        wanted = (base + ALPHA * (minuend[name].float() - subtrahend[name].float())).to(torch.bfloat16)
        if not torch.equal(value, wanted):
            raise SystemExit(f"{name} is not what torch computes")
        seen += 1
    if seen != sum(not name.endswith("_scale_inv") for name in own):
        raise SystemExit("the output does not have all tensors")


class Times:
    """Alternating runs over one family."""

    def __init__(self, work: Path, families: Path, size: str) -> None:
        """Writes the models, and checks the outputs."""
        family = checkpoints.write_family(
            families, checkpoints.layout_named(size), ("sft", "grpo", "instruct")
        )
        self.donors, self.out = [family["grpo"], family["sft"]], work / "out"
        self.target = quantise(family["instruct"], work / "fp8")
        self.other = quantise(family["instruct"], work / "other-fp8", 0.9)
        self.floor = rivals.build_floor(work)
        self.transfer(cold=False)
        require_right(self.out, self.target, self.donors)
        self.graft(cold=False)
        same = zip(stored(self.out), stored(self.other), strict=True)
        if not all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for (*_, a), (*_, b) in same):
            raise SystemExit("the graft does not have the donor's bytes")
        self.mode = min(rivals.floor_modes(), key=lambda mode: self.run_floor(mode, cold=False).seconds)

    def once(self, command: Sequence[object], inputs: Sequence[Path], *, cold: bool) -> Run:
        """One run without output, dirty pages, or (cold) cached inputs."""
        shutil.rmtree(self.out, ignore_errors=True)
        os.sync()
        files = [path for folder in inputs for path in sorted(folder.glob("*.safetensors"))]
        (machine.drop_cache if cold else machine.warm_cache)(files)
        return run([str(word) for word in command])

    def taskvec(self, *words: object, inputs: Sequence[Path], cold: bool) -> Run:
        """One command."""
        command = [sys.executable, "-m", "taskvec", *words, "-o", self.out, "--quiet"]
        return self.once(command, inputs, cold=cold)

    def transfer(self, *more: str, cold: bool) -> Run:
        """The FP8 target and the bf16 donors."""
        inputs = [self.target, *self.donors]
        return self.taskvec("transfer", *inputs, "--alpha", ALPHA, *more, inputs=inputs, cold=cold)

    def graft(self, *, cold: bool) -> Run:
        """Every weight of the other FP8 model."""
        inputs = [self.target, self.other]
        return self.taskvec("graft", *inputs, "--take", ".", inputs=inputs, cold=cold)

    def run_floor(self, mode: rivals.FloorMode, *, cold: bool) -> Run:
        """The bytes of `transfer`: the longest input comes first, because the output has its length."""
        inputs = [*self.donors, self.target]
        return self.once(rivals.floor_command(self.floor, self.out, inputs, mode, True), inputs, cold=cold)

    def copy(self, *, cold: bool) -> Run:
        """A copy of the other model, on the disk when it ends."""
        command = f"cp -r '{self.other}' '{self.out}' && sync -f '{self.out}'"
        return self.once(["sh", "-c", command], [self.other], cold=cold)


def pairs(name: str, count: int, ours: Callable[[], Run], theirs: Callable[[], Run]) -> None:
    """Prints a line: the median of the ratios, with each going first in turn."""
    taken: tuple[list[float], list[float]] = [], []
    for number in range(count):
        for which in (0, 1) if number % 2 else (1, 0):
            taken[which].append((ours, theirs)[which]().seconds)
    ratios = sorted(theirs / ours for ours, theirs in zip(*taken, strict=True))
    middle, seconds = statistics.median(ratios), [statistics.median(one) for one in taken]
    spreads = f"**{middle:.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(f"| {name} | {seconds[0]:.2f} | {seconds[1]:.2f} | {spreads} |", flush=True)


def main() -> None:
    """Measures and prints."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--size", default="0.5b", choices=tuple(checkpoints.QWEN2))
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs (default: 5)")
    parser.add_argument(
        "--dir", type=Path, default=cache / "taskvec-bench", help="where everything is written"
    )
    options = parser.parse_args()
    work = options.dir / "quantised"
    work.mkdir(parents=True, exist_ok=True)
    print(f"- {machine.describe(work)}")
    print(f"- taskvec {version('taskvec')}, Python {platform.python_version()}, torch {torch.__version__}")
    found = Times(work, options.dir / "families", options.size)
    print(f"- {options.size}, α = {ALPHA}, {options.pairs} pairs; floor: {found.mode}, fsync\n")
    print("| taskvec against | s | other, s | share of the other's speed (min to max) |\n|---|---|---|---|")
    for state, cold in (("warm", False), ("cold", True)):
        pairs(
            f"FP8 target, bf16 donors, to bf16, against the floor, {state}",
            options.pairs,
            lambda cold=cold: found.transfer(cold=cold),
            lambda cold=cold: found.run_floor(found.mode, cold=cold),
        )
        pairs(
            f"graft against cp, {state}",
            options.pairs,
            lambda cold=cold: found.graft(cold=cold),
            lambda cold=cold: found.copy(cold=cold),
        )
    pairs(
        "to FP8 (--requantise) against to bf16, warm",
        options.pairs,
        lambda: found.transfer("--requantise", cold=False),
        lambda: found.transfer(cold=False),
    )
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
