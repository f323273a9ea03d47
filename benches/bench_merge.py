"""Times recipes in mergekit's format against the floor and against mergekit.

    python benches/bench_merge.py
    python benches/bench_merge.py --size 1.5b --pairs 3 --mergekit
    python benches/bench_merge.py --size 1.5b --mergekit /path/to/its/python

Models are a synthetic family in bf16. The floor reads the same inputs once and writes one output without
arithmetic, in the fastest of its modes; a method that reads more than once cannot reach it. Runs alternate,
warm and durable. Before anything is timed, `linear` is compared with torch. mergekit runs with
`dtype: float32, out_dtype: bfloat16`, as taskvec computes, and the share of values that differ is given.

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

import checkpoints
import machine
import rivals
from measure import Run, run

if TYPE_CHECKING:
    from collections.abc import Callable

# Its functions' types are given in part only.
TENSORS: Any = safetensors.torch
WEIGHTS = (0.6, 0.3)


def recipes(models: list[Path], base: Path) -> dict[str, dict[str, Any]]:
    """One for each method."""
    each = [{"weight": weight, "density": 0.5} for weight in WEIGHTS]
    listed = [{"model": str(one), "parameters": values} for one, values in zip(models, each, strict=True)]
    weights = [{**one, "parameters": {"weight": weight}} for one, weight in zip(listed, WEIGHTS, strict=True)]
    common = {"dtype": "float32", "out_dtype": "bfloat16"}
    based = {**common, "base_model": str(base)}
    plain: dict[str, Any] = {"models": [{"model": str(one)} for one in models]}
    return {
        "linear": {**common, "merge_method": "linear", "models": weights},
        "task_arithmetic": {**based, "merge_method": "task_arithmetic", "models": weights},
        "slerp": {
            **based, "merge_method": "slerp", "models": plain["models"][:1], "parameters": {"t": 0.4},
        },
        "model_stock": {**based, "merge_method": "model_stock", **plain},
        "ties": {**based, "merge_method": "ties", "models": listed},
        "dare_ties": {**based, "merge_method": "dare_ties", "models": listed},
    }  # fmt: skip


def loaded(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one file."""
    return TENSORS.load_file(folder / name)


def differing(ours: Path, theirs: Path) -> float:
    """The share of values that are not equal."""
    other = {
        key: one for file in theirs.glob("*.safetensors") for key, one in loaded(theirs, file.name).items()
    }
    unequal = elements = 0
    for file in sorted(ours.glob("*.safetensors")):
        for name, one in loaded(ours, file.name).items():
            unequal += int((one != other[name]).sum())
            elements += one.numel()
    return unequal / elements


def require_right(out: Path, models: list[Path]) -> None:
    """Compares a linear merge with torch's."""
    weights = torch.tensor(WEIGHTS)
    for file in sorted(out.glob("*.safetensors")):
        inputs = [loaded(model, file.name) for model in models]
        for name, one in loaded(out, file.name).items():
            total = sum(weight * each[name].float() for weight, each in zip(weights, inputs, strict=True))
            if not torch.equal(one, (torch.as_tensor(total) / weights.sum()).bfloat16()):
                raise SystemExit(f"{name} is not what torch computes")


class Times:
    """Alternating runs over one family."""

    def __init__(self, work: Path, families: Path, size: str) -> None:
        """Writes the models and the recipes."""
        family = checkpoints.write_family(
            families, checkpoints.layout_named(size), ("sft", "grpo", "instruct")
        )
        self.models, self.base = [family["grpo"], family["sft"]], family["instruct"]
        self.out, self.work = work / "out", work
        self.files = {name: work / f"{name}.yml" for name in recipes(self.models, self.base)}
        for name, content in recipes(self.models, self.base).items():
            self.files[name].write_text(json.dumps(content))
        self.floor = rivals.build_floor(work)
        self.merge("linear")
        require_right(self.out, self.models)
        self.mode = min(rivals.floor_modes(), key=lambda mode: self.run_floor(mode, "ties").seconds)

    def inputs(self, name: str) -> list[Path]:
        """What a recipe reads."""
        return {"linear": self.models, "slerp": [self.base, self.models[0]]}.get(
            name, [self.base, *self.models]
        )

    def once(self, command: list[str], name: str) -> Run:
        """One run without output or dirty pages, with its inputs in the page cache."""
        shutil.rmtree(self.out, ignore_errors=True)
        os.sync()
        machine.warm_cache([path for one in self.inputs(name) for path in sorted(one.glob("*.safetensors"))])
        return run(command)

    def merge(self, name: str) -> Run:
        """One merge."""
        command = [
            sys.executable,
            "-m",
            "taskvec",
            "merge",
            str(self.files[name]),
            "-o",
            str(self.out),
            "--quiet",
        ]
        return self.once(command, name)

    def run_floor(self, mode: rivals.FloorMode, name: str) -> Run:
        """The same bytes, once."""
        return self.once(rivals.floor_command(self.floor, self.out, self.inputs(name), mode, True), name)

    def mergekit(self, python: Path, name: str) -> Run:
        """mergekit, whose output is then on the disk as well."""
        tool = python.with_name("mergekit-yaml")
        command = f"'{tool}' '{self.files[name]}' '{self.out}' --no-copy-tokenizer && sync -f '{self.out}'"
        return self.once(["env", "-u", "PYTHONPATH", "HF_HUB_OFFLINE=1", "sh", "-c", command], name)


def pairs(count: int, ours: Callable[[], Run], theirs: Callable[[], Run]) -> tuple[float, float, str]:
    """Median seconds of both, and the median of the ratios with their spread; each goes first in turn."""
    taken: tuple[list[float], list[float]] = [], []
    for number in range(count):
        for which in (0, 1) if number % 2 else (1, 0):
            taken[which].append((ours, theirs)[which]().seconds)
    ratios = sorted(mine / other for mine, other in zip(*taken, strict=True))
    shown = f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return statistics.median(taken[0]), statistics.median(taken[1]), shown


def main() -> None:
    """Measures and prints."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--size", default="0.5b", choices=tuple(checkpoints.QWEN2))
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs (default: 5)")
    parser.add_argument(
        "--mergekit",
        nargs="?",
        const="",
        metavar="PYTHON",
        help="also mergekit: installed here, or in PYTHON's",
    )
    parser.add_argument(
        "--dir", type=Path, default=cache / "taskvec-bench", help="where everything is written"
    )
    options = parser.parse_args()
    work: Path = options.dir / "merge"
    work.mkdir(parents=True, exist_ok=True)
    print(f"- {machine.describe(work)}")
    print(f"- taskvec {version('taskvec')}, Python {platform.python_version()}, torch {torch.__version__}")
    found = Times(work, options.dir / "families", options.size)
    print(f"- {options.size}, {options.pairs} pairs; floor: {found.mode}, fsync, inputs read once\n")
    print("| method | s | floor, s | times the floor (min to max) |\n|---|---|---|---|")
    for name in found.files:
        mine, other, ratio = pairs(
            options.pairs,
            lambda name=name: found.merge(name),
            lambda name=name: found.run_floor(found.mode, name),
        )
        print(f"| `{name}` | {mine:.2f} | {other:.2f} | {ratio} |", flush=True)
    if options.mergekit is not None:
        python = Path(options.mergekit) if options.mergekit else rivals.install_mergekit(options.dir)
        print("\n| method | s | mergekit, s | times faster | values that differ |\n|---|---|---|---|---|")
        for name in ("linear", "slerp", "ties", "dare_ties"):
            theirs, mine, ratio = pairs(
                1, lambda name=name: found.mergekit(python, name), lambda name=name: found.merge(name)
            )
            kept = work / "kept"
            found.merge(name)
            shutil.rmtree(kept, ignore_errors=True)
            found.out.rename(kept)
            found.mergekit(python, name)
            share = differing(kept, found.out)
            shutil.rmtree(kept)
            print(f"| `{name}` | {mine:.2f} | {theirs:.2f} | {ratio} | {100 * share:.3f} % |", flush=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
