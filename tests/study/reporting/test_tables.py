"""The terminal's tables: every figure in its place, within the width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browsing.pages import rich
from runs import outcomes, typical, write_run
from taskvec.study.analysis.analyse import load
from taskvec.study.reporting.terminal import lines

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.study.rundir.results import Results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    titles = {name: {"title": f"{name.capitalize()} questions of a long name"} for name in ("chain", "list")}
    folder = tmp_path_factory.mktemp("run")
    return load(write_run(folder, typical(200), benchmarks=titles, gains={"alpha-0.25": 0.07}))


def row(results: Results, label: str, at: int = 0) -> list[str]:
    """The cells of a row; there are two tables, so two rows of some labels."""
    rows = [line for line in lines(results) if line.startswith(f"  {label}")]
    return rows[at].split()


def test_everything_fits_a_terminal(results: Results) -> None:
    assert max(map(len, lines(results))) <= 100
    assert all(line == line.rstrip() for line in lines(results))


def test_scores_stand_with_interval_and_change(results: Results) -> None:
    # 195 of 200: Wilson's interval is 94.3 to 98.9, and 92 of 200 is 46.0.
    assert row(results, "+v ")[:4] == ["+v", "97.5", "±", "2.3"]
    assert row(results, "+v ")[4] == "+51.5"
    assert row(results, "instruct ")[:4] == ["instruct", "46.0", "±", "6.8"]


def test_a_difference_that_is_not_shown_is_in_brackets(results: Results) -> None:
    assert "(+1.5)" in row(results, "random 3")
    assert "(0.0)" in row(results, "random 1")


def test_think_arms_are_held_against_their_own_baseline(results: Results) -> None:
    assert row(results, "+v, think")[5] == "(+0.5)"


def test_the_curve_is_in_order_of_alpha_with_its_gain(results: Results) -> None:
    found = [line.split() for line in lines(results)]
    at = next(at for at, words in enumerate(found) if words[:1] == ["α"])
    curve = found[at + 1 : at + 8]
    assert [words[0] for words in curve] == ["−1", "0", "0.25", "0.5", "0.75", "1", "1.5"]
    assert curve[2][:3] == ["0.25", "0.07", "52.0"]
    assert curve[1][:2] == ["0", "46.0"]  # The baseline has no gain.


def test_the_conclusions_are_all_there(results: Results) -> None:
    text = " ".join(" ".join(lines(results)).split())
    assert all(" ".join(conclusion.split()) in text for conclusion in results.conclusions)


def test_what_is_missing_and_what_was_not_asked_for(tmp_path: Path) -> None:
    cells = {arm: {"chain": outcomes(9, 4), "logic": outcomes(9, 4)} for arm in ("baseline", "plus")}
    cells["alpha-0.5"] = {"chain": outcomes(9, 4)}
    benchmarks = {"logic": {"sweep": False}}
    arms = [*cells, "minus"]
    made = load(write_run(tmp_path, cells, arms=arms, benchmarks=benchmarks))
    assert row(made, "−v") == ["−v", "missing", "missing"]
    assert row(made, "0.5 v") == ["0.5", "v", "44.4", "±27.2", "(0.0)"]


def test_many_benchmarks_stand_in_several_tables(tmp_path: Path) -> None:
    names = [f"b{at}" for at in range(6)]
    cells = {arm: {name: outcomes(9, 4) for name in names} for arm in ("baseline", "plus")}
    made = load(write_run(tmp_path, cells))
    assert [line.count("n = 9") for line in lines(made) if line.lstrip().startswith("n = 9")] == [4, 2]
    assert max(map(len, lines(made))) <= 100
    assert not any("α  eff" in line for line in lines(made))


def test_long_titles_stand_in_several_lines(results: Results) -> None:
    # A column holds "Chain questions of", not the rest; there are two tables.
    rows = [" ".join(line.split()) for line in lines(results)]
    assert rows.count("Chain questions of Logic List questions of Order") == 2
    assert sum(row.endswith("a long name a long name") for row in rows) == 2


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return list(lines(rich(tmp_path_factory.mktemp("rich"))))


def test_perturbed_benchmarks_have_a_line_each(everything: list[str]) -> None:
    assert max(map(len, everything)) <= 100
    typos = next(line for line in everything if line.startswith("  GSM8K, typos "))
    # Of a gain of 51.5 points 45% is left.
    assert " ".join(typos.split()) == "GSM8K, typos +51.5 +23.2 −28.3 −34.3 to −23.3 45% (35% to 57%)"
    unclear = next(line for line in everything if line.startswith("  HumanEval, distractor "))
    assert unclear.endswith("– (gain open)")
    assert "(−2.1)" in unclear
    assert not any("GSM8K, typos" in line for line in everything if "n = " in line)


def test_tokens_and_families_are_told(everything: list[str]) -> None:
    text = " ".join(" ".join(everything).split())
    assert "Tokens an answer, GSM8K: instruct 114; +v 197; instruct, think 227; " in text
    assert "Tokens an answer, SciQ" not in text
    assert "The primary family holds 4 tests, chosen before the first run, the secondary one 52." in text
