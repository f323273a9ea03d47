"""Sentences on perturbed questions: how much of v's gain is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..design import VARIATION
from ..exact_tests import LEVEL
from ..phrases import count, interval, listed, p_value, percent, points

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...rundir.compared import Robustness
    from ..case import Case


def left(case: Case) -> Iterator[str]:
    """The gain of v on the perturbed questions compared with its gain on the clean ones."""
    found = case.robust
    if found is None:
        return
    p = "" if found.p_holm is None else f", corrected {p_value(found.p_holm)}"
    change = f"change {points(found.change)}, 95% interval {interval(found.interval)}{p}"
    if found.perturbation == VARIATION:
        yield (
            f"v's {_what(found)} is {points(found.clean)} points on the seed questions and"
            f" {points(found.perturbed)} on their {found.n:,} variations ({change}): {_shown(found)}."
        )
    else:
        yield (
            f"The perturbation ({found.perturbation}) changes {count(found.n, 'question')} of"
            f" {case.benchmark.n:,}. On these v's {_what(found)} is {points(found.clean)} points when they"
            f" are clean and {points(found.perturbed)} when they are perturbed ({change}): {_shown(found)}."
        )
    if found.left is None or found.left_interval is None:
        yield "The share that is left is not known, since the clean gain is not clearly different from 0."
    else:
        low, high = map(percent, found.left_interval)
        yield f"{percent(found.left)} of the clean {_what(found)} is left (95% interval {low} to {high})."


def robust_whole(cases: Sequence[Case]) -> Iterator[str]:
    """One sentence on the perturbations of all benchmarks on which v has a clear gain."""
    found = [(case.benchmark.title, one) for case in cases if (one := case.robust) and one.left is not None]
    gains = [(title, one) for title, one in found if one.clean > 0]
    if not gains:
        return
    less = [title for title, one in gains if shrinks(one) == -1]
    where = listed(less) if less else "none of them"
    yield f"Of {count(len(gains), 'perturbed benchmark')}, v's gain is shown to shrink on {where}."


def shrinks(found: Robustness) -> int:
    """−1 if v's gain or loss is shown to shrink, 1 if it is shown to grow, 0 if neither is shown."""
    if found.p_holm is None or found.p_holm >= LEVEL:
        return 0
    return 1 if (found.change > 0) == (found.clean >= 0) else -1


def _what(found: Robustness) -> str:
    return "gain" if found.clean >= 0 else "loss"


def _shown(found: Robustness) -> str:
    what = _what(found)
    return {-1: f"v's {what} shrinks", 0: f"that v's {what} changes is not shown", 1: f"v's {what} grows"}[
        shrinks(found)
    ]
