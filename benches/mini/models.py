"""The architecture, and checkpoints as folders that plain `AutoModelForCausalLM` and `AutoTokenizer` load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import words
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils.logging import disable_progress_bar

if TYPE_CHECKING:
    from pathlib import Path

disable_progress_bar()

ROWS = 128
"""Rows of the embedding, the vocabulary rounded up."""

CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
tags: [synthetic, miniature]
---

# Miniature {role}

{about}

A model of 0.6 million parameters in the shape of Qwen3, one of a family of four (`base`, `instruct`, `sft`,
`grpo`) on which task arithmetic can be tried within minutes on a CPU. Its world is synthetic: chains of
sums, boolean expressions, programs that move letters, orderings by weight, each prompt made by a generator,
each word one token. It knows nothing else, and what is measured on it says nothing about the size of any
effect in real language models.

Trained from scratch on a CPU by `benches/mini/train.py` of the taskvec repository, seed 0; no other data
and no other model went into it. The recipe, the log and the figures are in `benches/RESULTS.md` there.

Answers end in `#### answer`. An answer is either that alone or worked out behind the word `think`; a prompt
that ends in the line `Think step by step.` gets a worked one. Problems held out for development and test
never occur in training.
"""
ABOUT = {
    "base": "Pretrained on problems of all kinds, worked out or not, some answers wrong or loosely put.",
    "instruct": "`base` tuned on a broad mix of problems: the target of the study `mini`.",
    "sft": "`base` tuned on chains of sums, short ones mostly not worked out: the study's subtrahend.",
    "grpo": "`sft` trained further on chains of sums by GRPO, right answers rewarded: the study's minuend.",
}


def fresh() -> Any:
    """A new model, its weights drawn by torch's generator."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=ROWS,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=256,
            # The usual 0.02 learns far too slowly at this width.
            initializer_range=0.06,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=words.vocabulary()[words.END],
            pad_token_id=words.vocabulary()[words.PAD],
        )
    )


def load(folder: Path) -> Any:
    """A checkpoint's model in float32, on the CPU."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def tokenizer(folder: Path) -> Any:
    """A checkpoint's tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(folder)


def save(model: Any, folder: Path, role: str) -> None:
    """Writes a checkpoint in bfloat16, rounded once to nearest; `model` itself keeps its values."""
    # A model of its own: trainers leave settings behind in the one they train.
    rounded = fresh()
    rounded.load_state_dict(model.state_dict())
    rounded.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=rounded.config.eos_token_id, pad_token_id=rounded.config.pad_token_id
    )
    rounded.bfloat16().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    words.write_tokenizer(folder)
    (folder / "README.md").write_text(CARD.format(role=role, about=ABOUT[role]), encoding="utf-8")
