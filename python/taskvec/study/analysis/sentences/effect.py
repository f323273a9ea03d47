"""Sentences on what v does to a benchmark: the main result, −v, and other α."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..case import figures, verdict
from ..exact_tests import LEVEL
from ..phrases import interval, p_value, points, share
from ..power import SHARES, reach, smallest_effect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...rundir.compared import Comparison
    from ..case import Case


def main(case: Case) -> Iterator[str]:
    """The main result: +v compared with the target."""
    found = case.main
    if found is None:
        yield f"{case.target} and +v have not both been scored yet."
        return
    mine, other = case.cells[found.arm], case.cells[found.against]
    if found.test == "mcnemar":
        right = [f"{round(cell.score * cell.n)} of {cell.n}" for cell in (mine, other)]
        said = f"+v answers {right[0]} where {case.target} answers {right[1]}"
    else:
        said = f"+v scores {share(mine.score)} where {case.target} scores {share(other.score)}"
    p = "" if found.p_holm is None else f", corrected {p_value(found.p_holm)}"
    said += f" ({points(found.difference)} points, 95% interval {interval(found.interval)}{p})"
    if case.way:
        yield f"{said}: v {verb(case.way)} it."
        return
    if found.wrong_to_right + found.right_to_wrong == 0:
        yield f"{said}: no document's score changed."
    else:
        yield f"{said}: a difference is not shown."
    yield _reach(case, found)


def _reach(case: Case, found: Comparison) -> str:
    """How large a difference the test could have found, with the strictest correction; it did not reject."""
    level = LEVEL / max(1, case.tests(found))
    if found.test == "mcnemar":
        changed = max((found.wrong_to_right + found.right_to_wrong) / found.n, SHARES[0])
        least = smallest_effect(found.n, changed, level)
    else:
        least = reach(found.interval, level)
    # A difference of two shares is at most 1.
    if least is None or least > 1:
        return f"n = {found.n} is too few to find any but a far larger difference."
    return (
        f"n = {found.n} could have shown a difference of about {100 * least:.1f} points (80% of the time); a"
        f" smaller one is possible."
    )


def minus(case: Case) -> Iterator[str]:
    """−v compared with the target."""
    found = case.minus
    if found is None:
        return
    way = verdict(found)
    if way == 0:
        yield f"−v is not shown to change it{'' if case.way else ' either'} ({figures(found)})."
        return
    too, turned = {
        0: ("", ""),
        way: (" too", ": the effect does not depend on v's sign"),
        -way: ("", ": the effect reverses with v's sign"),
    }[case.way]
    yield f"−v {verb(way)} it{too} ({figures(found)}){turned}."


def sweep(case: Case) -> Iterator[str]:
    """The best α of the sweep, which is not tested."""
    arms = [arm for arm in case.results.arms if arm.id == "plus" or arm.kind == "sweep"]
    scores = {f"α = {arm.alpha:g}": case.cells[arm.id].score for arm in arms if arm.id in case.cells}
    if len(scores) < 2:
        return
    plus, best = next(iter(scores)), max(scores, key=scores.__getitem__)
    if best == plus:
        yield f"No other α of the sweep scores higher than {plus}."
    else:
        yield (
            f"In the sweep {best} scores highest ({share(scores[best])}; {plus}: {share(scores[plus])}); it"
            f" was chosen on these same documents, so this is not confirmed."
        )


def verb(way: int) -> str:
    """The verb for what v does: "raises" or "lowers"."""
    return "raises" if way == 1 else "lowers"
