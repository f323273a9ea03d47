"""The miniature family: what it is, that its tests were not in its lessons, that the usual tools load it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import taskvec

MINI = Path(taskvec.__file__).parent / "mini"
ROLES = ("base", "instruct", "sft", "grpo")

sys.path.insert(0, str(Path(__file__).parents[2] / "benches" / "mini"))

import benchmarks  # noqa: E402
import corpus  # noqa: E402
import problems  # noqa: E402

SEED = 0
"""The seed of the shipped weights."""


def shipped(task: str) -> list[dict[str, Any]]:
    lines = (MINI / "tasks" / f"mini_{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def ranking(prompt: str) -> list[str]:
    pairs = [(a, b) if sign == ">" else (b, a) for a, sign, b in re.findall(r"(\w+) ([<>]) (\w+)", prompt)]
    below = dict(pairs)
    (top,) = set(below) - set(below.values())
    ranked = [top]
    while ranked[-1] in below:
        ranked.append(below[ranked[-1]])
    return ranked


def asked(prompt: str) -> tuple[object, ...]:
    """What a prompt asks, read from its text alone: the same for the same question in other words."""
    words = re.findall(r"\w+|[-+<>]", prompt.split("\nThink")[0])
    if "has" in words:
        turns = [(word, int(amount)) for word, amount in re.findall(r", (\w+) (\d+)", prompt)]
        gains = {"buys", "finds", "gets", "wins"}
        return ("sum", int(words[2]), *(amount if word in gains else -amount for word, amount in turns))
    if "Compute" in words:
        at = words.index("Compute")
        signed = zip(words[at + 2 :: 2], words[at + 3 :: 2], strict=True)
        return ("sum", int(words[at + 1]), *(int(sign + amount) for sign, amount in signed))
    if "Which" in words:
        return ("order", *ranking(prompt), words[words.index("is") + 1])
    return tuple(words)


def solved(prompt: str) -> str:
    """The answer, worked out from the prompt's text."""
    kind, *rest = asked(prompt)
    if kind == "sum":
        return str(sum(int(str(number)) for number in rest))
    if kind == "order":
        *ranked, place = rest
        return str(ranked[-1] if place == "last" else ranked[("first", "second", "third").index(str(place))])
    words = [str(word) for word in rest]
    if kind == "Evaluate":
        value = words[0] == "True"
        for operator, other in zip(words[1::2], (word == "True" for word in words[2::2]), strict=True):
            value = {"and": value & other, "or": value | other, "xor": value ^ other}[operator]
        return str(value)
    letters = words[:4]
    for move in words[4:-2]:
        a, b, c, d = letters
        letters = {"reverse": [d, c, b, a], "rotate": [b, c, d, a], "swap": [b, a, c, d]}[move]
    return " ".join(letters)


@pytest.mark.parametrize("task", problems.BENCHMARKS)
def test_shipped_tests_are_what_the_generator_draws(task: str) -> None:
    assert (MINI / "tasks" / f"mini_{task}.jsonl").read_text(encoding="utf-8") == benchmarks.lines(task)
    assert len({asked(row["prompt"]) for row in shipped(task)}) == 500


@pytest.mark.parametrize("task", problems.BENCHMARKS)
def test_shipped_answers_are_right(task: str) -> None:
    for row in shipped(task):
        answer = row["choices"][row["answer"]].removeprefix("#### ") if "choices" in row else row["answer"]
        assert answer == solved(row["prompt"]), row["prompt"]


def test_steps_of_a_worked_answer_lead_to_it() -> None:
    for task in problems.BENCHMARKS:
        for problem in problems.held_out(task, "dev", 50):
            assert problem.answer == solved(problem.prompt)
            assert problem.steps[-1].endswith(problem.answer)
            assert problem.reply(worked=True).startswith(f"think {problem.steps[0]} ;")


def held_out() -> list[problems.Problem]:
    splits = [(task, split) for task in problems.BENCHMARKS for split in ("dev", "test")]
    return [problem for task, split in splits for problem in problems.held_out(task, split)]


def test_problems_share_a_key_just_where_they_ask_the_same() -> None:
    seen = [*held_out(), *(document.problem for document in corpus.documents("instruct", SEED))]
    said = [(problem.key, asked(problem.prompt)) for problem in seen]
    assert len(set(said)) == len({key for key, _ in said}) == len({question for _, question in said})


def test_held_out_problems_never_occur_in_training() -> None:
    unseen = {problem.key for problem in held_out()}
    assert len(unseen) == 2 * 4 * 500
    for stage, mix in corpus.MIXES.items():
        keys = [document.problem.key for document in corpus.documents(stage, SEED)]
        assert len(keys) == mix.documents
        assert unseen.isdisjoint(keys)


def test_documents_hold_their_problems() -> None:
    for document in corpus.documents("sft", SEED):
        assert f"user\n{document.problem.prompt}<|im_end|>" in document.prompt
        assert asked(document.problem.prompt)[0] == "sum"


@pytest.mark.parametrize("role", ROLES)
def test_plain_auto_classes_load_it_right(role: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MINI / role)
    model = AutoModelForCausalLM.from_pretrained(MINI / role, dtype=torch.float32)
    prompt = "Fay has 7 beads, eats 4, gets 5. How many now?\nThink step by step."
    words = re.findall(r"\w+|[,.?]", prompt)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    assert text == corpus.chat(prompt)
    inputs = tokenizer(text, return_tensors="pt")
    opened = ["<|im_start|>", "user", *words, "<|im_end|>", "<|im_start|>", "assistant"]
    assert tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]) == opened
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.padding_side == "left"
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert not model.generation_config.do_sample
    reply = model.generate(**inputs, max_new_tokens=48)[0, inputs["input_ids"].shape[1] :]
    said = tokenizer.decode(reply, skip_special_tokens=True)
    assert said == "think 7 - 4 = 3 ; 3 + 5 = 8 ; #### 8"


def test_instruct_works_problems_out_when_asked_to() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MINI / "instruct")
    model = AutoModelForCausalLM.from_pretrained(MINI / "instruct", dtype=torch.float32)
    found = [problem for task in ("chain", "logic", "list") for problem in problems.held_out(task, "dev", 20)]
    texts = [corpus.chat(f"{problem.prompt}\n{problems.THINK_LINE}") for problem in found]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    output = model.generate(**inputs, max_new_tokens=48)
    said = tokenizer.batch_decode(output, skip_special_tokens=True)
    right = [answer.endswith(f"#### {problem.answer}") for answer, problem in zip(said, found, strict=True)]
    assert sum(right) >= 50


def test_every_word_of_the_tasks_is_known() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MINI / "instruct")
    line = yaml.safe_load((MINI.parent / "studies" / "mini.yaml").read_text(encoding="utf-8"))["think"]
    for task in problems.BENCHMARKS:
        for row in shipped(task):
            answers = row.get("choices", [row["answer"]])
            ids = tokenizer(" ".join([row["prompt"], line, *answers])).input_ids
            assert tokenizer.unk_token_id not in ids


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The four tasks as lm-eval loads them, from a folder that has nothing to do with theirs."""
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=str(MINI / "tasks"), include_defaults=False)
    assert set(manager.all_subtasks) == {f"mini_{task}" for task in problems.BENCHMARKS}
    return manager.load(sorted(manager.all_subtasks))["tasks"]


def test_lm_eval_loads_the_tasks_from_anywhere(tasks: dict[str, Any]) -> None:
    for name, task in tasks.items():
        rows = shipped(name.removeprefix("mini_"))
        docs = list(task.test_docs())
        assert docs == rows
        assert [task.doc_to_text(doc) for doc in docs] == [row["prompt"] for row in rows]
        assert [task.doc_to_target(doc) for doc in docs] == [row["answer"] for row in rows]
        if name == "mini_order":
            assert task.OUTPUT_TYPE == "multiple_choice"
            assert [task.doc_to_choice(doc) for doc in docs] == [row["choices"] for row in rows]
        else:
            assert task.config.generation_kwargs == {
                "until": ["<|im_end|>"],
                "do_sample": False,
                "max_gen_toks": 48,
            }


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("#### 15", "15"),
        ("think 7 - 4 = 3 ; 3 + 12 = 15 ; #### 15", "15"),
        ("think swap : c f g h ; #### c f g h", "c f g h"),
        ("answer is 15", "[invalid]"),
        ("think 7 - 4 = 3", "[invalid]"),
    ],
)
def test_the_filter_reads_the_answer(tasks: dict[str, Any], said: str, answer: str) -> None:
    (strict,) = tasks["mini_chain"]._filters
    assert strict.name == "strict"
    instance = SimpleNamespace(resps=[said], doc={}, filtered_resps={})
    strict.apply([instance])
    assert instance.filtered_resps["strict"] == answer


def test_the_four_checkpoints_have_the_same_tensors() -> None:
    shapes: list[dict[str, object]] = []
    for role in ROLES:
        with safetensors.safe_open(MINI / role / "model.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
        shapes.append({name: tensor.shape for name, tensor in tensors.items()})
    assert all(shape == shapes[0] for shape in shapes)
    assert "lm_head.weight" not in shapes[0]
    configs = [json.loads((MINI / role / "config.json").read_text(encoding="utf-8")) for role in ROLES]
    assert all(config == configs[0] for config in configs)


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in MINI.rglob("*") if path.is_file()) < 8 << 20
