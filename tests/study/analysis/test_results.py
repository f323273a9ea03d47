"""Results of made-up RUN folders: figures against numpy and scipy, every branch of the words, damage."""

from __future__ import annotations

import json
import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from runs import effect, outcomes, typical, write_json, write_lines, write_run
from taskvec.errors import CorruptError, StorageError, UsageError
from taskvec.study.analysis.analyse import build, load
from taskvec.study.analysis.conclusions import conclude
from taskvec.study.analysis.exact_tests import LEVEL
from taskvec.study.analysis.phrases import p_figure, p_value
from taskvec.study.rundir.results import Results

if TYPE_CHECKING:
    from pathlib import Path

N = 500
QUESTION = {"order": {"title": "Ordering", "kind": "choice", "note": "multiple choice: no chain can show"}}


def one(folder: Path, *, n: int = N, **arms: int | tuple[int, int]) -> list[str]:
    """Conclusions of a study of one benchmark, "Chain", from how many documents each arm gets right.

    Arms are named with underscores; a pair is (right, first document).
    """
    return concluded(folder, n, arms)


def concluded(folder: Path, n: int, arms: dict[str, Any], **more: Any) -> list[str]:
    cells = {
        name.replace("_", "-"): {"chain": outcomes(n, *(of if isinstance(of, tuple) else (of,)))}
        for name, of in arms.items()
    }
    return list(build(write_run(folder, cells, **more)).conclusions)


def chain(conclusions: list[str]) -> str:
    """The benchmark's own paragraph."""
    (found,) = (text for text in conclusions if text.startswith("Chain: "))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of all arms and four benchmarks, to be read only."""
    return write_run(tmp_path_factory.mktemp("run"), typical(200), benchmarks=QUESTION)


@pytest.fixture(scope="module")
def results(run: Path) -> Results:
    return load(run)


def test_every_cell_is_there(results: Results) -> None:
    assert results.complete
    assert results.missing == ()
    assert [arm.id for arm in results.arms][:3] == ["baseline", "plus", "baseline-think"]
    assert all(set(arm.cells) == {"chain", "logic", "list", "order"} for arm in results.arms)
    cell = results.arms[1].cells["chain"]
    assert (cell.n, cell.score, cell.samples) == (200, 0.975, "samples/plus.chain.jsonl")
    interval = stats.binomtest(195, 200).proportion_ci(method="wilson")
    assert cell.interval == pytest.approx((interval.low, interval.high))
    assert (cell.extraction_failures, cell.truncated, cell.mean_tokens) == (0.0, 0.0, 12.0)


def test_which_arms_are_compared(results: Results) -> None:
    pairs = {(one.arm, one.against) for one in results.comparisons}
    others = {"plus", "minus", "minuend", "subtrahend", "baseline-think", "random-1", "random-2", "random-3"}
    others |= {"alpha-0.25", "alpha-0.5", "alpha-0.75", "alpha-1.5"}
    assert pairs == {(arm, "baseline") for arm in others} | {
        ("plus-think", "baseline-think"),
        ("plus-think", "baseline"),
        ("plus", "baseline-think"),
        *(("plus", f"random-{seed}") for seed in (1, 2, 3)),
    }
    assert len(results.comparisons) == 18 * 4
    assert results.tests == 14 * 4  # All but the sweep.


def test_comparisons_are_paired_by_document(results: Results) -> None:
    outcome = typical(200)
    for found in results.comparisons:
        mine, other = (np.array(outcome[arm][found.benchmark]) for arm in (found.arm, found.against))
        gains, losses = int((mine > other).sum()), int((mine < other).sum())
        assert (found.n, found.wrong_to_right, found.right_to_wrong) == (200, gains, losses)
        assert found.difference == pytest.approx(mine.mean() - other.mean())
        oracle = stats.binomtest(gains, gains + losses).pvalue if gains + losses else 1.0
        swept = found.arm.startswith("alpha-")
        assert found.p == (None if swept else pytest.approx(oracle))
        assert found.test == (None if swept else "mcnemar")
        assert found.interval[0] <= found.difference <= found.interval[1]


def test_order_of_rows_does_not_matter(run: Path, results: Results, tmp_path: Path) -> None:
    folder = write_run(tmp_path, typical(200), benchmarks=QUESTION)
    file = folder / "samples" / "plus.chain.jsonl"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert load(folder).to_json() == results.to_json()


def test_what_went_in_is_carried_over(run: Path, results: Results) -> None:
    said = json.loads((run / "run.json").read_text())
    found = results.to_json()
    assert found["schema"] == "taskvec/results/1"
    assert {key: found[key] for key in ("study", "versions", "device", "dtype", "inputs")} == {
        key: said[key] for key in ("study", "versions", "device", "dtype", "inputs")
    }
    order = next(one for one in results.benchmarks if one.id == "order")
    assert (order.kind, order.note) == ("choice", "multiple choice: no chain can show")
    # At the level 0.05 / 4, as four tests are primary.
    assert order.power["level"] == 0.0125
    assert order.power["smallest"][1] == {"changed": 0.2, "difference": pytest.approx(0.107, abs=0.003)}
    assert "n = 200, one of 4 tests" in order.power_note
    assert (results.study_digest, results.started) == ("d1" * 16, "2026-11-24T12:00:00Z")
    assert results.command == "taskvec study run made-up -o RUN"
    assert order.data[0].repository == "made/order"
    assert results.arms[1].seconds == 0.5
    assert results.arms[1].effect is not None
    assert results.arms[0].effect is None


def test_norms_are_by_layer_in_order(results: Results, tmp_path: Path) -> None:
    assert results.vector is not None
    assert [(one.layer, one.norm, one.relative) for one in results.vector.layers] == [
        ("embed_tokens", 2.0, None),
        ("2", 1.0, None),
        ("10", 5.0, None),
        ("norm", 0.0, None),
    ]
    # Every tensor of the made-up arm is added with a cosine of 0.8; nothing was asked of the norm.
    assert [one.cosine for one in results.vector.layers] == [*[pytest.approx(0.8)] * 3, None]
    assert results.vector.norm == pytest.approx(30**0.5)
    folder = write_run(tmp_path, {"baseline": {"chain": [1.0]}, "plus": {"chain": [1.0]}})
    known = json.loads((folder / "run.json").read_text())
    norms = {"model.layers.10.mlp.up_proj.weight": 30.0, "model.layers.10.mlp.down_proj.weight": 40.0}
    write_json(folder / "run.json", known | {"target_norms": norms})
    vector = load(folder).vector
    assert vector is not None
    assert [one.relative for one in vector.layers] == [None, None, 0.1, None]


def test_results_survive_json_and_pickle(results: Results, tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", results.to_json())
    assert load(tmp_path / "results.json") == results
    assert pickle.loads(pickle.dumps(results)) == results


def test_graded_scores_are_tested_by_flipping_signs(tmp_path: Path) -> None:
    cells = {"baseline": {"code": [0.2, 0.4] * 50}, "plus": {"code": [0.7, 0.6] * 50}}
    found = load(write_run(tmp_path, cells))
    (only,) = found.comparisons
    # All 100 differences are gains: only the signs seen, and their opposites, reach their sum.
    assert (only.test, only.p) == ("sign-flip", pytest.approx(2 / 2**100))
    assert only.interval[0] > 0.3
    assert "+v scores 65.0% where instruct scores 30.0%" in found.conclusions[1]
    assert "v raises it." in found.conclusions[1]


def test_graded_scores_that_are_not_told_apart_say_what_could_have_been(tmp_path: Path) -> None:
    graded = [(at * 37 % 101) / 100 for at in range(100)]
    cells = {"baseline": {"code": graded}, "plus": {"code": graded[50:] + graded[:50]}}
    said = load(write_run(tmp_path, cells)).conclusions[1]
    assert "a difference is not shown. n = 100 could have shown a difference of about" in said
    # By the normal distribution: (1.96 + 0.84) standard errors.
    spread = np.std(np.subtract(cells["plus"]["code"], graded), ddof=1) / 10
    assert float(said.split("of about ")[1].split(" points")[0]) == pytest.approx(280.2 * spread, rel=0.05)


# Unfinished runs


def test_an_unfinished_run_says_what_is_missing(tmp_path: Path) -> None:
    cells = {
        "baseline": {"chain": outcomes(9, 4), "logic": outcomes(9, 4)},
        "plus": {"chain": outcomes(9, 5)},
    }
    found = load(write_run(tmp_path, cells, arms=["baseline", "plus", "minus"]))
    assert not found.complete
    assert found.missing == ("plus.logic", "minus.chain", "minus.logic")
    assert found.conclusions[0].startswith("Not finished: 3 of 6 cells have been scored")
    assert any("Logic: instruct and +v have not both been scored yet" in one for one in found.conclusions)


def test_arms_not_made_yet_are_no_damage(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"baseline": {"chain": outcomes(9, 4)}}, arms=["baseline", "plus"])
    (folder / "arms" / "plus.json").unlink()
    found = load(folder)
    assert found.vector is None
    assert (found.arms[1].effect, found.arms[1].cells) == (None, {})


def test_the_sweep_runs_only_where_it_is_asked_for(tmp_path: Path) -> None:
    cells = {arm: {"chain": outcomes(9, 4), "logic": outcomes(9, 4)} for arm in ("baseline", "plus")}
    cells["alpha-0.5"] = {"chain": outcomes(9, 4)}
    benchmarks = {"logic": {"sweep": False}}
    assert load(write_run(tmp_path, cells, benchmarks=benchmarks)).complete


# What the words say


def test_raised_and_random_does_not(tmp_path: Path) -> None:
    said = one(tmp_path, baseline=231, plus=487, random_1=235, random_2=228, random_3=238)
    assert said[0] == "In all: v raises Chain."
    text = chain(said)
    assert text.startswith(
        "Chain: +v answers 487 of 500 where instruct answers 231 of 500 (+51.2 points, 95% interval +4"
    )
    assert "corrected p\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}10⁻²⁰): v raises it." in text
    assert "(3 seeds) change it by at most 1.4 points: the gain comes from v's direction" in text
    assert "is +v against instruct on Chain (1 test). 6 other tests are corrected among" in said[-1]


def test_not_shown_names_what_could_have_been(tmp_path: Path) -> None:
    said = one(tmp_path, baseline=231, plus=(240, 480))
    assert said[0] == "In all: v is not shown to change Chain."
    assert "a difference is not shown. n = 500 could have shown a difference of about" in chain(said)
    assert "raises it" not in chain(said)


def test_what_could_have_been_is_harder_to_show_among_more_tests(tmp_path: Path) -> None:
    def reach(text: str) -> float:
        return float(text.split("of about ")[1].split(" points")[0])

    alone = reach(chain(one(tmp_path / "a", baseline=231, plus=(240, 480))))
    others = reach(chain(one(tmp_path / "b", baseline=231, plus=(240, 480), minus=231, random_1=231)))
    assert others == alone  # They are of the other family.
    names = ("chain", "list", "logic")
    cells = {
        arm: {name: outcomes(N, *of) for name in names}
        for arm, of in (("baseline", (231,)), ("plus", (240, 480)))
    }
    assert reach(chain(list(build(write_run(tmp_path / "c", cells)).conclusions))) > alone


def test_too_few_documents_are_called_so(tmp_path: Path) -> None:
    assert "n = 12 is too few" in chain(one(tmp_path, n=12, baseline=5, plus=7))


def test_unchanged_is_not_called_equal(tmp_path: Path) -> None:
    text = chain(one(tmp_path, baseline=231, plus=231))
    assert "no document's score changed" in text
    assert "could have shown" in text


def test_lowered(tmp_path: Path) -> None:
    said = one(tmp_path, baseline=400, plus=200, random_1=401, minus=460)
    assert said[0] == "In all: v lowers Chain."
    assert "v lowers it." in chain(said)
    assert "the loss comes from v's direction" in chain(said)
    assert "−v raises it (" in chain(said)
    assert "the effect reverses" in chain(said)


def test_random_moves_far_but_less(tmp_path: Path) -> None:
    text = chain(one(tmp_path, baseline=200, plus=400, random_1=280, random_2=190))
    assert (
        "change it by −2.0 to +16.0 points, which is not small compared with v, but +v differs from each"
        in text
    )


def test_random_does_as_much(tmp_path: Path) -> None:
    text = chain(one(tmp_path, baseline=200, plus=400, random_1=395, random_2=205))
    assert "But +v is not shown to do more than random 1 (" in text
    assert "random 2" not in text
    assert "that the gain is due to v's direction is not shown" in text


def test_random_moves_where_v_does_not(tmp_path: Path) -> None:
    text = chain(one(tmp_path, baseline=200, plus=202, random_1=120, random_2=201))
    assert "Yet a random vector of the same size changes it: random 1 (−16.0 points" in text


def test_controls_that_were_not_run_are_missed(tmp_path: Path) -> None:
    said = " ".join(one(tmp_path / "a", baseline=200, plus=400))
    assert "No random vectors were run" in said
    assert "No arm was asked for steps" in said
    said = " ".join(one(tmp_path / "b", baseline=200, plus=400, baseline_think=200, random_1=200))
    assert "No random" not in said
    assert "No arm" not in said


@pytest.mark.parametrize(
    ("think", "words"),
    [
        (298, "asking does as much to within"),
        ((300, 100), "whether v does more than elicit what asking elicits stays open"),
        (250, "but +v is above that ("),
        (380, "raises it further than v does ("),
    ],
    ids=["alike", "not told apart", "less", "more"],
)
def test_asking_raises_too(tmp_path: Path, think: Any, words: str) -> None:
    said = concluded(tmp_path, N, {"baseline": 200, "plus": 300, "baseline_think": think})
    assert "Asking instruct for steps raises it" in chain(said)
    assert words in chain(said)
    more = "on Chain." if think == 250 else "on none of these."
    assert said[0].endswith(f"That v does more than asking for steps is shown {more}")


@pytest.mark.parametrize(("n", "to_within"), [(10, None), (40, "8.8"), (500, "0.8")])
def test_no_change_is_alike_only_as_far_as_n_documents_tell(
    tmp_path: Path, n: int, to_within: str | None
) -> None:
    """At 10 of 10 both ways, up to 28 points between them are not ruled out."""
    text = chain(concluded(tmp_path, n, {"baseline": 0, "plus": n, "baseline_think": n}))
    if to_within is None:
        assert "asking does as much" not in text
        assert "(0.0 points, −27.8 to +27.8, p = 1): whether v does more" in text.replace("\xa0", " ")
    else:
        assert f"asking does as much to within {to_within} points" in text


def test_a_random_vector_that_rounding_took_away_is_no_control_of_that_size(tmp_path: Path) -> None:
    arms = {"baseline": 200, "plus": 400, "random_1": 203, "random_2": 200}
    kept = chain(concluded(tmp_path / "a", N, arms, gains={"random-1": 0.96}))
    assert "the gain comes from v's direction, not from a disturbance of that size" in kept
    text = chain(concluded(tmp_path / "b", N, arms, gains={"random-1": 0.76}))
    assert "v's direction" not in text
    assert (
        "(2 seeds) change it by 0.0 to +0.6 points, but rounding left them as little as 0.76 of +v's" in text
    )
    chosen = {"baseline": 200, "plus": 400, "random-1": 203}
    folder = write_run(tmp_path / "c", {arm: {"chain": outcomes(N, of)} for arm, of in chosen.items()})
    write_json(folder / "arms" / "random-1.json", {"effect": None, "tensors": None, "seconds": None})
    assert "rounding left them an unknown part" in chain(list(load(folder).conclusions))


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ({"plus": 400, "baseline_think": 202}, "is not shown to raise it (+0.4 points, "),
        ({"plus": 400, "baseline_think": 202}, "and +v is above that ("),
        ({"plus": 400, "baseline_think": 100}, "Asking instruct for steps lowers it ("),
        ({"plus": 240, "baseline_think": (222, 60)}, "whether v does more than asking stays open"),
        ({"plus": 202, "baseline_think": 300}, "Asking instruct for steps raises it ("),
    ],
)
def test_asking_does_not_raise(tmp_path: Path, arms: dict[str, Any], words: str) -> None:
    assert words in chain(concluded(tmp_path, N, {"baseline": 200, **arms}))


@pytest.mark.parametrize(
    ("think", "words"),
    [
        (100, r"lowers it \(−20\.0 points, [^)]*\), and \+v is not shown to differ from that \("),
        (202, r"is not shown to raise it \([^)]*\), but neither is \+v shown to differ from that \("),
    ],
)
def test_a_denial_is_joined_to_a_denial_only(tmp_path: Path, think: int, words: str) -> None:
    cells = {
        arm: {"chain": outcomes(N, of)}
        for arm, of in (("baseline", 200), ("plus", 400), ("baseline-think", think))
    }
    found = load(write_run(tmp_path, cells)).to_json()
    # As it could come out for graded scores; with exact tests what lies between two is told apart as well.
    between = next(one for one in found["comparisons"] if one["against"] == "baseline-think")
    between["p_holm"] = 0.4
    assert re.search(words, chain(conclude(Results.from_json(found))))


@pytest.mark.parametrize(
    ("both", "words"),
    [(450, "v still adds to it"), (301, "v is not shown to change it"), (200, "v lowers it (")],
)
def test_v_on_top_of_asking(tmp_path: Path, both: int, words: str) -> None:
    text = chain(one(tmp_path, baseline=200, plus=400, baseline_think=300, plus_think=both))
    assert f"With steps asked for, {words}" in text


def test_v_that_helps_only_once_asked_does_not_still_help(tmp_path: Path) -> None:
    text = chain(one(tmp_path, baseline=200, plus=202, baseline_think=300, plus_think=450))
    assert "With steps asked for, v adds to it (" in text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.0496, "0.0496"),
        (0.049996, "0.049996"),
        (0.05, "0.05"),
        (0.0504, "0.05"),
        (0.031, "0.031"),
        (0.0444, "0.044"),
        (0.996, "1"),
    ],
)
def test_a_p_below_the_level_does_not_read_as_the_level(p: float, text: str) -> None:
    assert p_figure(p) == text
    assert (float(text) < LEVEL) == (p < LEVEL)


def test_small_ps_hold_together() -> None:
    assert p_figure(4e-7) == "4·10⁻⁷"
    assert p_figure(0.00012) == "1·10⁻⁴"
    assert p_value(1e-21) == "p\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}10⁻²⁰"
    assert not re.search("[- ]", p_value(3e-12) + p_value(0.2))


def test_a_benchmark_that_cannot_show_a_chain(tmp_path: Path) -> None:
    arms = {"baseline": 200, "plus": 400, "baseline_think": 398}
    said = concluded(tmp_path, N, arms, benchmarks={"chain": {"note": "the answer is prefilled."}})
    assert "cannot show whether asking for steps does the same (the answer is prefilled)." in chain(said)
    assert "asking does as much" not in chain(said)
    assert said[0] == "In all: v raises Chain."


@pytest.mark.parametrize(
    ("plus", "minus", "words"),
    [
        (400, 100, "−v lowers it (−20.0 points, "),
        (400, 202, "−v is not shown to change it ("),
        (400, 300, "−v raises it too ("),
        (202, 201, "−v is not shown to change it either ("),
        (202, 100, "−v lowers it ("),
    ],
)
def test_minus(tmp_path: Path, plus: int, minus: int, words: str) -> None:
    text = chain(one(tmp_path, baseline=200, plus=plus, minus=minus))
    assert words in text
    assert ("does not depend on v's sign" in text) == ((plus, minus) == (400, 300))
    assert ("reverses" in text) == ((plus, minus) == (400, 100))


def test_cut_off_answers_are_warned_of(tmp_path: Path) -> None:
    cut = {
        "plus.chain": {"truncated": lambda number: number < 40},
        "baseline.chain": {"truncated": lambda at: at < 10},
    }
    text = chain(concluded(tmp_path, N, {"baseline": 200, "plus": 400}, rows=cut))
    assert "Warning: 8.0% of +v's outputs were cut off at 80 tokens" in text
    assert "instruct's outputs were" not in text


def test_of_many_arms_cut_off_the_first_two_are_named(tmp_path: Path) -> None:
    arms = {"baseline": 2, "plus": 4, "minus": 2, "random_1": 3, "random_2": 3}
    cut = {
        f"{arm.replace('_', '-')}.chain": {"truncated": lambda number, last=at: number <= last}
        for at, arm in enumerate(arms)
    }
    text = chain(concluded(tmp_path / "all", 10, arms, rows=cut))
    assert "Warning: 10.0% to 50.0% of all arms' outputs were cut off at 80 tokens" in text
    text = chain(concluded(tmp_path / "most", 10, arms | {"random_3": 3}, rows=cut))
    assert "Warning: 10.0% of instruct's, 20.0% of +v's and up to 50.0% of 3 other arms' outputs were" in text


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (100, 5, "part of the gain may come from the answers' form"),
        (5, 100, "works against the gain"),
        (7, 6, None),
    ],
)
def test_unreadable_answers_can_be_part_of_a_gain(
    tmp_path: Path, before: int, after: int, words: str | None
) -> None:
    rows = {
        "baseline.chain": {"extracted": lambda number: number >= before},
        "plus.chain": {"extracted": lambda number: number >= after},
    }
    text = chain(concluded(tmp_path, N, {"baseline": 200, "plus": 400}, rows=rows))
    if words is None:
        assert "could be read" not in text
    else:
        rates = f"from {before / 5:.1f}% of instruct's outputs and {after / 5:.1f}% of +v's"
        assert f"No answer could be read {rates}" in text
        assert words in text


def test_the_best_alpha_is_called_unconfirmed(tmp_path: Path) -> None:
    arms = {"baseline": 200, "plus": 400, "alpha_0.5": 420, "alpha_1.5": 300}
    text = chain(concluded(tmp_path, N, arms))
    assert "α = 0.5 scores highest (84.0%; α = 1: 80.0%); it was chosen on these same documents" in text
    arms["alpha_0.5"] = 400
    text = chain(concluded(tmp_path / "tied", N, arms))
    assert "No other α of the sweep scores higher than α = 1." in text


def test_rounding_that_changed_alpha_is_told(tmp_path: Path) -> None:
    arms = {"baseline": 200, "plus": 400, "alpha_0.25": 210}
    said = concluded(tmp_path, N, arms, gains={"alpha-0.25": 0.07})
    assert "Rounding: the effective gain is not near 1 for 0.25 v 0.07: " in said[2]
    assert not any("Rounding" in text for text in concluded(tmp_path / "b", N, arms))


# Damage


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_run(
        tmp_path / "RUN", {"baseline": {"chain": outcomes(6, 3)}, "plus": {"chain": outcomes(6, 5)}}
    )


@pytest.mark.parametrize("key", ["doc_hash", "target", "prompt_hash"])
def test_arms_asked_otherwise_are_not_compared(small: Path, key: str) -> None:
    file = small / "samples" / "plus.chain.jsonl"
    rows = lines_of(file)
    rows[4][key] = "other"
    write_lines(file, rows)
    with pytest.raises(
        CorruptError, match=f"plus.chain.jsonl and .*baseline.chain.jsonl .*`{key}` of document 4"
    ):
        load(small)


def test_another_prompt_is_no_damage_between_prompts(tmp_path: Path) -> None:
    said = one(tmp_path, n=6, baseline=3, plus=3, baseline_think=4)
    assert said  # Made up with other prompt hashes for think.


def test_other_documents_are_not_paired(small: Path) -> None:
    file = small / "samples" / "plus.chain.jsonl"
    rows = lines_of(file)
    rows[2]["doc_id"] = 77
    write_lines(file, rows)
    with pytest.raises(CorruptError, match="only one of them holds document 2"):
        load(small)


def test_a_document_twice_is_refused(small: Path) -> None:
    file = small / "samples" / "plus.chain.jsonl"
    rows = lines_of(file)
    write_lines(file, [*rows[:5], rows[0]])
    with pytest.raises(CorruptError, match=r"plus\.chain\.jsonl:6: document 0 occurs a second time"):
        load(small)


def test_a_cell_with_too_few_documents_is_refused(small: Path) -> None:
    for arm in ("baseline", "plus"):
        file = small / "samples" / f"{arm}.chain.jsonl"
        write_lines(file, lines_of(file)[:5])
    with pytest.raises(CorruptError, match="holds 5 of the benchmark's 6 documents"):
        load(small)


@pytest.mark.parametrize(
    "line",
    [
        b'{"doc_id": 3',
        b"[]",
        b"7",
        b"",
        b"\xff",
        b"[" * 100_000,
        b"9" * 10_000,
    ],
    ids=["cut", "list", "number", "empty", "bytes", "brackets", "digits"],
)
def test_a_line_that_is_no_sample_is_named(small: Path, line: bytes) -> None:
    file = small / "samples" / "plus.chain.jsonl"
    rows = file.read_bytes().splitlines()
    rows[3] = line
    file.write_bytes(b"\n".join(rows))
    with pytest.raises(CorruptError, match=r"plus\.chain\.jsonl:4: "):
        load(small)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("correct", "1"),
        ("correct", None),
        ("correct", float("nan")),
        ("correct", float("inf")),
        ("correct", 10**400),
        ("doc_id", "3"),
        ("doc_hash", None),
        ("truncated", "no"),
        ("tokens", 1.5),
    ],
)
def test_a_field_of_the_wrong_type_is_named(small: Path, key: str, value: Any) -> None:
    file = small / "samples" / "plus.chain.jsonl"
    rows = lines_of(file)
    rows[3][key] = value
    write_lines(file, rows)
    with pytest.raises(CorruptError, match=rf"plus\.chain\.jsonl:4: `{key}`"):
        load(small)


def test_a_missing_field_is_named(small: Path) -> None:
    file = small / "samples" / "plus.chain.jsonl"
    rows = lines_of(file)
    del rows[0]["tokens"]
    write_lines(file, rows)
    with pytest.raises(CorruptError, match=r"plus\.chain\.jsonl:1: `tokens`"):
        load(small)


def test_an_empty_sample_file_is_refused(small: Path) -> None:
    (small / "samples" / "plus.chain.jsonl").write_bytes(b"")
    with pytest.raises(CorruptError, match="holds no sample"):
        load(small)


def test_what_is_no_run_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no run\.json"):
        load(tmp_path)
    with pytest.raises(UsageError, match="is not a taskvec/results/1"):
        load(small / "run.json")
    with pytest.raises(StorageError, match="No such file"):
        load(tmp_path / "nothing")
    write_json(tmp_path / "results.json", {"schema": "taskvec/results/1"})
    with pytest.raises(CorruptError, match="not as taskvec writes it"):
        load(tmp_path / "results.json")


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"schema": "taskvec/run/1"}'])
def test_a_damaged_run_is_refused(small: Path, content: bytes) -> None:
    (small / "run.json").write_bytes(content)
    with pytest.raises((CorruptError, UsageError), match=str(small)):
        load(small)


def test_a_damaged_arm_is_refused(small: Path) -> None:
    write_json(small / "arms" / "plus.json", {"effect": effect(1.0)})
    with pytest.raises(CorruptError, match=r"run\.json, an arm or a sample is not as taskvec writes it"):
        load(small)
