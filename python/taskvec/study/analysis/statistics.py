"""What paired answers show: differences with intervals, exact tests and their correction.

Every function is pure. Scores are shares between 0 and 1, so is a difference of two; a point is 0.01.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVEL = 0.05
"""The level that tests are judged at, after correction, and one minus the coverage of every interval."""
DRAWS = 10_000
"""Bootstrap samples behind an interval: from seed to seed its ends move by about a hundredth of its width."""
FEW = 10
"""Documents that must differ from the commonest value for the bootstrap to be trusted by itself."""

_Z = 1.959963984540054  # The normal distribution's 97.5 % quantile.
_CELLS = 1 << 22  # Counts drawn at a time: 32 MiB.


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
    p: float | None
    """Exact McNemar, two-sided; None unless every score is 0 or 1."""


def compare(arm: Sequence[float], other: Sequence[float], seed: int = 0) -> Paired:
    """Compares two arms' scores, document by document.

    Args:
        arm: One score per document.
        other: The other arm's scores of the same documents, in the same order.
        seed: Of the bootstrap.

    Raises:
        ValueError: The lengths differ, there is no document, or a score is not between 0 and 1.
    """
    if len(arm) != len(other) or not arm:
        raise ValueError(f"{len(arm)} and {len(other)} scores cannot be paired")
    if odd := [one for one in (*arm, *other) if not 0 <= one <= 1]:
        raise ValueError(f"a score of {odd[0]:g} is not between 0 and 1")
    differences = [mine - its for mine, its in zip(arm, other, strict=True)]
    gains, losses = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    binary = is_binary(arm) and is_binary(other)
    return Paired(
        n=len(differences),
        difference=sum(differences) / len(differences),
        interval=difference_interval(differences, seed),
        wrong_to_right=gains,
        right_to_wrong=losses,
        p=mcnemar(gains, losses) if binary else None,
    )


def is_binary(scores: Sequence[float]) -> bool:
    """Whether every score is 0 or 1."""
    return all(one in (0, 1) for one in scores)


def mcnemar(gains: int, losses: int) -> float:
    """The exact McNemar test, two-sided: could a fair coin have split the changed documents like this?

    With d = gains + losses and X ~ Binomial(d, 1/2), p = min(1, 2·P(X ≤ min(gains, losses))). Only documents
    on which the two arms differ enter (McNemar 1947); the binomial instead of his χ² makes it hold for any d.
    Whole numbers throughout, rounded once at the end.
    """
    changed, fewer = gains + losses, min(gains, losses)
    tail = way = 1
    for k in range(fewer):
        way = way * (changed - k) // (k + 1)
        tail += way
    return min(1.0, 2 * tail / 2**changed)


def bootstrap(values: Sequence[float], seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values` under resampling of documents (Efron 1979).

    A resample of n documents counts how often each distinct value was drawn, and those counts are multinomial
    with the shares seen; drawing the counts is the same experiment, and for answers that are right or wrong
    (differences of −1, 0 and 1) it costs three numbers a draw instead of n. Where no two values differ the
    interval is a point, and where few do it is too narrow: what was not seen is never drawn.
    """
    import numpy as np

    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    n = len(values)
    random = np.random.default_rng(seed)
    at_once = max(1, _CELLS // len(distinct))
    means: list[Any] = []
    for start in range(0, draws, at_once):
        drawn = random.multinomial(n, counts / n, size=min(at_once, draws - start))
        means.append(drawn @ distinct / n)
    low, high = np.quantile(np.concatenate(means), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def difference_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean difference: the paired bootstrap, held to Tango's where few documents vary.

    Where fewer than ten documents differ from the commonest difference, each end is the farther one of the
    bootstrap's and Tango's. The bootstrap alone would then hold the truth far too seldom (where 0.3 changed
    documents are expected, 20 % of the time), and no change at all would pass for equality at any n.
    """
    gains = sum(one for one in differences if one > 0)
    losses = -sum(one for one in differences if one < 0)
    return _held_to(tango(gains, losses, len(differences)), differences, seed)


def tango(gains: float, losses: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a difference of paired shares by Tango's score method (1998).

    Statistics in Medicine 17, 891: the differences δ that the score test does not reject, which are those
    with |gains − losses − nδ| ≤ z·√(n(2q + δ(1 − δ))), where q is the likeliest share of losses given δ. It
    is no point where nothing changed (±z²/(n + z²), about 3.8/n), nor where everything did. Graded scores
    enter with the sums of their gains and losses: a difference of at most 1 varies less than one of −1, 0 or
    1 with the same mean gain and loss, so for them it is rather too wide.
    """

    def score(delta: float) -> float:
        middle = (2 * n - gains + losses) * delta - gains - losses
        root = sqrt(max(0.0, middle * middle + 8 * n * losses * delta * (1 - delta)))
        variance = n * ((root - middle) / (2 * n) + delta * (1 - delta))
        return (gains - losses - n * delta) / sqrt(max(variance, 1e-300))

    def crossing(level: float, low: float, high: float) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > level else (low, middle)
        return (low + high) / 2

    seen = (gains - losses) / n
    return crossing(_Z, -1.0, seen), crossing(-_Z, seen, 1.0)


def wilson(right: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score method (1927).

    (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n): never outside 0 to 1, and not a point at 0 or n right.
    """
    share, z2 = right / n, _Z * _Z
    middle = share + z2 / (2 * n)
    half = _Z * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))


def score_interval(scores: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean score: Wilson's where every score is 0 or 1, else bootstrap.

    Where fewer than ten documents differ from the commonest score, each end is the farther one of the two.
    """
    ends = wilson(sum(scores), len(scores))
    return ends if is_binary(scores) else _held_to(ends, scores, seed)


def _held_to(ends: tuple[float, float], values: Sequence[float], seed: int) -> tuple[float, float]:
    """The bootstrap interval of the mean, no narrower than `ends` where few documents vary."""
    low, high = bootstrap(values, seed)
    # Rounded, for equal differences of decimal scores need not be equal bit by bit.
    commonest = max(Counter(round(one, 9) for one in values).values())
    if len(values) - commonest >= FEW:
        return low, high
    return min(low, ends[0]), max(high, ends[1])


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Corrects p values for their number, step-down (Holm 1979); None stays None and is not counted.

    With p(1) ≤ … ≤ p(m): corrected p(i) = max over j ≤ i of min(1, (m − j + 1)·p(j)). Where those under 0.05
    are called real, the chance that any of them is not stays under 5 %, however the tests depend on each
    other.
    """
    order = sorted((p, at) for at, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, at) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[at] = highest
    return corrected
