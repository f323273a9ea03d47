"""A checkpoint of a very large model's shape: right headers, and holes for weights."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, EXPERTS, SHARDS = 61, 256, 163


def names() -> list[tuple[str, list[int]]]:
    """Tensors in the number and with the names of a 671B mixture of experts, in bfloat16."""
    found: list[tuple[str, list[int]]] = [("model.embed_tokens.weight", [129280, 7168])]
    for layer in range(LAYERS):
        front = f"model.layers.{layer}."
        found += [(f"{front}self_attn.{part}.weight", [7168, 7168]) for part in ("q", "k", "v", "o")]
        for expert in range(EXPERTS):
            found += [
                (f"{front}mlp.experts.{expert}.{part}_proj.weight", [2048, 7168])
                for part in ("gate", "up", "down")
            ]
    return [*found, ("lm_head.weight", [129280, 7168])]


def write_huge(folder: Path, *, salt: int = 0) -> int:
    """Sparse files: right headers, and holes for weights; returns their apparent bytes."""
    folder.mkdir(parents=True)
    tensors, total = names(), 0
    weight_map: dict[str, str] = {}
    for number in range(SHARDS):
        part = tensors[len(tensors) * number // SHARDS : len(tensors) * (number + 1) // SHARDS]
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        header, at = dict[str, object](), 0
        for name, shape in part:
            size = 2 * shape[0] * shape[1]
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
            weight_map[name] = file
        text = json.dumps({"__metadata__": {"salt": str(salt)}, **header}).encode()
        with (folder / file).open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            stream.truncate(8 + len(text) + at)
        total += 8 + len(text) + at
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}, indent=2))
    (folder / "config.json").write_text(json.dumps({"model_type": "deepseek", "salt": salt}))
    vocabulary = {f"token-{salt}-{at}" if at < 5 else f"token{at:06}": at for at in range(129280)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}, indent=2))
    return total
