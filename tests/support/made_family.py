"""A family of four small models to try things on: base, sft and instruct grown from it, grpo grown from sft.

The shape is Qwen2's with a tied head, the weights are noise: no model here can do anything. What is real is
how they differ, since that is what the arithmetic sees: fine-tuning moves every weight a little, and
reinforcement learning one weight in five by a few steps of bfloat16. Needs the standard library alone.
"""

from __future__ import annotations

import json
import random
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

ROLES = ("base", "sft", "grpo", "instruct")

_VOCAB, _HIDDEN, _FFN, _LAYERS, _HEADS, _KV_HEADS = 512, 64, 192, 4, 4, 2
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_IDS = {"bos_token_id": 256, "pad_token_id": 256, "eos_token_id": 258}
_NOISE = {"sft": 2e-3, "instruct": 4e-3}
_SHARDED = {"base": 2, "instruct": 3}
_EXPONENT = 0x7F80

_CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": _HIDDEN,
    "intermediate_size": _FFN,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _KV_HEADS,
    "vocab_size": _VOCAB,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    **_IDS,
    "torch_dtype": "bfloat16",
}

_TOKENIZER = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": _SPECIAL[0], "eos_token": _SPECIAL[2]}

_CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
---

# Miniature {role}

Noise in the shape of a language model, made for a test.
"""

Weights = dict[str, list[int]]
"""Tensor name → bfloat16 bit patterns."""


def write_family(root: Path, seed: int) -> None:
    """Writes the four checkpoints as folders of `root`; the same seed gives the same bytes."""
    base = _fresh(seed)
    sft = _tuned(base, "sft", seed)
    family = {
        "base": base,
        "sft": sft,
        "grpo": _reinforced(sft, seed),
        "instruct": _tuned(base, "instruct", seed),
    }
    for role in ROLES:
        _write_checkpoint(root / role, role, family[role])


def _shapes() -> dict[str, list[int]]:
    shapes = {"model.embed_tokens.weight": [_VOCAB, _HIDDEN]}
    wide, narrow = _HIDDEN, _HIDDEN // _HEADS * _KV_HEADS
    for layer in range(_LAYERS):
        at = f"model.layers.{layer}."
        shapes[at + "input_layernorm.weight"] = [_HIDDEN]
        for name, rows in (("q", wide), ("k", narrow), ("v", narrow)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = [rows, _HIDDEN]
            shapes[f"{at}self_attn.{name}_proj.bias"] = [rows]
        shapes[at + "self_attn.o_proj.weight"] = [_HIDDEN, wide]
        shapes[at + "post_attention_layernorm.weight"] = [_HIDDEN]
        shapes[at + "mlp.gate_proj.weight"] = [_FFN, _HIDDEN]
        shapes[at + "mlp.up_proj.weight"] = [_FFN, _HIDDEN]
        shapes[at + "mlp.down_proj.weight"] = [_HIDDEN, _FFN]
    shapes["model.norm.weight"] = [_HIDDEN]
    return shapes


def _random(seed: int, role: str, tensor: str) -> random.Random:
    """A stream of its own for each tensor, so that one does not depend on another's size."""
    return random.Random(f"{seed}/{role}/{tensor}")


def _noise(rng: random.Random, count: int, scale: float) -> list[float]:
    """Bell-shaped noise; sums of `random()` give the same numbers on every platform, `gauss` need not."""
    draw = rng.random
    return [(draw() + draw() + draw() - 1.5) * 2.0 * scale for _ in range(count)]


def _fresh(seed: int) -> Weights:
    weights: Weights = {}
    for name, shape in _shapes().items():
        count = _elements(shape)
        centre = 1.0 if "norm" in name else 0.0
        noise = _noise(_random(seed, "base", name), count, 0.06)
        weights[name] = _to_bf16([centre + one for one in noise])
    return weights


def _tuned(base: Weights, role: str, seed: int) -> Weights:
    tuned: Weights = {}
    for name, bits in base.items():
        noise = _noise(_random(seed, role, name), len(bits), _NOISE[role])
        tuned[name] = _to_bf16([old + new for old, new in zip(_from_bf16(bits), noise, strict=True)])
    return tuned


def _reinforced(sft: Weights, seed: int) -> Weights:
    moved: Weights = {}
    for name, bits in sft.items():
        rng = _random(seed, "grpo", name)
        moved[name] = [_step(one, rng) if rng.random() < 0.2 else one for one in bits]
    return moved


def _step(bits: int, rng: random.Random) -> int:
    """One to four steps of bfloat16 up or down in magnitude, short of zero and infinity."""
    size = (bits & 0x7FFF) + rng.choice((-1, 1)) * rng.randint(1, 4)
    return (bits & 0x8000) | max(1, min(size, _EXPONENT - 1))


def _to_bf16(values: list[float]) -> list[int]:
    """Rounds to nearest, ties to even; the values here are small and finite."""
    patterns = struct.unpack(f"<{len(values)}I", struct.pack(f"<{len(values)}f", *values))
    return [(one + 0x7FFF + ((one >> 16) & 1)) >> 16 for one in patterns]


def _from_bf16(bits: list[int]) -> tuple[float, ...]:
    return struct.unpack(f"<{len(bits)}f", struct.pack(f"<{len(bits)}I", *(one << 16 for one in bits)))


def _elements(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _write_checkpoint(folder: Path, role: str, weights: Weights) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _CONFIG)
    _write_json(folder / "generation_config.json", {**_IDS, "do_sample": False})
    _write_json(folder / "tokenizer.json", _tokenizer())
    _write_json(folder / "tokenizer_config.json", _TOKENIZER)
    (folder / "README.md").write_text(_CARD.format(role=role), newline="\n")
    names = list(weights)
    shards = _SHARDED.get(role, 1)
    if shards == 1:
        _write_weights(folder / "model.safetensors", weights)
        return
    places: dict[str, str] = {}
    for shard in range(shards):
        # Each input cut in its own way, as checkpoints from different hands are.
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        _write_weights(folder / file, {name: weights[name] for name in part})
        places |= dict.fromkeys(part, file)
    size = 2 * sum(len(bits) for bits in weights.values())
    _write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places}
    )


def _write_weights(path: Path, weights: Weights) -> None:
    shapes, header, at = _shapes(), dict[str, Any](__metadata__={"format": "pt"}), 0
    for name, bits in weights.items():
        end = at + 2 * len(bits)
        header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for bits in weights.values():
            file.write(struct.pack(f"<{len(bits)}H", *bits))


def _tokenizer() -> dict[str, Any]:
    """One token for each byte, in the form of byte-level BPE without merges, and Qwen's special tokens."""
    # Byte-level BPE writes bytes that cannot be printed as the letters from U+0100 on.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    letters = {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + at) for at, byte in enumerate(others)
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 256 + at, "content": name, **flags} for at, name in enumerate(_SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": level,
        "decoder": level,
        "model": {"type": "BPE", "vocab": {letters[byte]: byte for byte in range(256)}, "merges": []},
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", newline="\n")
