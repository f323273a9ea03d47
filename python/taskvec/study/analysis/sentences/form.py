"""Sentences on the form of the answers: whether they can be read, how long they are, and other readings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..phrases import count, listed, share, signed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..case import Case

TRUNCATED = 0.05
"""The share of cut-off answers above which a warning is given."""
MANY = 0.2
"""The share of unreadable answers of an arm from which a warning is given."""
UNREADABLE = 0.01
"""The difference in shares of unreadable answers, or share of empty ones, from which they are named."""


def unread(case: Case) -> Iterator[str]:
    """A warning if many of an arm's answers could not be read: its score then reflects their form."""
    rates = {arm: rate for arm, cell in case.cells.items() if (rate := cell.extraction_failures or 0.0)}
    if case.unread:
        if all(case.cells[arm].empty == 1 for arm in ("baseline", "plus")):
            yield (
                f"Warning: every output of {case.target} and of +v is empty, so their scores say nothing"
                " about what v does. Look at the prompts, the stop strings and the token limit."
            )
            return
        also = " The same holds for every other arm." if _all(case, rates) else ""
        yield (
            f"Warning: {_reader(case)} could read no answer of {case.target} and none of +v, so their scores"
            f" reflect only the form of the answers, not what v does.{also} Look at the answers in samples/,"
            " and choose another `filter`, or ask in the prompt for the form that it reads."
        )
        return
    many = [arm for arm, rate in rates.items() if rate >= MANY]
    if many:
        who = listed([f"{share(rates[arm])} of {case.label(arm)}'s" for arm in many])
        yield f"Warning: {_reader(case)} could read no answer in {who} outputs, which count as wrong."


def _all(case: Case, rates: dict[str, float]) -> bool:
    return len(case.cells) > 2 and all(rates.get(arm) == 1 for arm in case.cells)


def _reader(case: Case) -> str:
    named = case.benchmark.filter
    return f"the filter {named}" if named and named != "none" else "the benchmark's filter"


def unreadable(case: Case) -> Iterator[str]:
    """How far the form of the outputs, rather than their content, may explain the scores."""
    before, after = (case.cells[arm].extraction_failures for arm in ("baseline", "plus"))
    if before is None or after is None:
        return
    fewer = before - after
    if case.way and abs(fewer) >= UNREADABLE:
        what = "gain" if case.way == 1 else "loss"
        part = f"part of the {what} may come from the answers' form, not their content"
        against = f"that works against the {what}, so it does not explain it"
        yield (
            f"No answer could be read from {share(before)} of {case.target}'s outputs and {share(after)}"
            f" of +v's: {part if fewer * case.way > 0 else against}."
        )
    blank = [case.cells[arm].empty or 0.0 for arm in ("baseline", "plus")]
    if max(blank) >= UNREADABLE:
        yield (
            f"{share(blank[0])} of {case.target}'s outputs are empty, and {share(blank[1])} of +v's; an empty"
            f" output says nothing about what a model can do."
        )


def readings(case: Case) -> Iterator[str]:
    """Further readings of the same answers whose difference has the opposite sign."""
    if case.main is None:
        return
    mine, other = case.cells["plus"].readings, case.cells["baseline"].readings
    turned = [
        f"by {name} +v scores {share(mine[name].score)} and {case.target} {share(other[name].score)}"
        for name in mine
        if (mine[name].score - other[name].score) * case.main.difference < 0
    ]
    if turned:
        yield (
            f"By other readings, the same answers point the other way: {listed(turned)}. Only the reading"
            f" above was tested."
        )


def length(case: Case) -> Iterator[str]:
    """How long +v's answers are compared with the target's."""
    found = case.lengths
    if found is None or not found.other:
        return
    tokens = f"{found.mean:.1f} tokens on average where {case.target}'s have {found.other:.1f}"
    low, high = map(signed, found.interval)
    if found.interval == (0, 0):
        yield f"+v's answers are as long as {case.target}'s ({found.mean:.1f} tokens on average)."
    elif found.interval[0] <= 0 <= found.interval[1]:
        yield (
            f"+v's answers have {tokens}; that their length differs is not shown (95% interval of the"
            f" change {low} to {high})."
        )
    else:
        yield (
            f"+v's answers are {found.mean / found.other:.2g} times as long: {tokens} (95% interval of the"
            f" change {low} to {high})."
        )


def cut_off(case: Case) -> Iterator[str]:
    """A warning about answers that were cut off at the token limit."""
    cut = {arm: rate for arm, cell in case.cells.items() if (rate := cell.truncated or 0.0) > TRUNCATED}
    if not cut:
        return
    cap = f"outputs were cut off at {case.benchmark.max_new_tokens} tokens"
    if len(cut) == len(case.cells) > 1:
        least, most = share(min(cut.values())), share(max(cut.values()))
        rates = most if least == most else f"{least} to {most}"
        yield (
            f"Warning: {rates} of all arms' {cap}; the scores may be too low, and differences between arms"
            f" are uncertain."
        )
        return
    # The arms of the main result are named; of many others only the highest rate is given.
    named = [arm for arm in cut if len(cut) <= 3 or arm in ("baseline", "plus")]
    who = [f"{share(cut[arm])} of {case.label(arm)}'s" for arm in named]
    if others := [rate for arm, rate in cut.items() if arm not in named]:
        who.append(f"up to {share(max(others))} of {count(len(others), 'other arm')}'")
    yield (
        f"Warning: {listed(who)} {cap}; the scores of {'this arm' if len(cut) == 1 else 'these arms'} may be"
        f" too low, and differences with them are uncertain."
    )
