"""Folders with as many tensors as the largest checkpoints have, and next to nothing in each.

A target and two donors stand to each other as real ones do: the donors differ in a fifth of their values, by
one step of their type. The same seed gives the same bytes. Needs numpy alone, and the memory of one shard.
"""

from __future__ import annotations

import json
import struct
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from quantised.census import DeepSeek, Kimi, deepseek_v3, kimi_k3

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from quantised.census import Entry

ROLES = ("target", "minuend", "subtrahend")
# One scale in so many is in the shard after that of its weight.
APART = 97


def shards(entries: Iterable[Entry], count: int) -> list[list[Entry]]:
    """The tensors of each file, in the order in which the safetensors library would write them."""
    listed = list(entries)
    parts: list[list[Entry]] = [[] for _ in range(count)]
    scales = 0
    for at, entry in enumerate(listed):
        part = at * count // len(listed)
        if entry.scale:
            part = (part + (scales % APART == 0)) % count
            scales += 1
        parts[part].append(entry)
    return [sorted(part, key=lambda entry: entry.place) for part in parts if part]


def header(entries: Sequence[Entry]) -> bytes:
    """The bytes of a file before the data."""
    lines, at = ['"__metadata__":{"format":"pt"}'], 0
    for name, dtype, shape, _ in entries:
        end = at + {"F32": 4, "BF16": 2}.get(dtype, 1) * prod(shape)
        dims = ",".join(map(str, shape))
        lines.append(f'"{name}":{{"dtype":"{dtype}","shape":[{dims}],"data_offsets":[{at},{end}]}}')
        at = end
    text = "{" + ",".join(lines) + "}"
    text += " " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text.encode()


def _data(entries: Sequence[Entry], dtype: str, moved: bool, rng: np.random.Generator) -> NDArray[Any]:
    """The values of all tensors of one type in a file, one after the other."""
    sizes = [prod(entry.shape) for entry in entries]
    count = sum(sizes)
    steps = np.zeros(count, np.uint8)
    if dtype == "F32":
        # Scales, and a router's bias.
        return rng.random(count, np.float32) * np.float32(2e-4) + np.float32(1e-4)
    octets = rng.integers(0, 256, count * (2 if dtype == "BF16" else 1), np.uint8)
    lottery = rng.integers(0, 5, count, np.uint8) == 0
    if moved:
        steps = lottery.astype(np.uint8)
    if dtype == "BF16":
        # Any sign, magnitudes from 2⁻⁷ to 2, and room for a step.
        return ((octets.view("<u2") & 0x83FE) | 0x3C00) + steps
    if dtype == "F8_E4M3":
        # Never NaN: the largest code before a step is 0x7D.
        return np.where(octets & 0x7F >= 0x7E, octets ^ 2, octets) & 0xFE | steps
    at = 0
    for entry, size in zip(entries, sizes, strict=True):
        if entry.scale:
            octets[at : at + size] = 116 + (octets[at : at + size] & 7)
            steps[at : at + size] = 0
        at += size
    return octets ^ steps


def write_checkpoint(
    folder: Path, entries: Iterable[Entry], config: dict[str, Any], *, role: str, count: int, seed: int = 0
) -> None:
    """Writes one folder in so many shards; donors of the same tensors draw the same values."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = shards(entries, count)
    places: dict[str, str] = {}
    total = 0
    for number, part in enumerate(parts, 1):
        file = "model.safetensors"
        if len(parts) > 1:
            file = f"model-{number:05}-of-{len(parts):06}.safetensors"
        rng = np.random.default_rng([seed, number, role == "target"])
        with (folder / file).open("wb") as out:
            out.write(header(part))
            for dtype in dict.fromkeys(entry.dtype for entry in part):
                of_type = [entry for entry in part if entry.dtype == dtype]
                out.write(_data(of_type, dtype, role == "minuend", rng).data)
        places |= {entry.name: file for entry in part}
        total += sum(entry.size for entry in part)
    if len(parts) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_deepseek(
    root: Path,
    sizes: DeepSeek,
    *,
    count: int = 163,
    donors: str = "bf16",
    mtp: bool = False,
    roles: Sequence[str] = ROLES,
    seed: int = 0,
) -> list[Path]:
    """A DeepSeek-V3 in blocks of FP8, and donors, which have the layer beyond the last only with `mtp`."""
    config: dict[str, Any] = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_nextn_predict_layers": sizes.mtp,
        "n_routed_experts": sizes.experts,
        "first_k_dense_replace": sizes.dense,
        "vocab_size": sizes.vocab,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    said = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [sizes.block, sizes.block],
    }
    for role in roles:
        plain = role != "target" and donors == "bf16"
        write_checkpoint(
            root / role,
            deepseek_v3(sizes, plain=plain, mtp=role == "target" or mtp),
            config if plain else {**config, "quantization_config": said},
            role=role,
            count=count,
            seed=seed,
        )
    return [root / role for role in roles]


def write_kimi_k3(
    root: Path,
    sizes: Kimi,
    *,
    count: int = 96,
    donors: str = "bf16",
    roles: Sequence[str] = ROLES,
    seed: int = 0,
) -> list[Path]:
    """A Kimi-K3 with experts in MXFP4, and its donors."""
    weights = {
        "num_bits": 4,
        "type": "float",
        "strategy": "group",
        "group_size": 32,
        "symmetric": True,
        "dynamic": False,
        "scale_dtype": "torch.uint8",
    }
    said = {
        "quant_method": "compressed-tensors",
        "format": "mxfp4-pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}},
        "ignore": ["re:.*self_attn.*", "re:.*shared_experts.*", "lm_head"],
    }
    text = {
        "model_type": "kimi_linear",
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_experts": sizes.experts,
        "vocab_size": sizes.vocab,
        "tie_word_embeddings": False,
    }
    for role in roles:
        plain = role != "target" and donors == "bf16"
        config = {
            "architectures": ["KimiK3ForConditionalGeneration"],
            "model_type": "kimi_k3",
            "dtype": "bfloat16",
            "text_config": text if plain else {**text, "quantization_config": said},
        }
        write_checkpoint(root / role, kimi_k3(sizes, plain=plain), config, role=role, count=count, seed=seed)
    return [root / role for role in roles]
