"""Sentences on perturbed questions: how much of v's gain is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exact_tests import LEVEL
from .phrases import count, interval, listed, p_value, percent, points

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..rundir.compared import Robustness
    from .case import Case


def shrinks(found: Robustness) -> int:
    """−1 where v's gain is shown to be smaller under the perturbation, 1 where larger, 0 where neither is."""
    if found.p_holm is None or found.p_holm >= LEVEL:
        return 0
    return 1 if found.change > 0 else -1


def left(case: Case) -> Iterator[str]:
    """V's gain on the perturbed questions beside its gain on the clean ones."""
    found = case.robust
    if found is None:
        return
    p = "" if found.p_holm is None else f", corrected {p_value(found.p_holm)}"
    yield (
        f"The perturbation ({found.perturbation}) changes {count(found.n, 'question')} of"
        f" {case.benchmark.n:,}. On these v's gain is {points(found.clean)} points as they were and"
        f" {points(found.perturbed)} as changed (change {points(found.change)}, 95% interval"
        f" {interval(found.interval)}{p}): {_SHOWN[shrinks(found)]}."
    )
    if found.left is None or found.left_interval is None:
        yield "What share of it is left cannot be said: the clean gain is not clearly different from 0."
    else:
        low, high = map(percent, found.left_interval)
        yield f"{percent(found.left)} of the clean gain is left (95% interval {low} to {high})."


_SHOWN = {
    -1: "v's gain shrinks",
    0: "that v's gain changes is not shown",
    1: "v's gain grows",
}


def robust_whole(cases: Sequence[Case]) -> Iterator[str]:
    """All perturbations in one sentence."""
    found = [(case.benchmark.title, shrinks(case.robust)) for case in cases if case.robust]
    if not found:
        return
    less = [title for title, way in found if way == -1]
    where = listed(less) if less else "none of them"
    yield f"Of {count(len(found), 'perturbed benchmark')}, v's gain is shown to shrink on {where}."
