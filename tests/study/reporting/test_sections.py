"""The sections of the report one by one: charts, perturbations, answers, and where all of it comes from."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from browsing.pages import SUBTASKS, Parsed, rich
from runs import outcomes, typical, write_run
from taskvec.study.analysis.analyse import load
from taskvec.study.reporting.answers import answers
from taskvec.study.reporting.costs import duration
from taskvec.study.reporting.overview import arms, glance
from taskvec.study.reporting.page import render
from taskvec.study.reporting.page_tables import numbers
from taskvec.study.reporting.provenance import provenance
from taskvec.study.reporting.robustness import robustness
from taskvec.study.reporting.scales import Scale, same_span
from taskvec.study.reporting.strips import Strip
from taskvec.study.reporting.terminal import lines

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.study.rundir.results import Results


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return rich(tmp_path_factory.mktemp("rich"))


def test_charts_show_all_arms_by_name(tmp_path: Path) -> None:
    results = load(write_run(tmp_path, typical(100)))
    charts = re.findall(r'<table class="chart">.*?</table>', "".join(arms(results)))
    assert len(charts) == 4
    for arm in results.arms:
        assert (f">{arm.label}</th>" in charts[0]) == (arm.kind != "sweep")
    assert ">97.0</td>" in charts[0]
    assert ">+51.0</td>" in charts[0]


def test_charts_have_one_span() -> None:
    ranges = [(0.2, 0.9), (0.79, 0.81), (0.95, 0.99), ()]
    scales = same_span(ranges)
    assert len({round(scale.high - scale.low, 9) for scale in scales}) == 1
    for scale, values in zip(scales, ranges, strict=True):
        assert all(scale.low < value < scale.high for value in values)
        assert scale.low > -0.1
        assert scale.high < 1.1
    narrow = same_span([(0.5, 0.51)])[0]
    assert narrow.high - narrow.low == pytest.approx(0.2)  # Noise must not fill a plot.


def test_ticks_are_round_and_within() -> None:
    for low, high in ((0.0, 1.0), (-0.035, 0.6), (0.61, 0.83), (-2.5, 4.0), (0.0, 0.02)):
        ticks = Scale(low, high).ticks()
        assert 2 <= len(ticks) <= 7
        assert all(low - 1e-6 <= tick <= high + 1e-6 for tick in ticks)
        steps = {round(after - before, 6) for before, after in itertools.pairwise(ticks)}
        assert len(steps) == 1


def test_marks_stand_where_their_values_are() -> None:
    strip = Strip(Scale(-0.5, 1.5)).bar((0.0, 1.0), "plus").mark(0.5, "plus", hollow=True).markup()
    assert 'x1="25.00%" x2="75.00%"' in strip
    assert '<svg class="at" x="50.00%" y="50%"><path class="mark plus hollow"' in strip


def test_the_first_picture_holds_the_changes(everything: Results) -> None:
    charts = re.findall(r'<table class="chart">.*?</table>', "".join(glance(everything)))
    titles = [re.sub("<.*?>", " ", chart).split()[0] for chart in charts]
    assert titles == ["GSM8K", "BIG-Bench", "HumanEval", "SciQ"]  # No perturbed ones.
    rows = [re.sub("<.*?>", " ", row).split() for row in re.findall("<tr.*?</tr>", charts[0])]
    said = [" ".join(row) for row in rows]
    assert said[1:6] == [
        "instruct 46.0% 39.2 to 52.9",
        "+v +51.5 +44.5 to +58.5",
        "instruct, think +51.0 +44.0 to +58.0",
        "+v, think +51.5 +44.5 to +58.5",
        "random, mean of 3 (+0.4) −1.2 to +1.9",
    ]


def test_what_has_not_been_scored_is_said_so(tmp_path: Path) -> None:
    cells = {arm: {"chain": outcomes(9, 4)} for arm in ("baseline", "plus")}
    begun = load(write_run(tmp_path / "begun", cells, arms=[*cells, "baseline-think"]))
    assert "".join(glance(begun)).count("not scored yet") == 1
    whole = load(write_run(tmp_path / "whole", cells))
    assert "not scored yet" not in "".join(glance(whole))


def test_perturbations_stand_beside_the_clean_gain(everything: Results) -> None:
    text = "".join(robustness(everything))
    charts = re.findall(r'<table class="chart">.*?</table>', text)
    assert len(charts) == 2
    assert "GSM8K" in charts[0]
    rows = re.findall("<tr.*?</tr>", text)
    typos = next(re.sub("<.*?>", " ", row) for row in rows if ">typos</th>" in row)
    assert " ".join(typos.split()) == "typos −28.3 −34.3 to −23.3 45% 35% to 57%"
    hollow = re.search(r'x="([\d.]+)%" y="50%"><path class="mark plus hollow"', rows[3])
    full = re.search(r'x="([\d.]+)%" y="50%"><path class="mark plus" ', rows[3])
    assert hollow
    assert full
    assert float(full[1]) < float(hollow[1])
    assert "gain open" in charts[1]


def test_changed_answers_are_marked_in_words(everything: Results) -> None:
    text = "".join(answers(everything))
    assert text.count('<article class="pair">') == len(everything.changed_answers) == 30
    assert text.count("✓ right") == text.count("✗ wrong") == 30
    first = text[: text.index("</article>")]
    assert "gained; the right answer is <code>3</code>" in first
    assert re.search(r"instruct</strong>.*✗ wrong.*\+v</strong>.*✓ right", first, re.DOTALL)
    assert "no answer could be read" in text
    # One gained and one lost are open, the other four of each benchmark are folded; so are perturbed ones.
    clean, perturbed = text.split("Answers to perturbed questions")
    folds = re.findall("<details>.*?</details>", clean, re.DOTALL)
    assert [fold.count("<article") for fold in folds] == [4] * 4
    assert perturbed.count("<article") == 6


def test_where_it_comes_from_is_said(everything: Results) -> None:
    words = Parsed("".join(provenance(everything))).words
    assert everything.command
    assert everything.command in words
    assert everything.study_digest in words
    assert "2026-11-24T12:00:00Z" in words
    for benchmark in everything.benchmarks:
        for entry in benchmark.data:
            assert entry.task in words
            assert entry.revision
            assert entry.revision in words
    assert "a-long-folder/rows.jsonl" in words


def test_tasks_of_a_group_and_further_readings_have_their_columns(everything: Results) -> None:
    parsed = Parsed("".join(numbers(everything)))
    assert all(task in parsed.words for task in SUBTASKS)
    assert "BIG-Bench Hard: 27 tasks one by one" in parsed.words
    assert "family flexible-extract interval" in parsed.words
    assert "family acc_norm interval" in parsed.words
    assert "The primary family holds 4 tests" in parsed.words
    assert "GSM8K: 4 further tables" in parsed.words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.52, "0.5 s"), (42.4, "42 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_times_are_in_units_that_fit(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_what_others_reported_stands_beside_what_was_found(tmp_path: Path) -> None:
    cells = {"baseline": {"chain": outcomes(100, 40)}, "plus": {"chain": outcomes(100, 60)}}
    published = {"source": "a paper", "changes": {"chain": {"plus": 12.3, "plus-think": -1.0}}}
    results = load(write_run(tmp_path, cells, study={"published": published}))
    said = "\n".join(lines(results))
    assert "Reported elsewhere (a paper), and found here, in points" in said
    assert "Chain, +v: +12.3 reported, +20.0 (" in said
    assert "Chain, plus-think: −1.0 reported, not scored here" in said
    page = render(results)
    assert "Reported elsewhere, and found here" in page
    assert page.count("not scored</td>") == 1
