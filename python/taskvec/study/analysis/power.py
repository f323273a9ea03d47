"""Statistical power: how large a true effect must be for the exact test to find it with n documents.

Every function is pure, and uses exact binomial probabilities instead of an approximation.
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from .exact_tests import LEVEL
from .phrases import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

POWER = 0.8
"""The probability with which a true effect should be found."""
SHARES = (0.05, 0.2, 0.4)
"""The shares of documents that change between right and wrong for which power is reported."""


@cache
def smallest_effect(n: int, changed: float, level: float = LEVEL) -> float | None:
    """The smallest true difference that the exact McNemar test finds with 80 % probability.

    The computation is exact (Connor 1987 gives an approximation). The number of changed documents is
    D ~ Binomial(n, changed), of which X ~ Binomial(D, (1 + difference/changed)/2) are gains. The power is the
    probability that the test rejects, summed over both.

    Args:
        n: Number of documents.
        changed: Share of documents that change between right and wrong; it bounds the difference.
        level: Significance level of the test.

    Returns:
        The difference, to a hundredth of a percentage point; None if even `changed`, with all changes in one
        direction, is found with less than 80 % probability.
    """
    if power(n, changed, changed, level) < POWER:
        return None
    low, high = 0.0, changed
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(n, changed, middle, level) >= POWER else (middle, high)
    return high


def power(n: int, changed: float, difference: float, level: float = LEVEL) -> float:
    """The probability that the exact McNemar test finds `difference`, if a share `changed` changes."""
    return sum(
        weight * _rejected(documents, least, difference / changed)
        for documents, weight, least in _splits(n, changed, level)
    )


def reach(interval: tuple[float, float], level: float) -> float:
    """About how large a true difference must be for a test at `level` to find it with 80 % probability.

    For graded scores or clusters, of which only the spread is known: (z(1 − level/2) + z(0.8))·s, with the
    standard error s derived from the 95 % interval.
    """
    normal = NormalDist()
    spread = (interval[1] - interval[0]) / (2 * normal.inv_cdf(1 - LEVEL / 2))
    return (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(POWER)) * spread


def power_note(n: int, tests: int = 1) -> str:
    """A sentence on how small an effect n documents can show.

    Args:
        n: Number of documents.
        tests: Number of tests in the family; with several, the power is that of Holm's strictest step, a test
            at the level 0.05 / tests.
    """
    found = [
        f"{100 * effect:.1f} points if {share:.0%} do"
        for share, effect in _within_reach(n, tests)
        if effect is not None
    ]
    if not found:
        return (
            f"n = {n:,} is too few: even if {SHARES[-1]:.0%} of the answers changed, all of them for the"
            f" better, {_tested(tests)} would miss it in more than one of five studies."
        )
    return (
        f"With n = {n:,}, {_tested(tests)} finds a true difference four times out of five if it is large"
        f" enough. How large depends on how many answers change between right and wrong: {listed(found)}. A"
        f" smaller difference can exist without being found."
    )


def family_note(benchmarks: Sequence[tuple[str, int]], tests: int) -> list[str]:
    """Lines on how small an effect the benchmarks of a family of tests can show.

    Args:
        benchmarks: Title and number of documents of each.
        tests: Number of tests in the family.
    """
    lines = [
        f"How large a true difference {_tested(tests)} finds four times out of five, if"
        f" {listed([f'{share:.0%}' for share in SHARES])} of the answers change between right and wrong:"
    ]
    for title, n in benchmarks:
        within = [effect for _, effect in _within_reach(n, tests)]
        if not any(within):
            lines.append(f"{title}, n = {n:,}: too few for any of these")
            continue
        sizes = ["out of reach" if effect is None else f"{100 * effect:.1f}" for effect in within]
        lines.append(f"{title}, n = {n:,}: {listed(sizes)} points")
    return lines


def _within_reach(n: int, tests: int) -> list[tuple[float, float | None]]:
    return [(share, smallest_effect(n, share, LEVEL / tests)) for share in SHARES]


def _tested(tests: int) -> str:
    if tests == 1:
        return f"one test at the {LEVEL:.0%} level"
    return (
        f"one of {tests} tests that share the {LEVEL:.0%} level (Holm at its strictest: {LEVEL / tests:.3g})"
    )


@cache
def _splits(n: int, changed: float, level: float) -> tuple[tuple[int, float, int], ...]:
    """For each number of changed documents: its probability, and the largest minority that still rejects."""
    import numpy as np

    documents = np.arange(n + 1)
    weights = _binomial(n, documents, changed)
    likely: list[tuple[int, float, int]] = []
    for of in np.flatnonzero(weights > 1e-9):
        tail = np.cumsum(_binomial(int(of), np.arange(of // 2 + 1), 0.5))
        likely.append((int(of), float(weights[of]), int(np.searchsorted(tail, level / 2, side="right")) - 1))
    return tuple(likely)


def _rejected(documents: int, least: int, lean: float) -> float:
    """P(at most `least` of `documents` changes go one way) if each is a gain with chance (1 + lean)/2."""
    import numpy as np

    losses = np.arange(least + 1)
    return float(
        sum(_binomial(documents, side, (1 - lean) / 2).sum() for side in (losses, documents - losses))
    )


def _binomial(n: int, k: Any, share: float) -> Any:
    """P(X = k) for X ~ Binomial(n, share), over an array k."""
    import numpy as np

    factorials = _log_factorials(1 << n.bit_length())
    ways = factorials[n] - factorials[k] - factorials[n - k]
    # For a share of 0 or 1, 0·log 0 must be 0, and all other terms must vanish.
    tiny = 1e-300
    return np.exp(ways + k * np.log(max(share, tiny)) + (n - k) * np.log(max(1 - share, tiny)))


@cache
def _log_factorials(up_to: int) -> Any:
    import numpy as np

    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, up_to + 1)))])
