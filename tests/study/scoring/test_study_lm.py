"""What is recorded of an answer, held against transformers alone; and the scores, against plain lm-eval."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
import numpy as np
import pytest
import torch
import transformers
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM

import chat
from taskvec.errors import MismatchError, UsageError
from taskvec.study import load
from taskvec.study.environment import quiet
from taskvec.study.scoring import loading, tasks
from taskvec.study.scoring.loading import generation_config, generation_settings
from taskvec.study.scoring.score import score
from taskvec.study.scoring.study_lm import StudyLM

if TYPE_CHECKING:
    from taskvec.study.scoring.tasks import Loaded

LINE = "Think step by step ."
COUNT = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    chat.write_family(folder)
    chat.write_tasks(folder / "tasks", chat.task("tiny_words"), chat.choice("tiny_choice"), count=COUNT)
    return folder


def loaded(root: Path, *benchmarks: dict[str, Any]) -> tuple[Loaded, ...]:
    changes = {"benchmarks": list(benchmarks)} if benchmarks else {}
    content = chat.study(root, root / "tasks", **changes)
    return tasks.load(load(chat.write_study(root / "study.yaml", content)))


def model(root: Path, name: str = "instruct") -> Any:
    with quiet():
        return transformers.AutoModelForCausalLM.from_pretrained(root / name, dtype=torch.float32)


def asking(live: Any, batch_size: int = 4) -> StudyLM:
    with quiet():
        return StudyLM(live, chat.tokenizer(), batch_size)


def alone(live: Any, prompt: str, cap: int, until: str) -> tuple[str, int, bool]:
    """Text, tokens and whether it was cut off: no stop strings, no padding, nothing of lm-eval's."""
    tokenizer = chat.tokenizer()
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with quiet(), torch.no_grad():
        made = live.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=cap, do_sample=False)
    words = [chat.VOCABULARY[at] for at in made[0, ids.shape[1] :].tolist()]
    for at, word in enumerate(words):
        if word in ("<|im_end|>", until):
            return " ".join(one for one in words[:at] if one not in chat.SPECIAL), at + 1, False
    return " ".join(one for one in words if one not in chat.SPECIAL), len(words), True


def test_every_answer_is_what_the_model_says_alone(root: Path) -> None:
    live = model(root)
    words, _ = loaded(root)
    rows = score(asking(live), words, line=None)
    assert [row["doc_id"] for row in rows] == list(range(COUNT))
    seen: set[tuple[bool, bool]] = set()
    for row, doc in zip(rows, chat.documents(COUNT, 1), strict=True):
        prompt = f"<|im_start|> user {doc['question']} <|im_end|> <|im_start|> assistant "
        text, length, truncated = alone(live, prompt, chat.CAP, "w7")
        assert row["response"].split() == text.split()
        assert (row["tokens"], row["truncated"]) == (length, truncated)
        assert row["prompt_tokens"] == len(prompt.split())
        found = [word for word in text.split() if word.startswith("w")]
        assert row["answer"] == (found[-1] if found else "[invalid]")
        assert row["extracted"] is bool(found)
        assert row["correct"] == float(row["answer"] == doc["answer"])
        assert row["target"] == doc["answer"]
        seen.add((truncated, bool(found)))
    # The test is of use only where all of it happens.
    assert {(True, True), (False, True), (False, False)} <= seen
    assert any(row["response"] and not row["truncated"] for row in rows)


def test_a_model_that_never_ends(root: Path) -> None:
    live = model(root)
    # No word leads to the end token, nor to the stop string.
    with torch.no_grad():
        live.lm_head.weight = torch.nn.Parameter(live.lm_head.weight.clone())
        for word in ("<|im_end|>", "w7"):
            live.lm_head.weight[chat.VOCABULARY.index(word)] = 0
            bias = torch.zeros(len(chat.VOCABULARY))
        bias[[chat.VOCABULARY.index("<|im_end|>"), chat.VOCABULARY.index("w7")]] = -1e9
        live.lm_head.bias = torch.nn.Parameter(bias)
    live.config.tie_word_embeddings = False
    words, _ = loaded(root)
    rows = score(asking(live), words, line=None)
    assert all(row["truncated"] for row in rows)
    assert {row["tokens"] for row in rows} == {chat.CAP}


def test_the_scores_are_plain_lm_evals(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Looks over the machine, for many seconds.
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)
    words, choice = loaded(root)
    live = model(root)
    mine = {one.benchmark.id: score(asking(live), one, line=None) for one in (words, choice)}
    with quiet():
        theirs: Any = simple_evaluate(
            model=HFLM(pretrained=str(root / "instruct"), dtype="float32", device="cpu", batch_size=4),
            tasks=[*words.tasks, *choice.tasks],
            gen_kwargs={"max_gen_toks": chat.CAP},
            apply_chat_template=True,
            bootstrap_iters=0,
        )
    for name, task, metric, key in (
        ("words", "tiny_words", "exact_match", "exact_match,last"),
        ("choice", "tiny_choice", "acc", "acc,none"),
    ):
        samples = [one for one in theirs["samples"][task] if one["filter"] in ("last", "none")]
        assert len(samples) == COUNT
        for row, sample in zip(mine[name], sorted(samples, key=lambda one: one["doc_id"]), strict=True):
            assert row["correct"] == sample[metric]
            assert (row["doc_hash"], row["prompt_hash"]) == (sample["doc_hash"], sample["prompt_hash"])
            if name == "words":
                assert (row["response"], row["answer"]) == (
                    sample["resps"][0][0],
                    sample["filtered_resps"][0],
                )
        rows = mine[name]
        assert sum(row["correct"] for row in rows) / COUNT == pytest.approx(theirs["results"][task][key])
    assert 0 < sum(row["correct"] for row in mine["choice"]) < COUNT


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_the_choice_that_was_taken(metric: str, root: Path) -> None:
    (choice,) = loaded(root, {"id": "choice", "task": "tiny_choice", "metric": metric})
    for row in score(asking(model(root)), choice, line=None):
        assert (row["answer"] == "w1") is bool(row["correct"])
        assert [row[key] for key in ("response", "extracted", "tokens", "truncated", "prompt_tokens")] == [
            None
        ] * 5


def test_equal_prompts_keep_their_own_answers(root: Path, tmp_path: Path) -> None:
    chat.write_tasks(tmp_path / "tasks")
    same = [{"question": "w1 w2 ?", "answer": f"w{at}", "choices": ["w0", "w1"]} for at in range(6)]
    chat.write_lines(tmp_path / "tasks" / "test.jsonl", same + chat.documents(3, 4))
    content = chat.study(root, tmp_path / "tasks")
    words, _ = tasks.load(load(chat.write_study(tmp_path / "study.yaml", content)))
    rows = score(asking(model(root), batch_size=2), words, line=None)
    assert [row["target"] for row in rows[:6]] == [f"w{at}" for at in range(6)]
    assert len({(row["response"], row["tokens"]) for row in rows[:6]}) == 1


def test_the_line_changes_the_prompt_and_nothing_else(root: Path) -> None:
    words, choice = loaded(root)
    lm = asking(model(root))
    for one in (words, choice):
        plain, think, again = (chat.untimed(score(lm, one, line=line)) for line in (None, LINE, None))
        assert plain == again
        for before, after in zip(plain, think, strict=True):
            assert before["prompt_hash"] != after["prompt_hash"]
            assert (before["doc_hash"], before["target"]) == (after["doc_hash"], after["target"])
            if before["prompt_tokens"]:
                assert after["prompt_tokens"] == before["prompt_tokens"] + len(LINE.split())


def test_shots_are_the_same_for_every_arm(root: Path) -> None:
    (words,) = loaded(
        root, {"id": "w", "task": "tiny_words", "max_new_tokens": chat.CAP, "shots": 2, "limit": 9}
    )
    asked = [
        [row["prompt_hash"] for row in score(asking(model(root, name)), words, line=None)]
        for name in ("instruct", "grpo", "instruct")
    ]
    assert asked[0] == asked[1] == asked[2]
    assert len(set(asked[0])) == 9


def test_progress_counts_documents(root: Path) -> None:
    for one in loaded(root):
        told: list[tuple[int, int]] = []
        score(asking(model(root)), one, line=None, progress=lambda *at, told=told: told.append(at))
        assert told[-1] == (COUNT, COUNT)
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert len(told) >= COUNT // 4


def test_a_template_is_compiled_once_and_not_for_each_document(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, choice = loaded(root)
    environment, compiled = lm_eval.utils.env, list[str]()
    straight = environment.compile

    def counted(source: str, *more: Any) -> Any:
        compiled.append(source)
        return straight(source, *more)

    monkeypatch.setattr(environment, "compile", counted)
    for one in (words, choice):
        compiled.clear()
        assert len(score(asking(model(root)), one, line=None)) == COUNT
        assert compiled
        assert len(compiled) == len(set(compiled)) < 10
    # Outside, lm-eval is as it was.
    assert "from_string" not in vars(environment)


def test_documents_of_a_group_are_counted_through(root: Path, tmp_path: Path) -> None:
    group = {"group": "both", "task": ["tiny_one", "tiny_two"]}
    chat.write_tasks(tmp_path / "tasks", chat.task("tiny_one"), chat.task("tiny_two"), group)
    benchmark = {"id": "both", "task": "both", "max_new_tokens": chat.CAP, "limit": 3}
    content = chat.study(root, tmp_path / "tasks", benchmarks=[benchmark])
    (both,) = tasks.load(load(chat.write_study(tmp_path / "study.yaml", content)))
    rows = chat.untimed(score(asking(model(root)), both, line=None))
    assert [row["doc_id"] for row in rows] == list(range(6))
    assert [row["task"] for row in rows] == ["tiny_one"] * 3 + ["tiny_two"] * 3
    for first, second in zip(rows[:3], rows[3:], strict=True):
        own = {"doc_id": 0, "task": "", "seconds": 0.0}
        assert first | own == second | own


# Tried on made-up answers to the first document, which are at most four; what comes later is a model's.
LATER = "calls = []\ndef rate(doc, results):\n    calls.append(doc)\n"


def with_scoring(root: Path, folder: Path, code: str, metric: str = "exact_match") -> Loaded:
    """The task of words, scored by `rate`."""
    (folder / "tasks").mkdir()
    (folder / "tasks" / "scoring.py").write_text(f"{code}\ndef total(some):\n    return len(some)\n")
    chat.write_tasks(folder / "tasks", chat.task("tiny_words", metric_list=[
        {"metric": metric, "aggregation": "TOTAL", "higher_is_better": True}]))  # fmt: skip
    path = folder / "tasks" / "tiny_words.yaml"
    text = path.read_text().replace("TOTAL", "!function scoring.total")
    path.write_text(text + "process_results: !function scoring.rate\n")
    benchmark = {"id": "w", "task": "tiny_words", "max_new_tokens": chat.CAP, "limit": 6}
    content = chat.study(root, folder / "tasks", benchmarks=[benchmark])
    (one,) = tasks.load(load(chat.write_study(folder / "study.yaml", content)))
    return one


WRONG = {
    "no number": ("pair", "(1, 2)", "pair is not one number for each document"),
    "a count": (
        "exact_match",
        "38.5",
        r"exact_match is 38.5 for a\w* \w+, but scores must be between 0 and 1",
    ),
    "a loss": ("exact_match", "-1", "exact_match is -1 for .* must be between 0 and 1"),
    "nothing at all": ("exact_match", "float('nan')", "exact_match is nan for .* must be between 0 and 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_score_that_is_none_is_found_before_anything_is_asked(
    name: str, root: Path, tmp_path: Path
) -> None:
    metric, value, says = WRONG[name]
    with pytest.raises(UsageError, match=f"'w': task tiny_words cannot be used as it is: {says}"):
        with_scoring(root, tmp_path, f"def rate(doc, results):\n    return {{'{metric}': {value}}}\n", metric)


@pytest.mark.parametrize("name", WRONG)
def test_a_score_that_is_none_for_a_later_answer(name: str, root: Path, tmp_path: Path) -> None:
    metric, value, says = WRONG[name]
    code = f"{LATER}    return {{'{metric}': {value} if len(calls) > 5 else 1.0}}\n"
    one = with_scoring(root, tmp_path, code, metric)
    with pytest.raises(UsageError, match=f"benchmark 'w': {says}"):
        score(asking(model(root)), one, line=None)


def test_scoring_that_fails_is_found_beforehand(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"its scoring fails on an answer \(RuntimeError: no luck\)"):
        with_scoring(root, tmp_path, "def rate(doc, results):\n    raise RuntimeError('no luck')\n")


def test_scoring_that_fails_later_is_one_sentence(root: Path, tmp_path: Path) -> None:
    code = f"{LATER}    assert len(calls) <= 5, 'no luck'\n    return {{'exact_match': 1.0}}\n"
    one = with_scoring(root, tmp_path, code)
    with pytest.raises(MismatchError, match=r"'w' cannot be scored \(AssertionError: no luck\)"):
        score(asking(model(root)), one, line=None)


def test_weights_that_cannot_be_read(root: Path, tmp_path: Path) -> None:
    folder = chat.write_model(tmp_path / "cut", chat.model(0))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(MismatchError, match="cut: transformers cannot load it") as caught:
        loading.load_model(str(folder), str(root / "instruct"), "cpu", "float32")
    assert "\n" not in str(caught.value)


def test_a_device_without_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transformers.PreTrainedModel, "to", full)
    path = str(root / "instruct")
    with pytest.raises(MismatchError, match="cpu does not have enough memory for it as float32"):
        loading.load_model(path, path, "cpu", "float32")


def test_norms_are_taken_in_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, whole = model(root), torch.linalg.vector_norm
    sizes: list[int] = []

    def spied(tensor: torch.Tensor, **how: Any) -> torch.Tensor:
        sizes.append(tensor.numel())
        return whole(tensor, **how)

    monkeypatch.setattr(loading, "_PIECE", 100)
    monkeypatch.setattr(torch.linalg, "vector_norm", spied)
    for name, norm in loading.norms(live).items():
        values = live.get_parameter(name).detach().double().numpy()
        assert norm == pytest.approx(float(np.sqrt(np.sum(values**2))), rel=1e-12)
    assert max(sizes) == 100


def test_gsm8k_as_lm_eval_has_it_on_data_of_ones_own(root: Path, tmp_path: Path) -> None:
    own = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"),
        "task": "my_gsm8k",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": "test.jsonl", "train": "train.jsonl"}},
    }
    chat.write_tasks(tmp_path / "tasks", own, count=4)
    benchmark = {"id": "gsm8k", "task": "my_gsm8k", "max_new_tokens": chat.CAP, "filter": "flexible-extract"}
    benchmarks = [{**benchmark, "shots": shots, "id": f"gsm8k-{shots}"} for shots in (0, 2)]
    content = chat.study(root, tmp_path / "tasks", benchmarks=benchmarks)
    none, two = tasks.load(load(chat.write_study(tmp_path / "study.yaml", content)))
    first, second = (score(asking(model(root)), one, line=None) for one in (none, two))
    assert len(first) == len(second) == 4
    for row, shown in zip(first, second, strict=True):
        numbers = re.findall(r"-?[$0-9.,]{2,}|-?[0-9]+", row["response"])
        assert row["answer"] == (numbers[-1] if numbers else "[invalid]")
        assert shown["prompt_tokens"] > row["prompt_tokens"]


def test_the_cap_outdoes_what_the_target_says_of_length(root: Path, tmp_path: Path) -> None:
    folder = chat.write_model(tmp_path / "short", chat.model(0))
    config = transformers.GenerationConfig.from_pretrained(folder)
    config.max_new_tokens, config.repetition_penalty = 2, 1.5
    config.save_pretrained(folder)
    live = model(tmp_path, "short")
    live.generation_config = generation_config(str(folder))
    assert live.generation_config.repetition_penalty == 1.5
    assert generation_settings(str(folder))["used"] == {"repetition_penalty": 1.5}
    words, _ = loaded(root)
    rows = score(asking(live), words, line=None)
    assert max(row["tokens"] for row in rows) == chat.CAP


def test_settings_of_sampling_are_known_and_set_aside(tmp_path: Path) -> None:
    folder = chat.write_model(tmp_path / "sampling", chat.model(0))
    config = transformers.GenerationConfig.from_pretrained(folder)
    config.do_sample, config.temperature, config.top_p, config.no_repeat_ngram_size = True, 0.6, 0.9, 3
    config.save_pretrained(folder)
    assert generation_settings(str(folder)) == {
        "used": {"no_repeat_ngram_size": 3},
        "unused": {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    }
