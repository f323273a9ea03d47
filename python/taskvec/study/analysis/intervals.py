"""95 % intervals of means, differences and ratios. Every function is pure.

Scores are shares from 0 to 1, and so are differences; a percentage point is 0.01.
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
"""Bootstrap samples for an interval; with another seed its ends move by about 1 % of its width."""
LENGTH_DRAWS = 2_000
"""Bootstrap samples for an interval of lengths; with another seed its ends move by about 2 % of its width."""
FEW = 10
"""If fewer units differ from the most common value, the bootstrap alone is not reliable."""

_Z = 1.959963984540054  # The normal distribution's 97.5 % quantile.
_CELLS = 1 << 22  # Numbers drawn at a time: 32 MiB.


def bootstrap(
    values: Sequence[float], design: Design | None = None, seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values` under resampling of documents (Efron 1979).

    If all values are equal the interval is a point, and if few differ it is too narrow, because values that
    were not observed are never drawn.

    Args:
        values: One value for each document.
        design: The units and strata of the documents; by default the documents are independent.
        seed: Seed of the resampling.
        draws: Number of resamples.
    """
    return _middle(resampled([values], design or Design.independent(len(values)), seed, draws)[:, 0])


def resampled(columns: Sequence[Sequence[float]], design: Design, seed: int = 0, draws: int = DRAWS) -> Any:
    """Means of each column under resampling of units within their strata.

    In each stratum, as many whole clusters are drawn with replacement as it has (Davison and Hinkley 1997,
    §3.8). The mean of a stratum is the sum over the drawn documents divided by their number, and strata are
    weighted by their shares of all documents. Without clusters and subtasks this is the ordinary bootstrap.

    Args:
        columns: k quantities, each with one value for each document; all are resampled together.
        design: The units and strata of the documents.
        seed: Seed of the resampling.
        draws: Number of resamples.

    Returns:
        An array of float64 of shape (draws, k).
    """
    import numpy as np

    random = np.random.default_rng(seed)
    # One row for each unit: its number of documents, and the sum of each quantity.
    units = np.column_stack([design.sizes, *(design.sums(column) for column in columns)])
    strata = np.asarray(design.strata)
    means = np.zeros((draws, len(columns)))
    for stratum in range(strata.max() + 1):
        rows = units[strata == stratum]
        drawn = _drawn(rows, random, draws)
        means += rows[:, 0].sum() / len(design.units) * drawn[:, 1:] / drawn[:, :1]
    return means


def _drawn(rows: Any, random: Any, draws: int) -> Any:
    """The sum over the rows of each resample, as an array of shape (draws, columns).

    The number of times that each distinct row is drawn follows a multinomial distribution, so it is enough to
    draw these counts. For answers that are right or wrong (differences of −1, 0 and 1) a draw then takes
    three numbers instead of n. If nearly all rows are distinct, it is cheaper to draw them one by one.
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
    """The 95 % interval of a mean difference: the paired bootstrap, widened to Tango's if few units vary.

    If fewer than ten units differ from the most common difference, each end is the outer one of the
    bootstrap's and Tango's. The bootstrap alone would then contain the true value far too rarely (20 % of the
    time if 0.3 changed documents are expected), and without any change its interval would be zero for any n.

    With clusters, Tango's interval is computed for the effective number of units instead of documents, from
    the gains and losses of clusters as shares of all documents. It ignores strata, which can only widen it.

    Args:
        differences: One difference for each document.
        design: The units and strata of the documents; by default the documents are independent.
        seed: Seed of the bootstrap.
        largest: The largest possible difference: 1, or 2 for a difference of differences.
    """
    design = design or Design.independent(len(differences))
    sums = design.sums(differences)
    per = design.effective / (largest * len(differences))
    gains, losses = per * sum(one for one in sums if one > 0), -per * sum(one for one in sums if one < 0)
    low, high = tango(gains, losses, design.effective)
    return _held_to((largest * low, largest * high), differences, design, seed)


def tango(gains: float, losses: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a difference of paired shares by Tango's score method (1998).

    Statistics in Medicine 17, 891. The interval holds the differences δ that the score test does not reject:
    |gains − losses − nδ| ≤ z·√(n(2q + δ(1 − δ))), where q is the maximum likelihood estimate of the share of
    losses given δ. It has a width even if nothing changed (±z²/(n + z²), about 3.8/n) or everything did.
    Graded scores enter with the sums of their gains and losses. They vary less than differences of −1, 0 or 1
    with the same mean gain and loss, so the interval is rather too wide for them.
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

    (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n). It is always within 0 to 1, and has a width even if no
    answer or every answer is right.
    """
    share, z2 = right / n, _Z * _Z
    middle = share + z2 / (2 * n)
    half = _Z * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n))


def score_interval(
    scores: Sequence[float], design: Design | None = None, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the mean score: Wilson's for independent scores of 0 or 1, else the bootstrap.

    If fewer than ten units differ from the most common score, each end is the outer one of the bootstrap's
    and Wilson's, which is then computed for the effective number of units.
    """
    design = design or Design.independent(len(scores))
    ends = wilson(sum(scores) / len(scores) * design.effective, design.effective)
    plain = is_binary(scores) and not design.clustered
    return ends if plain else _held_to(ends, scores, design, seed)


def ratio_interval(
    parts: Sequence[float], wholes: Sequence[float], design: Design, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % interval of mean(parts) / mean(wholes), both differences of scores on the same documents.

    A ratio r is in the interval if 0 is in the bootstrap interval of mean(parts − r·wholes), with the same
    resamples for both. This is Fieller's method (1954), which does not need a normal distribution (von
    Luxburg and Franz 2009). If few units of either vary, the interval is widened to what the intervals of the
    two means allow, see `difference_interval`.

    Returns:
        The interval; None if that of mean(wholes) contains zero, since then no ratio can be excluded.
    """
    bounds = difference_interval(wholes, design, seed)
    if bounds[0] <= 0 <= bounds[1]:
        return None
    part, whole = sum(parts), sum(wholes)
    drawn = resampled([parts, wholes], design, seed)
    # With the whole made positive, P(part > r·whole) falls as r grows.
    drawn = drawn if whole > 0 else -drawn
    low = _ratio_at(drawn, 1 - LEVEL / 2, part / whole, -1)
    high = _ratio_at(drawn, LEVEL / 2, part / whole, 1)
    if not (_few_vary(parts, design) or _few_vary(wholes, design)):
        return low, high
    held = [end / bound for end in difference_interval(parts, design, seed) for bound in bounds]
    return min(low, *held), max(high, *held)


def _ratio_at(drawn: Any, share: float, start: float, way: int) -> float:
    """The ratio on one side of `start` at which P(part > r·whole) crosses `share`; found by bisection."""
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
    """The bootstrap interval of the mean, widened to `ends` if few units vary."""
    low, high = bootstrap(values, design, seed)
    return (min(low, ends[0]), max(high, ends[1])) if _few_vary(values, design) else (low, high)


def _few_vary(values: Sequence[float], design: Design) -> bool:
    """Whether too few units differ from the most common unit mean for the bootstrap to be reliable."""
    means = [one / size for one, size in zip(design.sums(values), design.sizes, strict=True)]
    # Rounded, since equal differences of decimal scores may differ in their last bits.
    commonest = max(Counter(round(one, 9) for one in means).values())
    return len(means) - commonest < FEW


def _middle(means: Any) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)
