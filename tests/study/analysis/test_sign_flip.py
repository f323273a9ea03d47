"""The sign-flip test against enumeration, against scipy, against McNemar's test and by its level."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from taskvec.study.analysis.design import Design
from taskvec.study.analysis.exact_tests import FLIPS, mcnemar, sign_flip
from taskvec.study.analysis.statistics import compare


def by_enumeration(values: list[float]) -> float:
    """Every choice of signs, in fractions of whole numbers."""
    exact = [Fraction(one).limit_denominator(1000) for one in values]
    seen = abs(sum(exact))
    signs = list(itertools.product((1, -1), repeat=len(exact)))
    return sum(abs(sum(s * one for s, one in zip(of, exact, strict=True))) >= seen for of in signs) / len(
        signs
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.25, 0.1, 1 / 3]), max_size=10))
def test_it_is_the_share_of_signs_that_reach_the_sum(values: list[float]) -> None:
    assert sign_flip(values) == pytest.approx(by_enumeration(values), rel=1e-9)


@pytest.mark.parametrize("n", [3, 8, 12])
def test_it_is_scipys_paired_permutation_test(n: int) -> None:
    random = np.random.default_rng(n)
    mine, other = random.random(n), random.random(n) - 0.2
    oracle = stats.permutation_test(
        (mine, other),
        lambda x, y: np.mean(x - y),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="two-sided",
    )
    # Scores of no grid at all: by enumeration.
    assert sign_flip((mine - other).tolist()) == pytest.approx(oracle.pvalue, rel=1e-9)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 20))
def test_of_right_and_wrong_it_is_mcnemars_test(gains: int, losses: int, same: int) -> None:
    values = [1.0] * gains + [-1.0] * losses + [0.0] * same
    assert sign_flip(values) == pytest.approx(mcnemar(gains, losses), rel=1e-9)


def test_by_hand() -> None:
    assert sign_flip([]) == sign_flip([0.0, 0.0]) == sign_flip([0.5, -0.5]) == 1.0
    assert sign_flip([2.0, 1.0]) == 0.5
    assert sign_flip([0.3] * 5) == 2 / 32
    # Sums of 3, 1, −1 and −3 tenths: equal on paper, not bit by bit.
    assert sign_flip([0.1, 0.2]) == 0.5
    assert sign_flip([0.1 + 0.2, -0.3, 0.3]) == 1.0
    # The same without a grid: ten of the sixteen choices reach 1 + 7 + 2 − 3.
    root = math.sqrt(3)
    assert sign_flip([0.1 * root, 0.7 * root, 0.2 * root, -0.3 * root]) == 10 / 16


def test_a_fine_grid_of_many_documents_is_exact() -> None:
    """Against the normal distribution, which is near for 1,000 differences in steps of a hundredth."""
    random = np.random.default_rng(2)
    values = (random.random(1000).round(2) - random.random(1000).round(2) + 0.03).round(2)
    z = abs(values.sum()) / math.sqrt((values**2).sum())
    assert sign_flip(values.tolist()) == pytest.approx(2 * stats.norm.sf(z), rel=0.03)


def test_values_of_no_grid_are_drawn_with_a_fixed_seed() -> None:
    random = np.random.default_rng(1)
    values = random.normal(0.05, 0.3, 400).tolist()
    z = abs(sum(values)) / math.sqrt(sum(one * one for one in values))
    p = sign_flip(values)
    assert p == sign_flip(values)
    expected = 2 * stats.norm.sf(z)
    # 20,000 draws: four standard errors.
    assert p == pytest.approx(expected, abs=4 * math.sqrt(expected / FLIPS))
    # Never zero, though nothing that was drawn reaches it.
    assert sign_flip(random.normal(3, 0.3, 400).tolist()) == 1 / (FLIPS + 1)


def made_clusters(random: np.random.Generator, clusters: int) -> tuple[list[dict[str, object]], np.ndarray]:
    """Rows of clusters of 1 to 8 documents whose differences lean one way together, either way equally."""
    sizes = random.integers(1, 9, clusters)
    lean = random.choice([-1, 1], clusters)
    rows = [{"task": "all", "cluster": f"seed {at}"} for at, size in enumerate(sizes) for _ in range(size)]
    leans = np.repeat(lean, sizes)
    changed = random.random(len(rows)) < 0.5
    return rows, np.where(changed, leans, 0)


def test_its_level_holds_with_clusters_where_mcnemars_does_not() -> None:
    """1,000 studies in which neither arm is better: at 5 % the exact test rejects at most so often."""
    random = np.random.default_rng(0)
    ours = naive = 0
    for _ in range(1000):
        rows, change = made_clusters(random, 40)
        ours += sign_flip(Design.of(rows).sums(change.tolist())) <= 0.05
        gains, losses = int((change > 0).sum()), int((change < 0).sum())
        naive += stats.binomtest(gains, max(1, gains + losses)).pvalue <= 0.05
    # Three standard errors of a share of 0.05 are 0.02.
    assert ours / 1000 < 0.07
    assert ours / 1000 > 0.02
    assert naive / 1000 > 0.2


def test_whole_clusters_flip_together() -> None:
    """Against every choice of one sign for each cluster."""
    clusters = ["a", "a", "a", "b", "b", None, "c", None]
    change = [1, 1, 0, 1, -1, 1, -1, 1]
    rows = [{"task": "all", "cluster": one} for one in clusters]
    found = compare([float(one > 0) for one in change], [float(one < 0) for one in change], Design.of(rows))
    sums = [2, 0, 1, -1, 1]
    signs = list(itertools.product((1, -1), repeat=5))
    share = sum(abs(np.dot(of, sums)) >= 3 for of in signs) / len(signs)
    assert (found.test, found.p) == ("sign-flip", share)
    assert (found.wrong_to_right, found.right_to_wrong, found.difference) == (5, 2, 3 / 8)
