"""Which arms a study has, and in which order they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import chat
from taskvec.study import load
from taskvec.study.spec.arms import arms, cells

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.study.spec.sections import Study


def study(tmp_path: Path, **changes: Any) -> Study:
    content = chat.study(tmp_path, tmp_path / "tasks", **changes)
    return load(chat.write_study(tmp_path / "study.yaml", content))


def test_all_of_them(tmp_path: Path) -> None:
    found = arms(study(tmp_path, alpha=0.7, arms={"random": [7, 8, 9], "sweep": [0.25, -2]}))
    assert [(arm.id, arm.label, arm.kind, arm.prompt, arm.alpha, arm.seed) for arm in found] == [
        ("baseline", "instruct", "baseline", "plain", None, None),
        ("plus", "+v", "plus", "plain", 0.7, None),
        ("baseline-think", "instruct, think", "baseline", "think", None, None),
        ("plus-think", "+v, think", "plus", "think", 0.7, None),
        ("minus", "−v", "minus", "plain", -0.7, None),
        ("random-7", "random 7", "random", "plain", 0.7, 7),
        ("random-8", "random 8", "random", "plain", 0.7, 8),
        ("random-9", "random 9", "random", "plain", 0.7, 9),
        ("alpha-0.25", "0.25 v", "sweep", "plain", 0.25, None),
        ("alpha--2", "−2 v", "sweep", "plain", -2, None),
        ("minuend", "grpo", "donor", "plain", None, None),
        ("subtrahend", "sft", "donor", "plain", None, None),
    ]


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ({"think": False, "minus": False, "random": [], "donors": False}, []),
        ({"think": True, "minus": False, "random": [], "donors": False}, ["baseline-think", "plus-think"]),
        ({"think": False, "minus": True, "random": [], "donors": False}, ["minus"]),
        ({"think": False, "minus": False, "random": [], "donors": True}, ["minuend", "subtrahend"]),
        ({"think": False, "minus": False, "random": []}, ["minuend", "subtrahend"]),
    ],
)
def test_those_chosen(chosen: dict[str, Any], ids: list[str], tmp_path: Path) -> None:
    assert [arm.id for arm in arms(study(tmp_path, arms=chosen))] == ["baseline", "plus", *ids]


def test_a_vector_has_no_donors(tmp_path: Path) -> None:
    content = chat.study(tmp_path, tmp_path / "tasks", vector="./v", arms={"random": []})
    del content["donors"]
    read = load(chat.write_study(tmp_path / "study.yaml", content))
    assert [arm.kind for arm in arms(read)] == ["baseline", "plus", "baseline", "plus", "minus"]


def test_the_sweep_keeps_to_its_benchmarks(tmp_path: Path) -> None:
    found = [(arm.id, benchmark.id) for arm, benchmark in cells(study(tmp_path))]
    assert ("alpha-0.5", "words") in found
    assert ("alpha-0.5", "choice") not in found
    assert len(found) == 2 * 10 + 1
    assert found[:2] == [("baseline", "words"), ("baseline", "choice")]
