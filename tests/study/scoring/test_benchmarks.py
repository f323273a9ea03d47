"""Benchmarks by name: lm-eval's registered tasks on data in the real sets' form, without the network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
import pytest
import torch
import transformers
from lm_eval.models.huggingface import HFLM

import chat
import realforms
from taskvec.errors import StorageError, UsageError
from taskvec.study import load
from taskvec.study.environment import quiet
from taskvec.study.scoring import tasks
from taskvec.study.scoring.score import score
from taskvec.study.scoring.study_lm import StudyLM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from command import Answer
    from taskvec.study.scoring.tasks import Loaded

NAMES = ("gsm8k", "gsm8k_platinum", "gsm_plus", "sciq", "bbh", "humaneval", "humaneval_plus")
CONTEXT, CAP = 1024, 6


@pytest.fixture(scope="module")
def cache() -> Iterator[Path]:
    """A cache of `datasets` that holds all sets, as if they had been downloaded."""
    folder = Path(os.environ["HF_DATASETS_CACHE"])
    realforms.write_cache(folder)
    yield folder
    # Other tests are about data that cannot be had.
    for one in folder.glob("*___*"):
        shutil.rmtree(one) if one.is_dir() else one.unlink()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    chat.write_family(folder, CONTEXT)
    return folder


def entry(name: str, **changes: Any) -> dict[str, Any]:
    cap = {} if name == "sciq" else {"max_new_tokens": CAP}
    return {"id": name.replace("_", "-"), "task": name, **cap, **changes}


def loaded(folder: Path, *benchmarks: dict[str, Any]) -> tuple[Loaded, ...]:
    content = chat.study(folder, None, benchmarks=list(benchmarks))
    return tasks.load(load(chat.write_study(folder / "study.yaml", content)))


def live(root: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(root / "instruct", dtype=torch.float32).eval()


def rows(one: Loaded, root: Path) -> list[dict[str, Any]]:
    with quiet():
        lm = StudyLM(live(root), chat.tokenizer(), 4)
    return score(lm, one, line=None)


@pytest.mark.usefixtures("cache")
def test_each_benchmark_is_there_by_name(root: Path) -> None:
    found = {one.benchmark.id: one for one in loaded(root, *map(entry, NAMES))}
    counts = {id: one.n for id, one in found.items()}
    assert counts == {
        "gsm8k": 4, "gsm8k-platinum": 3, "gsm-plus": 14, "gsm-plus-seed": 2, "gsm-plus-unanswerable": 2,
        "sciq": 5, "bbh": 54, "humaneval": 2, "humaneval-plus": 2,
    }  # fmt: skip
    for one in found.values():
        assert {data["revision"] for data in one.data} == {realforms.COMMIT}
        assert all(data["fingerprint"] for data in one.data)
    assert found["gsm8k"].to_json()["readings"] == ["strict-match"]
    assert (found["sciq"].metric, found["sciq"].to_json()["readings"]) == ("acc", ["acc_norm"])
    assert len(found["bbh"].subtasks()) == 27
    assert found["gsm-plus"].subtasks() == realforms.VARIATIONS[:-1]
    assert found["gsm-plus"].benchmark.of == "gsm-plus-seed"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["gsm8k", "sciq"])
def test_registered_benchmarks_score_as_lm_eval_does(name: str, root: Path) -> None:
    (one,) = loaded(root, entry(name))
    mine = rows(one, root)
    with quiet():
        theirs = lm_eval.simple_evaluate(
            model=HFLM(pretrained=live(root), tokenizer=chat.tokenizer(), batch_size=4),
            tasks=[name],
            task_manager=lm_eval.tasks.TaskManager(
                include_path=str(Path(lm_eval.__file__).parent / "tasks" / name), include_defaults=False
            ),
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            log_samples=True,
            bootstrap_iters=0,
            gen_kwargs=None if name == "sciq" else {"max_gen_toks": CAP},
        )["samples"][name]
    assert mine
    for reading, value in ((one.score, "correct"), *((each, each.name) for each in one.further)):
        wanted = {s["doc_id"]: s[reading.metric] for s in theirs if s["filter"] == reading.filter}
        got = {
            row["doc_id"]: row["correct"] if value == "correct" else row["readings"][value] for row in mine
        }
        assert got == pytest.approx(wanted)
    if name == "gsm8k":
        answers = {
            s["doc_id"]: (s["resps"][0][0], s["filtered_resps"][0], s["doc_hash"], s["prompt_hash"])
            for s in theirs
            if s["filter"] == one.filter
        }
        keys = ("response", "answer", "doc_hash", "prompt_hash")
        assert {row["doc_id"]: tuple(row[key] for key in keys) for row in mine} == answers
        assert len({response for response, *_ in answers.values()}) > 1


@pytest.mark.usefixtures("cache")
def test_bbh_asks_plainly_and_reads_as_registered(root: Path) -> None:
    (one,) = loaded(root, entry("bbh"))
    registered = lm_eval.tasks.TaskManager(
        include_path=str(Path(lm_eval.__file__).parent / "tasks" / "bbh" / "cot_zeroshot"),
        include_defaults=False,
    )
    with quiet():
        theirs = registered.load(["bbh_cot_zeroshot"])["tasks"]
    assert len(one.tasks) == len(theirs) == 27
    for task in one.tasks:
        its = theirs[task.task_name.replace("bbh_", "bbh_cot_zeroshot_")]
        document = task.eval_docs[0]
        assert task.doc_to_text(document) + " Let's think step by step." == its.doc_to_text(document)
        for key in ("description", "metric_list", "doc_to_target"):
            assert task.get_config(key) == its.get_config(key)
        names = [[passed.name for passed in each._filters] for each in (task, its)]
        assert names[0] == names[1]
        for mine, other in zip(task._filters, its._filters, strict=True):
            for said in ("The answer is (B).", "(A) or (B)", "True", "so w0 w1 w2", "nothing"):
                read = [
                    [step().apply([[said]], [document]) for step in passed.filters]
                    for passed in (mine, other)
                ]
                assert read[0][:1] == read[1][:1]


@pytest.mark.usefixtures("cache")
def test_rows_of_a_group_name_their_subtask(root: Path) -> None:
    (one,) = loaded(root, entry("bbh", limit=1))
    made = rows(one, root)
    assert [row["task"] for row in made] == [task.task_name for task in one.tasks]
    assert all(set(row["readings"]) == {"strict-match"} for row in made)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["gsm8k_platinum", "gsm_plus"])
def test_shots_are_never_questions_of_the_benchmark(name: str, root: Path) -> None:
    train = {row["question"] for row in realforms.gsm8k(2, 8)}
    for one in loaded(root, entry(name)):
        (task,) = one.tasks
        assert one.shots == 5
        assert {document["question"] for document in task.fewshot_docs()} == train
        assert not train & {document["question"] for document in task.eval_docs}
        task.build_all_requests(limit=1, apply_chat_template=True, fewshot_as_multiturn=True,
                                chat_template=lambda turns, **_: json.dumps(turns))  # fmt: skip
        turns = json.loads(task.instances[0].args[0])
        assert [turn["role"] for turn in turns[:-1]] == ["user", "assistant"] * 5
        assert all("####" in turn["content"] for turn in turns[1:-1:2])


@pytest.mark.usefixtures("cache")
def test_variations_share_the_cluster_of_their_seed_question(root: Path) -> None:
    plus, seeds, _ = loaded(root, entry("gsm_plus", shots=0))
    variations, questions = rows(plus, root), rows(seeds, root)
    assert {row["cluster"] for row in variations} == {row["cluster"] for row in questions}
    assert len({row["cluster"] for row in questions}) == 2
    assert [row["task"] for row in variations] == realforms.VARIATIONS[:-1] * 2
    assert all(row["target"].endswith(f"#### {n}") for row, n in zip(questions, (61, 63), strict=True))


SAYS_SO = [
    "There is not enough information to answer this question.",
    "We don't have enough information.",
    "There isn\u2019t sufficient data here.",
    "Insufficient information.",
    "We cannot determine how many apples he has, since the price is missing.",
    "It cannot be found.",
    "This can't be calculated",
    "we can't tell",
    "No answer can be determined.",
    "The problem does not state the price, so it can't be solved.",
    "The problem does not give the price.",
    "The price isn't given.",
    "The price isn\u2019t given.",
    "The number of boxes is not specified.",
    "We need more information.",
    "It is impossible to say. #### None",
    "The answer is unknown.",
    "Without the necessary information nothing follows.",
]
ANSWERS = [
    "He has 8 + 9 = 17 apples.\n#### 17",
    "",
    "John does not know the way to school. He walks 7 miles.\n#### 7",
    "He does not tell his mom. 3 + 4 = 7.\n#### 7",
    "We cannot determine the price, so I take $2.\n#### $14",
    "Tom is not tall. The answer is 12.",
    "She can buy 4 more.",
    "The missing apples are 3, so 5 are left.",
]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("answer", "right"), [*((one, 1.0) for one in SAYS_SO), *((one, 0.0) for one in ANSWERS)]
)
def test_an_unanswerable_question_of_a_benchmark(answer: str, right: float, root: Path) -> None:
    *_, unanswerable = loaded(root, entry("gsm_plus", shots=0))
    # Whether an answer is right is not whether one could be read.
    assert unanswerable.invalid == {"gsm_plus_critical": None}
    (task,) = unanswerable.tasks
    read = [[answer]]
    for step in task._filters[0].filters:
        read = list(step().apply(read, [task.eval_docs[0]]))
    assert task.process_results(task.eval_docs[0], [read[0]])["exact_match"] == right


def test_files_take_the_place_of_every_download(root: Path, tmp_path: Path) -> None:
    places = realforms.write_files(tmp_path / "data")
    found = loaded(root, *(entry(name, data=places[name]) for name in NAMES))
    assert [one.n for one in found] == [4, 3, 14, 2, 2, 5, 54, 2, 2]
    for one in found:
        assert all(data["files"] and data["revision"] is None for data in one.data)
    (gsm8k,) = loaded(root, entry("gsm8k", data={"test": f"{places['gsm8k']}/test.jsonl"}, shots=0))
    assert gsm8k.n == 4


def test_the_same_documents_have_one_fingerprint(root: Path, tmp_path: Path, cache: Path) -> None:
    places = realforms.write_files(tmp_path / "data")
    (local,) = loaded(root, entry("gsm8k", data=places["gsm8k"]))
    (cached,) = loaded(root, entry("gsm8k"))
    assert local.data[0]["fingerprint"] == cached.data[0]["fingerprint"]


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no such name": ({"task": "gsm9k"}, UsageError, "has a task 'gsm9k'; did you mean gsm8k"),
    "no such folder": ({"data": "/nowhere"}, StorageError, "data /nowhere is not a folder"),
    "no such file": ({"data": {"test": "/nowhere.jsonl"}}, StorageError, "/nowhere.jsonl of split test does"),
    "an odd kind": ({"data": {"test": __file__}}, UsageError, "is not of a known file type; give one of"),
    "no such reading": ({"also": ["loose"]}, UsageError, "metric 'loose'; choose one of strict-match"),
    "no shots": ({"data": "SET", "drop": "train"}, UsageError, "no documents to draw 5 shots from"),
    "no questions": ({"data": "SET", "drop": "test"}, UsageError, "have no split test, which the task"),
    "a tag, and no network": ({"data_revision": "v1"}, StorageError, f"{realforms.COMMIT}, not at v1"),
    "another revision": ({"data_revision": "f" * 40}, StorageError, f"at {realforms.COMMIT}, not at ffff"),
}  # fmt: skip


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", WRONG)
def test_a_benchmark_that_cannot_be_asked(name: str, root: Path, tmp_path: Path) -> None:
    changes, error, says = WRONG[name]
    changes = dict(changes)
    if changes.get("data") == "SET":
        folder = Path(realforms.write_files(tmp_path / "data")["gsm8k"])
        (folder / f"{changes.pop('drop')}.jsonl").unlink()
        changes["data"] = str(folder)
    with pytest.raises(error) as caught:
        loaded(root, {**entry("gsm8k"), **changes})
    assert says in str(caught.value)
    assert "benchmark 'gsm8k'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_json(root: Path, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("{nonsense\n")
    with pytest.raises(UsageError, match=r"data file .*test.jsonl cannot be read \("):
        loaded(root, entry("gsm8k", data={"test": str(tmp_path / "test.jsonl")}))


@pytest.mark.parametrize("name", ["mbpp", "humaneval_64_instruct", "humaneval_instruct"])
def test_other_benchmarks_that_run_code_are_refused_before_they_are_built(name: str, root: Path) -> None:
    with pytest.raises(
        UsageError, match="the sandbox is only for humaneval and humaneval_plus; choose one of these"
    ):
        loaded(root, entry(name))


def test_a_task_that_brings_humaneval_in_is_refused_too(root: Path, tmp_path: Path) -> None:
    own = {"include": str(Path(lm_eval.__file__).parent / "tasks/humaneval/humaneval.yaml"), "task": "mine"}
    chat.write_tasks(tmp_path / "tasks", own)
    content = chat.study(root, tmp_path / "tasks", benchmarks=[entry("mine")])
    with pytest.raises(UsageError, match="it runs code that the model wrote"):
        tasks.load(load(chat.write_study(tmp_path / "study.yaml", content)))


def test_metrics_of_a_function_are_known_beforehand(root: Path, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks", chat.task("tiny_words"))
    path = tmp_path / "tasks" / "tiny_words.yaml"
    (tmp_path / "tasks" / "own.py").write_text(
        "def hits(references, predictions, **_):\n"
        "    return {'hit@1': float(references[0] == predictions[0]), 'length': float(len(predictions[0]))}\n"
    )
    text = path.read_text().replace("metric: exact_match", "metric: !function own.hits")
    path.write_text(text)
    benchmark = {"id": "w", "task": "tiny_words", "max_new_tokens": chat.CAP}

    def read(**changes: Any) -> Loaded:
        content = chat.study(root, tmp_path / "tasks", benchmarks=[{**benchmark, **changes}])
        (one,) = tasks.load(load(chat.write_study(tmp_path / "study.yaml", content)))
        return one

    assert read().metric == "hit@1"
    assert read(metric="hit@1").metric == "hit@1"
    with pytest.raises(UsageError, match=r"no metric 'hits'; choose one of hit@1, length"):
        read(metric="hits")
    with pytest.raises(UsageError, match="length is 3 for an answer, but scores must be between 0 and 1"):
        read(metric="length")


@pytest.mark.usefixtures("cache")
def test_code_runs_with_consent_alone(root: Path, taskvec: Callable[..., Answer]) -> None:
    content = chat.study(root, None, benchmarks=[entry("humaneval")], arms={
        "think": False, "minus": False, "random": [], "donors": False})  # fmt: skip
    study = chat.write_study(root / "code.yaml", content)
    answer = taskvec("study", "run", study, "-o", root / "CODE")
    assert answer.code == 2
    assert "allow it with --allow-code-execution" in answer.stderr
    assert not (root / "CODE").exists()
    content["benchmarks"][0]["confirm_unsafe"] = True
    answer = taskvec("study", "run", chat.write_study(study, content), "-o", root / "CODE")
    assert answer.code == 2
    assert "there is no key 'confirm_unsafe' here" in answer.stderr


@pytest.mark.usefixtures("cache")
def test_the_revision_of_a_benchmark_that_the_cache_holds(root: Path) -> None:
    (one,) = loaded(root, entry("gsm8k", data_revision=realforms.COMMIT))
    assert one.data[0]["revision"] == realforms.COMMIT


@pytest.mark.usefixtures("cache")
def test_the_reading_that_is_not_the_score_of_a_benchmark_stands_beside_it(root: Path) -> None:
    (one,) = loaded(root, entry("gsm8k", filter="strict-match"))
    assert (one.filter, one.to_json()["readings"]) == ("strict-match", ["flexible-extract"])
    (one,) = loaded(root, entry("gsm8k", also=[]))
    assert one.to_json()["readings"] == []


def test_shots_of_a_benchmark_are_not_fetched_where_there_are_none(root: Path, tmp_path: Path) -> None:
    realforms.write_cache(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache" / "openai___gsm8k")
    code = "import sys, test_benchmarks as t; from pathlib import Path\nprint(t.loaded(Path(sys.argv[1]), "
    for shots, said in (
        (0, "gsm8k_platinum"),
        (5, "openai/gsm8k (main), whose training split gives the shots"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", f"{code}t.entry('gsm8k_platinum', shots={shots}))[0].data)", tmp_path],
            cwd=Path(__file__).parent, capture_output=True, text=True,
            env={
                **os.environ,
                "HF_DATASETS_CACHE": str(tmp_path / "cache"),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        )  # fmt: skip
        assert said.replace("_", "-") in (done.stdout + done.stderr).replace("_", "-")
        assert (done.returncode == 0) == (shots == 0)


def test_one_file_for_all_parts_of_a_benchmark_is_refused(root: Path, tmp_path: Path) -> None:
    folder = Path(realforms.write_files(tmp_path / "data")["bbh"]) / "navigate"
    for data in ({"test": f"{folder}/test.jsonl"}, str(folder)):
        with pytest.raises(UsageError, match="a group of several data sets, but data gives the same files"):
            loaded(root, entry("bbh", data=data))


def test_variations_without_unanswerable_ones_are_no_whole_benchmark(root: Path, tmp_path: Path) -> None:
    folder = Path(realforms.write_files(tmp_path / "data")["gsm_plus"])
    rows = [row for row in realforms.gsm_plus(2) if row["perturbation_type"] != "critical thinking"]
    chat.write_lines(folder / "test.jsonl", rows)
    with pytest.raises(UsageError, match="hold no variation of the type 'critical thinking'"):
        loaded(root, entry("gsm_plus", data=str(folder)))


def test_a_task_of_ones_own_with_the_name_of_a_benchmark(root: Path, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks", chat.task("gsm8k"))
    content = chat.study(root, tmp_path / "tasks", benchmarks=[entry("gsm8k")])
    with pytest.raises(
        UsageError, match="which is also a benchmark that taskvec knows by name; rename yours"
    ):
        tasks.load(load(chat.write_study(tmp_path / "study.yaml", content)))


@pytest.mark.parametrize("of", ["humaneval/humaneval.yaml", "mbpp/mbpp.yaml"])
def test_a_task_file_cannot_say_that_running_code_is_safe(of: str, root: Path, tmp_path: Path) -> None:
    own = {"include": str(Path(lm_eval.__file__).parent / "tasks" / of), "task": "mine"}
    for unsafe in ({"unsafe_code": False}, {"unsafe_code": None, "repeats": 1}):
        chat.write_tasks(tmp_path / "tasks", {**own, **unsafe})
        content = chat.study(root, tmp_path / "tasks", benchmarks=[entry("mine")])
        with pytest.raises(UsageError, match="it runs code that the model wrote"):
            tasks.load(load(chat.write_study(tmp_path / "study.yaml", content)))
