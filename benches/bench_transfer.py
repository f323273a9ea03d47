"""Times `taskvec transfer` against the floor (same bytes, no arithmetic) and, on request, against mergekit.

    python benches/bench_transfer.py --size 0.5b
    python benches/bench_transfer.py --size 1.5b --cold --limit 256M
    python benches/bench_transfer.py --size 1.5b --mergekit
    python benches/bench_transfer.py --many

Needs numpy, the installed package and rustc, on Linux. Rivals alternate in one run, and what counts is
the median of the ratios within pairs. The first output of a configuration is checked bit for bit against
numpy, all later ones byte for byte against that one. Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import checkpoints
import machine
import oracle
import rivals
from measure import Run, run

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA = "0.7"
ROLES = ("instruct", "grpo", "sft")


@dataclass
class Bench:
    """One configuration: a family, a cache state, a limit, a durability."""

    inputs: list[Path]
    work: Path
    cold: bool
    cgroup: machine.MemoryCgroup | None
    durable: bool
    resident: float = math.nan
    """Share of the inputs' pages in the cache before the last run."""

    def transfer(self, durable: bool) -> list[str]:
        """The command line that is measured."""
        words = [sys.executable, "-m", "taskvec", "transfer", *map(str, self.inputs), "-o", str(self.output)]
        return [*words, "--alpha", ALPHA, "--json", *([] if durable else ["--no-sync"])]

    @property
    def output(self) -> Path:
        """Where every run writes."""
        return self.work / "out"

    @property
    def checked(self) -> Path:
        """The output that numpy has checked."""
        return self.work / "checked"

    def once(self, command: Sequence[str]) -> Run:
        """One run from the same starting point: no output, no dirty pages, inputs cached or not."""
        shutil.rmtree(self.output, ignore_errors=True)
        os.sync()
        files = [path for folder in self.inputs for path in sorted(folder.glob("*.safetensors"))]
        self.resident = machine.drop_cache(files) if self.cold else machine.warm_cache(files)
        return run(command, self.cgroup)

    def check_first(self) -> None:
        """Runs a transfer, compares it with numpy, and keeps it for comparison."""
        self.once(self.transfer(self.durable))
        wrong = oracle.differing(self.output, *self.inputs, alpha=float(ALPHA))
        if wrong:
            raise SystemExit(f"taskvec's output differs from numpy's in {wrong} values")
        for name in ("config.json", "model.safetensors.index.json"):
            source, copy = self.inputs[0] / name, self.output / name
            if source.exists() and source.read_bytes() != copy.read_bytes():
                raise SystemExit(f"{copy} is not the target's")
        shutil.rmtree(self.checked, ignore_errors=True)
        self.output.rename(self.checked)

    def checked_once(self, durable: bool) -> Run:
        """A measured transfer, its output compared with the checked one afterwards."""
        result = self.once(self.transfer(durable))
        oracle.require_equal_files(self.output, self.checked)
        return result

    def best_floor(self, program: Path) -> rivals.FloorMode:
        """The floor's mode, chosen once: each has a run, and the three fastest two more."""

        def seconds(mode: rivals.FloorMode) -> float:
            command = rivals.floor_command(program, self.output, self.inputs, mode, self.durable)
            return self.once(command).seconds

        first = {mode: seconds(mode) for mode in rivals.floor_modes()}
        fastest = sorted(first, key=first.__getitem__)[:3]
        best = {mode: statistics.median((first[mode], seconds(mode), seconds(mode))) for mode in fastest}
        for mode, time_taken in (first | best).items():
            print(f"floor, {mode}: {time_taken:.2f} s", file=sys.stderr)
        return min(best, key=best.__getitem__)

    def row(self, name: str, runs: list[Run], against: list[Run] | None = None) -> str:
        """A line of the table; ratios are this program's time over that of the same pair's other program."""
        moved = sum(path.stat().st_size for folder in self.inputs for path in folder.glob("*.safetensors"))
        moved += sum(path.stat().st_size for path in self.inputs[0].glob("*.safetensors"))
        seconds = [each.seconds for each in runs]
        median = statistics.median(seconds)
        ratio = "1"
        if against:
            ratios = sorted(a.seconds / b.seconds for a, b in zip(runs, against, strict=True))
            ratio = f"**{statistics.median(ratios):.3g}** ({ratios[0]:.3g} to {ratios[-1]:.3g})"
        charged = [each.charged for each in runs if each.charged is not None]
        cells = [
            name,
            f"{median:.2f} ({min(seconds):.2f} to {max(seconds):.2f})",
            ratio,
            f"{moved / median / 1e9:.2f}",
            f"{statistics.median(each.cpu for each in runs):.2f}",
            f"{max(each.anonymous for each in runs) / 2**20:.0f}",
            f"{max(each.resident for each in runs) / 2**20:.0f}",
            f"{max(charged) / 2**20:.0f}" if charged else "–",
        ]
        return f"| {' | '.join(cells)} |"


def header() -> str:
    """The table's first two lines."""
    columns = ("program", "seconds (min to max)", "ratio in pairs (min to max)", "GB/s moved", "CPU s")
    memory = ("anonymous MiB", "resident MiB", "cgroup MiB")
    return f"| {' | '.join(columns + memory)} |\n|{'---|' * 8}"


def against_floor(bench: Bench, program: Path, pairs: int) -> list[str]:
    """Alternates transfer and floor; returns the table's lines."""
    mode = bench.best_floor(program)
    floor = rivals.floor_command(program, bench.output, bench.inputs, mode, bench.durable)
    ours: list[Run] = []
    floors: list[Run] = []
    for pair in range(pairs):
        # Each goes first in turn, so that a drift of the machine favours neither.
        if pair % 2:
            floors.append(bench.once(floor))
        ours.append(bench.checked_once(bench.durable))
        if not pair % 2:
            floors.append(bench.once(floor))
    return [
        bench.row("taskvec transfer" + ("" if bench.durable else " --no-sync"), ours, floors),
        bench.row(f"floor ({mode}{', fsync' if bench.durable else ''})", floors),
    ]


def against_mergekit(bench: Bench, folder: Path, pairs: int) -> list[str]:
    """Alternates mergekit with a durable and an unsynced transfer; returns the table's lines."""
    python = rivals.install_mergekit(folder)
    command = rivals.mergekit_command(python, bench.work, bench.output, bench.inputs, ALPHA)
    theirs: list[Run] = []
    ours: dict[bool, list[Run]] = {True: [], False: []}
    for _ in range(pairs):
        theirs.append(bench.once(command))
        for durable, runs in ours.items():
            runs.append(bench.checked_once(durable))
    bench.once(command)
    wrong = oracle.differing(bench.output, *bench.inputs, alpha=float(ALPHA))
    return [
        bench.row(f"mergekit linear ({rivals.mergekit_versions(folder)}; {wrong} values differ)", theirs),
        *(
            bench.row("taskvec transfer" + ("" if durable else " --no-sync"), runs, theirs)
            for durable, runs in ours.items()
        ),
    ]


def startup() -> str:
    """How long `taskvec --version` takes."""
    command = [sys.executable, "-m", "taskvec", "--version"]
    times: list[float] = []
    for _ in range(9):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return f"`taskvec --version`: {statistics.median(times):.3f} s (median of {len(times)})"


def parse() -> argparse.Namespace:
    """The command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--size", default="0.5b", choices=(*checkpoints.QWEN2, "one-big"))
    parser.add_argument(
        "--many", action="store_true", help="families of 10,000 and 40,000 small tensors instead"
    )
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs (default: 5)")
    parser.add_argument(
        "--cold", action="store_true", help="drop the inputs from the page cache before each run"
    )
    parser.add_argument(
        "--limit", type=_bytes, help="hard memory limit, such as 256M: a cgroup, needs root; cold"
    )
    parser.add_argument("--no-sync", action="store_true", help="neither program waits for the disk")
    parser.add_argument("--mergekit", action="store_true", help="also against mergekit (installs it: 5 GB)")
    parser.add_argument(
        "--dir", type=Path, default=cache / "taskvec-bench", help="families, outputs, mergekit"
    )
    options = parser.parse_args()
    if options.limit and options.mergekit:
        parser.error("mergekit does not run within a limit: leave out --limit or --mergekit")
    # Cached pages are charged to whoever read them first: a limit on warm inputs would limit nothing.
    options.cold = options.cold or options.limit is not None
    return options


def _bytes(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1]] if text[-1:] in units else int(text)


def main() -> None:
    """Makes what is missing, measures, prints."""
    options = parse()
    cgroup = machine.MemoryCgroup(options.limit) if options.limit else None
    layouts = [checkpoints.layout_named(options.size)]
    if options.many:
        layouts = [checkpoints.many(10_000), checkpoints.many(40_000)]
    work = options.dir / "work"
    work.mkdir(parents=True, exist_ok=True)
    program = rivals.build_floor(work)
    print(f"- {machine.describe(work)}")
    print(f"- taskvec {version('taskvec')}, Python {platform.python_version()}, {machine.rustc_version()}")
    print(f"- {startup()}")
    for layout in layouts:
        family = checkpoints.write_family(options.dir / "families", layout, ROLES)
        bench = Bench([family[role] for role in ROLES], work, options.cold, cgroup, not options.no_sync)
        bench.check_first()
        rows = against_floor(bench, program, options.pairs)
        if options.mergekit:
            rows += against_mergekit(bench, options.dir, options.pairs)
        limit = f", memory limit {options.limit >> 20} MiB" if options.limit else ""
        state = f"{'cold' if options.cold else 'warm'} ({bench.resident:.1%} of the inputs' pages cached)"
        print(f"\n{layout.name}, α = {ALPHA}, {options.pairs} pairs, cache {state}{limit}\n")
        print("\n".join([header(), *rows]))
    for name in ("out", "checked"):
        shutil.rmtree(work / name, ignore_errors=True)


if __name__ == "__main__":
    main()
