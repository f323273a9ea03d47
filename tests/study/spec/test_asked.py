"""What a study file asks in the end: perturbed copies, seed questions, and the primary family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import chat
from taskvec.errors import UsageError
from taskvec.study import load
from taskvec.study.spec.announced import primary
from taskvec.study.spec.arms import cells
from taskvec.study.spec.asked import asked
from taskvec.study.spec.study_file import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.study.spec.sections import Study


def read(folder: Path, *benchmarks: dict[str, Any], **changes: Any) -> Study:
    content = chat.study(folder, None, benchmarks=list(benchmarks), **changes)
    return load(chat.write_study(folder / "study.yaml", content))


def test_perturbed_copies_of_a_benchmark_follow_it(tmp_path: Path) -> None:
    study = read(
        tmp_path,
        {"id": "a", "task": "gsm8k", "title": "A", "limit": 7, "perturb": ["typos", "distractor-number"]},
        {"id": "b", "task": "sciq"},
    )
    found = asked(study)
    assert [one.id for one in found] == ["a", "a-typos", "a-distractor-number", "b"]
    typos = found[1]
    assert (typos.of, typos.parent, typos.perturbation, typos.limit) == ("a", "a", "typos", 7)
    assert typos.name == "A, typos"
    assert [one.cap for one in found] == [512, 512, 512, None]
    assert {arm.id for arm, one in cells(study) if one.id == "a-typos"} == {"baseline", "plus"}
    assert {arm.id for arm, one in cells(study) if one.id == "a"} > {"baseline", "plus-think", "minus"}


def test_gsm_plus_brings_its_family_along(tmp_path: Path) -> None:
    study = read(tmp_path, {"id": "plus", "task": "gsm_plus", "limit": 15, "filter": "strict-match"})
    plus, seeds, unanswerable = asked(study)
    assert (plus.of, plus.perturbation, plus.parent) == ("plus-seed", "variation", None)
    # Fifteen variations come from three questions, seven of each.
    assert (seeds.id, seeds.limit, seeds.parent, seeds.filter) == ("plus-seed", 3, "plus", "strict-match")
    assert (unanswerable.id, unanswerable.filter) == ("plus-unanswerable", None)
    assert [one["benchmark"] for one in primary(study)] == ["plus"]


def test_the_primary_family_is_v_on_each_benchmark_of_the_file(tmp_path: Path) -> None:
    study = read(tmp_path, {"id": "a", "task": "gsm8k", "perturb": ["typos"]}, {"id": "b", "task": "sciq"})
    assert primary(study) == [{"arm": "plus", "against": "baseline", "benchmark": one} for one in ("a", "b")]


def test_the_primary_family_of_the_file(tmp_path: Path) -> None:
    chosen = [{"arm": "plus-think", "against": "baseline-think", "benchmark": "a"}]
    study = read(tmp_path, {"id": "a", "task": "gsm8k", "perturb": ["typos"]}, primary=chosen)
    assert primary(study) == chosen


WRONG = {
    "an arm": (
        [{"arm": "plus-thunk", "benchmark": "a"}],
        "primary names the arm 'plus-thunk', which the study",
    ),
    "a benchmark": ([{"arm": "plus", "benchmark": "c"}], "primary names the benchmark 'c', which the study"),
    "itself": ([{"arm": "plus", "against": "plus", "benchmark": "a"}], "primary compares plus with itself"),
    "unasked": ([{"arm": "minus", "benchmark": "a-typos"}], "on which only baseline, plus are run"),
    "nothing": ([], "List should have at least 1 item"),
    "twice": ([{"arm": "plus", "benchmark": "a"}] * 2, "primary lists plus baseline a twice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_primary_family_that_is_not_there(name: str, tmp_path: Path) -> None:
    chosen, says = WRONG[name]
    with pytest.raises(UsageError) as caught:
        primary(read(tmp_path, {"id": "a", "task": "gsm8k", "perturb": ["typos"]}, primary=chosen))
    assert says in str(caught.value)


def test_an_id_that_a_copy_takes(tmp_path: Path) -> None:
    study = read(
        tmp_path, {"id": "a", "task": "gsm8k", "perturb": ["typos"]}, {"id": "a-typos", "task": "sciq"}
    )
    with pytest.raises(UsageError, match="two benchmarks have the id 'a-typos'; rename one of them"):
        asked(study)


def test_no_study_file_can_consent(tmp_path: Path) -> None:
    for key in ("confirm_unsafe", "allow_code_execution", "of", "parent"):
        with pytest.raises(UsageError, match=f"there is no key '{key}' here"):
            read(tmp_path, {"id": "a", "task": "humaneval", key: True})


def test_published_figures_are_of_benchmarks_that_are_asked(tmp_path: Path) -> None:
    published = {"source": "a paper", "changes": {"c": {"plus": 1.0}}}
    with pytest.raises(UsageError, match="published names the benchmark 'c', which the study does not have"):
        read(tmp_path, {"id": "a", "task": "gsm8k"}, published=published)


def test_published_figures_are_of_arms_that_there_are(tmp_path: Path) -> None:
    published = {"source": "a paper", "changes": {"a": {"pluss": 1.0}}}
    study = read(tmp_path, {"id": "a", "task": "gsm8k"}, published=published)
    with pytest.raises(UsageError, match="published names the arm 'pluss', which the study does not have"):
        primary(study)
    published["changes"] = {"a": {"plus": float("nan")}}
    with pytest.raises(UsageError, match="should be a finite number"):
        read(tmp_path, {"id": "a", "task": "gsm8k"}, published=published)


@pytest.mark.parametrize("name", shipped())
def test_a_study_that_ships_is_whole(name: str) -> None:
    study = load(name)
    assert study.name == name
    ids = {one.id for one in asked(study)}
    assert {one["benchmark"] for one in primary(study)} <= ids
    # Known by name, so that each brings its data and its cap, but for the family that ships with its tasks.
    assert study.tasks is not None or all(one.known is not None for one in asked(study))
    assert len(cells(study)) > len(ids)
