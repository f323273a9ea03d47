"""Checkpoints as the tests write and read them, and what torch makes of them: nothing of taskvec's own."""

from __future__ import annotations

import json
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

Tensors = dict[str, "Tensor"]

BLOCK = 1 << 20
FLOATS = (torch.bfloat16, torch.float16, torch.float32)
OUTPUTS = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
FOURS = torch.float4_e2m1fn_x2
"""Two values in each element."""
NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e8m0fnu: "F8_E8M0",
    FOURS: "F4",
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int32: "I32",
    torch.int64: "I64",
}
TYPES = {name: dtype for dtype, name in NAMES.items()}
CONFIG: dict[str, Any] = {"model_type": "qwen2", "hidden_size": 8, "tie_word_embeddings": False}
TIED = {**CONFIG, "tie_word_embeddings": True}


def raw(tensor: Tensor) -> bytes:
    """The elements as they lie in a file."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def header(tensors: Tensors, pad: int) -> bytes:
    """The bytes before the data; their length is `pad` more than a multiple of 8."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        if tensor.dtype == FOURS:
            # A file counts values, torch the bytes that hold two.
            shape[-1] *= 2
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * ((pad - len(text)) % 8)
    return struct.pack("<Q", len(text)) + text


def cut(names: Sequence[str], shards: int) -> list[list[str]]:
    """The names in their order, in so many parts."""
    return [list(names[len(names) * at // shards : len(names) * (at + 1) // shards]) for at in range(shards)]


def write(
    folder: Path,
    tensors: Tensors,
    *,
    shards: int | list[list[str]] = 1,
    pad: int = 0,
    config: dict[str, Any] | None = CONFIG,
    total_size: Any = None,
) -> Path:
    """A checkpoint folder; `shards` is how many, or the names in each in the order of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = cut(list(tensors), shards) if isinstance(shards, int) else shards
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=2))
    places: dict[str, str] = {}
    for at, names in enumerate(parts, 1):
        file = "model.safetensors" if len(parts) == 1 else f"model-{at:05}-of-{len(parts):05}.safetensors"
        part = {name: tensors[name] for name in names}
        (folder / file).write_bytes(header(part, pad) + b"".join(raw(tensor) for tensor in part.values()))
        places |= dict.fromkeys(names, file)
    if len(parts) > 1:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        metadata = {"total_size": size if total_size is None else total_size}
        # Compact and unsorted: written again by another program it would look different.
        index = {"weight_map": places, "metadata": metadata}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, separators=(",", ":")))
    return folder


def read(folder: Path, pattern: str = "*.safetensors") -> Tensors:
    """All tensors of a folder, by name."""
    found: Tensors = {}
    for path in sorted(folder.glob(pattern)):
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        entries = json.loads(content[8:start])
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            assert name not in found
            begin, end = entry["data_offsets"]
            part = bytearray(content[start + begin : start + end])
            dtype = TYPES[entry["dtype"]]
            flat = torch.frombuffer(part, dtype=dtype) if part else torch.empty(0, dtype=dtype)
            found[name] = flat.reshape(entry["shape"] if dtype != FOURS else [*entry["shape"][:-1], -1])
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Every file below the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def weights(folder: Path) -> dict[str, bytes]:
    """Every weight file of the folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def manifest(folder: Path) -> dict[str, Any]:
    """`taskvec.json`, or `vector.json` of a vector."""
    vector = folder / "vector.json"
    return json.loads((vector if vector.exists() else folder / "taskvec.json").read_text())


def patterns(tensor: Tensor) -> Tensor:
    """Bit patterns as integers."""
    return tensor.reshape(-1).view({1: torch.int8, 2: torch.int16, 4: torch.int32}[tensor.element_size()])


def assert_same(found: Tensor, wanted: Tensor, what: object = "") -> None:
    """Equal bit for bit, except that all NaN are one."""
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), what
    if wanted.dtype not in FLOATS:
        assert raw(found) == raw(wanted), what
        return
    nan = wanted.isnan().reshape(-1)
    assert torch.equal(found.isnan().reshape(-1), nan), what
    differs = (patterns(found) != patterns(wanted)) & ~nan
    where = differs.nonzero()[:3].reshape(-1).tolist()
    assert not where, f"{what}: {len(where)} or more elements differ, first {where}"


def combined(t: Tensor, g: Tensor, s: Tensor, alpha: float, out: torch.dtype | None = None) -> Tensor:
    """Torch's answer, in the words of the numeric specification; α = 0 is no arithmetic at all."""
    out = out or t.dtype
    return t.to(out) if alpha == 0 else (t.float() + alpha * (g.float() - s.float())).to(out)


def all_combined(t: Tensors, g: Tensors, s: Tensors, alpha: float, out: torch.dtype | None = None) -> Tensors:
    """`combined` for every tensor."""
    return {name: combined(t[name], g[name], s[name], alpha, out) for name in t}


def assert_tensors(found: Tensors, wanted: Tensors, what: object = "") -> None:
    """The same names in the same tensors."""
    assert sorted(found) == sorted(wanted), what
    for name, tensor in wanted.items():
        assert_same(found[name], tensor, (name, what))


def generator(seed: object) -> torch.Generator:
    """A stream of its own for each seed, whatever Python's hash does."""
    return torch.Generator().manual_seed(zlib.crc32(repr(seed).encode()))


def noise(shape: Iterable[int], dtype: torch.dtype, rng: torch.Generator, scale: float = 0.05) -> Tensor:
    """Weights as a model has them."""
    return (torch.randn(tuple(shape), generator=rng) * scale).to(dtype)


def anything(shape: Iterable[int], dtype: torch.dtype, rng: torch.Generator) -> Tensor:
    """Any bit pattern: NaN, infinities, subnormals and all magnitudes."""
    words, limit = {2: (torch.int16, 1 << 15), 4: (torch.int32, 1 << 31)}[dtype.itemsize]
    drawn = torch.randint(-limit, limit, tuple(shape), generator=rng, dtype=torch.int64)
    return drawn.to(words).reshape(-1).view(dtype).reshape(tuple(shape))


def nudged(tensor: Tensor, rng: torch.Generator, share: float = 0.2) -> Tensor:
    """One element in five moved by one or two steps of its type, as reinforcement learning does."""
    steps = torch.randint(1, 3, tensor.shape, generator=rng) * (
        torch.rand(tensor.shape, generator=rng) < share
    )
    moved = patterns(tensor) + steps.reshape(-1).to(patterns(tensor).dtype)
    return moved.view(tensor.dtype).reshape(tensor.shape)


def least_memory(message: str) -> str:
    """What the error about too small a budget names as the least."""
    found = re.search(r"the least that works is (\d+KiB)", message)
    assert found, message
    return found[1]


def to_f64(tensor: Tensor) -> np.ndarray:
    """Exact."""
    return tensor.reshape(-1).double().numpy()
