"""A model that chats: loading it, asking it many questions at once, and reading its answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils.logging import disable_progress_bar

if TYPE_CHECKING:
    from pathlib import Path

disable_progress_bar()

NUMBER = re.compile(r"-?\d[\d,]*")
CAP = 64
"""New tokens of a sampled answer. The longest worked answer of the training data has 50."""


def load(folder: Path, device: str) -> tuple[Any, Any]:
    """A model in float32 and its tokenizer, which pads on the left."""
    auto: Any = AutoModelForCausalLM
    tokenizer: Any = AutoTokenizer
    words = tokenizer.from_pretrained(folder, padding_side="left")
    return auto.from_pretrained(folder, dtype=torch.float32).to(device), words


def prompt(tokenizer: Any, question: str) -> list[int]:
    """The tokens of a question in the model's own chat template, ready to be answered."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.inference_mode()
def answers(
    model: Any,
    tokenizer: Any,
    questions: list[str],
    *,
    batch: int,
    samples: int = 1,
    temperature: float | None = None,
) -> list[list[str]]:
    """Answers to each question, greedy without a temperature; one that meets the cap is cut off."""
    model.eval()
    # Questions of one length together: less padding.
    order = sorted(range(len(questions)), key=lambda one: len(questions[one]))
    found: list[list[str]] = [[] for _ in questions]
    for start in range(0, len(order), batch // samples):
        chosen = order[start : start + batch // samples]
        prompts = [prompt(tokenizer, questions[one]) for one in chosen]
        ids = _decode(model, tokenizer, prompts, samples, temperature)
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        for row, text in enumerate(texts):
            found[chosen[row // samples]].append(text.strip())
    return found


def _decode(
    model: Any, tokenizer: Any, prompts: list[list[int]], samples: int, temperature: float | None
) -> list[list[int]]:
    """New tokens of each sample. Each prompt is read once, and a row that has ended leaves the batch.

    Terse answers have 6 tokens and worked ones up to 50: a batch that waits for its slowest row would
    compute three times as much.
    """
    padded = tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(model.device)
    mask = padded["attention_mask"]
    places = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache()
    logits = model(
        input_ids=padded["input_ids"],
        attention_mask=mask,
        position_ids=places,
        past_key_values=cache,
        logits_to_keep=1,
    ).logits[:, -1]
    cache.batch_repeat_interleave(samples)
    logits, mask, place = (one.repeat_interleave(samples, 0) for one in (logits, mask, places[:, -1:]))
    said: list[list[int]] = [[] for _ in range(len(prompts) * samples)]
    alive = list(range(len(said)))
    while True:
        if temperature:
            tokens = torch.multinomial((logits.float() / temperature).softmax(-1), 1)
        else:
            tokens = logits.argmax(-1, keepdim=True)
        for row, token in zip(alive, tokens[:, 0].tolist(), strict=True):
            said[row].append(token)
        going = [
            index
            for index, row in enumerate(alive)
            if said[row][-1] != tokenizer.eos_token_id and len(said[row]) < CAP
        ]
        if not going:
            return said
        kept = torch.tensor(going, device=model.device)
        cache.batch_select_indices(kept)
        alive = [alive[index] for index in going]
        tokens, mask, place = tokens[kept], mask[kept], place[kept] + 1
        mask = torch.cat([mask, torch.ones_like(tokens)], 1)
        logits = model(
            input_ids=tokens, attention_mask=mask, position_ids=place, past_key_values=cache
        ).logits[:, -1]


def is_right(text: str, answer: int) -> bool:
    """Whether the last number of a text is the answer: what the study's filter reads too."""
    numbers = NUMBER.findall(text)
    return bool(numbers) and numbers[-1].replace(",", "") == str(answer)
