"""Sentences on the controls: random vectors of v's size, and asking for steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..case import figures, verdict
from ..phrases import count, listed, percent, points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...rundir.compared import Comparison
    from ..case import Case

FIFTH = 0.2
"""The share of v's effect below which the effect of random vectors counts as small."""
AS_LARGE = 0.95
"""The share of +v's norm, both after rounding, from which a random vector counts as large as v."""


def random(case: Case) -> Iterator[str]:
    """What each random vector of v's size does."""
    if not case.random:
        return
    moves = [one.difference for one in case.random]
    these = f"Random vectors of the same size ({count(len(moves), 'seed')})"
    if case.way == 0:
        moved = [f"{case.label(one.arm)} ({figures(one)})" for one in case.random if verdict(one)]
        if moved:
            yield (
                f"Yet a random vector of the same size changes it: {listed(moved)}; any disturbance may do so"
                f" here."
            )
        return
    unlike = [one for one in case.than_random if verdict(one) != case.way]
    largest = max(map(abs, moves))
    what = "gain" if case.way == 1 else "loss"
    if unlike:
        names = listed([f"{case.label(one.against)} ({figures(one)})" for one in unlike])
        yield (
            f"But +v is not shown to do more than {names}: that the {what} is due to v's direction is not"
            f" shown."
        )
        return
    size = _size_left(case)
    if size is None or size < AS_LARGE:
        left = "an unknown part" if size is None else f"as little as {size:.2f}"
        yield (
            f"{these} change it by {_span(moves)} points, but rounding left them {left} of +v's norm: what a"
            f" disturbance of v's full size does is not shown."
        )
    elif case.main and largest < FIFTH * abs(case.main.difference):
        yield (
            f"{these} change it by at most {100 * largest:.1f} points: the {what} comes from v's direction,"
            f" not from a disturbance of that size."
        )
    else:
        yield (
            f"{these} change it by {_span(moves)} points, which is not small compared with v, but +v differs"
            f" from each of them: part of the {what} may come from any disturbance, but not all of it."
        )


def random_share(case: Case) -> Iterator[str]:
    """The mean effect of random vectors as a share of v's effect."""
    found = case.random_mean
    if case.way == 0 or found is None or found.share is None or found.share_interval is None:
        return
    low, high = map(percent, found.share_interval)
    yield (
        f"On average random vectors of v's size make up {percent(found.share)} of v's"
        f" {'gain' if case.way == 1 else 'loss'} (95% interval {low} to {high})."
    )


def _size_left(case: Case) -> float | None:
    """The smallest norm of a random vector divided by +v's, both after rounding; None if one is not known."""
    arms = [case.results.arm(name) for name in ("plus", *(one.arm for one in case.random))]
    plus, *random = [arm.effect.norm_effective if arm and arm.effect else None for arm in arms]
    known = [norm for norm in random if norm is not None]
    return min(known) / plus if plus and len(known) == len(random) else None


def asking(case: Case) -> Iterator[str]:
    """Whether asking for steps in the prompt does what v does, and what v adds to it."""
    asked, beyond = case.think, case.beyond
    if asked is None or beyond is None:
        return
    if case.benchmark.note:
        note = case.benchmark.note.rstrip(".")
        yield f"This benchmark cannot show whether asking for steps does the same ({note})."
        return
    helps, more = verdict(asked), verdict(beyond)
    told = f"Asking {case.target} for steps"
    if case.way != 1:
        if helps == 1:
            yield f"{told} raises it ({figures(asked)})."
    elif helps == 1:
        rest = {
            1: f"but +v is above that ({figures(beyond)}): v does more than asking",
            0: f"and +v is not shown to differ from that ({figures(beyond)}): {_alike(case, beyond)}",
            -1: f"and +v is below that ({figures(beyond)}): v elicits no more than asking does",
        }[more]
        yield f"{told} raises it {'further than v does' if more == -1 else 'too'} ({figures(asked)}), {rest}."
    else:
        rest = {
            1: f"and +v is above that ({figures(beyond)}): v does more than asking",
            0: f"{'and +v is not' if helps else 'but neither is +v'} shown to differ from that"
            f" ({figures(beyond)}): whether v does more than asking stays open",
            -1: f"yet +v is below that ({figures(beyond)})",
        }[more]
        yield f"{told} {'lowers it' if helps else 'is not shown to raise it'} ({figures(asked)}), {rest}."
    if case.both:
        still = "still " if case.way == 1 else ""
        yield {
            1: f"With steps asked for, v {still}adds to it ({figures(case.both)}).",
            0: f"With steps asked for, v is not shown to change it ({figures(case.both)}).",
            -1: f"With steps asked for, v lowers it ({figures(case.both)}).",
        }[verdict(case.both)]


def _alike(case: Case, beyond: Comparison) -> str:
    """What to conclude if no difference from asking for steps is shown; a narrow interval says more."""
    apart = max(map(abs, beyond.interval))
    if case.main and apart < FIFTH * case.main.difference:
        return (
            f"asking does as much to within {100 * apart:.1f} points, so v elicits what the target can do"
            f" when asked; a new skill is not shown"
        )
    return "whether v does more than elicit what asking elicits stays open"


def _span(moves: list[float]) -> str:
    low, high = points(min(moves)), points(max(moves))
    return low if low == high else f"{low} to {high}"
