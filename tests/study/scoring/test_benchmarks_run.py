"""A study of every benchmark by name, from the command line to the page, on models of little size."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

import chat
import realforms
import watched
from taskvec.study.scoring.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

CAP = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family, a study of all benchmarks and its run in RUN; to be read only."""
    folder = tmp_path_factory.mktemp("all")
    chat.write_family(folder, 1024)
    places = realforms.write_files(folder / "data")
    benchmarks: list[dict[str, Any]] = [
        {"id": "gsm8k", "task": "gsm8k", "shots": 1, "perturb": ["distractor", "instruction"]},
        {"id": "platinum", "task": "gsm8k_platinum", "shots": 1},
        {"id": "plus", "task": "gsm_plus", "shots": 1},
        {"id": "sciq", "task": "sciq", "perturb": ["distractor"]},
        {"id": "bbh", "task": "bbh", "limit": 1},
        {"id": "humaneval", "task": "humaneval"},
        {"id": "humaneval-plus", "task": "humaneval_plus"},
    ]
    for one in benchmarks:
        one["data"] = places[one["task"]]
        if one["task"] != "sciq":
            one["max_new_tokens"] = CAP
    content = chat.study(folder, None, benchmarks=benchmarks, arms={"random": [1, 2, 3], "donors": False})
    chat.write_study(folder / "study.yaml", content)
    command = ["study", "run", "study.yaml", "-o", "RUN", "--offline", "--quiet", "--allow-code-execution"]
    outside = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    last, said = watched.run(*command, cwd=folder, env=outside)
    assert last == "0 [] False", said
    return folder


def rows(root: Path, arm: str, benchmark: str) -> list[dict[str, Any]]:
    path = root / "RUN" / "samples" / f"{arm}.{benchmark}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_study_of_all_benchmarks_is_complete(root: Path) -> None:
    results = json.loads((root / "RUN" / "results.json").read_text())
    assert results["complete"]
    ids = [one["id"] for one in results["benchmarks"]]
    assert ids == [
        "gsm8k", "gsm8k-distractor", "gsm8k-instruction", "platinum", "plus", "plus-seed",
        "plus-unanswerable", "sciq", "sciq-distractor", "bbh", "humaneval", "humaneval-plus",
    ]  # fmt: skip
    assert {one["benchmark"] for one in results["comparisons"] if one["family"] == "primary"} == {
        "gsm8k", "platinum", "plus", "sciq", "bbh", "humaneval", "humaneval-plus",
    }  # fmt: skip
    asked = {arm["id"]: set(arm["cells"]) for arm in results["arms"]}
    assert "gsm8k-distractor" in asked["plus"]
    others = set.union(*(cells for arm, cells in asked.items() if arm not in ("baseline", "plus")))
    assert not {"gsm8k-distractor", "plus-seed", "sciq-distractor"} & others
    assert [one["perturbation"] for one in results["robustness"]]
    assert results["sandbox"].startswith("Landlock")
    # The page is shown around: where files are kept is nobody's business.
    assert str(root) not in (root / "RUN" / "run.json").read_text()
    assert results["command"].startswith("taskvec study run study.yaml -o RUN")
    for one in results["benchmarks"]:
        assert all(data["fingerprint"] for data in one["data"])
    assert (root / "RUN" / "report.html").stat().st_size > 0


def test_perturbed_rows_of_a_benchmark_pair_with_the_clean_ones(root: Path) -> None:
    for clean, perturbed in (("gsm8k", "gsm8k-distractor"), ("sciq", "sciq-distractor")):
        first, second = rows(root, "plus", clean), rows(root, "plus", perturbed)
        for key in ("doc_id", "doc_hash", "target"):
            assert [row[key] for row in first] == [row[key] for row in second]
        assert all(row["touched"] for row in second)
        assert all(row["touched"] is None for row in first)
        assert all(a["prompt_hash"] != b["prompt_hash"] for a, b in zip(first, second, strict=True))


def test_code_of_a_random_model_is_judged_in_the_sandbox(root: Path) -> None:
    for benchmark in ("humaneval", "humaneval-plus"):
        for row in rows(root, "baseline", benchmark):
            assert row["correct"] == 0.0
            assert row["verdict"] not in (None, "passed")
            assert row["empty"] == (not row["answer"].strip())


def test_an_interrupted_study_of_benchmarks_is_reported_all_the_same(root: Path) -> None:
    from taskvec.study import report

    results, page = report(root / "RUN")
    assert results.complete
    assert page == root / "RUN" / "report.html"


def test_the_sandbox_of_this_machine_says_what_it_is() -> None:
    sandbox = Sandbox.open()
    assert "Landlock" in sandbox.described
