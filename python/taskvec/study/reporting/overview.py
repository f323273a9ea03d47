"""The first charts: the changes by v, asking for steps, both, and random vectors; then every arm's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analysis.case import verdict
from ..analysis.phrases import interval, share
from .common import AGAINST, bracketed, clean, own_change
from .html import Row, element
from .scales import same_span, shared
from .strips import MARKS, Strip, chart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.compared import Comparison, RandomMean
    from ..rundir.results import ArmResult, Benchmark, Results
    from .scales import Scale

_GLANCE = (
    "Changes in points against the target as it is, with 95% intervals, all on one scale; in brackets"
    " if no difference is shown. Hollow points were asked for steps."
)
_ARMS = (
    "Scores with 95% intervals; the dashed line and the band are the target as it is, and hollow points"
    " were asked for steps. All axes have the same span, so a percentage point has the same length on each."
    f" Changes are in points, in brackets if no difference is shown. {AGAINST}"
)
_BESIDE_THE_TARGET = ("plus", "baseline-think", "plus-think")


@dataclass(frozen=True, slots=True)
class _Change:
    """A row of the first chart."""

    label: str
    arm: ArmResult
    found: Comparison | RandomMean | None
    """The comparison with the target as it is; None if not scored yet."""
    is_shown: bool


def glance(results: Results) -> Iterator[str]:
    """For each benchmark the target's score, and how far the most important arms are from it."""
    changes = {one.id: list(_changes(results, one)) for one in clean(results)}
    known = [one.found for rows in changes.values() for one in rows if one.found]
    scale = shared(end for found in known for end in (found.difference, *found.interval))
    yield element("p", _GLANCE, "faint") + '<div class="grid">'
    for one in clean(results):
        rows = [_target(arm, one, scale) for arm in results.arms if arm.id == "baseline"]
        rows += [_change(change, scale) for change in changes[one.id]]
        yield chart(one.title, f"n = {one.n:,}", (("change", "beside"),), rows, (scale, _signed))
    yield "</div>"


def _changes(results: Results, benchmark: Benchmark) -> Iterator[_Change]:
    for name in _BESIDE_THE_TARGET:
        if arm := results.arm(name):
            found = results.compared(name, "baseline", benchmark.id)
            yield _Change(arm.label, arm, found, bool(verdict(found)))
    for arm in results.of_kind("random")[:1]:
        mean = next((one for one in results.random_means if one.benchmark == benchmark.id), None)
        label = f"random, mean of {mean.seeds}" if mean else "random"
        yield _Change(label, arm, mean, mean is not None and mean.interval[0] * mean.interval[1] > 0)


def _target(arm: ArmResult, benchmark: Benchmark, scale: Scale) -> Row:
    row = Row(arm.label).drawn(Strip(scale).line(0, "base").mark(0, arm.kind).markup())
    cell = arm.cells.get(benchmark.id)
    if cell is None:
        return row.add("not scored yet")
    low, high = cell.interval
    return row.noted(share(cell.score), f"{100 * low:.1f} to {100 * high:.1f}")


def _change(change: _Change, scale: Scale) -> Row:
    drawn, arm, found = Strip(scale).line(0, "base"), change.arm, change.found
    if found is None:
        return Row(change.label).drawn(drawn.markup()).add("not scored yet")
    drawn.bar(found.interval, arm.kind).mark(found.difference, arm.kind, hollow=arm.prompt == "think")
    row = Row(change.label, "shown" if change.is_shown else "").drawn(drawn.markup())
    return row.noted(bracketed(found.difference, change.is_shown), interval(found.interval), "change")


def arms(results: Results) -> Iterator[str]:
    """The score of every arm on each benchmark, except those of the sweep."""
    yield element("p", _ARMS, "faint") + '<div class="grid">'
    shown = {
        one.id: [arm for arm in results.arms if arm.kind in MARKS and one.id in arm.cells]
        for one in clean(results)
    }
    ends = [
        [end for arm in shown[one.id] for end in (arm.cells[one.id].score, *arm.cells[one.id].interval)]
        for one in clean(results)
    ]
    for one, scale in zip(clean(results), same_span(ends), strict=True):
        rows: list[Row] = []
        before = None
        for arm in shown[one.id]:
            rows.append(_score(results, arm, one, scale, begins=before not in (None, _group(arm))))
            before = _group(arm)
        columns = (("score", "short"), ("change", "short"))
        yield chart(one.title, f"n = {one.n:,}", columns, rows, (scale, _percent))
    yield "</div>"


def _score(results: Results, arm: ArmResult, benchmark: Benchmark, scale: Scale, *, begins: bool) -> Row:
    cell, found = arm.cells[benchmark.id], own_change(results, arm, benchmark)
    drawn = Strip(scale)
    baseline = results.arm("baseline")
    if baseline and (target := baseline.cells.get(benchmark.id)):
        drawn.band(target.interval).line(target.score, "base")
    drawn.bar(cell.interval, arm.kind).mark(cell.score, arm.kind, hollow=arm.prompt == "think")
    is_shown = bool(verdict(found))
    row = Row(arm.label, f"{'begins ' if begins else ''}{'shown' if is_shown else ''}".strip())
    row.drawn(drawn.markup()).add(f"{100 * cell.score:.1f}")
    return row.add(None if found is None else bracketed(found.difference, is_shown), "change")


def _group(arm: ArmResult) -> str:
    """The group of an arm in the chart: its prompt for baselines and +v, else its kind."""
    return arm.prompt if arm.kind in ("baseline", "plus") else arm.kind


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _signed(value: float) -> str:
    return f"{100 * value:+.0f}".replace("-", "−").replace("+0", "0")
