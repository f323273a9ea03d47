"""Writes families of synthetic bf16 checkpoints, shaped like Qwen2.5, for benchmarks.

    python benches/checkpoints.py ROOT --size tiny|0.5b|1.5b|7b|many|one-big [--roles sft,grpo,instruct]

A family is one folder per role under ROOT/SIZE, each as `transformers` saves it. The roles stand to each
other as real checkpoints do: sft = base + N(0, 3e-4); grpo = sft with a fifth of its values moved by 1 to
4 ulp (RL moves few bf16 values, and by little); instruct = base + N(0, 1e-3). The same seed gives the same
bytes. Needs numpy alone, and some 64 MB a thread: values are made and written in pieces.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

ROLES = ("base", "sft", "grpo", "instruct")
QWEN2 = {
    "tiny": (64, 2, 4, 2, 128, 512, True),
    "0.5b": (896, 24, 14, 2, 4864, 151936, True),
    "1.5b": (1536, 28, 12, 2, 8960, 151936, True),
    "7b": (3584, 28, 28, 4, 18944, 152064, False),
}
QWEN2_KEYS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
)
PIECE = 1 << 21
"""Elements made at a time; part of what the seed means, since each piece has a generator of its own."""


@dataclass(frozen=True)
class Tensor:
    """A tensor's name and shape; every one is bf16."""

    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many values it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """What all roles of a family have in common."""

    name: str
    config: dict[str, Any]
    tensors: tuple[Tensor, ...]


def qwen2(size: str) -> Layout:
    """The layout of Qwen2.5 in one of the sizes of `QWEN2`."""
    shape: dict[str, Any] = dict(zip(QWEN2_KEYS, QWEN2[size], strict=True))
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        **shape,
    }
    return Layout(size, config, tuple(_qwen2_tensors(shape)))


def _qwen2_tensors(shape: dict[str, Any]) -> Iterator[Tensor]:
    hidden, inner, vocab = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    yield Tensor("model.embed_tokens.weight", (vocab, hidden))
    for number in range(shape["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield Tensor(f"{layer}.input_layernorm.weight", (hidden,))
        yield Tensor(f"{layer}.mlp.down_proj.weight", (hidden, inner))
        yield Tensor(f"{layer}.mlp.gate_proj.weight", (inner, hidden))
        yield Tensor(f"{layer}.mlp.up_proj.weight", (inner, hidden))
        yield Tensor(f"{layer}.post_attention_layernorm.weight", (hidden,))
        for letter, width in (("k", keys), ("q", hidden), ("v", keys)):
            yield Tensor(f"{layer}.self_attn.{letter}_proj.bias", (width,))
            yield Tensor(f"{layer}.self_attn.{letter}_proj.weight", (width, hidden))
        yield Tensor(f"{layer}.self_attn.o_proj.weight", (hidden, hidden))
    yield Tensor("model.norm.weight", (hidden,))
    if not shape["tie_word_embeddings"]:
        yield Tensor("lm_head.weight", (vocab, hidden))


def many(count: int = 40_000) -> Layout:
    """Many small tensors, of 17 to 1,649 values, so that hardly one begins or ends where a block does."""
    tensors = (Tensor(f"blocks.{number:06d}.weight", (1 + number % 97, 17)) for number in range(count))
    return Layout(f"many-{count}", {"model_type": "synthetic"}, tuple(tensors))


def one_big(gigabytes: float = 2.5) -> Layout:
    """One tensor of the given size: larger than any budget for buffers."""
    rows = round(gigabytes * 1e9 / 2 / 4096)
    layout = (Tensor("embed_tokens.weight", (rows, 4096)),)
    return Layout(f"one-big-{gigabytes:g}", {"model_type": "synthetic"}, layout)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bf16 bits of finite values, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_f32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The exact values of bf16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def piece_bits(role: str, name: str, piece: int, elements: int, seed: int) -> NDArray[np.uint16]:
    """One piece of one tensor in one role. A family's roles agree on the draws that they share."""

    def draws(stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode()), piece, stream]))

    def normal(stream: int, scale: float) -> NDArray[np.float32]:
        values = draws(stream).standard_normal(elements, dtype=np.float32)
        values *= np.float32(scale)
        return values

    base = normal(0, 0.02)
    if "norm" in name:
        base += np.float32(1)
    base_bits = to_bf16(base)
    if role == "base":
        return base_bits
    if role == "instruct":
        return to_bf16(to_f32(base_bits) + normal(1, 1e-3))
    sft = to_bf16(to_f32(base_bits) + normal(2, 3e-4))
    if role == "sft":
        return sft
    if role != "grpo":
        raise ValueError(f"unknown role {role!r}: one of {', '.join(ROLES)}")
    # Neighbours in value are neighbours in bits, but within 4 ulp of zero, where no draw falls.
    lottery = draws(3).integers(0, 40, elements, dtype=np.uint8)
    steps = np.zeros(40, np.int16)
    steps[:8] = (-4, -3, -2, -1, 1, 2, 3, 4)
    return (sft.view(np.int16) + steps[lottery]).view(np.uint16)


@dataclass(frozen=True)
class _Shard:
    name: str
    header: bytes
    tensors: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        return len(self.header) + 2 * sum(tensor.elements for tensor in self.tensors)


def _shards(layout: Layout, shard_bytes: int) -> list[_Shard]:
    groups: list[list[Tensor]] = [[]]
    used = 0
    for tensor in layout.tensors:
        if used and used + 2 * tensor.elements > shard_bytes:
            groups.append([])
            used = 0
        groups[-1].append(tensor)
        used += 2 * tensor.elements
    if len(groups) == 1:
        return [_Shard("model.safetensors", _header(groups[0]), tuple(groups[0]))]
    return [
        _Shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", _header(group), tuple(group))
        for number, group in enumerate(groups, 1)
    ]


def _header(tensors: Sequence[Tensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + 2 * tensor.elements
        entries[tensor.name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": (start, end)}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write_shard(path: Path, shard: _Shard, role: str, seed: int) -> None:
    def write(job: tuple[Tensor, int, int]) -> None:
        tensor, piece, offset = job
        elements = min(PIECE, tensor.elements - piece * PIECE)
        values = piece_bits(role, tensor.name, piece, elements, seed).astype("<u2", copy=False)
        if os.pwrite(file.fileno(), values.data, offset + 2 * piece * PIECE) != values.nbytes:
            raise OSError(f"{path}: the disk took only part of a write; is it full?")

    def jobs() -> Iterator[tuple[Tensor, int, int]]:
        offset = len(shard.header)
        for tensor in shard.tensors:
            for piece in range(-(-tensor.elements // PIECE)):
                yield tensor, piece, offset
            offset += 2 * tensor.elements

    # numpy draws without holding the interpreter's lock, so threads are enough.
    with path.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        file.write(shard.header)
        file.flush()
        for _ in pool.map(write, jobs()):
            pass


def write_checkpoint(folder: Path, layout: Layout, role: str, shard_gb: float = 2.0, seed: int = 0) -> None:
    """Writes one role's folder, unless it is already there with the same recipe."""
    shards = _shards(layout, int(shard_gb * 1e9))
    config = json.dumps({**layout.config, "synthetic": {"role": role, "seed": seed}}, indent=2) + "\n"
    # The config comes last, so that a folder with the right one is a finished folder.
    config_path = folder / "config.json"
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}
    finished = config_path.exists() and config_path.read_text(encoding="utf-8") == config
    if finished and sizes == {shard.name: shard.size for shard in shards}:
        return
    config_path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    index_path = folder / "model.safetensors.index.json"
    for stale in (*folder.glob("*.safetensors"), index_path):
        stale.unlink(missing_ok=True)
    for shard in shards:
        _write_shard(folder / shard.name, shard, role, seed)
    if len(shards) > 1:
        total = 2 * sum(tensor.elements for tensor in layout.tensors)
        places = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        index_path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    config_path.write_text(config, encoding="utf-8")


def write_family(
    root: Path, layout: Layout, roles: Sequence[str] = ROLES, shard_gb: float = 2.0, seed: int = 0
) -> dict[str, Path]:
    """Writes the roles of a family that are not there yet; returns the folder of each."""
    folders = {role: root / layout.name / role for role in roles}
    for role, folder in folders.items():
        write_checkpoint(folder, layout, role, shard_gb, seed)
    return folders


def layout_named(size: str) -> Layout:
    """The layout behind a `--size`."""
    if size == "many":
        return many()
    return one_big() if size == "one-big" else qwen2(size)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--size", default="tiny", choices=(*QWEN2, "many", "one-big"))
    parser.add_argument("--roles", default=",".join(ROLES), help="comma-separated (default: all four)")
    parser.add_argument("--shard-gb", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    layout = layout_named(options.size)
    for folder in write_family(
        options.root, layout, options.roles.split(","), options.shard_gb, options.seed
    ).values():
        print(folder)


if __name__ == "__main__":
    main()
