"""Rows that end by themselves: the text of lm-eval asked one prompt at a time, in fewer steps."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import chat
from taskvec.study import load
from taskvec.study.environment import quiet
from taskvec.study.scoring import tasks
from taskvec.study.scoring.prompts import render
from taskvec.study.scoring.stopping import RowStop
from taskvec.study.scoring.study_lm import Generated, StudyLM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COUNT = 24
# A word, words of two tokens, a piece of a word, and a special token.
STOPS: dict[str, list[str]] = {
    "one": ["w7"],
    "many": ["w7", "w12", "w3", "w20 w", "w1 w2"],
    "special": ["w7", "<|im_start|>"],
    "often": [f"w{at}" for at in range(24) if at % 4],
    "none": [],
}


@pytest.fixture(scope="module")
def live() -> Any:
    made = chat.model(0).float()
    # Special tokens come up too.
    with torch.no_grad():
        made.model.embed_tokens.weight[chat.VOCABULARY.index("<|im_start|>")] *= 1.5
    return made.eval()


def asked(folder: Path, stops: Sequence[str], cap: int = chat.CAP) -> list[Any]:
    """The requests of a benchmark with these stop strings."""
    how = {"until": list(stops), "do_sample": False}
    chat.write_tasks(folder / "tasks", chat.task("tiny_words", generation_kwargs=how), count=COUNT)
    benchmark = {"id": "words", "task": "tiny_words", "max_new_tokens": cap}
    content = chat.study(folder, folder / "tasks", benchmarks=[benchmark])
    (words,) = tasks.load(load(chat.write_study(folder / "study.yaml", content)))
    render(words, chat.tokenizer(), None)
    return words.tasks[0].instances


class Steps:
    """Counts a model's forward passes, and the rows in them."""

    def __init__(self, live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes = self.rows = 0
        forward = live.forward

        def counted(*args: Any, **how: Any) -> Any:
            given = how.get("input_ids", args[0] if args else None)
            self.passes, self.rows = self.passes + 1, self.rows + len(given)
            return forward(*args, **how)

        monkeypatch.setattr(live, "forward", counted)

    def take(self) -> tuple[int, int]:
        found, self.passes, self.rows = (self.passes, self.rows), 0, 0
        return found


def plain(live: Any, batch_size: int) -> Any:
    with quiet():
        return HFLM(pretrained=live, tokenizer=chat.tokenizer(), batch_size=batch_size)


def ours(live: Any, batch_size: int) -> StudyLM:
    with quiet():
        return StudyLM(live, chat.tokenizer(), batch_size)


def ends(words: list[str], stops: Sequence[str]) -> int | None:
    """How many words there are when the first of the stop strings is whole."""
    for count in range(1, len(words) + 1):
        text = " ".join(words[:count])
        if words[count - 1] == "<|im_end|>" or any(stop in text for stop in stops):
            return count
    return None


@pytest.mark.parametrize("name", STOPS)
def test_the_answers_are_lm_evals_to_each_prompt_alone(name: str, live: Any, tmp_path: Path) -> None:
    requests = asked(tmp_path, STOPS[name])
    lm = ours(live, 8)
    with quiet():
        assert lm.generate_until(requests) == plain(live, 1).generate_until(requests, disable_tqdm=True)
    lengths: set[int | None] = set()
    for request in requests:
        ids = chat.tokenizer()(request.args[0], return_tensors="pt").input_ids
        with quiet(), torch.no_grad():
            made = live.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=chat.CAP)
        words = [chat.VOCABULARY[at] for at in made[0, ids.shape[1] :].tolist()]
        end = ends(words, STOPS[name])
        row = lm.records["tiny_words", request.doc_id]
        assert isinstance(row, Generated)
        assert (row.tokens, row.truncated) == (end or chat.CAP, end is None)
        lengths.add(end)
    # Of use only where rows of one batch end at different places.
    assert len(lengths) > 3


def test_fewer_tokens_are_computed(live: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests, steps = asked(tmp_path, STOPS["often"], cap=40), Steps(live, monkeypatch)
    with quiet():
        theirs = plain(live, 4).generate_until(requests, disable_tqdm=True)
        before = steps.take()
        lm = ours(live, 4)
        assert lm.generate_until(requests) == theirs
    after = steps.take()
    # lm-eval ends a batch where all of its rows have met the same string.
    assert before[0] > after[0]
    assert after[1] < 0.8 * before[1]
    # Ours ends with its slowest row: one pass for each of that row's tokens.
    order = sorted(requests, key=lambda one: (-len(one.args[0].split()), one.args[0]))
    slowest = [
        max(lm.records["tiny_words", one.doc_id].tokens for one in order[at : at + 4])  # pyright: ignore
        for at in range(0, COUNT, 4)
    ]
    assert after == (sum(slowest), 4 * sum(slowest))


@pytest.mark.parametrize("name", ["special", "none"])
def test_nothing_follows_the_end_in_a_model_without_an_end_token(
    name: str, live: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = asked(tmp_path, STOPS[name])
    monkeypatch.setattr(live.generation_config, "eos_token_id", None)
    lm = ours(live, 8)
    with quiet():
        assert lm.generate_until(requests) == plain(live, 1).generate_until(requests, disable_tqdm=True)
    assert {True, False} == {one.truncated for one in lm.records.values() if isinstance(one, Generated)}


def byte_level() -> Any:
    """Bytes and some pairs of them as tokens, with one special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("Ġ", "Q"), ("ĠQ", ":"), ("a", "b"), ("Ã", "¤")]
    vocabulary = {one: at for at, one in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>")
    made.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    return made


@pytest.mark.parametrize(
    "stops",
    [["\n\n"], [" Q:", "ab"], ["ä", "ÄÖ"], ["<turn>"], ["a very long string that ends nothing", "bb"]],
)
def test_a_row_ends_with_the_first_token_that_makes_a_stop_string_whole(stops: list[str]) -> None:
    tokenizer, rng = byte_level(), random.Random(1)
    texts = ["\n", "a", "b", "Q", ":", "x", " ", "ä", "Ä", "Ö", " Q", " Q:", "ab", "\n\n", "<turn>"]
    tokens = sorted({one for text in texts for one in tokenizer.encode(text)})
    rows, width, steps = 16, 3, 40
    made = torch.tensor([[rng.choice(tokens) for _ in range(width + steps)] for _ in range(rows)])
    first = [
        next(
            count
            for count in range(1, steps + 1)
            if count == steps
            or any(stop in tokenizer.decode(row[width : width + count].tolist()) for stop in stops)
        )
        for row in made
    ]
    criterion = RowStop(tokenizer, stops, {tokenizer.eos_token_id}, width)
    for count in range(1, steps):
        ended = criterion(made[:, : width + count], None)
        assert ended.dtype == torch.bool
        assert ended.tolist() == [count >= one for one in first]
    assert len(set(first)) > 3


def test_a_row_that_ended_is_decoded_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, seen = chat.tokenizer(), list[int]()
    decode = type(tokenizer).batch_decode

    def spied(self: Any, rows: Any, **how: Any) -> Any:
        seen.append(len(rows))
        assert all(len(row) <= 6 for row in rows)
        return decode(self, rows, **how)

    monkeypatch.setattr(type(tokenizer), "batch_decode", spied)
    at = {word: chat.VOCABULARY.index(word) for word in ("w1", "w7", "<|im_end|>", "<pad>")}
    texts = ["w1 w7 <pad> <pad>", "w1 <|im_end|> <pad> <pad>", "w1 w1 w1 w1", "w7 <pad> <pad> <pad>"]
    made = torch.tensor([[at[word] for word in one.split()] for one in texts])
    criterion = RowStop(tokenizer, ["w7"], {at["<|im_end|>"]}, 0)
    ended = [criterion(made[:, :count], None).tolist() for count in range(1, 5)]
    assert ended == [[False, False, False, True], *[[True, True, False, True]] * 3]
    assert seen == [4, 2, 1, 1]
