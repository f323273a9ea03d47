"""One arm against another on the same documents: the difference, its interval and its exact test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .design import Design
from .exact_tests import mcnemar, sign_flip
from .intervals import difference_interval, is_binary

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Paired:
    """One arm against another on the same documents."""

    n: int
    """Documents."""
    difference: float
    """Mean of arm − other."""
    interval: tuple[float, float]
    """95 % interval of the difference: see `difference_interval`."""
    wrong_to_right: int
    """Documents that the arm scores higher than the other does."""
    right_to_wrong: int
    """Documents that the arm scores lower."""
    test: str
    """`"mcnemar"` where every score is 0 or 1 and no documents share a cluster, else `"sign-flip"`."""
    p: float
    """Of the test, two-sided."""


def compare(
    arm: Sequence[float], other: Sequence[float], design: Design | None = None, seed: int = 0
) -> Paired:
    """Compares two arms' scores, document by document.

    Documents of one cluster are not independent, so with clusters the signs of whole clusters are flipped,
    also where McNemar's test would do for documents by themselves.

    Args:
        arm: One score per document.
        other: The other arm's scores of the same documents, in the same order.
        design: How the documents hang together; by default each is by itself.
        seed: Of the bootstrap.

    Raises:
        ValueError: The lengths differ, there is no document, or a score is not between 0 and 1.
    """
    if len(arm) != len(other) or not arm:
        raise ValueError(f"{len(arm)} and {len(other)} scores cannot be paired")
    if odd := [one for one in (*arm, *other) if not 0 <= one <= 1]:
        raise ValueError(f"a score of {odd[0]:g} is not between 0 and 1")
    design = design or Design.independent(len(arm))
    differences = [mine - its for mine, its in zip(arm, other, strict=True)]
    gains, losses = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    counted = is_binary(arm) and is_binary(other) and not design.clustered
    return Paired(
        n=len(differences),
        difference=sum(differences) / len(differences),
        interval=difference_interval(differences, design, seed),
        wrong_to_right=gains,
        right_to_wrong=losses,
        test="mcnemar" if counted else "sign-flip",
        p=mcnemar(gains, losses) if counted else sign_flip(design.sums(differences)),
    )
