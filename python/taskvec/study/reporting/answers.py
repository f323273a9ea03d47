"""Shows some answers that v changed, side by side: the first gained and the first lost ones."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..analysis.phrases import count
from .html import element, folded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..rundir.compared import Answer, ChangedAnswer
    from ..rundir.results import Benchmark, Results

_READ = (
    "Documents that one of the two arms answers correctly and the other does not: the first of each"
    " benchmark in the order of its documents, not selected by hand. Long texts are cut. All answers are"
    " in the samples."
)


def answers(results: Results) -> Iterator[str]:
    """For each benchmark one gained and one lost answer; the others are folded."""
    if not results.changed_answers:
        return
    yield element("p", _READ, "faint")
    perturbed: list[str] = []
    for benchmark in results.benchmarks:
        some = [one for one in results.changed_answers if one.benchmark == benchmark.id]
        if not some:
            continue
        parts = [element("h3", benchmark.title), *_of(results, benchmark, some)]
        if benchmark.parent is None:
            yield from parts
        else:
            perturbed += parts
    if perturbed:
        yield folded("Answers to perturbed questions", "".join(perturbed))


def _of(results: Results, benchmark: Benchmark, some: Sequence[ChangedAnswer]) -> Iterator[str]:
    gained, lost = [one for one in some if _is_gained(one)], [one for one in some if not _is_gained(one)]
    first = [*gained[:1], *lost[:1]]
    rest = [one for one in (*gained, *lost) if one not in first]
    yield from (_pair(results, benchmark, one) for one in first)
    if rest:
        yield folded(
            f"{count(len(rest), 'more answer')}", "".join(_pair(results, benchmark, one) for one in rest)
        )


def _is_gained(one: ChangedAnswer) -> bool:
    return one.plus.correct > one.baseline.correct


def _pair(results: Results, benchmark: Benchmark, one: ChangedAnswer) -> str:
    task = f", {one.task}" if benchmark.subtasks else ""
    what = "gained" if _is_gained(one) else "lost"
    question = element("p", one.question, "question")
    sides = "".join(
        _side(arm.label if arm else name, answer)
        for name, answer in (("baseline", one.baseline), ("plus", one.plus))
        for arm in [results.arm(name)]
    )
    return (
        f'<article class="pair"><h4>{escape(f"Document {one.doc_id}{task}")} <small>{what}; the right answer'
        f" is {element('code', one.target)}</small></h4>{question}"
        f'<div class="sides">{sides}</div></article>'
    )


def _side(label: str, answer: Answer) -> str:
    mark, kind = ("✓ right", "right") if answer.correct >= 1 else ("✗ wrong", "wrong")
    if 0 < answer.correct < 1:
        mark = f"{100 * answer.correct:.0f}% right"
    read = "no answer could be read" if answer.answer is None else f"read as {element('code', answer.answer)}"
    response = "" if answer.response is None else element("pre", answer.response)
    return (
        f'<div class="side {kind}"><p>{element("strong", label)} <span class="verdict">{mark}</span>,'
        f" {read}</p>{response}</div>"
    )
