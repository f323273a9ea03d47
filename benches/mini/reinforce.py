"""The GRPO stage: TRL's trainer, rewarded for right answers to the chains of sums that SFT has seen."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import corpus
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore

if TYPE_CHECKING:
    from pathlib import Path

STEPS, GROUPS, SAMPLES = 40, 24, 8
"""Optimizer steps; prompts a step; answers sampled a prompt."""
RATE = 1e-4
ANSWER = re.compile(r"####\s*([^\n]+)")


def rewards(completions: list[Any], answer: list[str], **_: Any) -> list[float | None]:
    """1 for the exact answer, 0.1 for an answer that can be read at all."""
    found = [ANSWER.findall(completion[0]["content"]) for completion in completions]
    return [
        0.1 + float(texts[-1].strip() == right) if texts else 0.0
        for texts, right in zip(found, answer, strict=True)
    ]


def reinforce(model: Any, tokenizer: Any, seed: int, scratch: Path) -> list[dict[str, Any]]:
    """Trains in place; returns a row for every fifth step: mean reward, answers' mean length, seconds."""
    found = (document.problem for document in corpus.documents("sft", seed))
    rows = [{"prompt": [{"role": "user", "content": each.prompt}], "answer": each.answer} for each in found]
    config = GRPOConfig(
        output_dir=str(scratch),
        seed=seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=5,
        max_steps=STEPS,
        per_device_train_batch_size=GROUPS * SAMPLES // 2,
        gradient_accumulation_steps=2,
        num_generations=SAMPLES,
        max_completion_length=64,
        temperature=1.0,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        beta=0.0,
        epsilon=0.2,
        loss_type="dapo",
        scale_rewards="group",
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    # The log it prints is returned instead.
    trainer.remove_callback(PrinterCallback)
    start = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - start
    return [
        {
            "step": row["step"],
            "reward": round(row["reward"], 3),
            "tokens": round(row["completions/mean_length"], 1),
            "seconds": round(seconds * row["step"] / STEPS, 1),
        }
        for row in trainer.state.log_history
        if "reward" in row
    ]
