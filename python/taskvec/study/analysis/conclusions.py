"""What the results show and do not show, in words: a paragraph for the study and one for each benchmark.

Every sentence is conditional on the tests beside it. "Raises" and "lowers" are said only where the corrected
test rejects (where there is no test: where the interval excludes zero, and the text says so); a test that
does not reject is never called equality, and what it could have found is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .case import Case, figures, verdict
from .phrases import count, interval, listed, p_value, points, share
from .power import SHARES, smallest_effect
from .statistics import LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.results import Comparison, Results

FIFTH = 0.2
"""Random vectors that move a score by less than this share of what v does are called a small disturbance."""
TRUNCATED = 0.05
"""Share of cut-off answers that is warned of."""
UNREADABLE = 0.01
"""Difference in the share of unreadable answers that is worth a word."""
OFF = 0.05
"""How far an effective gain may be from 1 before it is told, as the verbs do."""
AS_LARGE = 0.95
"""Share of +v's norm, both after rounding, from which a random vector counts as large as v."""


def conclude(results: Results) -> list[str]:
    """The conclusions: first the whole, then each benchmark, then what bounds them."""
    cases = [Case(results, benchmark) for benchmark in results.benchmarks]
    return [
        *_whole(results, cases),
        *(_paragraph(case) for case in cases),
        *_rounding(results),
        *_scope(results),
    ]


def _whole(results: Results, cases: list[Case]) -> Iterator[str]:
    if results.missing:
        done = sum(len(arm.cells) for arm in results.arms)
        yield (
            f"Not finished: {done} of {count(done + len(results.missing), 'cell')} have been scored, so all"
            f" of this can still change."
        )
    titles: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for case in cases:
        if case.main:
            titles[case.way].append(case.benchmark.title)
    said = [
        f"{words} {listed(titles[way])}"
        for way, words in ((1, "raises"), (-1, "lowers"), (0, "is not shown to change"))
        if titles[way]
    ]
    if not said:
        return
    asked = [case for case in cases if case.way == 1 and case.beyond and not case.benchmark.note]
    more = [case.benchmark.title for case in asked if verdict(case.beyond) == 1]
    where = listed(more) if more else "none of these"
    beyond = f" That v does more than asking for steps is shown on {where}." if asked else ""
    yield f"In all: v {'; '.join(said)}.{beyond}"


def _paragraph(case: Case) -> str:
    parts = (_main, _random, _asking, _minus, _form, _sweep) if case.main else (_main,)
    return f"{case.benchmark.title}: " + " ".join(sentence for part in parts for sentence in part(case))


def _main(case: Case) -> Iterator[str]:
    found = case.main
    if found is None:
        yield f"{case.target} and +v have not both been scored yet."
        return
    mine, other = case.cells[found.arm], case.cells[found.against]
    if found.p is None:
        said = f"+v scores {share(mine.score)} where {case.target} scores {share(other.score)}"
    else:
        right = [f"{round(cell.score * cell.n)} of {cell.n}" for cell in (mine, other)]
        said = f"+v answers {right[0]} where {case.target} answers {right[1]}"
    p = "no test for this metric" if found.p_holm is None else f"corrected {p_value(found.p_holm)}"
    said += f" ({points(found.difference)} points, 95% interval {interval(found.interval)}, {p})"
    if case.way:
        alone = ", by the interval alone, which is not corrected for other comparisons"
        yield f"{said}: v {_verb(case.way)} it{alone if found.p is None else ''}."
    elif found.wrong_to_right + found.right_to_wrong == 0:
        yield f"{said}: no document's score changed."
    else:
        yield f"{said}: a difference is not shown."
    if case.way == 0 and found.p is not None:
        yield _reach(case, found)


def _reach(case: Case, found: Comparison) -> str:
    """What a test that did not reject could have found, with the correction at its strictest."""
    changed = max((found.wrong_to_right + found.right_to_wrong) / found.n, SHARES[0])
    least = smallest_effect(found.n, changed, LEVEL / case.results.tests)
    if least is None:
        return f"n = {found.n} is too few to have found any but a far larger one."
    return (
        f"n = {found.n} could have shown one of about {100 * least:.1f} points (80% of the time); a smaller"
        f" one is possible."
    )


def _random(case: Case) -> Iterator[str]:
    if not case.random:
        return
    moves = [one.difference for one in case.random]
    these = f"Random vectors of the same size ({count(len(moves), 'seed')})"
    if case.way == 0:
        moved = [f"{case.label(one.arm)} ({figures(one)})" for one in case.random if verdict(one)]
        if moved:
            yield (
                f"Yet a random vector of the same size moves it: {listed(moved)}; any disturbance may do so"
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
            f"{these} move it by {_span(moves)} points, but rounding left them {left} of +v's norm: what a"
            f" disturbance of v's full size does is not shown."
        )
    elif case.main and largest < FIFTH * abs(case.main.difference):
        yield (
            f"{these} move it by at most {100 * largest:.1f} points: the {what} is v's direction, not a"
            f" disturbance of that size."
        )
    else:
        yield (
            f"{these} move it by {_span(moves)} points, which is not little beside v, but +v differs from"
            f" each of them: part of the {what} may be disturbance, not all of it."
        )


def _size_left(case: Case) -> float | None:
    """The smallest random vector's norm over +v's, both after rounding; None where one is not known."""
    arms = [case.results.arm(name) for name in ("plus", *(one.arm for one in case.random))]
    plus, *random = [arm.effect.norm_effective if arm and arm.effect else None for arm in arms]
    known = [norm for norm in random if norm is not None]
    return min(known) / plus if plus and len(known) == len(random) else None


def _asking(case: Case) -> Iterator[str]:
    asked, beyond = case.think, case.beyond
    if asked is None or beyond is None:
        return
    if case.benchmark.note:
        note = case.benchmark.note.rstrip(".")
        yield f"Whether asking for steps does the same cannot be seen here ({note})."
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
    """That a difference is not shown says little by itself; a narrow interval around none says more."""
    apart = max(map(abs, beyond.interval))
    if case.main and apart < FIFTH * case.main.difference:
        return (
            f"asking does as much to within {100 * apart:.1f} points, so v elicits what the target can do"
            f" when asked; a new skill is not shown"
        )
    return "whether v does more than elicit what asking elicits stays open"


def _minus(case: Case) -> Iterator[str]:
    found = case.minus
    if found is None:
        return
    way = verdict(found)
    if way == 0:
        yield f"−v is not shown to change it{'' if case.way else ' either'} ({figures(found)})."
        return
    too, turned = {
        0: ("", ""),
        way: (" too", ": v's sign does not decide"),
        -way: ("", ": the effect turns round with v's sign"),
    }[case.way]
    yield f"−v {_verb(way)} it{too} ({figures(found)}){turned}."


def _form(case: Case) -> Iterator[str]:
    """What the form of the outputs, rather than their reasoning, may have to do with the scores."""
    before, after = (case.cells[arm].extraction_failures for arm in ("baseline", "plus"))
    if before is not None and after is not None:
        fewer = before - after
        if case.way and abs(fewer) >= UNREADABLE:
            what = "gain" if case.way == 1 else "loss"
            part = f"part of the {what} may be answers' form, not their content"
            against = f"that works against the {what}, so it does not explain it"
            yield (
                f"No answer could be read from {share(before)} of {case.target}'s outputs and {share(after)}"
                f" of +v's: {part if fewer * case.way > 0 else against}."
            )
    cut = {arm: rate for arm, cell in case.cells.items() if (rate := cell.truncated or 0.0) > TRUNCATED}
    if cut:
        # Those that the first sentence is about by name; of many others the worst is enough.
        named = [arm for arm in cut if len(cut) <= 3 or arm in ("baseline", "plus")]
        who = [f"{share(cut[arm])} of {case.label(arm)}'s" for arm in named]
        if others := [rate for arm, rate in cut.items() if arm not in named]:
            who.append(f"up to {share(max(others))} of {count(len(others), 'other arm')}'")
        yield (
            f"Warning: {listed(who)} outputs were cut off at {case.benchmark.max_new_tokens} tokens; the"
            f" scores of {'this arm' if len(cut) == 1 else 'these arms'} may be too low, and differences with"
            f" them are uncertain."
        )


def _sweep(case: Case) -> Iterator[str]:
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
            f" was chosen on these same documents, so that is not confirmed."
        )


def _rounding(results: Results) -> Iterator[str]:
    gains = [(arm.label, arm.effect.gain) for arm in results.arms if arm.prompt == "plain" and arm.effect]
    off = [f"{label} {gain:.2f}" for label, gain in gains if gain is not None and abs(gain - 1) > OFF]
    if off:
        yield (
            f"Rounding: the effective gain is not near 1 in {listed(off)}: the weights of these moved less or"
            f" further than their α says."
        )


def _scope(results: Results) -> Iterator[str]:
    if not results.of_kind("random"):
        yield "No random vectors were run: whether any disturbance of v's size does the same is open."
    if results.arm("baseline-think") is None:
        yield "No arm was asked for steps: whether v does more than a line of prompt is open."
    tests = f" after correction for {count(results.tests, 'test')} together (Holm)" if results.tests else ""
    yield (
        f"A difference counts as shown below p = {LEVEL:g}{tests}; intervals are 95% each, not corrected. All"
        f" of it speaks of documents like these, this target and this vector; another vector trained by the"
        f" same recipe may do otherwise."
    )


def _span(moves: list[float]) -> str:
    low, high = points(min(moves)), points(max(moves))
    return low if low == high else f"{low} to {high}"


def _verb(way: int) -> str:
    return "raises" if way == 1 else "lowers"
