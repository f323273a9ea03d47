"""Times a transfer in parts, one after the other on one machine, against a single run: the overhead of parts.

    PYTHONPATH=benches python benches/machines/bench_parts.py --size 0.5b --parts 4

Needs numpy and the installed package, on Linux. Pairs alternate, and what counts is the median of the ratios
within pairs. A part is a process of its own, as a scheduler would start it. The outputs are compared byte for
byte, manifests included. Prints Markdown.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import checkpoints
import machine
from measure import Run, run

ROLES = ("instruct", "grpo", "sft")
TASKVEC = (sys.executable, "-m", "taskvec")


@dataclass
class Pair:
    """A single run, and the same work in parts."""

    single: Run
    plan: Run
    parts: list[Run]
    commit: Run

    @property
    def seconds(self) -> float:
        """Of plan, parts and commit."""
        return sum(one.seconds for one in (self.plan, *self.parts, self.commit))

    @property
    def cpu(self) -> float:
        """Of plan, parts and commit."""
        return sum(one.cpu for one in (self.plan, *self.parts, self.commit))


def clean(work: Path, inputs: list[Path]) -> None:
    """The same start for every run: no outputs, no dirty pages, inputs in the cache."""
    for name in ("single", "out", "job"):
        shutil.rmtree(work / name, ignore_errors=True)
    os.sync()
    machine.warm_cache([path for folder in inputs for path in sorted(folder.glob("*.safetensors"))])


def measure(inputs: list[Path], work: Path, parts: int) -> Pair:
    """Both ways once, and a comparison of what they wrote."""
    clean(work, inputs)
    recipe = [*map(str, inputs), "--alpha", "0.7"]
    single = run([*TASKVEC, "transfer", *recipe, "-o", work / "single", "--json"])
    job = work / "job"
    plan = run(
        [*TASKVEC, "plan", "transfer", *recipe, "-o", work / "out", "--parts", str(parts), "--job", job]
    )
    each = [run([*TASKVEC, "run", job, "--part", str(part)]) for part in range(parts)]
    commit = run([*TASKVEC, "commit", job])
    names = sorted(path.name for path in (work / "single").iterdir())
    _, differing, missing = filecmp.cmpfiles(work / "single", work / "out", names, shallow=False)
    if differing or missing:
        raise SystemExit(f"the outputs differ: {differing + missing}")
    return Pair(single, plan, each, commit)


def median(values: list[float]) -> str:
    """The median, with two digits after the point."""
    return f"{statistics.median(values):.2f}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="0.5b", choices=tuple(checkpoints.QWEN2))
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--shard", type=float, default=0.125, help="gigabytes of a file")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path("bench-data"))
    options = parser.parse_args()
    layout = checkpoints.layout_named(options.size)
    root = options.dir / f"families-{options.shard:g}"
    family = checkpoints.write_family(root, layout, ROLES, shard_gb=options.shard)
    inputs = [family[role] for role in ROLES]
    work = options.dir / "parts"
    work.mkdir(parents=True, exist_ok=True)
    pairs = [measure(inputs, work, options.parts) for _ in range(options.pairs)]
    written = json.loads(pairs[0].single.printed)["bytes"]["written"]
    print(f"- {machine.describe(work)}")
    print(f"- taskvec {version('taskvec')}; {options.parts} parts, {written / 1e9:.2f} GB of output")
    print()
    print("| | seconds | CPU seconds |")
    print("|---|---|---|")
    rows = {
        "single run": [pair.single for pair in pairs],
        "plan": [pair.plan for pair in pairs],
        "a part": [one for pair in pairs for one in pair.parts],
        "commit": [pair.commit for pair in pairs],
        "all of the job": pairs,
    }
    for name, runs in rows.items():
        print(f"| {name} | {median([one.seconds for one in runs])} | {median([one.cpu for one in runs])} |")
    ratios = [p.seconds / p.single.seconds for p in pairs], [p.cpu / p.single.cpu for p in pairs]
    print(f"| job / single run | {median(ratios[0])} | {median(ratios[1])} |")


if __name__ == "__main__":
    main()
