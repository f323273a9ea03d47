"""A model that chats: loading it, asking it many questions at once, and reading its answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
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
    model: Any, tokenizer: Any, questions: list[str], *, batch: int, temperature: float | None = None
) -> list[str]:
    """One answer to each question, greedy without a temperature; an answer that meets the cap is cut off."""
    model.eval()
    # Questions of one length together: a batch is as slow as its longest.
    order = sorted(range(len(questions)), key=lambda one: len(questions[one]))
    found = [""] * len(questions)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        padded = tokenizer.pad(
            {"input_ids": [prompt(tokenizer, questions[one]) for one in chosen]}, return_tensors="pt"
        ).to(model.device)
        drawn = (
            {"do_sample": True, "temperature": temperature, "top_k": 0}
            if temperature
            else {"do_sample": False}
        )
        ids = model.generate(**padded, max_new_tokens=CAP, **drawn)[:, padded["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        for one, text in zip(chosen, texts, strict=True):
            found[one] = text.strip()
    return found


def is_right(text: str, answer: int) -> bool:
    """Whether the last number of a text is the answer: what the study's filter reads too."""
    numbers = NUMBER.findall(text)
    return bool(numbers) and numbers[-1].replace(",", "") == str(answer)
