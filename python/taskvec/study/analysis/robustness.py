"""Computes how much of v's gain is left under each perturbation, as a difference of differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import CorruptError
from ..rundir.samples import paired
from .design import VARIATION, Design
from .exact_tests import sign_flip
from .intervals import difference_interval, ratio_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...records import Json
    from ..rundir.samples import Samples
    from .cells import Cells

_MOVED_TARGET = "options"  # The perturbation that moves the right option, and so changes its letter.


def robustness(run: Json, cells: Cells) -> Iterator[Json]:
    """What is left of v's gain in each perturbed benchmark; `corrected` then corrects its p.

    All figures are over the documents that the perturbation changed, since the others have the same question
    in both benchmarks. Benchmarks whose four cells are not all scored yet are left out.

    Raises:
        CorruptError: The documents of a perturbed benchmark are not those of the clean one, or its rows do
            not say which of them were changed.
    """
    for one in run["benchmarks"]:
        names = [(arm, name) for name in (one["of"], one["id"]) for arm in ("plus", "baseline")]
        if one["of"] is None or not all(name in cells for name in names):
            continue
        yield {
            "benchmark": one["id"],
            "of": one["of"],
            "perturbation": one["perturbation"],
            **_left([cells[name] for name in names], one["perturbation"]),
        }


def _left(four: list[Samples], kind: str) -> Json:
    """The figures of a benchmark from four cells: +v and baseline on clean, then on perturbed questions."""
    clean_plus, clean_base, plus, base = four
    asked = paired(plus, base, same_prompt=True)
    if kind == VARIATION:
        return _of_seed_questions(four, asked)
    for perturbed, clean in ((plus, clean_plus), (base, clean_base)):
        paired(perturbed, clean, same_prompt=False, same_target=kind != _MOVED_TARGET)
    for row, other in asked:
        if row["touched"] is None or row["touched"] != other["touched"]:
            raise CorruptError(
                f"{plus.file} and {base.file} do not agree on whether the perturbation changed document"
                f" {row['doc_id']}; delete both and run again"
            )
    touched = [row["doc_id"] for row, _ in asked if row["touched"]]
    if not touched:
        raise CorruptError(f"{plus.file}: the perturbation changed no document; delete it and run again")
    clean, perturbed = _gains(clean_plus, clean_base, touched), _gains(plus, base, touched)
    share = len(touched) / len(asked)
    return {"touched": share, **_compared(clean, perturbed, [plus.rows[one] for one in touched])}


def _of_seed_questions(four: list[Samples], asked: list[tuple[Json, Json]]) -> Json:
    """The same for variations, which are compared with their seed question; their cluster names it."""
    clean_plus, clean_base, plus, base = four
    seeds = {row["cluster"]: row["doc_id"] for row, _ in paired(clean_plus, clean_base, same_prompt=True)}
    # With a limit, the last seed question may lack variations, or variations their seed question.
    rows = [row for row, _ in asked if row["cluster"] in seeds]
    if not rows:
        raise CorruptError(f"{plus.file} and {clean_plus.file} share no question; delete both and run again")
    clean = _gains(clean_plus, clean_base, [seeds[row["cluster"]] for row in rows])
    perturbed = _gains(plus, base, [row["doc_id"] for row in rows])
    return {"touched": len(rows) / len(asked), **_compared(clean, perturbed, rows)}


def _compared(clean: list[float], perturbed: list[float], rows: list[Json]) -> Json:
    """Compares v's gains on the clean and on the perturbed questions, document by document."""
    design = Design.of(rows)
    change = [one - its for one, its in zip(perturbed, clean, strict=True)]
    left = ratio_interval(perturbed, clean, design)
    return {
        "n": len(rows),
        "clean": sum(clean) / len(clean),
        "perturbed": sum(perturbed) / len(perturbed),
        "change": sum(change) / len(change),
        "interval": list(difference_interval(change, design, largest=2)),
        "p": sign_flip(design.sums(change)),
        "left": None if left is None else sum(perturbed) / sum(clean),
        "left_interval": left and list(left),
    }


def _gains(plus: Samples, base: Samples, documents: list[int]) -> list[float]:
    return [float(plus.rows[one]["correct"]) - float(base.rows[one]["correct"]) for one in documents]
