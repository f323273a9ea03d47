"""Supervised training: next-token prediction on the replies of a stage's documents."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from corpus import Document

    Example = tuple[list[int], int]

IGNORED = -100


@dataclass(frozen=True)
class Schedule:
    """How a stage is optimised: one pass, AdamW, warm-up, then a cosine down to a tenth of the rate."""

    rate: float
    batch: int
    warmup: int


SCHEDULES = {
    "base": Schedule(rate=1e-3, batch=32, warmup=100),
    "instruct": Schedule(rate=5e-4, batch=48, warmup=10),
    "sft": Schedule(rate=5e-4, batch=48, warmup=10),
}


def examples(documents: Sequence[Document], tokenizer: Any) -> list[Example]:
    """Token ids of each document, and how many of them are the prompt's."""
    encode = tokenizer.backend_tokenizer.encode_batch
    prompts = encode([document.prompt for document in documents])
    replies = encode([document.reply for document in documents])
    return [(prompt.ids + reply.ids, len(prompt.ids)) for prompt, reply in zip(prompts, replies, strict=True)]


def batches(found: list[Example], size: int, seed: int) -> list[list[Example]]:
    """Shuffled batches of documents of like length, which need little padding."""
    rng = random.Random(f"batches {seed}")
    shuffled = rng.sample(found, len(found))
    piece = 32 * size
    made: list[list[Example]] = []
    for start in range(0, len(shuffled), piece):
        near = sorted(shuffled[start : start + piece], key=lambda example: len(example[0]))
        group = [near[at : at + size] for at in range(0, len(near), size)]
        made += rng.sample(group, len(group))
    return made


def _tensors(batch: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(ids) for ids, _ in batch)
    # Padding is on the right and has no loss, so it reaches nothing: no attention mask is needed.
    inputs = np.zeros((len(batch), width), np.int64)
    labels = np.full((len(batch), width), IGNORED, np.int64)
    for row, (ids, prompt) in enumerate(batch):
        inputs[row, : len(ids)] = ids
        labels[row, prompt : len(ids)] = ids[prompt:]
    return torch.from_numpy(inputs), torch.from_numpy(labels)


def _rate(schedule: Schedule, step: int, steps: int) -> float:
    if step < schedule.warmup:
        return schedule.rate * (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, steps - schedule.warmup)
    return schedule.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def fit(
    model: Any, stage: str, documents: Sequence[Document], tokenizer: Any, seed: int
) -> Iterator[dict[str, Any]]:
    """Trains in place; yields a row at every tenth of the way: step, mean loss since the last, seconds."""
    schedule, found = SCHEDULES[stage], examples(documents, tokenizer)
    made = batches(found, schedule.batch, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    start, marks = time.monotonic(), {math.ceil(len(made) * tenth / 10) for tenth in range(1, 11)}
    model.train()
    for step, batch in enumerate(made):
        for group in optimizer.param_groups:
            group["lr"] = _rate(schedule, step, len(made))
        inputs, labels = _tensors(batch)
        logits = model(input_ids=inputs, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step + 1 in marks:
            yield {
                "step": step + 1,
                "loss": round(float(np.mean(losses)), 4),
                "seconds": round(time.monotonic() - start, 1),
            }
            losses.clear()
