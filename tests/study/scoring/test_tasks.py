"""Benchmarks as lm-eval tasks: found without its whole index, set up as the study says, refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
import lm_eval.tasks
import pytest

import chat
from taskvec.errors import MismatchError, StorageError, UsageError
from taskvec.study import load
from taskvec.study.environment import quiet
from taskvec.study.running import preflight
from taskvec.study.scoring import prompts, tasks

if TYPE_CHECKING:
    from taskvec.study.scoring.tasks import Loaded

REGISTERED = Path(lm_eval.__file__).parent / "tasks"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat.write_family(tmp_path_factory.mktemp("models"))


def loaded(folder: Path, *benchmarks: dict[str, Any], **changes: Any) -> tuple[Loaded, ...]:
    if benchmarks:
        changes["benchmarks"] = [{"id": f"b{at}", **one} for at, one in enumerate(benchmarks)]
    content = chat.study(folder, folder / "tasks", **changes)
    return tasks.load(load(chat.write_study(folder / "study.yaml", content)))


def words(**changes: Any) -> dict[str, Any]:
    return {"task": "tiny_words", "max_new_tokens": chat.CAP, **changes}


def asked(one: Loaded, line: str | None = None) -> list[str]:
    with quiet():
        return [prompt for prompt, _ in prompts.render(one, chat.tokenizer(), line)]


def test_what_a_benchmark_is(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    first, second = loaded(tmp_path)
    assert first.to_json() == {
        "id": "words", "title": "Words", "task": "tiny_words", "version": "2.0", "kind": "generate",
        "metric": "exact_match", "filter": "last", "shots": 0, "max_new_tokens": chat.CAP, "limit": None,
        "n": 7, "note": None, "readings": [], "of": None, "perturbation": None, "parent": None,
        "sweep": True, "subtasks": [], "data": list(first.data),
    }  # fmt: skip
    (data,) = first.data
    assert (data["task"], data["repository"], data["revision"]) == ("tiny_words", None, None)
    assert len(data["fingerprint"]) == 32
    assert (second.kind, second.metric, second.filter, second.n) == ("choice", "acc", "none", 7)
    assert second.note is not None
    assert "chain of thought has no effect" in second.note


def test_what_is_asked_for(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    choice = {"task": "tiny_choice", "metric": "acc_norm"}
    first, second = loaded(tmp_path, words(filter="strict", limit=3, shots=2), choice)
    assert (first.filter, first.n, first.shots) == ("strict", 3, 2)
    assert second.metric == "acc_norm"


def test_the_cap_is_always_explicit_and_answers_are_greedy(tmp_path: Path) -> None:
    hot = {"until": ["w7"], "do_sample": True, "temperature": 0.8, "top_p": 0.9, "max_gen_toks": 999}
    chat.write_tasks(tmp_path / "tasks", chat.task("tiny_words", generation_kwargs=hot))
    (one,) = loaded(tmp_path, words())
    assert one.tasks[0].config.generation_kwargs == {
        "until": ["w7"], "max_gen_toks": chat.CAP, "do_sample": False, "temperature": 0.0
    }  # fmt: skip


def test_data_lies_beside_the_task_wherever_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat.write_tasks(tmp_path / "tasks" / "deeper")
    elsewhere = tmp_path / "elsewhere"
    chat.write_lines(elsewhere / "test.jsonl", chat.documents(2, 9))
    chat.write_lines(elsewhere / "train.jsonl", chat.documents(2, 9))
    monkeypatch.chdir(elsewhere)
    (one,) = loaded(tmp_path, words())
    assert one.n == 7
    assert [doc["question"] for doc in one.tasks[0].eval_docs] == [
        doc["question"] for doc in chat.documents(7, 1)
    ]
    assert Path.cwd() == elsewhere


REFUSED = {
    "no cap": ({}, {"max_new_tokens": None}, "without a token limit; choose a max_new_tokens"),
    "shots that are pinned": ({"num_fewshot": 0}, {"shots": 2}, "only 0 shots, not 2; choose shots: 0"),
    "no such metric": ({}, {"metric": "acc"}, "no metric 'acc'; choose one of exact_match"),
    "no such filter": ({}, {"filter": "loose"}, "no filter 'loose'; choose one of last, strict"),
    "code of the model": ({"unsafe_code": True}, {}, "the sandbox is only for humaneval and humaneval_plus"),
    "several answers": ({"repeats": 3}, {}, "samples several answers"),
    "a loss": ({"output_type": "loglikelihood_rolling", "metric_list": [{"metric": "byte_perplexity"}],
                "filter_list": None, "generation_kwargs": None}, {}, "of the kind loglikelihood_rolling"),
    "a filter that fails": ({"filter_list": [{"name": "last", "filter": [
        {"function": "regex", "regex_pattern": "(w"}]}]}, {}, "its filter 'last' cannot be built ("),
    "an error rate": ({"metric_list": [{"metric": "exact_match", "aggregation": "mean",
                                        "higher_is_better": False}]}, {}, "lower is better for exact_match"),
    "a template that fails": ({"doc_to_text": "{{ question.frob() }}"}, {}, "cannot be built"),
    "an unknown metric": ({"metric_list": [{"metric": "frob", "aggregation": "mean"}]}, {},
                          "lm-eval does not know its metric 'frob'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    config, benchmark, says = REFUSED[name]
    chat.write_tasks(tmp_path / "tasks", chat.task("tiny_words", **config))
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, words(**benchmark))
    message = str(caught.value)
    assert says in message
    assert "benchmark 'b0'" in message
    assert "tiny_words" in message
    assert "\n" not in message


def test_a_name_with_a_remark(tmp_path: Path) -> None:
    path = chat.write_tasks(tmp_path / "tasks") / "tiny_words.yaml"
    path.write_text(path.read_text().replace("task: tiny_words", "task: tiny_words  # mine"))
    assert loaded(tmp_path, words())[0].n == 7


def with_code(folder: Path, code: str, *changes: tuple[str, str]) -> None:
    """The task of words with functions beside it; YAML's writer has no such tag."""
    path = chat.write_tasks(folder) / "tiny_words.yaml"
    (folder / "own.py").write_text(code)
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_filters_of_a_tasks_own_say_what_is_no_answer(tmp_path: Path) -> None:
    code = (
        "from lm_eval.filters.extraction import RegexFilter\n"
        "class Letters(RegexFilter):\n"
        "    def __init__(self, regex_pattern, group_select=0, fallback='[none]'):\n"
        "        super().__init__(regex_pattern, group_select, fallback)\n"
    )
    with_code(tmp_path / "tasks", code, ("function: regex", "function: !function own.Letters"))
    assert loaded(tmp_path, words())[0].invalid == {"tiny_words": "[none]"}


def test_each_task_of_a_group_has_its_own_filters(tmp_path: Path) -> None:
    first = [{"name": "last", "filter": [{"function": "take_first"}]}]
    group = {"group": "both", "task": ["tiny_one", "tiny_two"]}
    chat.write_tasks(
        tmp_path / "tasks", chat.task("tiny_one", filter_list=first), chat.task("tiny_two"), group
    )
    (one,) = loaded(tmp_path, words(task="both"))
    assert one.invalid == {"tiny_one": None, "tiny_two": "[invalid]"}


def test_what_a_task_draws_it_draws_again(tmp_path: Path) -> None:
    code = (
        "import random\nimport numpy as np\n"
        "def mixed(docs):\n"
        "    order = list(range(len(docs)))\n"
        "    random.shuffle(order)\n"
        "    return docs.select(order)\n"
        "def asks(doc):\n"
        "    return f\"{doc['question']} w{np.random.randint(24)} w{random.randint(0, 23)}\"\n"
    )
    with_code(
        tmp_path / "tasks", code,
        ("doc_to_text: '{{question}}'", "doc_to_text: !function own.asks\nprocess_docs: !function own.mixed"),
    )  # fmt: skip
    (first,), (again,) = loaded(tmp_path, words()), loaded(tmp_path, words())
    assert asked(first) == asked(first) == asked(again)


def test_pinned_shots_may_be_said_again(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks", chat.task("tiny_words", num_fewshot=0))
    assert loaded(tmp_path, words(shots=0))[0].shots == 0


def test_shots_are_the_same_each_time_they_are_drawn(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    (one,) = loaded(tmp_path, words(shots=2))
    first, again = asked(one), asked(one)
    assert first == again
    assert all(prompt.count("<|im_start|> user") == 3 for prompt in first)
    assert len({prompt.partition("assistant")[0] for prompt in first}) > 1


def test_the_think_line_ends_the_last_user_turn(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    line = "Think step by step ."
    for shots in (0, 2):
        (one,) = loaded(tmp_path, words(shots=shots))
        plain, think = asked(one), asked(one, line)
        for before, after in zip(plain, think, strict=True):
            assert after.count(line) == 1
            assert after.replace(f"\n{line}", "") == before
            assert after.endswith(f"\n{line} <|im_end|> <|im_start|> assistant ")


def test_what_a_template_without_system_turn_would_drop(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks", chat.task("tiny_words", description="Find the word ."))
    (one,) = loaded(tmp_path, words())
    strict = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + chat.TEMPLATE
    )
    with quiet():
        found = prompts.render(one, chat.tokenizer(template=strict), None)
    assert all(prompt.startswith("<|im_start|> user Find the word .\n\n") for prompt, _ in found)


def test_a_prefilled_answer_is_noted_and_left_open(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks", chat.task("tiny_words", gen_prefix="w3"))
    (one,) = loaded(tmp_path, words())
    assert one.note is not None
    assert "no room for a chain of thought" in one.note
    assert all(prompt.endswith("<|im_start|> assistant w3") for prompt in asked(one))


def check(models: Path, folder: Path, **changes: Any) -> preflight.Ready:
    content = chat.study(models, folder / "tasks", **changes)
    return preflight.look(chat.write_study(folder / "study.yaml", content))


@pytest.mark.parametrize(
    "text",
    ["{{question}} Let's think step by step.", "Show your work. {{question}}",
     "{{question}}\nThink step by step .", "{{question}} Explain your reasoning"],
)  # fmt: skip
def test_plain_prompts_must_not_ask_for_steps(text: str, models: Path, tmp_path: Path) -> None:
    chat.write_tasks(
        tmp_path / "tasks", chat.task("tiny_words", doc_to_text=text), chat.choice("tiny_choice")
    )
    with pytest.raises(UsageError, match=r"'words'.* already ask for steps"):
        check(models, tmp_path)
    ready = check(models, tmp_path, arms={"think": False})
    assert all(arm.prompt == "plain" for arm in ready.arms)


def test_scoring_code_is_part_of_what_is_asked(models: Path, tmp_path: Path) -> None:
    code = "import rules\ndef judge(doc, results):\n    return {'exact_match': 0}\n"
    folder = tmp_path / "tasks"
    with_code(
        folder, code.replace("import rules\n", ""),
        ("doc_to_text:", "process_results: !function own.judge\ndoc_to_text:"),
    )  # fmt: skip
    (folder / "rules.py").write_text("")

    def digest() -> str:
        return check(models, tmp_path).run["identity"]["benchmarks"]["words"]["asked"]

    first = digest()
    assert digest() == first
    (folder / "rules.py").write_text("strict = True\n")
    second = digest()
    assert second != first
    (folder / "own.py").write_text((folder / "own.py").read_text().replace("0}", "1}"))
    assert digest() not in (first, second)


def test_words_of_a_document_are_its_own(models: Path, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    rows = chat.documents(7, 1)
    rows[2]["question"] = "w1 step by step w2 ?"
    chat.write_lines(tmp_path / "tasks" / "test.jsonl", rows)
    check(models, tmp_path)


def test_what_does_not_fit_the_context(models: Path, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    # Longest plain prompt: 4 + 7 words; the line adds 5.
    tokenizer, line = chat.tokenizer(), "Think step by step ."
    (one,) = loaded(tmp_path, words())
    longest = max(len(tokenizer(prompt)["input_ids"]) for prompt in asked(one, line))
    fits = chat.CONTEXT - longest
    for room, think in ((fits, True), (fits + 5, False)):
        benchmarks = [{"id": "words", **words(max_new_tokens=room)}]
        check(models, tmp_path, benchmarks=benchmarks, arms={"think": think})
        benchmarks[0]["max_new_tokens"] = room + 1
        with pytest.raises(UsageError, match=f"'words'.*{room + 1}, more than .* context of {chat.CONTEXT}"):
            check(models, tmp_path, benchmarks=benchmarks, arms={"think": think})


def test_more_shots_than_there_are(models: Path, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    with pytest.raises(UsageError, match=r"'words'.*with 9 shots cannot be built"):
        check(models, tmp_path, benchmarks=[{"id": "words", **words(shots=9)}])


def test_an_unknown_task_names_those_near_it(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    with pytest.raises(UsageError, match=r"'b0'.* no task|has a task 'gsm8kk'.*gsm8k"):
        loaded(tmp_path, words(task="gsm8kk"))
    with pytest.raises(UsageError, match="tiny_words"):
        loaded(tmp_path, words(task="tiny_word"))


def test_a_task_file_that_is_broken(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    (tmp_path / "tasks" / "bad.yaml").write_text("task: bad\nfoo: [\n")
    with pytest.raises(UsageError, match=r"bad\.yaml is not a task that lm-eval can read"):
        loaded(tmp_path, words(task="bad"))


def test_a_folder_of_tasks_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="tasks is not a folder"):
        loaded(tmp_path, words())


def test_data_that_is_not_there(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks", chat.task("tiny_words", dataset_kwargs={"data_files": "gone.jsonl"}))
    with pytest.raises(
        StorageError, match="'b0': the data of task tiny_words, json, are not available"
    ) as caught:
        loaded(tmp_path, words())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("task", "data"), [("gsm8k", "openai/gsm8k (main)"), ("sciq", "allenai/sciq")])
def test_registered_tasks_whose_data_cannot_be_had_offline(task: str, data: str, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    with pytest.raises(StorageError) as caught:
        loaded(tmp_path, words(task=task))
    assert f"the data of task {task}, {data}, are not available without the network" in str(caught.value)
    assert caught.value.exit_code == 4


def test_only_the_tasks_named_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    manager = lm_eval.tasks.TaskManager

    def spied(*, include_path: list[Path], include_defaults: bool) -> Any:
        assert include_defaults is False
        seen.extend(include_path)
        return manager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", spied)
    chat.write_tasks(tmp_path / "tasks")
    with pytest.raises(StorageError):
        loaded(tmp_path, words(), words(task="triviaqa"))
    assert {path.relative_to(REGISTERED) if path.is_relative_to(REGISTERED) else path for path in seen} == {
        tmp_path / "tasks", Path("triviaqa")
    }  # fmt: skip


def test_gsm8k_on_data_of_ones_own(tmp_path: Path) -> None:
    rows = [{"question": f"What is {at} and 1?", "answer": f"One more.\n#### {at + 1}"} for at in range(8)]
    own = {
        "include": str(REGISTERED / "gsm8k" / "gsm8k.yaml"),
        "task": "my_gsm8k",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": "test.jsonl", "train": "train.jsonl"}},
    }
    chat.write_tasks(tmp_path / "tasks", own)
    for name in ("test", "train"):
        chat.write_lines(tmp_path / "tasks" / f"{name}.jsonl", rows)
    five, none = loaded(
        tmp_path,
        words(task="my_gsm8k", max_new_tokens=400),
        words(task="my_gsm8k", filter="flexible-extract", shots=0),
    )
    assert (five.shots, five.filter, five.metric, five.version, five.n) == (
        5,
        "strict-match",
        "exact_match",
        "3.0",
        8,
    )
    assert (none.shots, none.filter) == (0, "flexible-extract")
    assert five.tasks[0].config.generation_kwargs["max_gen_toks"] == 400
    assert "Question:" in five.tasks[0].config.generation_kwargs["until"]
    with quiet():
        found = prompts.render(five, chat.tokenizer(), None)
    assert all(prompt.count("Question:") == 6 for prompt, _ in found)


def test_a_group_is_its_tasks(tmp_path: Path) -> None:
    group = {"group": "both", "task": ["tiny_one", {"task": "tiny_two"}]}
    chat.write_tasks(tmp_path / "tasks", chat.task("tiny_one"), chat.task("tiny_two"), group)
    (one,) = loaded(tmp_path, words(task="both", limit=4))
    assert [task.task_name for task in one.tasks] == ["tiny_one", "tiny_two"]
    assert one.n == 8
    mixed = {"group": "mixed", "task": ["tiny_one", "tiny_choice"]}
    chat.write_tasks(tmp_path / "tasks", chat.choice("tiny_choice"), mixed)
    with pytest.raises(UsageError, match="of the kind generate_until, multiple_choice"):
        loaded(tmp_path, words(task="mixed"))


def test_a_registered_group_is_found_with_its_tasks(tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    with pytest.raises(StorageError, match="SaylorTwift/bbh"):
        loaded(tmp_path, words(task="bbh_cot_zeroshot"))


def test_a_target_that_cannot_chat(models: Path, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    mute = chat.write_model(tmp_path / "mute", chat.model(0), template=None)
    with pytest.raises(MismatchError, match="mute: its tokenizer has no chat template"):
        check(models, tmp_path, target=str(mute))


def test_a_target_without_tokenizer(models: Path, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    bare = tmp_path / "bare"
    chat.model(0).save_pretrained(bare)
    with pytest.raises(MismatchError, match="bare: its tokenizer"):
        check(models, tmp_path, target=str(bare))


def test_inputs_that_do_not_fit(models: Path, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    other = tmp_path / "other"
    chat.write_model(other, chat.model(3))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))
    with pytest.raises(MismatchError, match=r"do not fit together.*num_attention_heads"):
        check(models, tmp_path, donors={"minuend": str(models / "grpo"), "subtrahend": str(other)})
