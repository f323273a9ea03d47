"""95 % intervals of means, of differences and of ratios. Every function is pure.

Scores are shares between 0 and 1, so is a difference of two; a point is 0.01.
"""

from __future__ import annotations

from collections import Counter
from math import sqrt
from typing import TYPE_CHECKING, Any

from .design import Design
from .exact_tests import LEVEL

if TYPE_CHECKING:
    from collections.abc import Sequence

DRAWS = 10_000
"""Bootstrap samples behind an interval: from seed to seed its ends move by about a hundredth of its width."""
LENGTH_DRAWS = 2_000
"""Bootstrap samples behind an interval of lengths: its ends move by about two hundredths of its width."""
FEW = 10
"""Units that must differ from the commonest value for the bootstrap to be trusted by itself."""

_Z = 1.959963984540054  # The normal distribution's 97.5 % quantile.
_CELLS = 1 << 22  # Numbers drawn at a time: 32 MiB.


def bootstrap(
    values: Sequence[float], design: Design | None = None, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values` under resampling of documents (Efron 1979).

    Where no two values differ the interval is a point, and where few do it is too narrow: what was not seen
    is never drawn.

    Args:
        values: One for each document.
        design: How the documents hang together; by default each is by itself.
        seed: Of the resampling.
        draws: Resamples.
    """
    return _middle(resampled([values], design or Design.independent(len(values)), seed, draws)[:, 0])


def resampled(columns: Sequence[Sequence[float]], design: Design, seed: int = 0, draws: int = DRAWS) -> Any:
    """Means of each column under resampling of units within their strata.

    Whole clusters are drawn, with replacement, as many in each stratum as it has (Davison and Hinkley 1997,
    §3.8); a stratum's mean is the sum of the drawn documents' values over how many were drawn, and the strata
    keep their shares of the documents. Without clusters and subtasks this is the plain bootstrap.

    Args:
        columns: k quantities, each with one value for each document. All are resampled together.
        design: How the documents hang together.
        seed: Of the resampling.
        draws: Resamples.

    Returns:
        An array of shape [draws, k].
    """
    import numpy as np

    random = np.random.default_rng(seed)
    # By unit: how many documents, and each quantity's sum.
    units = np.column_stack([design.sizes, *(design.sums(column) for column in columns)])
    strata = np.asarray(design.strata)
    means = np.zeros((draws, len(columns)))
    for stratum in range(strata.max() + 1):
        rows = units[strata == stratum]
        drawn = _drawn(rows, random, draws)
        means += rows[:, 0].sum() / len(design.units) * drawn[:, 1:] / drawn[:, :1]
    return means


def _drawn(rows: Any, random: Any, draws: int) -> Any:
    """Sums over resamples of the rows.

    A resample counts how often each distinct row was drawn, and those counts are multinomial with the shares
    seen; drawing the counts is the same experiment, and for answers that are right or wrong (differences of
    −1, 0 and 1) it costs three numbers a draw instead of n. Rows that are nearly all distinct are drawn one
    by one, which is then the cheaper way.
    """
    import numpy as np

    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    n = len(rows)
    few = 8 * len(distinct) <= n or len(distinct) <= 32
    at_once = max(1, _CELLS // (len(distinct) if few else n))
    sums: list[Any] = []
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        if few:
            sums.append(random.multinomial(n, counts / n, size=size) @ distinct)
        else:
            chosen = random.integers(0, n, size=(size, n), dtype=np.int32)
            sums.append(np.stack([column[chosen].sum(axis=1) for column in rows.T], axis=1))
    return np.concatenate(sums)


def difference_interval(
    differences: Sequence[float], design: Design | None = None, seed: int = 0, largest: int = 1
) -> tuple[float, float]:
    """The 95 % interval of a mean difference: the paired bootstrap, held to Tango's where few units vary.

    Where fewer than ten units differ from the commonest difference, each end is the farther one of the
    bootstrap's and Tango's. The bootstrap alone would then hold the truth far too seldom (where 0.3 changed
    documents are expected, 20 % of the time), and no change at all would pass for equality at any n.

    With clusters Tango's interval is taken for the effective number of units instead of the documents, with
    the gains and losses of clusters as shares of all documents: as if the documents of a cluster told one
    thing together. Strata are left out of it, which can only make it wider.

    Args:
        differences: One for each document.
        design: How the documents hang together; by default each is by itself.
        seed: Of the bootstrap.
        largest: What a difference can be at most: 1, or 2 for a difference of differences.
    """
    design = design or Design.independent(len(differences))
    sums = design.sums(differences)
    per = design.effective / (largest * len(differences))
    gains, losses = per * sum(one for one in sums if one > 0), -per * sum(one for one in sums if one < 0)
    low, high = tango(gains, losses, design.effective)
    return _held_to((largest * low, largest * high), differences, design, seed)


def tango(gains: float, losses: float, n: float) -> tuple[float, float]:
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


def wilson(right: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score method (1927).

    (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n): never outside 0 to 1, and not a point at 0 or n right.
    """
    share, z2 = right / n, _Z * _Z
    middle = share + z2 / (2 * n)
    half = _Z * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))


def score_interval(
    scores: Sequence[float], design: Design | None = None, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the mean score: Wilson's for right and wrong by themselves, else bootstrap.

    Where fewer than ten units differ from the commonest score, each end is the farther one of the two;
    Wilson's is then taken for the effective number of units.
    """
    design = design or Design.independent(len(scores))
    ends = wilson(sum(scores) / len(scores) * design.effective, design.effective)
    plain = is_binary(scores) and not design.clustered
    return ends if plain else _held_to(ends, scores, design, seed)


def ratio_interval(
    parts: Sequence[float], wholes: Sequence[float], design: Design, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % interval of mean(parts) / mean(wholes), both differences of scores on the same documents.

    A ratio r is in the interval if 0 is in the bootstrap interval of mean(parts − r·wholes), both from the
    same resamples: Fieller's way (1954), which also holds without his normal distribution (von Luxburg and
    Franz 2009). Where few units of either vary, the interval is also no narrower than what the two means'
    own intervals allow, see `difference_interval`.

    Returns:
        The interval; None where the one of mean(wholes) holds zero, as then no ratio is ruled out.
    """
    bounds = difference_interval(wholes, design, seed)
    if bounds[0] <= 0 <= bounds[1]:
        return None
    part, whole = sum(parts), sum(wholes)
    drawn = resampled([parts, wholes], design, seed)
    # With the sign of the whole, P(part > r·whole) falls as r grows.
    drawn = drawn if whole > 0 else -drawn
    low = _ratio_at(drawn, 1 - LEVEL / 2, part / whole, -1)
    high = _ratio_at(drawn, LEVEL / 2, part / whole, 1)
    if not (_few_vary(parts, design) or _few_vary(wholes, design)):
        return low, high
    held = [end / bound for end in difference_interval(parts, design, seed) for bound in bounds]
    return min(low, *held), max(high, *held)


def _ratio_at(drawn: Any, share: float, start: float, way: int) -> float:
    """The ratio on one side of `start` from which on P(part > r·whole) has passed `share`."""
    import numpy as np

    def passed(ratio: float) -> bool:
        above = int(np.count_nonzero(drawn[:, 0] > ratio * drawn[:, 1])) / len(drawn)
        return above < share if way > 0 else above > share

    step = 1.0
    while not passed(start + way * step) and step < 1e6:
        step *= 2
    near, far = 0.0, step
    for _ in range(50):
        middle = (near + far) / 2
        near, far = (near, middle) if passed(start + way * middle) else (middle, far)
    return start + way * far


def is_binary(scores: Sequence[float]) -> bool:
    """Whether every score is 0 or 1."""
    return all(one in (0, 1) for one in scores)


def _held_to(
    ends: tuple[float, float], values: Sequence[float], design: Design, seed: int
) -> tuple[float, float]:
    """The bootstrap interval of the mean, no narrower than `ends` where few units vary."""
    low, high = bootstrap(values, design, seed)
    return (min(low, ends[0]), max(high, ends[1])) if _few_vary(values, design) else (low, high)


def _few_vary(values: Sequence[float], design: Design) -> bool:
    """Whether too few units differ from the commonest mean of a unit for the bootstrap to be trusted."""
    means = [one / size for one, size in zip(design.sums(values), design.sizes, strict=True)]
    # Rounded, for equal differences of decimal scores need not be equal bit by bit.
    commonest = max(Counter(round(one, 9) for one in means).values())
    return len(means) - commonest < FEW


def _middle(means: Any) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)
