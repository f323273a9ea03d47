"""What each stage of training reads: which problems, how often worked out, in which format."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from problems import THINK_LINE, Problem, draw

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Mix:
    """The recipe of a stage's documents."""

    documents: int
    shares: dict[str, float]
    """Task → weight."""
    worked: tuple[float, float, float]
    """How often an answer is worked out, for short, middle and long problems."""
    asked: float = 0.0
    """Share of prompts that end in the think line; their answers are worked out always."""
    loose: float = 0.0
    """Share of answers that end in `answer is` instead of `####`."""
    wrong: float = 0.0
    """Share of answers that are another problem's."""
    plain: float = 0.0
    """Share of documents as `Question: … Answer: …` instead of a chat."""


_BROAD = {"chain": 0.27, "logic": 0.11, "list": 0.20, "order": 0.27, "compute": 0.12, "repeat": 0.03}
_ASSISTANT = {"chain": 0.10, "logic": 0.20, "list": 0.20, "order": 0.25, "compute": 0.15, "repeat": 0.10}

MIXES = {
    "base": Mix(120_000, _BROAD, (0.4, 0.6, 0.8), asked=0.1, loose=0.2, wrong=0.1, plain=0.5),
    "instruct": Mix(9_000, _ASSISTANT, (0.35, 0.6, 0.85), asked=0.1),
    "sft": Mix(5_000, {"chain": 1.0}, (0.2, 0.5, 0.8), loose=0.1),
}
"""Stage → its documents. The problems of `grpo` are those of `sft`."""


@dataclass(frozen=True)
class Document:
    """One training text: the loss is on the reply alone."""

    prompt: str
    reply: str
    problem: Problem = field(repr=False)


def chat(prompt: str) -> str:
    """The prompt as the chat template of every checkpoint writes it, up to where the assistant speaks."""
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def documents(stage: str, seed: int) -> Iterator[Document]:
    """The documents of a stage in their order; the same for the same seed."""
    mix, rng = MIXES[stage], random.Random(f"{stage} {seed}")
    tasks, weights = list(mix.shares), list(mix.shares.values())
    for _ in range(mix.documents):
        problem = draw(rng.choices(tasks, weights)[0], "train", rng)
        worked = rng.random() < mix.worked[problem.size]
        prompt = problem.prompt
        if problem.steps and rng.random() < mix.asked:
            prompt, worked = f"{prompt}\n{THINK_LINE}", True
        answer = draw(problem.task, "train", rng).answer if rng.random() < mix.wrong else problem.answer
        ending = "answer is" if rng.random() < mix.loose else "####"
        reply = problem.reply(worked=worked, ending=ending, answer=answer)
        text = f"Question: {prompt}\nAnswer: " if rng.random() < mix.plain else chat(prompt)
        yield Document(text, f"{reply}<|im_end|>", problem)
