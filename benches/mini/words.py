"""The tokenizer: every word of the miniature world, every number up to 30 and every sign is one token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import problems
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

if TYPE_CHECKING:
    from pathlib import Path

PAD, START, END, UNKNOWN = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"
TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML."""

_OTHERS = (
    "system user assistant . , : ; ? > < = + - #### think Think step by Question Answer answer is "
    "has How many now Compute Evaluate True False s print Which Repeat"
)


def vocabulary() -> dict[str, int]:
    """Token → id."""
    p = problems
    words = (*p.NAMES, *p.THINGS, *p.GAINS, *p.LOSSES, *p.OPERATORS, *p.LETTERS, *p.MOVES, *p.MATERIALS)
    numbers = [str(number) for number in range(p.HIGHEST + 1)]
    tokens = [PAD, START, END, UNKNOWN, *numbers, *_OTHERS.split(), *words, *p.PLACES]
    return {token: number for number, token in enumerate(tokens)}


def write_tokenizer(folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and the chat template."""
    core = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    # Signs stand alone even where a prompt leaves out the blank before them.
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|#+|[^\w\s]"), "removed", invert=True)
    core.add_special_tokens([PAD, START, END, UNKNOWN])
    core.save(str(folder / "tokenizer.json"))
    config = {
        # The class that every release of transformers knows.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "padding_side": "left",
        "model_max_length": 256,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
