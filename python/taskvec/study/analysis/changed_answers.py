"""Selects some documents of each benchmark that v gained or lost, with both answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..rundir.samples import paired

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...records import Json
    from .cells import Cells

SHOWN = 3
"""The number of gained documents, and of lost ones, to show."""
LONGEST = 400
"""The number of characters to which texts are cut."""


def changed_answers(run: Json, cells: Cells) -> Iterator[Json]:
    """For each benchmark the first three documents that +v gains, and the first three that it loses."""
    for benchmark in (one["id"] for one in run["benchmarks"]):
        if ("plus", benchmark) not in cells or ("baseline", benchmark) not in cells:
            continue
        pairs = paired(cells["plus", benchmark], cells["baseline", benchmark], same_prompt=True)
        gained = [pair for pair in pairs if pair[0]["correct"] > pair[1]["correct"]][:SHOWN]
        lost = [pair for pair in pairs if pair[0]["correct"] < pair[1]["correct"]][:SHOWN]
        for plus, base in sorted([*gained, *lost], key=lambda pair: pair[0]["doc_id"]):
            yield {
                "benchmark": benchmark,
                "doc_id": plus["doc_id"],
                "task": plus["task"],
                "target": _cut(plus["target"]),
                "question": _cut(plus["question"]),
                "baseline": _answer(base),
                "plus": _answer(plus),
            }


def _answer(row: Json) -> Json:
    return {"answer": _cut(row["answer"]), "response": _cut(row["response"]), "correct": row["correct"]}


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST else text[: LONGEST - 1] + "…"
