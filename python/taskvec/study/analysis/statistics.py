"""Compares two arms on the same documents: the difference, its interval and its exact test."""

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
    """The comparison of one arm with another on the same documents."""

    n: int
    """Number of documents."""
    difference: float
    """Mean of arm − other."""
    interval: tuple[float, float]
    """95 % interval of the difference: see `difference_interval`."""
    wrong_to_right: int
    """Number of documents with a higher score in the arm."""
    right_to_wrong: int
    """Number of documents with a lower score in the arm."""
    test: str
    """`"mcnemar"` if every score is 0 or 1 and no documents share a cluster, else `"sign-flip"`."""
    p: float
    """Two-sided p of the test, not corrected."""


def compare(
    arm: Sequence[float], other: Sequence[float], design: Design | None = None, seed: int = 0
) -> Paired:
    """Compares the scores of two arms, document by document.

    Documents of one cluster are not independent. So with clusters the test is the sign-flip test with whole
    clusters, even if all scores are 0 or 1.

    Args:
        arm: One score for each document, from 0 to 1.
        other: The other arm's scores of the same documents, in the same order.
        design: The units and strata of the documents; by default the documents are independent.
        seed: Seed of the bootstrap.

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
