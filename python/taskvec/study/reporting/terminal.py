"""Shows results in the terminal: scores by arm, the α curve, tokens, robustness and conclusions."""

from __future__ import annotations

import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING

from ..analysis.case import verdict
from ..analysis.phrases import interval, points
from .common import AGAINST, bracketed, clean, curve, families, generated, own_change, title
from .published import lines as published
from .robustness import is_shown, left

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..rundir.compared import Robustness
    from ..rundir.results import ArmResult, Benchmark, Results

WIDTH = 100
"""The most columns that a line takes."""
_SIDE_BY_SIDE = 4
_LABEL = 18
_CELL = 19
_PERTURBED = 34


def lines(results: Results) -> Iterator[str]:
    """All results as lines of plain text."""
    study = results.study
    yield f"{study['name']}: {study['about']}"
    inputs = ", ".join(f"{one.role} {one.name}" for one in results.inputs)
    yield f"  {inputs}; {results.device}, {results.dtype}"
    benchmarks = clean(results)
    several = [benchmarks[at : at + _SIDE_BY_SIDE] for at in range(0, len(benchmarks), _SIDE_BY_SIDE)]
    for some in several:
        yield ""
        yield from _scores(results, some)
    yield from _wrapped(
        "Scores in percent ± half of the 95% interval; changes in points, in brackets if no difference is"
        f" shown (corrected p of 0.05 or more). {AGAINST} {families(results)}",
        "  ",
    )
    for some in several:
        yield from _curve(results, some)
    yield from published(results)
    yield from _tokens(results)
    yield from _robustness(results)
    for conclusion in results.conclusions:
        yield ""
        yield from _wrapped(conclusion, "")


def _scores(results: Results, benchmarks: Sequence[Benchmark]) -> Iterator[str]:
    yield from _titles("", benchmarks)
    yield _row("", (f" n = {one.n}" for one in benchmarks))
    for arm in results.arms:
        yield _row(arm.label, (_cell(results, arm, one) for one in benchmarks))
    unread = [_unread(results, one) for one in benchmarks]
    if any(unread):
        yield _row("unreadable", unread)


def _unread(results: Results, benchmark: Benchmark) -> str:
    """The shares of unreadable answers, from the arm with the fewest to the one with the most."""
    cells = [arm.cells[benchmark.id] for arm in results.arms if benchmark.id in arm.cells]
    rates = [100 * cell.extraction_failures for cell in cells if cell.extraction_failures is not None]
    if not rates or not max(rates):
        return ""
    least, most = f"{min(rates):.1f}", f"{max(rates):.1f}"
    return f" {most} %" if least == most else f" {least} to {most} %"


def _titles(label: str, benchmarks: Sequence[Benchmark]) -> Iterator[str]:
    """Titles over their columns, in as many lines as the longest title needs."""
    parts = [textwrap.wrap(one.title, _CELL - 1) for one in benchmarks]
    heads = list(zip_longest(*parts, fillvalue=""))
    for at, some in enumerate(heads, start=1):
        yield _row(label if at == len(heads) else "", (f" {one}" for one in some))


def _cell(results: Results, arm: ArmResult, benchmark: Benchmark) -> str:
    cell = arm.cells.get(benchmark.id)
    if cell is None:
        return "missing" if f"{arm.id}.{benchmark.id}" in results.missing else ""
    score = _score(arm, benchmark)
    found = own_change(results, arm, benchmark)
    if found is None:
        return score
    change = bracketed(found.difference, bool(verdict(found)))
    if abs(found.difference) >= 0.9995:
        # There is no room for the decimal of ±100.0, which tells nothing.
        change = change.replace(".0", "")
    return f"{score} {change if change[0] == '(' else f'{change} ':>7}"


def _score(arm: ArmResult, benchmark: Benchmark) -> str:
    cell = arm.cells.get(benchmark.id)
    if cell is None:
        return ""
    low, high = cell.interval
    return f"{100 * cell.score:5.1f} ±{50 * (high - low):4.1f}"


def _curve(results: Results, benchmarks: Sequence[Benchmark]) -> Iterator[str]:
    if not results.of_kind("sweep"):
        return
    yield ""
    yield from _titles("     α  eff. gain", benchmarks)
    for arm in curve(results):
        gain = "" if arm.effect is None or arm.effect.gain is None else f"{arm.effect.gain:.2f}"
        alpha = f"{arm.alpha or 0:g}".replace("-", "−")
        yield _row(f"{alpha:>6}  {gain:>9}", (_score(arm, one) for one in benchmarks))


def _tokens(results: Results) -> Iterator[str]:
    """Mean length of the answers by arm, a paragraph for each benchmark."""
    for at, benchmark in enumerate(generated(results)):
        if at == 0:
            yield ""
        cells = [(arm.label, arm.cells.get(benchmark.id)) for arm in results.arms if arm.kind != "sweep"]
        known = [
            f"{label} {cell.mean_tokens:.0f}"
            for label, cell in cells
            if cell and cell.mean_tokens is not None
        ]
        if known:
            yield from _wrapped(f"Tokens an answer, {benchmark.title}: {'; '.join(known)}", "  ", "    ")


def _robustness(results: Results) -> Iterator[str]:
    if not results.robustness:
        return
    yield ""
    yield from _wrapped(
        "v's gain in points, clean and perturbed, over the documents that the perturbation changed; its"
        " change with the 95% interval, in brackets if none is shown; the share of the gain that is left",
        "  ",
    )
    for one in results.robustness:
        yield from _perturbed(results, one)


def _perturbed(results: Results, found: Robustness) -> Iterator[str]:
    *above, last = textwrap.wrap(f"{title(results, found.original)}, {found.perturbation}", _PERTURBED)
    yield from (f"  {one}" for one in above)
    change = f"{bracketed(found.change, is_shown(found))}  {interval(found.interval)}"
    stays, ends = left(found)
    gains = f"{points(found.clean):>6} {points(found.perturbed):>6}"
    yield f"  {last:<{_PERTURBED}} {gains}  {change:<26} {stays} ({ends})"


def _row(label: str, cells: Iterable[str]) -> str:
    return f"  {_fitted(label, _LABEL)}" + "".join(f" {_fitted(cell, _CELL)}" for cell in cells).rstrip()


def _fitted(text: str, width: int) -> str:
    return f"{text:<{width}}" if len(text) <= width else text[: width - 1] + "…"


def _wrapped(text: str, indent: str, further: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=further or indent or "  ")
