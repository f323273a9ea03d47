"""Resampling within subtasks and by cluster, and intervals of ratios: by simulation and by other formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from taskvec.study.analysis import intervals
from taskvec.study.analysis.design import Design


def rows_of(tasks: list[str], clusters: list[str | None] | None = None) -> list[dict[str, str | None]]:
    known = clusters or [None] * len(tasks)
    return [{"task": task, "cluster": cluster} for task, cluster in zip(tasks, known, strict=True)]


def test_a_document_without_a_cluster_is_its_own_unit() -> None:
    design = Design.of(rows_of(["a"] * 5, ["x", None, "x", "1", None]))
    assert (design.units, design.strata) == ((0, 1, 0, 2, 3), (0, 0, 0, 0))
    assert design.clustered
    assert design.sizes == [2, 1, 1, 1]
    assert design.sums([1.0, 2.0, 3.0, 4.0, 5.0]) == [4.0, 2.0, 4.0, 5.0]
    assert design.effective == pytest.approx(25 / 7)  # Kish: (Σm)² / Σm².
    assert Design.of(rows_of(["a"] * 5)) == Design.independent(5)
    assert Design.independent(5).effective == 5


def test_subtasks_are_strata_where_they_are_large_and_hold_their_clusters() -> None:
    assert set(Design.of(rows_of(["a"] * 30 + ["b"] * 30)).strata) == {0, 1}
    assert set(Design.of(rows_of(["a"] * 30 + ["b"] * 29)).strata) == {0}
    within = [f"{at // 2}" for at in range(120)]
    assert set(Design.of(rows_of(["a"] * 60 + ["b"] * 60, within)).strata) == {0, 1}
    # 40 clusters of one subtask, and 40 that span both.
    across = [f"{at % 80}" for at in range(120)]
    assert set(Design.of(rows_of(["a"] * 80 + ["b"] * 40, across)).strata) == {0}


def test_subtasks_are_resampled_by_themselves() -> None:
    """Subtasks that differ much between them and little within: the stratified standard error, to a few %."""
    random = np.random.default_rng(0)
    values = np.concatenate([random.binomial(1, p, n) for p, n in ((0.05, 200), (0.5, 100), (0.95, 300))])
    tasks = ["easy"] * 200 + ["middling"] * 100 + ["hard"] * 300
    low, high = intervals.bootstrap(values.tolist(), Design.of(rows_of(tasks)))
    parts = np.split(values, [200, 300])
    error = math.sqrt(sum(len(part) * part.var() for part in parts)) / 600
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.003
    )
    plain = intervals.bootstrap(values.tolist())
    assert high - low < 0.75 * (plain[1] - plain[0])


def test_clusters_are_resampled_whole() -> None:
    """Against clusters really drawn with replacement, the mean taken over the documents drawn."""
    random = np.random.default_rng(3)
    sizes = random.integers(1, 9, 120)
    means = random.normal(0.7, 0.2, 120)
    values = [random.normal(mean, 0.2, size) for mean, size in zip(means, sizes, strict=True)]
    clusters = [str(at) for at, size in enumerate(sizes) for _ in range(size)]
    found = intervals.bootstrap(
        np.concatenate(values).tolist(), Design.of(rows_of(["all"] * len(clusters), clusters))
    )
    sums = np.array([one.sum() for one in values])
    drawn = random.integers(0, 120, (10_000, 120))
    oracle = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    assert found == pytest.approx(oracle, abs=0.004)


def study(random: np.random.Generator, clusters: int) -> tuple[list[dict[str, str | None]], list[float]]:
    """Differences of −1, 0 and 1 with a mean of 0.1 that go together within clusters of 1 to 8 documents."""
    sizes = random.integers(1, 9, clusters)
    share = random.beta(0.5, 0.5, clusters)
    gain = np.repeat(0.45 * share, sizes)
    loss = np.repeat(0.25 * (1 - share), sizes)
    chance = random.random(len(gain))
    values = (chance < gain).astype(float) - (chance > 1 - loss)
    names = [str(at) for at, size in enumerate(sizes) for _ in range(size)]
    return rows_of(["all"] * len(names), names), values.tolist()


def test_intervals_hold_the_truth_with_clusters() -> None:
    """400 studies of 80 clusters; as if the documents were independent it is held far less often."""
    random = np.random.default_rng(1)
    held = naive = 0
    for _ in range(400):
        rows, values = study(random, 80)
        low, high = intervals.bootstrap(values, Design.of(rows), draws=1000)
        held += low <= 0.1 <= high
        low, high = intervals.bootstrap(values, draws=1000)
        naive += low <= 0.1 <= high
    assert 0.92 <= held / 400 <= 0.98
    assert naive / 400 < held / 400 - 0.02


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("expected", [0.3, 1, 3])
def test_intervals_of_few_changed_clusters_hold_the_truth(size: int, expected: float) -> None:
    """Clusters that change altogether, which is the worst case: 60 of them, `expected` on average."""
    random = np.random.default_rng(5)
    share = expected / 60
    design = Design.of(rows_of(["all"] * 60 * size, [str(at // size) for at in range(60 * size)]))
    held = 0
    for _ in range(300):
        change = random.choice([1.0, -1.0, 0.0], 60, p=[0.8 * share, 0.2 * share, 1 - share])
        low, high = intervals.difference_interval(np.repeat(change, size).tolist(), design)
        held += low <= 0.6 * share <= high
    assert held / 300 > 0.93


def test_no_change_of_clusters_leaves_what_so_many_clusters_can_miss() -> None:
    design = Design.of(rows_of(["all"] * 400, [str(at // 8) for at in range(400)]))
    z2 = stats.norm.ppf(0.975) ** 2
    assert intervals.difference_interval([0.0] * 400, design) == pytest.approx(
        (-z2 / (50 + z2), z2 / (50 + z2))
    )
    # A score's interval knows of clusters as well: Wilson's for 50.
    oracle = stats.binomtest(50, 50).proportion_ci(0.95, method="wilson")
    assert intervals.score_interval([1.0] * 400, design) == pytest.approx((oracle.low, oracle.high))


def test_a_difference_of_differences_can_be_twice_as_large() -> None:
    low, high = intervals.difference_interval([2.0] * 8, largest=2)
    assert low < 1.3
    assert high == 2.0
    z2 = stats.norm.ppf(0.975) ** 2
    assert intervals.difference_interval([0.0] * 40, largest=2)[1] == pytest.approx(2 * z2 / (40 + z2))


def fieller(parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float]:
    """Fieller's interval: the ratios r for which mean(parts − r·wholes) is within 1.96 standard errors."""
    n = len(parts)
    (a, c), (_, b) = np.cov(parts, wholes) / n
    x, y = parts.mean(), wholes.mean()
    z2 = 1.959964**2
    roots = np.roots([y * y - z2 * b, -2 * (x * y - z2 * c), x * x - z2 * a])
    return float(min(roots)), float(max(roots))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("gain", "part"), [(0.4, 0.1), (0.12, 0.05), (0.4, 0.0), (0.3, 0.3)])
def test_ratio_interval_is_near_fiellers(sign: int, gain: float, part: float) -> None:
    random = np.random.default_rng(7)
    wholes = sign * random.choice([1.0, -1.0, 0.0], 400, p=[0.15 + gain, 0.15, 0.7 - gain])
    parts = sign * random.choice([1.0, -1.0, 0.0], 400, p=[0.1 + part, 0.1, 0.8 - part])
    found = intervals.ratio_interval(parts.tolist(), wholes.tolist(), Design.independent(400))
    assert found is not None
    low, high = fieller(parts, wholes)
    assert found == pytest.approx((low, high), abs=0.06 * (high - low) + 0.01)


def test_no_ratio_to_what_is_not_clearly_different_from_zero() -> None:
    wholes = [1.0] * 5 + [-1.0] * 4 + [0.0] * 91
    assert intervals.ratio_interval([0.0] * 100, wholes, Design.independent(100)) is None


def test_a_ratio_of_nothing_seen_is_no_point() -> None:
    """Random vectors that changed none of 100 answers may still change some: as far as Tango's ends."""
    wholes = [1.0] * 50 + [0.0] * 50
    found = intervals.ratio_interval([0.0] * 100, wholes, Design.independent(100))
    assert found is not None
    assert found[0] < -0.07
    assert 0.07 < found[1] < 0.1


def test_ratio_intervals_hold_the_truth() -> None:
    """200 studies of 250 documents in which random vectors make a quarter of the gain."""
    random = np.random.default_rng(11)
    held = 0
    for _ in range(200):
        wholes = random.choice([1.0, -1.0, 0.0], 250, p=[0.3, 0.1, 0.6])
        # Documents that v changes are changed more often by the others, too.
        parts = np.where(
            random.random(250) < 0.25,
            wholes,
            random.choice([1.0, -1.0, 0.0], 250, p=[0.1, 0.1, 0.8]) * (wholes == 0),
        )
        found = intervals.ratio_interval(parts.tolist(), wholes.tolist(), Design.independent(250))
        held += found is not None and found[0] <= 0.25 <= found[1]
    assert 0.91 <= held / 200 <= 0.985
