"""Results as a person reads them in a terminal: scores by arm, the α curve, and what they show."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from ..analysis.case import verdict
from ..analysis.phrases import points

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..rundir.results import ArmResult, Benchmark, Results

WIDTH = 100
"""Columns of the terminal that the lines fit in, unless a name alone is longer."""
AGAINST = "Changes are against the target as it is; those of +v with think against the target with think."
"""What a change in a table is against."""
_SIDE_BY_SIDE = 4
_LABEL = 18
_CELL = 19


def lines(results: Results) -> Iterator[str]:
    """Everything, line by line, without colours."""
    study = results.study
    yield f"{study['name']}: {study['about']}"
    inputs = ", ".join(f"{one.role} {one.name}" for one in results.inputs)
    yield f"  {inputs}; {results.device}, {results.dtype}"
    for at in range(0, len(results.benchmarks), _SIDE_BY_SIDE):
        some = results.benchmarks[at : at + _SIDE_BY_SIDE]
        yield ""
        yield from _scores(results, some)
    yield from _wrapped(
        "Scores in percent ± half of the 95% interval; changes in points, in brackets where no difference is"
        f" shown (corrected p of 0.05 and above). {AGAINST}",
        "  ",
    )
    for at in range(0, len(results.benchmarks), _SIDE_BY_SIDE):
        yield from _curve(results, results.benchmarks[at : at + _SIDE_BY_SIDE])
    for conclusion in results.conclusions:
        yield ""
        yield from _wrapped(conclusion, "")


def curve(results: Results) -> tuple[ArmResult, ...]:
    """The arms of the α curve in order: −v, the baseline as α = 0, the sweep and +v."""
    kinds = ("baseline", "plus", "minus", "sweep")
    arms = [arm for arm in results.arms if arm.kind in kinds and arm.prompt == "plain"]
    return tuple(sorted(arms, key=lambda arm: arm.alpha or 0.0))


def _scores(results: Results, benchmarks: Sequence[Benchmark]) -> Iterator[str]:
    yield _row("", (f" {one.title}" for one in benchmarks))
    yield _row("", (f" n = {one.n}" for one in benchmarks))
    for arm in results.arms:
        yield _row(arm.label, (_cell(results, arm, one) for one in benchmarks))


def _cell(results: Results, arm: ArmResult, benchmark: Benchmark) -> str:
    cell = arm.cells.get(benchmark.id)
    if cell is None:
        return "missing" if f"{arm.id}.{benchmark.id}" in results.missing else ""
    score = _score(arm, benchmark)
    against = "baseline-think" if arm.id == "plus-think" else "baseline"
    found = results.compared(arm.id, against, benchmark.id)
    if found is None:
        return score
    change = points(found.difference)
    return f"{score} {f'{change} ' if verdict(found) else f'({change})':>7}"


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
    yield _row("     α  eff. gain", (f" {one.title}" for one in benchmarks))
    for arm in curve(results):
        gain = "" if arm.effect is None or arm.effect.gain is None else f"{arm.effect.gain:.2f}"
        alpha = f"{arm.alpha or 0:g}".replace("-", "−")
        yield _row(f"{alpha:>6}  {gain:>9}", (_score(arm, one) for one in benchmarks))


def _row(label: str, cells: Iterable[str]) -> str:
    return f"  {_fitted(label, _LABEL)}" + "".join(f" {_fitted(cell, _CELL)}" for cell in cells).rstrip()


def _fitted(text: str, width: int) -> str:
    return f"{text:<{width}}" if len(text) <= width else text[: width - 1] + "…"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent or "  ")
