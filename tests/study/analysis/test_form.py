"""What cells say beyond the score: unreadable and empty answers, readings, subtasks, lengths, changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from runs import outcomes, write_run
from taskvec.errors import CorruptError
from taskvec.study.analysis.analyse import load
from taskvec.study.reporting import page
from taskvec.study.reporting.terminal import lines

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.study.rundir.results import Results

N = 200
CELLS = {"baseline": {"chain": outcomes(N, 80)}, "plus": {"chain": outcomes(N, 160)}}


def made(folder: Path, plus: dict[str, Any], baseline: dict[str, Any] | None = None, **more: Any) -> Results:
    rows = {"plus.chain": plus, "baseline.chain": baseline or {}}
    return load(write_run(folder, more.pop("cells", CELLS), rows=rows, **more))


def test_empty_answers_are_unreadable(tmp_path: Path) -> None:
    blank = {"empty": lambda number: number < 20, "extracted": lambda number: not 10 <= number < 40}
    results = made(tmp_path, {}, blank)
    cell = results.arms[0].cells["chain"]
    assert (cell.empty, cell.extraction_failures) == (0.1, 0.2)
    text = results.conclusions[1]
    assert "No answer could be read from 20.0% of instruct's outputs and 0.0% of +v's: part of the" in text
    assert "10.0% of instruct's outputs are empty, and 0.0% of +v's" in text


def test_empty_code_is_unreadable_though_nothing_is_extracted_from_code(tmp_path: Path) -> None:
    code = {"extracted": None, "verdict": "passed"}
    results = made(tmp_path, code, code | {"empty": lambda number: number < 30})
    assert [arm.cells["chain"].extraction_failures for arm in results.arms] == [0.15, 0.0]


def test_choices_are_neither_empty_nor_unreadable(tmp_path: Path) -> None:
    choice = {"extracted": None, "empty": None, "tokens": None, "response": None, "truncated": None}
    results = made(tmp_path, choice, choice, benchmarks={"chain": {"kind": "choice"}})
    cell = results.arms[1].cells["chain"]
    assert (cell.empty, cell.extraction_failures, cell.mean_tokens, cell.tokens_interval) == (None,) * 4
    assert results.token_changes == ()
    assert "are empty" not in results.conclusions[1]


def test_further_readings_are_described(tmp_path: Path) -> None:
    def flexible(share: int) -> dict[str, Any]:
        return {"readings": lambda number: {"flexible": float(number < share), "graded": 0.25}}

    named = {"chain": {"readings": ["flexible", "graded"]}}
    results = made(tmp_path / "same", flexible(170), flexible(90), benchmarks=named)
    reading = results.arms[1].cells["chain"].readings["flexible"]
    oracle = stats.binomtest(170, N).proportion_ci(method="wilson")
    assert (reading.score, *reading.interval) == pytest.approx((0.85, oracle.low, oracle.high))
    assert results.arms[1].cells["chain"].readings["graded"].score == 0.25
    assert results.tests == 1  # No reading is a test.
    assert "By other readings" not in results.conclusions[1]
    results = made(tmp_path / "other", flexible(90), flexible(170), benchmarks=named)
    assert "point the other way: by flexible +v scores 45.0% and instruct 85.0%." in results.conclusions[1]


def test_a_reading_that_rows_lack_is_damage(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="is not as taskvec writes it"):
        made(tmp_path, {}, benchmarks={"chain": {"readings": ["flexible"]}})


@pytest.mark.parametrize("value", ["1", None, float("nan"), 10**400])
def test_a_reading_that_is_no_number_is_named(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CorruptError, match=r"plus\.chain\.jsonl:1: `readings\.flexible` is not a finite"):
        made(tmp_path, {"readings": lambda number: {"flexible": value}})


@pytest.mark.parametrize(
    ("key", "value"),
    [("task", None), ("cluster", 7), ("empty", "no"), ("touched", 1), ("readings", []), ("verdict", True)],
)
def test_a_new_field_of_the_wrong_type_is_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(CorruptError, match=rf"plus\.chain\.jsonl:1: `{key}`"):
        made(tmp_path, {key: value})


def test_subtasks_have_their_scores(tmp_path: Path) -> None:
    tasks = {"task": lambda number: "hard" if number < 50 else "easy"}
    results = made(tmp_path / "a", tasks, tasks, benchmarks={"chain": {"subtasks": ["easy", "hard"]}})
    found = results.arms[1].cells["chain"].subtasks
    assert [(name, one.n, one.score) for name, one in found.items()] == [
        ("easy", 150, pytest.approx(110 / 150)),
        ("hard", 50, 1.0),
    ]
    assert made(tmp_path / "b", {}).arms[1].cells["chain"].subtasks == {}


def test_a_subtask_without_rows_is_damage(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="is not as taskvec writes it"):
        made(tmp_path, {}, benchmarks={"chain": {"subtasks": ["made", "another"]}})


def test_lengths_have_intervals_and_changes_are_paired(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    short = random.integers(20, 60, N)
    long = short + random.integers(10, 30, N)
    results = made(tmp_path, {"tokens": lambda at: int(long[at])}, {"tokens": lambda at: int(short[at])})
    cell = results.arms[1].cells["chain"]
    error = 1.96 * stats.sem(long)
    assert cell.tokens_interval == pytest.approx((long.mean() - error, long.mean() + error), abs=0.4)
    (found,) = results.token_changes
    assert (found.arm, found.against, found.benchmark) == ("plus", "baseline", "chain")
    assert (found.mean, found.other) == pytest.approx((long.mean(), short.mean()))
    assert found.difference == pytest.approx((long - short).mean())
    error = 1.96 * stats.sem(long - short)
    assert found.interval == pytest.approx((found.difference - error, found.difference + error), abs=0.15)
    ratio = long.mean() / short.mean()
    assert f"+v's answers are {ratio:.2g} times as long: {long.mean():.1f} tokens" in results.conclusions[1]


def test_lengths_that_are_not_told_apart(tmp_path: Path) -> None:
    other = {"tokens": lambda number: 10 + (number * 7) % 5}
    assert "that their length differs is not shown" in made(tmp_path / "a", other).conclusions[1]
    assert "+v's answers are as long as instruct's (12.0 tokens" in made(tmp_path / "b", {}).conclusions[1]


def test_every_arms_length_is_held_against_its_own_baseline(tmp_path: Path) -> None:
    arms = ("baseline", "plus", "baseline-think", "plus-think", "random-1", "alpha-0.5")
    results = load(write_run(tmp_path, {arm: {"chain": outcomes(20, 8)} for arm in arms}))
    assert {(one.arm, one.against) for one in results.token_changes} == {
        *((arm, "baseline") for arm in ("plus", "baseline-think", "random-1", "alpha-0.5")),
        ("plus-think", "baseline-think"),
    }


def test_lengths_that_are_not_known_are_not_compared(tmp_path: Path) -> None:
    results = made(tmp_path, {"tokens": lambda number: None if number == 3 else 12})
    assert results.token_changes == ()
    assert results.arms[1].cells["chain"].tokens_interval is None


def test_a_cells_time_is_that_of_its_rows(tmp_path: Path) -> None:
    results = made(tmp_path, {"seconds": 0.125}, {"seconds": None})
    assert [arm.cells["chain"].seconds for arm in results.arms] == [None, 25.0]


def test_answers_that_changed_stand_side_by_side(tmp_path: Path) -> None:
    cells = {"baseline": {"chain": [0.0] * 6 + [1.0] * 6}, "plus": {"chain": [1.0] * 7 + [0.0] * 5}}
    long = {"response": "x" * 500, "task": "hard"}
    results = made(tmp_path, long, {"task": "hard", "question": lambda at: f"What is {at}?"}, cells=cells)
    found = results.changed_answers
    assert [one.doc_id for one in found] == [0, 1, 2, 7, 8, 9]
    assert [one.plus.correct for one in found] == [1, 1, 1, 0, 0, 0]
    assert [one.baseline.correct for one in found] == [0, 0, 0, 1, 1, 1]
    first = found[0]
    assert (first.benchmark, first.task, first.target) == ("chain", "hard", "0")
    assert (first.baseline.answer, first.baseline.response) == ("?", "#### 0")
    assert first.plus.response == "x" * 399 + "…"


def test_answers_that_did_not_change_are_not_shown(tmp_path: Path) -> None:
    cells = {arm: {"chain": outcomes(9, 4)} for arm in ("baseline", "plus")}
    assert made(tmp_path, {}, cells=cells).changed_answers == ()


def shown(results: Results) -> str:
    """What the terminal shows, with single spaces."""
    return " ".join(" ".join(lines(results)).split())


def lost(cell: str, share: float, **more: Any) -> dict[str, Any]:
    return {f"{cell}.chain": {"extracted": lambda number: number >= share * N, **more}}


def test_a_filter_that_reads_nothing_is_the_first_thing_said(tmp_path: Path) -> None:
    cells = {arm: {"chain": outcomes(N, 0)} for arm in ("baseline", "plus", "minus")}
    rows = lost("baseline", 1) | lost("plus", 1) | lost("minus", 1)
    results = load(write_run(tmp_path, cells, rows=rows))
    whole, chain, *_ = results.conclusions
    assert whole == "Nothing is known on Chain: no answer of the target or of +v could be read."
    assert chain.startswith(
        "Chain: Warning: the filter strict could read no answer of instruct and none of +v"
    )
    assert "The same holds for every other arm." in chain
    assert "n = " not in chain
    assert "unreadable 100.0 %" in shown(results)


def test_many_unreadable_answers_of_any_arm_are_warned_of(tmp_path: Path) -> None:
    cells = {arm: {"chain": outcomes(N, 60)} for arm in ("baseline", "plus", "minus")}
    results = load(write_run(tmp_path, cells, rows=lost("minus", 0.3) | lost("plus", 0.1)))
    said = "the filter strict could read no answer in 30.0% of −v's outputs, which count as wrong."
    assert f"Chain: Warning: {said}" in results.conclusions[1]
    assert "unreadable 0.0 to 30.0 %" in shown(results)


def test_nothing_is_said_where_every_answer_was_read(tmp_path: Path) -> None:
    results = made(tmp_path, {})
    assert "could read" not in " ".join(results.conclusions)
    assert "unreadable" not in shown(results)


def test_outputs_that_are_all_empty_are_not_the_filters_fault(tmp_path: Path) -> None:
    cells = {arm: {"chain": outcomes(N, 0)} for arm in ("baseline", "plus")}
    rows = lost("baseline", 1, empty=True) | lost("plus", 1, empty=True)
    results = load(write_run(tmp_path, cells, rows=rows))
    assert "Warning: every output of instruct and of +v is empty" in results.conclusions[1]


def test_what_the_targets_generation_config_sets_is_told(tmp_path: Path) -> None:
    said = {"used": {"repetition_penalty": 1.1}, "unused": {"temperature": 0.6}}
    results = made(tmp_path, {}, run={"generation": said})
    text = " ".join(results.conclusions)
    assert "sets repetition_penalty 1.1, which changes greedy answers. Every arm uses it." in text
    html = page.rebuild(tmp_path)[1].read_text()
    assert (
        "used for every arm: repetition_penalty 1.1; not used, since answers are greedy: temperature 0.6"
        in html
    )
