"""The statistics against scipy, against numpy and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from taskvec.study.analysis import exact_tests, intervals, power
from taskvec.study.analysis import statistics as ours

counts = st.integers(0, 400)


@given(counts, counts)
def test_mcnemar_is_the_binomial_test_of_the_changed_documents(gains: int, losses: int) -> None:
    p = exact_tests.mcnemar(gains, losses)
    oracle = stats.binomtest(gains, gains + losses).pvalue if gains + losses else 1.0
    assert p == pytest.approx(oracle, rel=1e-9)
    assert p == exact_tests.mcnemar(losses, gains)


@pytest.mark.parametrize(
    ("gains", "losses", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (1, 9, 22 / 1024)]
)
def test_mcnemar_by_hand(gains: int, losses: int, p: float) -> None:
    assert exact_tests.mcnemar(gains, losses) == p


def test_mcnemar_of_very_many_documents() -> None:
    assert exact_tests.mcnemar(3000, 0) == 0.0  # 2**-2999 is below every float.
    assert exact_tests.mcnemar(5100, 4900) == pytest.approx(stats.binomtest(5100, 10_000).pvalue, rel=1e-9)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(of: tuple[int, int]) -> None:
    right, n = of
    oracle = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert intervals.wilson(right, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def likeliest(gains: int, losses: int, n: int, delta: float) -> float:
    """Tango's score statistic with the share of losses found by a search for the greatest likelihood."""

    def unlikely(share: float) -> float:
        shares = [share + delta, share, 1 - 2 * share - delta]
        return -sum(stats_of * math.log(p) for stats_of, p in zip(seen, shares, strict=True) if stats_of)

    seen = [gains, losses, n - gains - losses]
    low, high = max(0.0, -delta), (1 - delta) / 2
    share = float(
        optimize.minimize_scalar(
            unlikely,
            bounds=(low + 1e-13, high - 1e-13),
            method="bounded",
            options={"xatol": 1e-13},
        ).x
    )
    return (gains - losses - n * delta) / math.sqrt(n * (2 * share + delta - delta * delta))


@pytest.mark.parametrize(
    ("gains", "losses", "n"),
    [(40, 20, 160), (0, 1, 44), (1, 0, 500), (3, 2, 60), (0, 9, 9), (7, 0, 12), (120, 30, 500)],
)
def test_tango_is_where_the_score_test_turns(gains: int, losses: int, n: int) -> None:
    low, high = intervals.tango(gains, losses, n)
    assert intervals.tango(losses, gains, n) == pytest.approx((-high, -low), abs=1e-12)
    z = stats.norm.ppf(0.975)
    if low > -1:
        assert likeliest(gains, losses, n, low) == pytest.approx(z, abs=1e-3)
    if high < 1 and low > -1:
        assert likeliest(gains, losses, n, high) == pytest.approx(-z, abs=1e-3)


@pytest.mark.parametrize("n", [1, 10, 500])
def test_no_change_leaves_what_n_documents_can_miss(n: int) -> None:
    low, high = intervals.difference_interval([0.0] * n)
    z2 = stats.norm.ppf(0.975) ** 2
    assert (low, high) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)))
    # As far as shares of changed documents that n unchanged ones do not rule out (Clopper and Pearson).
    assert high == pytest.approx(stats.binomtest(0, n).proportion_ci(0.95).high, rel=0.2)


def test_all_changed_is_no_point_either() -> None:
    low, high = intervals.difference_interval([1.0] * 10)
    assert low < stats.binomtest(10, 10).proportion_ci(0.95).low + 0.1 < high == 1.0


@pytest.mark.parametrize("n", [10, 30, 200])
@pytest.mark.parametrize("expected", [0.3, 1, 3, 5])
@pytest.mark.parametrize("lean", [0.0, 0.5, 1.0])
def test_intervals_of_few_changes_hold_the_truth(n: int, expected: float, lean: float) -> None:
    """By the probability of every outcome: the bootstrap alone holds it 20 % of the time at worst."""
    gain, loss = expected / n * (1 + lean) / 2, expected / n * (1 - lean) / 2
    held = seen = 0.0
    for changed in range(min(n, 14) + 1):
        for gains in range(changed + 1):
            losses = changed - gains
            likely = stats.multinomial.pmf([gains, losses, n - changed], n, [gain, loss, 1 - gain - loss])
            if likely < 1e-4:
                continue
            low, high = intervals.difference_interval([1.0] * gains + [-1.0] * losses + [0.0] * (n - changed))
            held += likely * (low <= gain - loss <= high)
            seen += likely
    assert seen > 0.99
    assert held / seen > 0.94


def test_many_changes_leave_the_bootstrap_alone() -> None:
    values = [1.0] * 7 + [-1.0] * 3 + [0.0] * 90
    assert intervals.difference_interval(values) == intervals.bootstrap(values)
    fewer = [*values[1:], 0.0]
    assert intervals.difference_interval(fewer) != intervals.bootstrap(fewer)


def test_graded_scores_of_few_changes_are_wide_too() -> None:
    """Three of 200 documents gain a half; that unseen ones lose all they have is not ruled out."""
    few = [0.5] * 3 + [0.0] * 197
    low, high = intervals.difference_interval(few)
    assert low <= min(0.0, intervals.bootstrap(few)[0]) - 0.005
    assert high >= intervals.bootstrap(few)[1]
    assert (
        intervals.difference_interval([0.25] * 40)[0]
        < 0.2
        < 0.3
        < intervals.difference_interval([0.25] * 40)[1]
    )
    low, high = intervals.score_interval([0.5] * 40)
    assert low < 0.4 < 0.6 < high


@pytest.mark.parametrize("seed", range(3))
def test_bootstrap_is_resampling_of_documents(seed: int) -> None:
    """Against documents really drawn with replacement; both estimate the same two quantiles."""
    random = np.random.default_rng(seed)
    values = random.choice([-1.0, 0.0, 1.0], 200, p=[0.1, 0.6, 0.3])
    oracle = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(seed + 10)
    ).confidence_interval
    # At 10,000 draws a quantile is off by 0.027 standard deviations of the mean, which moves by 1/200.
    assert intervals.bootstrap(values.tolist()) == pytest.approx((oracle.low, oracle.high), abs=0.006)


def test_bootstrap_of_scores_between_right_and_wrong() -> None:
    values = np.random.default_rng(5).random(1500)  # All distinct, and more than one batch of draws.
    low, high = intervals.bootstrap(values.tolist())
    spread = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - spread, values.mean() + spread), abs=0.002)


def test_bootstrap_is_seeded() -> None:
    values = [1.0, 0.0, 0.3] * 20
    first, again, other = (intervals.bootstrap(values, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_bootstrap_of_equal_values_is_a_point() -> None:
    assert intervals.bootstrap([0.25] * 7) == (0.25, 0.25)


def test_bootstrap_covers_the_truth() -> None:
    """95 % intervals hold the true difference about 95 % of the time: 400 studies of 300 documents."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        values = random.choice([-1.0, 0.0, 1.0], 300, p=[0.1, 0.7, 0.2])
        low, high = intervals.bootstrap(values.tolist(), draws=1000)
        held += low <= 0.1 <= high
    assert 0.92 < held / 400 < 0.98


def test_score_interval_is_wilsons_only_for_right_and_wrong() -> None:
    assert intervals.score_interval([1.0] * 30 + [0.0] * 10) == intervals.wilson(30, 40)
    graded = [0.5] * 30 + [0.0] * 10
    assert intervals.score_interval(graded) == intervals.bootstrap(graded)


def test_compare_counts_by_document() -> None:
    found = ours.compare([1, 1, 0, 0, 1, 1], [0, 1, 1, 0, 0, 0])
    assert (found.n, found.wrong_to_right, found.right_to_wrong) == (6, 3, 1)
    assert found.difference == pytest.approx(2 / 6)
    assert found.p == pytest.approx(stats.binomtest(3, 4).pvalue)
    low, high = found.interval
    assert low < found.difference < high


def test_compare_flips_signs_of_graded_scores() -> None:
    found = ours.compare([0.5, 1.0, 0.9], [0.25, 1.0, 0.1])
    assert (found.test, found.wrong_to_right, found.right_to_wrong) == ("sign-flip", 2, 0)
    assert found.p == 0.5  # ++ and −− of the four choices of two signs.


@pytest.mark.parametrize(("arm", "other"), [([], []), ([1.0], [1.0, 0.0])])
def test_compare_refuses_what_cannot_be_paired(arm: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        ours.compare(arm, other)


def test_compare_refuses_scores_that_are_no_shares() -> None:
    with pytest.raises(ValueError, match=r"a score of 37\.5 is not between 0 and 1"):
        ours.compare([1.0, 37.5], [0.0, 1.0])


def test_holm_by_hand() -> None:
    # Holm 1979: 4·0.005, 3·0.01, 2·0.03, and 0.04 held up by the one before.
    assert exact_tests.holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert exact_tests.holm([None, None]) == [None, None]
    assert exact_tests.holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_rejects_what_the_step_down_rule_rejects(ps: list[float | None]) -> None:
    """The rule as Holm states it, which knows no corrected values: stop at the first that is too large."""
    corrected = exact_tests.holm(ps)
    real = sorted(p for p in ps if p is not None)
    rejected = 0
    while rejected < len(real) and real[rejected] * (len(real) - rejected) < 0.05:
        rejected += 1
    assert sum(p < 0.05 for p in corrected if p is not None) == rejected
    assert [p is None for p in corrected] == [p is None for p in ps]
    pairs = sorted((p, c) for p, c in zip(ps, corrected, strict=True) if p is not None and c is not None)
    assert all(p <= c <= 1 for p, c in pairs)
    assert [c for _, c in pairs] == sorted(c for _, c in pairs)


def simulated(n: int, changed: float, difference: float, level: float, studies: int = 20_000) -> float:
    """How often scipy's binomial test rejects in made-up studies."""
    random = np.random.default_rng(3)
    gain, loss = (changed + difference) / 2, (changed - difference) / 2
    drawn = random.multinomial(n, [gain, max(loss, 0.0), 1 - changed], size=studies)
    fewer, both = drawn[:, :2].min(axis=1), drawn[:, :2].sum(axis=1)
    return float(np.mean(np.minimum(1.0, 2 * stats.binom.cdf(fewer, both, 0.5)) <= level))


@pytest.mark.parametrize(
    ("n", "changed", "difference", "level"),
    [
        (500, 0.2, 0.058, 0.05),
        (500, 0.05, 0.02, 0.05),
        (100, 0.4, 0.1, 0.01),
        (60, 0.2, 0.2, 0.05),
        (40, 0.3, 0.0, 0.05),
    ],
)
def test_power_is_what_simulation_finds(n: int, changed: float, difference: float, level: float) -> None:
    # 20,000 studies: a standard error of at most 0.0036.
    assert power.power(n, changed, difference, level) == pytest.approx(
        simulated(n, changed, difference, level), abs=0.012
    )


@settings(deadline=None, max_examples=15)
@given(st.integers(30, 700), st.sampled_from([0.05, 0.1, 0.3, 0.6]), st.sampled_from([0.05, 0.001]))
def test_smallest_effect_is_where_power_reaches_four_fifths(n: int, changed: float, level: float) -> None:
    least = power.smallest_effect(n, changed, level)
    if least is None:
        assert power.power(n, changed, changed, level) < 0.8
        return
    assert 0 < least <= changed
    assert power.power(n, changed, least, level) >= 0.8
    assert power.power(n, changed, least - 2e-4, level) < 0.8


def test_smallest_effect_is_near_connors_formula() -> None:
    """Connor 1987, who approximates; the exact test needs a little more."""
    z = stats.norm.ppf([0.975, 0.8])
    for n, changed in ((500, 0.2), (1319, 0.4), (1000, 0.1)):
        least = power.smallest_effect(n, changed)
        assert least is not None
        needed = ((z[0] * math.sqrt(changed) + z[1] * math.sqrt(changed - least**2)) / least) ** 2
        assert needed == pytest.approx(n, rel=0.1)


def test_power_note_names_what_can_be_seen() -> None:
    note = power.power_note(500)
    assert "n = 500" in note
    assert "2.9 points if 5% do, 5.8 points if 20% do and 8.1 points if 40% do" in note
    assert "n = 10 is too few" in power.power_note(10)
    assert power.power_note(20).count("points") == 1
    assert "n = 1,319, one of 4 tests that share the 5% level (Holm at its strictest: 0.0125)" in (
        power.power_note(1319, 4)
    )


def test_power_of_a_family_is_that_of_its_strictest_test() -> None:
    lines = power.family_note([("GSM8K", 1319), ("HumanEval", 164)], 4)
    assert len(lines) == 3
    assert "one of 4 tests" in lines[0]
    for line, n in zip(lines[1:], (1319, 164), strict=True):
        assert f"n = {n:,}: " in line
        said = line.split(": ")[1].removesuffix(" points").replace(" and ", ", ").split(", ")
        for share, size in zip((0.05, 0.2, 0.4), said, strict=True):
            found = [simulated(n, share, share if size == "out of reach" else float(size) / 100, 0.05 / 4)]
            # 20,000 studies, and sizes to a tenth of a point.
            assert found[0] < 0.8 if size == "out of reach" else found[0] == pytest.approx(0.8, abs=0.02)
    assert power.family_note([("One", 500)], 1)[0].startswith("How large a true difference one test at")


def test_reach_by_spread_is_near_the_exact_one() -> None:
    """For right and wrong both can be computed: with 20 % changed the difference varies by √0.2."""
    half = 1.959964 * math.sqrt(0.2 / 1000)
    exact = power.smallest_effect(1000, 0.2, 0.0125)
    assert power.reach((-half, half), 0.0125) == pytest.approx(exact, rel=0.05)
