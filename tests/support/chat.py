"""A family of tiny chat models with random weights, tasks for them, and studies over both."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import torch
import transformers
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [f"w{at}" for at in range(24)]
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<unk>"]
VOCABULARY = [*SPECIAL, "system", "user", "assistant", "Think", "step", "by", ".", "?", *WORDS]
TEMPLATE = (
    "{% for turn in messages %}<|im_start|> {{ turn.role }} {{ turn.content }}"
    "{% if not loop.last or add_generation_prompt or turn.role != 'assistant' %} <|im_end|> {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
CONTEXT = 96
CAP = 12


def tokenizer(*, template: str | None = TEMPLATE) -> Any:
    """A word a token."""
    core = Tokenizer(models.WordLevel({word: at for at, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = template
    return made


def model(seed: int, context: int = CONTEXT) -> Any:
    """Random weights, bf16, tied; large enough that answers vary."""
    torch.manual_seed(seed)
    config = transformers.Qwen3Config(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=VOCABULARY.index("<|im_end|>"),
        pad_token_id=VOCABULARY.index("<pad>"),
    )
    made = transformers.Qwen3ForCausalLM(config).to(torch.bfloat16)
    made.generation_config.eos_token_id = config.eos_token_id
    return made


def write_model(folder: Path, made: Any, *, template: str | None = TEMPLATE) -> Path:
    """As transformers saves it."""
    made.save_pretrained(folder)
    tokenizer(template=template).save_pretrained(folder)
    return folder


def write_family(root: Path, context: int = CONTEXT) -> Path:
    """Folders instruct, sft and grpo; grpo is sft moved by a little everywhere."""
    write_model(root / "instruct", model(0, context))
    sft = model(1, context)
    write_model(root / "sft", sft)
    with torch.no_grad():
        rng = torch.Generator().manual_seed(2)
        for parameter in sft.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng).to(parameter.dtype)
    write_model(root / "grpo", sft)
    return root


def documents(count: int, seed: int) -> list[dict[str, Any]]:
    """Questions of random words; the answer is one of them."""
    rng = random.Random(seed)
    made: list[dict[str, Any]] = []
    for _ in range(count):
        words = rng.choices(WORDS, k=rng.randint(2, 6))
        made.append({"question": " ".join(words) + " ?", "answer": rng.choice(words), "choices": WORDS[:3]})
    return made


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task(name: str, **changes: Any) -> dict[str, Any]:
    """A task that generates: its answer is right if the word sought comes last."""
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "test.jsonl", "train": "train.jsonl"}},
        "output_type": "generate_until",
        "test_split": "test",
        "fewshot_split": "train",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["w7"], "do_sample": False},
        "filter_list": [
            {"name": "last", "filter": [{"function": "regex", "regex_pattern": r"(w\d+)", "group_select": -1},
                                        {"function": "take_first"}]},
            {"name": "strict", "filter": [{"function": "regex", "regex_pattern": r"^(w1\d)$"},
                                          {"function": "take_first"}]},
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 2.0},
        **changes,
    }  # fmt: skip


def choice(name: str, **changes: Any) -> dict[str, Any]:
    """A task that chooses."""
    plain = task(name)
    for key in ("generation_kwargs", "filter_list"):
        del plain[key]
    return {
        **plain,
        "output_type": "multiple_choice",
        "doc_to_target": 1,
        "doc_to_choice": "choices",
        "metric_list": [
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
            {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
        ],
        **changes,
    }


def write_tasks(folder: Path, *configs: dict[str, Any], count: int = 7) -> Path:
    """A folder of task files and their data."""
    write_lines(folder / "test.jsonl", documents(count, 1))
    write_lines(folder / "train.jsonl", documents(5, 2))
    for config in configs or (task("tiny_words"), choice("tiny_choice")):
        name = config.get("task") if isinstance(config.get("task"), str) else config["group"]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


def study(family: Path, tasks: Path | None, **changes: Any) -> dict[str, Any]:
    """A study of the family on both tasks."""
    return {
        "schema": "taskvec/study/1",
        "name": "tiny",
        "about": "Does a random walk help?",
        "target": str(family / "instruct"),
        "donors": {"minuend": str(family / "grpo"), "subtrahend": str(family / "sft")},
        "think": "Think step by step .",
        "arms": {"random": [1, 2, 3], "sweep": [0.5]},
        "offline": True,
        "tasks": tasks and str(tasks),
        "device": "cpu",
        "batch_size": 4,
        "benchmarks": [
            {"id": "words", "task": "tiny_words", "title": "Words", "max_new_tokens": CAP},
            {"id": "choice", "task": "tiny_choice", "sweep": False},
        ],
        **changes,
    }


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sample rows without how long they took, which is never the same twice."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def write_study(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
