"""Exact tests of paired answers, and the correction for multiple tests. Every function is pure."""

from __future__ import annotations

from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVEL = 0.05
"""The significance level of tests after correction, and one minus the coverage of every interval."""
FLIPS = 20_000
"""The number of random choices of signs, if a sign-flip test cannot be computed exactly."""

_GRID = 10_000  # The finest grid to try for scores, in steps per unit.
_WORK = 1 << 29  # The most additions to compute a distribution on a grid: about a second.
_ENUMERATED = 16  # Up to so many differences, every choice of signs is tried.


def mcnemar(gains: int, losses: int) -> float:
    """The exact McNemar test, two-sided: could a fair coin have split the changed documents like this?

    With d = gains + losses and X ~ Binomial(d, 1/2), p = min(1, 2·P(X ≤ min(gains, losses))). Only documents
    on which the two arms differ count (McNemar 1947); with the binomial instead of his χ² the test is exact
    for any d. It is computed in integers and rounded once, at the end.
    """
    changed, fewer = gains + losses, min(gains, losses)
    tail = way = 1
    for k in range(fewer):
        way = way * (changed - k) // (k + 1)
        tail += way
    return min(1.0, 2 * tail / 2**changed)


def sign_flip(differences: Sequence[float]) -> float:
    """The p value of the sign-flip test of a mean difference, two-sided (Fisher 1935, §21; Pitman 1937).

    If neither arm is better, each difference is as likely to have the opposite sign. p is the share of all
    2ᵐ choices of signs for which |Σ ±d| is at least the observed |Σ d|. For differences of −1, 0 and 1 this
    is McNemar's exact test.

    - If the differences are on a grid (right or wrong, sums of these, decimal scores), p is exact: the
      distribution of Σ ±d is computed by adding one difference at a time.
    - If up to 16 differences are not zero, p is exact too: all choices of signs are tried.
    - Otherwise 20,000 choices of signs are drawn with a fixed seed, and p = (r + 1)/(20,000 + 1), where r is
      the number of those that reach the observed sum. The 1 counts the observed signs themselves, which keeps
      the level (Phipson and Smyth 2010).

    Args:
        differences: One for each independent unit: a document, or the sum over the documents of a cluster,
            whose signs flip together.
    """
    moved = [one for one in differences if abs(one) > 1e-9]
    steps = _on_grid(moved)
    if steps is not None and sum(map(abs, steps)) * len(steps) <= _WORK:
        return _by_convolution(steps)
    return _by_signs(moved)


def _on_grid(values: Sequence[float]) -> list[int] | None:
    """The values as integer multiples of one number; None if no grid of up to 10,000 steps fits."""
    fractions = {one: Fraction(one).limit_denominator(_GRID) for one in set(values)}
    if any(abs(float(of) - one) > 1e-9 for one, of in fractions.items()):
        return None
    unit = lcm(*(of.denominator for of in fractions.values()))
    if unit > _GRID:
        return None
    whole = [round(one * unit) for one in values]
    common = gcd(*whole) or 1
    return [one // common for one in whole]


def _by_convolution(steps: Sequence[int]) -> float:
    import numpy as np

    seen, most = abs(sum(steps)), sum(map(abs, steps))
    if seen == 0:
        return 1.0
    # likely[k] is P(Σ ±d = k − s), where s is the sum of the sizes so far.
    likely = np.ones(1)
    for size in map(abs, steps):
        wider = np.zeros(len(likely) + 2 * size)
        wider[: len(likely)] += likely / 2
        wider[2 * size :] += likely / 2
        likely = wider
    return min(1.0, 2 * float(likely[most + seen :].sum()))


def _by_signs(values: Sequence[float]) -> float:
    """The p value from the sums of all choices of signs, or of random ones if there are too many."""
    import numpy as np

    sizes = np.asarray(values, dtype=np.float64)
    # Sums that are mathematically equal may differ by rounding.
    seen = abs(sizes.sum()) - 1e-9 * np.abs(sizes).sum()
    if len(values) <= _ENUMERATED:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums + size, sums - size])
        return int(np.count_nonzero(np.abs(sums) >= seen)) / len(sums)
    random = np.random.default_rng(0)
    reached = 0
    for _ in range(0, FLIPS, 1000):
        signs = random.integers(0, 2, size=(1000, len(values)), dtype=np.int8) * 2.0 - 1.0
        reached += int((np.abs(signs @ sizes) >= seen).sum())
    return (reached + 1) / (FLIPS + 1)


def holm(ps: Sequence[float | None], tests: int | None = None) -> list[float | None]:
    """Corrects p values by Holm's step-down method (1979); None stays None and does not count.

    With p(1) ≤ … ≤ p(m): corrected p(i) = max over j ≤ i of min(1, (m − j + 1)·p(j)). If those below 0.05 are
    called real effects, the probability that any of them is not stays below 5 %, however the tests depend on
    each other.

    Args:
        ps: The p values.
        tests: m, if some tests of the family have no p value yet. Each of those counts as p = 1, so a test
            that rejects now still rejects when they have one. By default the number of p values.
    """
    order = sorted((p, at) for at, p in enumerate(ps) if p is not None)
    of = max(tests or 0, len(order))
    corrected: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, at) in enumerate(order):
        highest = max(highest, min(1.0, (of - rank) * p))
        corrected[at] = highest
    return corrected
