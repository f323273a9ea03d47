"""The cost of answers: their length and time by arm, and plots of score over length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.phrases import share
from . import plots
from .common import generated
from .html import Row, element, figure, table
from .scales import same_span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.results import ArmResult, Benchmark, Results

_READ = (
    "Up is better, left is cheaper: score over the mean length of the answers, both with 95% intervals."
    " The line follows α; hollow points were asked for steps. Score axes have the same span; length axes"
    " run from 0 to the longest on each benchmark."
)


def costs(results: Results) -> Iterator[str]:
    """Score over length for each benchmark whose answers are generated, then length and time by arm."""
    drawn = [
        one
        for one in generated(results)
        if any(one.id in arm.cells and arm.cells[one.id].mean_tokens is not None for arm in results.arms)
    ]
    if drawn:
        yield element("p", _READ, "faint") + '<div class="grid">'
        cells = [[arm.cells[one.id] for arm in results.arms if one.id in arm.cells] for one in drawn]
        ends = [[end for cell in some for end in (cell.score, *cell.interval)] for some in cells]
        for one, scale in zip(drawn, same_span(ends), strict=True):
            wide, narrow = (plots.tokens(results, one, scale, width) for width in (plots.HALF, plots.NARROW))
            yield figure(one.title, "score over length", _described(results, one), wide, narrow)
        yield "</div>"
    if any(cell.seconds is not None for arm in results.arms for cell in arm.cells.values()):
        yield table(
            "Tokens and time by arm",
            "mean tokens an answer; time of all answers, and to make the arm's weights",
            ("arm", *(one.title for one in drawn), "time", "weights"),
            (_cost(arm, drawn) for arm in results.arms),
        )


def _described(results: Results, benchmark: Benchmark) -> str:
    known = [(arm.label, arm.cells[benchmark.id]) for arm in results.arms if benchmark.id in arm.cells]
    said = [
        f"{label} {share(cell.score)} with {cell.mean_tokens:.0f}"
        for label, cell in known
        if cell.mean_tokens is not None
    ]
    return f"Scores and tokens an answer: {', '.join(said)}."


def _cost(arm: ArmResult, benchmarks: list[Benchmark]) -> Row:
    row = Row(arm.label)
    for one in benchmarks:
        cell = arm.cells.get(one.id)
        row.add(None if cell is None or cell.mean_tokens is None else f"{cell.mean_tokens:.1f}")
    times = [cell.seconds for cell in arm.cells.values() if cell.seconds is not None]
    row.add(duration(sum(times)) if times else None)
    return row.add(None if arm.seconds is None else duration(arm.seconds))


def duration(seconds: float) -> str:
    """A time in its two largest units: 0.5 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"
