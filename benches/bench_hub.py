"""What the Hub costs: `--stream` against plain downloads, its memory, and a check of checkpoints of 671B.

    python benches/bench_hub.py speed                # 50 ms a request; 50, 200, unlimited MB/s a connection
    python benches/bench_hub.py memory [--cgroup]    # --memory of 64, 256 and 1024 MiB (--cgroup needs root)
    python benches/bench_hub.py check                # three checkpoints of 671B shape, with holes for weights
    python benches/bench_hub.py speed memory check --size 1.5b --json FIGURES

The Hub is the tests' own (`tests/support/hubserver`), a process on this machine that serves from the page
cache: it and the client share the cores, and what is unlimited is bound by them. A latency passes before
each answer, a rate holds for each connection. The target lies on this disk, the donors only on the Hub;
every run begins with empty caches. The first output of a `--stream` is compared with numpy bit for bit, all
later ones with that one byte for byte, downloads with what is published. Needs numpy and the installed
package, on Linux. Prints Markdown.
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

import checkpoints
import machine
from hubside import ALPHA, Bench, Hub, Measured, measured, misbehave, taskvec, write_huge

if TYPE_CHECKING:
    from collections.abc import Sequence

Figures = list[dict[str, Any]]
"""Every run of a part, for JSON."""
STREAM = "taskvec transfer --stream"
RIVALS = {"hf_hub_download": "huggingface_hub", "bare GET": "bare"}
ENOUGH = 0.8
"""The least that `--stream` is to reach of a plain download's speed."""
BESIDE = 64_000_000
"""Bytes that a run may take beside `--memory`."""


def speed(bench: Bench, figures: Figures, pairs: int, latency: int, rates: list[int]) -> None:
    """Alternates streaming with both downloads, at each rate."""
    needed = bench.needed
    columns = ("a connection", "program", "seconds (min to max)", "MB/s", "CPU s", "anonymous MiB")
    columns += (
        "resident MiB",
        "requests",
        "moved / needed",
        "MB on disk after",
        "`--stream` is as fast × (pairs)",
    )
    print(f"\nspeed: {needed / 1e9:.2f} GB of donors, {latency} ms a request, {pairs} pairs, α = {ALPHA}\n")
    print(line(columns), line(["---"] * len(columns)), sep="\n")
    for rate in rates:
        misbehave(bench.hub, latency, rate * 1_000_000)
        name = f"{rate} MB/s" if rate else "unlimited"
        runs: dict[str, list[Measured]] = {STREAM: [], **{rival: [] for rival in RIVALS}}
        for pair in range(pairs):
            # Each goes first in turn, so that a drift of the machine favours none.
            turn = pair % len(runs)
            for program in [*runs, *runs][turn : turn + len(runs)]:
                result = bench.stream() if program == STREAM else bench.download(RIVALS[program])
                said = {"latency": latency, "rate": rate, "program": program, "pair": pair, "needed": needed}
                figures.append(said | result.figures())
                runs[program].append(result)
        for program, results in runs.items():
            print(line([name, *row(program, results, runs[STREAM], needed)]), flush=True)
    bench.hub.behave()


def row(program: str, results: list[Measured], ours: list[Measured], needed: int) -> list[str]:
    """A program's cells at one rate."""
    seconds = [one.run.seconds for one in results]
    median = statistics.median(seconds)
    ratio = "1"
    if program != STREAM:
        ratios = [theirs.run.seconds / one.run.seconds for theirs, one in zip(results, ours, strict=True)]
        middle = statistics.median(ratios)
        verdict = "" if middle >= ENOUGH else f", MISSES {ENOUGH}"
        ratio = f"**{middle:.2f}**{verdict} ({', '.join(f'{one:.2f}' for one in ratios)})"
    # Their numbers may vary from run to run; the last one's are as good as any.
    asked = ", ".join(f"{count} {kind}" for kind, count in results[-1].requests.items())
    return [
        program,
        f"{median:.2f} ({min(seconds):.2f} to {max(seconds):.2f})",
        f"{needed / median / 1e6:.0f}",
        f"{statistics.median(one.run.cpu for one in results):.2f}",
        f"{max(one.run.anonymous for one in results) / 2**20:.0f}",
        f"{max(one.run.resident for one in results) / 2**20:.0f}",
        asked,
        f"{max(one.weights for one in results) / needed:.5f}",
        f"{max(one.kept for one in results) / 1e6:.3f}",
        ratio,
    ]


def memory(bench: Bench, figures: Figures, latency: int, budgets: list[int], *, cgroup: bool) -> None:
    """Streams within each budget; beside it what Python and its libraries take alone."""
    library = "import huggingface_hub as hub; hub.HfApi, hub.hf_hub_download, hub.utils.httpx"
    alone = {
        "`taskvec --version`": taskvec("--version"),
        "`import huggingface_hub`": [sys.executable, "-c", library],
    }
    columns = ("program", "allowed MiB", "anonymous MiB", "resident MiB", "cgroup MiB", "within")
    print(
        f"\nmemory: allowed is `--memory` + {BESIDE // 1_000_000} MB; {latency} ms a request, no rate limit\n"
    )
    print(line(columns), line(["---"] * len(columns)), sep="\n")
    for name, words in alone.items():
        result = bench.once(words)
        figures.append({"program": name, **result.figures()})
        cells = [name, "–", mebibytes(result.run.anonymous), mebibytes(result.run.resident), "–", "–"]
        print(line(cells), flush=True)
    misbehave(bench.hub, latency, 0)
    for budget in budgets:
        allowed = (budget << 20) + BESIDE
        # Without a limit the group's peak would count pages of files, of which the kernel keeps all it can.
        group = machine.MemoryCgroup(allowed) if cgroup else None
        result = bench.stream("--memory", f"{budget}MiB", cgroup=group)
        figures.append({"program": STREAM, "budget": budget, "limited": cgroup, **result.figures()})
        charged = mebibytes(result.run.charged) if result.run.charged is not None else "–"
        said = [
            f"{what} {'yes' if taken <= allowed else 'NO'}"
            for what, taken in (("anonymous", result.run.anonymous), ("resident", result.run.resident))
        ]
        cells = [f"`--stream --memory {budget}MiB`", mebibytes(allowed), mebibytes(result.run.anonymous)]
        print(line([*cells, mebibytes(result.run.resident), charged, ", ".join(said)]), flush=True)
    bench.hub.behave()


def mebibytes(size: int) -> str:
    """As tables show memory."""
    return f"{size / 2**20:.0f}"


def check(hub: Hub, work: Path, figures: Figures, latencies: list[int], times: int) -> None:
    """Checks three checkpoints of 671B shape against each other, by their headers."""
    roles, folder = ("target", "minuend", "subtrahend"), work / "huge"
    shutil.rmtree(folder, ignore_errors=True)
    sizes = [write_huge(folder / role, salt=number) for number, role in enumerate(roles)]
    for role in roles:
        hub.publish(f"big/{role}", folder / role, digests="made up")
    columns = (
        "a request",
        "seconds (min to max)",
        "CPU s",
        "anonymous MiB",
        "resident MiB",
        "requests",
        "MB moved",
    )
    print(f"\ncheck: {len(roles)} checkpoints of {sizes[0] / 1e12:.2f} TB each, {times} runs\n")
    print(line(columns), line(["---"] * len(columns)), sep="\n")
    for latency in latencies:
        misbehave(hub, latency, 0)
        results: list[Measured] = []
        for _ in range(times):
            command = taskvec("check", *(f"big/{role}" for role in roles), "--json")
            results.append(measured(hub, command, work / "home"))
            figures.append({"latency": latency, **results[-1].figures()})
            plan = json.loads(results[-1].run.printed)
            if [one["bytes"] for one in plan["inputs"]] != sizes:
                raise SystemExit(f"the check found other sizes than {sizes}: {plan['inputs']}")
        seconds = [one.run.seconds for one in results]
        cells = [
            f"{latency} ms",
            f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})",
            f"{statistics.median(one.run.cpu for one in results):.2f}",
            mebibytes(max(one.run.anonymous for one in results)),
            mebibytes(max(one.run.resident for one in results)),
            ", ".join(f"{count} {kind}" for kind, count in results[-1].requests.items()),
            f"{max(one.moved for one in results) / 1e6:.1f}",
        ]
        print(line(cells), flush=True)
    hub.behave()
    shutil.rmtree(folder)


def line(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def parse() -> argparse.Namespace:
    """The command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("parts", nargs="+", choices=("speed", "memory", "check"))
    parser.add_argument("--size", default="0.5b", choices=(*checkpoints.QWEN2, "one-big"))
    parser.add_argument("--pairs", type=int, default=5, help="alternating runs of each (default: 5)")
    parser.add_argument("--latency", type=int, default=50, help="milliseconds a request (default: 50)")
    parser.add_argument(
        "--rates", type=int, nargs="+", default=[50, 200, 0], help="MB/s a connection, 0: no limit"
    )
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 256, 1024], help="--memory, in MiB")
    parser.add_argument(
        "--cgroup", action="store_true", help="memory: what is allowed is a hard limit; needs root"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures of every run go")
    parser.add_argument("--dir", type=Path, default=cache / "taskvec-bench", help="families and outputs")
    return parser.parse_args()


def main() -> None:
    """Makes what is missing, measures, prints."""
    options = parse()
    work = options.dir / "work-hub"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("taskvec", "huggingface-hub", "httpx2"))
    told = [machine.describe(work), f"{libraries}, Python {platform.python_version()}"]
    print(*(f"- {one}" for one in told), sep="\n")
    figures: dict[str, Figures] = {part: [] for part in options.parts}
    try:
        with Hub(work / "hub") as hub:
            if {"speed", "memory"} & figures.keys():
                layout = checkpoints.layout_named(options.size)
                roles = ("instruct", "grpo", "sft")
                bench = Bench(hub, checkpoints.write_family(options.dir / "families", layout, roles), work)
                bench.check_first()
                print(f"- donors and target of size {layout.name}, in the page cache")
                if "speed" in figures:
                    speed(bench, figures["speed"], options.pairs, options.latency, options.rates)
                if "memory" in figures:
                    memory(bench, figures["memory"], options.latency, options.budgets, cgroup=options.cgroup)
            if "check" in figures:
                check(hub, work, figures["check"], [0, options.latency], options.pairs)
    finally:
        if options.json:
            options.json.write_text(json.dumps({"machine": told, **figures}, indent=2), encoding="utf-8")
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
