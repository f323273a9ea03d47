"""Writes the conclusions: what the results show and do not show, for the study and for each benchmark.

Every sentence depends on the result of a test. It says "raises" or "lowers" only if the test rejects after
correction within its family. A test that does not reject is never called equality; the sentence then says how
large an effect the test could have found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .case import Case, verdict
from .exact_tests import LEVEL
from .phrases import count, listed, settings
from .sentences.controls import asking, random, random_share
from .sentences.effect import main, minus, sweep
from .sentences.form import cut_off, length, readings, unread, unreadable
from .sentences.robust import left, robust_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.results import Results

OFF = 0.05
"""The distance of an effective gain from 1 above which a sentence mentions it."""
_CLEAN = (
    unread, main, left, random, random_share, asking, minus, unreadable, readings, length, cut_off, sweep,
)  # fmt: skip
_PERTURBED = (unread, main, left, unreadable, length, cut_off)


def conclude(results: Results) -> list[str]:
    """The conclusions: on the whole study, on each benchmark, and on what limits them."""
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
            f" conclusions can still change."
        )
    titles: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for case in cases:
        if case.main and case.benchmark.parent is None and not case.unread:
            titles[case.way].append(case.benchmark.title)
    said = [
        f"{words} {listed(titles[way])}"
        for way, words in ((1, "raises"), (-1, "lowers"), (0, "is not shown to change"))
        if titles[way]
    ]
    unread_on = [case.benchmark.title for case in cases if case.unread and case.benchmark.parent is None]
    if unread_on:
        yield (f"Nothing is known on {listed(unread_on)}: no answer of the target or of +v could be read.")
    if not said:
        return
    clean = [case for case in cases if case.benchmark.parent is None]
    asked = [case for case in clean if case.way == 1 and case.beyond and not case.benchmark.note]
    more = [case.benchmark.title for case in asked if verdict(case.beyond) == 1]
    where = listed(more) if more else "none of these"
    beyond = f" That v does more than asking for steps is shown on {where}." if asked else ""
    robust = "".join(f" {sentence}" for sentence in robust_whole(cases))
    yield f"In all: v {'; '.join(said)}.{beyond}{robust}"


def _paragraph(case: Case) -> str:
    parts = _CLEAN if case.benchmark.parent is None else _PERTURBED
    if case.unread:
        parts = (unread,)
    elif case.main is None:
        parts = (unread, main)
    return f"{case.benchmark.title}: " + " ".join(sentence for part in parts for sentence in part(case))


def _rounding(results: Results) -> Iterator[str]:
    gains = [(arm.label, arm.effect.gain) for arm in results.arms if arm.prompt == "plain" and arm.effect]
    off = [f"{label} {gain:.2f}" for label, gain in gains if gain is not None and abs(gain - 1) > OFF]
    if off:
        yield (
            f"Rounding: the effective gain is not near 1 for {listed(off)}: their weights changed by less or"
            f" more than α says."
        )


def _scope(results: Results) -> Iterator[str]:
    if used := results.generation["used"]:
        yield (
            f"The target's generation config sets {settings(used)}, which changes greedy answers. Every arm"
            " uses it."
        )
    if not results.of_kind("random"):
        yield "No random vectors were run, so it is open whether any change of v's size does the same."
    if results.arm("baseline-think") is None:
        yield "No arm was asked for steps, so it is open whether v does more than a line of prompt."
    yield (
        f"A difference counts as shown below p = {LEVEL:g} after correction within its family of tests"
        f" (Holm).{_families(results)} Intervals are 95% each, not corrected. All conclusions are about"
        f" documents like these, this target and this vector; another vector trained by the same recipe may"
        f" behave differently."
    )


def _families(results: Results) -> str:
    """Sentences on the tests of the primary family, and on how many others there are."""
    pairs: dict[tuple[str, str], list[str]] = {}
    titles = {one.id: one.title for one in results.benchmarks}
    for one in results.comparisons:
        if one.family == "primary":
            pairs.setdefault((one.arm, one.against), []).append(titles[one.benchmark])
    said = "; ".join(
        f"{_label(results, arm)} against {_label(results, against)} on {listed(on)}"
        for (arm, against), on in pairs.items()
    )
    sizes = results.families
    first = f" The primary family, fixed before the first answer, is {said} ({count(sizes.primary, 'test')})."
    second = f" {count(sizes.secondary, 'other test')} {'is' if sizes.secondary == 1 else 'are'} corrected"
    swept = " The α sweep is described, not tested." if results.of_kind("sweep") else ""
    return (first if said else "") + (f"{second} among themselves." if sizes.secondary else "") + swept


def _label(results: Results, arm: str) -> str:
    found = results.arm(arm)
    return found.label if found else arm
