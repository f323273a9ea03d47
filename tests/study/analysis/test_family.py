"""Families of tests: which is primary, how each is corrected, and that later arms change no verdict."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from scipy import stats

from runs import outcomes, typical, write_json, write_run
from taskvec.study.analysis.analyse import load
from taskvec.study.analysis.case import verdict

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.study.rundir.results import Results

NAMES = ("chain", "logic", "list", "order")
RANDOM = ("random-1", "random-2", "random-3")


def made(folder: Path, *, without: tuple[str, ...] = (), **more: Any) -> Results:
    cells = {arm: of for arm, of in typical(200).items() if arm not in without}
    return load(write_run(folder, cells, **more))


def stepped_down(ps: list[float], tests: int) -> list[float]:
    """Holm's correction step by step: each p times the tests that are left, and none below the one before."""
    ranked = sorted(range(len(ps)), key=ps.__getitem__)
    found = [0.0] * len(ps)
    for rank, at in enumerate(ranked):
        before = found[ranked[rank - 1]] if rank else 0.0
        found[at] = max(before, min(1.0, ps[at] * (tests - rank)))
    return found


def test_the_primary_family_is_v_against_the_baseline(tmp_path: Path) -> None:
    results = made(tmp_path)
    first = [one for one in results.comparisons if one.family == "primary"]
    assert [(one.arm, one.against, one.benchmark) for one in first] == [
        ("plus", "baseline", name) for name in NAMES
    ]
    assert {one.arm for one in results.comparisons if one.family == "described"} == {
        f"alpha-{alpha}" for alpha in ("0.25", "0.5", "0.75", "1.5")
    }
    assert (results.families.primary, results.families.secondary, results.tests) == (4, 52, 56)


def test_each_family_is_corrected_by_itself(tmp_path: Path) -> None:
    results = made(tmp_path)
    for family in ("primary", "secondary"):
        of = [one for one in results.comparisons if one.family == family]
        oracle = stepped_down([one.p or 0.0 for one in of], len(of))
        assert [one.p_holm for one in of] == pytest.approx(oracle)
    for one in results.comparisons:
        if one.family == "described":
            assert (one.test, one.p, one.p_holm, verdict(one)) == (None, None, None, 0)


def test_a_primary_family_of_the_study_file(tmp_path: Path) -> None:
    chosen = [
        {"arm": "plus-think", "against": "random-1", "benchmark": "list"},
        {"arm": "plus", "against": "baseline-think", "benchmark": "chain"},
    ]
    results = made(tmp_path, run={"primary": chosen})
    first = [one for one in results.comparisons if one.family == "primary"]
    found = {(one.arm, one.against, one.benchmark) for one in first}
    assert found == {("plus-think", "random-1", "list"), ("plus", "baseline-think", "chain")}
    assert (results.families.primary, results.families.secondary) == (2, 55)
    main = results.compared("plus", "baseline", "chain")
    assert main is not None
    assert main.family == "secondary"
    assert (
        "The primary family, fixed before the first answer, is +v against instruct, think on Chain; +v, think"
        " against random 1 on List (2 tests)."
    ) in results.conclusions[-1]
    assert (
        "55 other tests are corrected among themselves. The α sweep is described" in (results.conclusions[-1])
    )


def test_arms_that_are_added_change_no_verdict_of_the_primary_family(tmp_path: Path) -> None:
    primary = [{"arm": "plus", "against": "baseline", "benchmark": name} for name in NAMES]
    run = {"primary": primary}
    before = made(tmp_path / "few", without=("minus", "minuend", "subtrahend", *RANDOM), run=run)
    after = made(tmp_path / "all", run=run)
    for results in (before, after):
        assert results.families.primary == 4
    first, second = (
        [one for one in results.comparisons if one.family == "primary"] for results in (before, after)
    )
    assert first == second
    assert [verdict(one) for one in first] == [1, 1, 1, 0]
    # The other family does grow, and its corrected p with it.
    assert before.families.secondary < after.families.secondary
    asked = [results.compared("baseline-think", "baseline", "logic") for results in (before, after)]
    assert all(one is not None and one.p_holm is not None for one in asked)
    assert ((asked[0] and asked[0].p_holm) or 0) < ((asked[1] and asked[1].p_holm) or 0)
    assert before.conclusions[0].split(". ")[0] == after.conclusions[0].split(". ")[0]


def test_a_frozen_family_outlasts_a_benchmark_that_the_study_names_no_more(tmp_path: Path) -> None:
    """What is in run.json counts, not what the default would be."""
    primary = [{"arm": "plus", "against": "baseline", "benchmark": "chain"}]
    results = made(tmp_path, run={"primary": primary})
    assert results.families.primary == 1
    logic = results.compared("plus", "baseline", "logic")
    assert logic is not None
    assert logic.family == "secondary"


def test_what_an_unfinished_run_shows_it_still_shows_when_finished(tmp_path: Path) -> None:
    """Tests that are still to come count as p = 1 in the primary family from the beginning."""
    folder = write_run(tmp_path, typical(200))
    whole = load(folder)
    for name in ("logic", "list", "order"):
        (folder / "samples" / f"plus.{name}.jsonl").unlink()
    part = load(folder)
    assert part.families.primary == whole.families.primary == 4
    one = part.compared("plus", "baseline", "chain")
    assert one is not None
    assert one.p is not None
    assert one.p_holm == pytest.approx(4 * one.p)
    done = whole.compared("plus", "baseline", "chain")
    assert done is not None
    assert (done.p_holm or 0) <= one.p_holm


def test_the_power_of_a_benchmark_is_that_of_its_family(tmp_path: Path) -> None:
    results = made(tmp_path, run={"primary": [{"arm": "plus", "against": "baseline", "benchmark": "chain"}]})
    levels = {one.id: one.power["level"] for one in results.benchmarks}
    assert levels == {"chain": 0.05, **{name: 0.05 / 55 for name in ("logic", "list", "order")}}
    assert "one test at the 5% level" in results.benchmarks[0].power_note
    assert "one of 55 tests" in results.benchmarks[1].power_note


def test_documents_that_share_a_seed_question_are_tested_together(tmp_path: Path) -> None:
    """8 variants of each of 25 questions that v gets all right or all wrong: 25 signs, not 200."""
    cells = {"baseline": {"plus": [0.0] * 200}, "plus": {"plus": outcomes(200, 40)}}
    clusters = {"cluster": lambda number: f"seed {number // 8}", "task": lambda number: f"kind {number % 8}"}
    rows = {f"{arm}.plus": clusters for arm in cells}
    results = load(write_run(tmp_path, cells, rows=rows, benchmarks={"plus": {"title": "Variants"}}))
    (only,) = results.comparisons
    gained = sum(of[at : at + 8] != [0.0] * 8 for of in [cells["plus"]["plus"]] for at in range(0, 200, 8))
    assert only.test == "sign-flip"
    assert only.p == pytest.approx(stats.binomtest(gained, gained).pvalue)
    low, high = results.arms[1].cells["plus"].interval
    alone = stats.binomtest(40, 200).proportion_ci(method="wilson")
    assert high - low > 1.5 * (alone.high - alone.low)
    assert "here some share a seed question, so they show less" in results.benchmarks[0].power_note


def test_arms_of_other_subtasks_or_clusters_are_not_compared(tmp_path: Path) -> None:
    from taskvec.errors import CorruptError

    cells = {arm: {"chain": outcomes(6, 3)} for arm in ("baseline", "plus")}
    for key in ("task", "cluster"):
        rows = {"plus.chain": {key: lambda number: "other" if number == 4 else "made"}}
        rows["baseline.chain"] = {key: "made"}
        with pytest.raises(CorruptError, match=f"`{key}` of document 4 differs"):
            load(write_run(tmp_path / key, cells, rows=rows))


# The mean of the random vectors


def test_random_vectors_are_averaged_document_by_document(tmp_path: Path) -> None:
    arms = {"baseline": (200,), "plus": (400,), "random-1": (280,), "random-2": (190,), "random-3": (250, 30)}
    cells = {arm: {"chain": outcomes(500, *of)} for arm, of in arms.items()}
    results = load(write_run(tmp_path, cells))
    (found,) = results.random_means
    assert (found.benchmark, found.seeds) == ("chain", 3)
    assert found.difference == pytest.approx((280 + 190 + 250 - 3 * 200) / 3 / 500)
    assert found.share == pytest.approx(40 / 200)
    assert found.share_interval is not None
    # By the delta method, from the documents' means over seeds.
    base, v = (list(cells[arm]["chain"]) for arm in ("baseline", "plus"))
    mean = [sum(cells[arm]["chain"][at] for arm in RANDOM) / 3 - base[at] for at in range(500)]
    gain = [one - two for one, two in zip(v, base, strict=True)]
    rest = [one - 0.2 * two for one, two in zip(mean, gain, strict=True)]
    error = stats.tstd(rest) / 500**0.5 / 0.4
    assert found.share_interval == pytest.approx((0.2 - 1.96 * error, 0.2 + 1.96 * error), abs=0.01)
    error = stats.tstd(mean) / 500**0.5
    assert found.interval == pytest.approx((0.08 - 1.96 * error, 0.08 + 1.96 * error), abs=0.004)
    assert (
        "On average random vectors of v's size make up 20% of v's gain (95% interval 1"
        in (results.conclusions[1])
    )


def test_no_share_of_a_gain_that_is_not_there(tmp_path: Path) -> None:
    arms = {"baseline": (200,), "plus": (204, 480), "random-1": (280,)}
    results = load(write_run(tmp_path, {arm: {"chain": outcomes(500, *of)} for arm, of in arms.items()}))
    (found,) = results.random_means
    assert (found.share, found.share_interval) == (None, None)
    assert found.interval[0] > 0
    assert "make up" not in " ".join(results.conclusions)


def test_a_share_of_a_loss_is_called_so(tmp_path: Path) -> None:
    arms = {"baseline": 400, "plus": 200, "random-1": 380}
    results = load(write_run(tmp_path, {arm: {"chain": outcomes(500, of)} for arm, of in arms.items()}))
    (found,) = results.random_means
    assert found.share == pytest.approx(0.1)
    assert "make up 10% of v's loss" in results.conclusions[1]


def test_without_random_vectors_there_is_no_mean(tmp_path: Path) -> None:
    assert made(tmp_path, without=RANDOM).random_means == ()


def test_a_run_says_what_was_primary_after_its_arms_were_taken_away(tmp_path: Path) -> None:
    """A frozen test whose arm the study names no more still counts, as one that found nothing."""
    primary = [
        {"arm": "plus", "against": "baseline", "benchmark": "chain"},
        {"arm": "minus", "against": "baseline", "benchmark": "chain"},
    ]
    folder = write_run(tmp_path, {arm: {"chain": outcomes(50, 20)} for arm in ("baseline", "plus")})
    write_json(folder / "run.json", json.loads((folder / "run.json").read_text()) | {"primary": primary})
    assert load(folder).families.primary == 2
