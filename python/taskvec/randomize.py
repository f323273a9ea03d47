"""The control of a study: a random vector whose tensors have the norms of v, an ordinary vector otherwise.

A gain that such a vector gives too is not v's doing: any disturbance of that size would have brought it.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import verbs
from .errors import MismatchError, StorageError, UsageError
from .vector import Vector

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import torch

_CHUNK = 1 << 20
"""Elements drawn at a time. Part of what makes a seed's vector: another size draws other numbers."""


def write_control(vector: str | os.PathLike[str], out: str | os.PathLike[str], seed: int) -> Vector:
    """Writes to the new folder `out` a vector of Gaussian noise with v's names, shapes, dtypes and norms.

    Each tensor is drawn from a stream of its own, keyed by `seed` and its name, and scaled to the Euclidean
    norm that `extract` recorded for that tensor of v, then rounded to the dtype v is stored in (in bf16 the
    norm is met to about one part in a thousand). The same seed gives the same bytes with the same version of
    torch. Takes some megabytes of memory and, while it runs, twice the vector's room on the disk.
    `MismatchError` where v was extracted from NaN or Inf, `UsageError` for a seed below 0,
    `StorageError` where there is no room.
    """
    if seed < 0:
        raise UsageError(f"seed {seed} is below 0; give a whole number from 0 up")
    source = vector if isinstance(vector, Vector) else Vector(vector)
    shapes = {one.name: (one.dtype, one.shape) for one in verbs.inspect(source).tensors}
    norms: dict[str, float] = {}
    for one in source.info["tensors"]:
        # Absent for a tensor without elements.
        effect = one.get("effect")
        if effect and effect["nonfinite_inputs"]:
            raise MismatchError(
                f"tensor {one['name']} of {source.path} comes from NaN or Inf, so it has no norm for a random"
                " vector to match; leave it out with --exclude when extracting"
            )
        norms[one["name"]] = (effect and effect["norm_v"]) or 0.0
    where = Path(out).absolute()
    where.parent.mkdir(parents=True, exist_ok=True)
    # Noise − 0 through `extract` itself: the engine that writes every other vector makes this one durable,
    # describes it and gives it the digests that `verify` holds it against.
    with tempfile.TemporaryDirectory(prefix=".control-", dir=where.parent) as scratch:
        noise, zeros = Path(scratch) / f"noise-{seed}", Path(scratch) / "zeros"
        config: Any = source.info.get("config")
        for folder in (noise, zeros):
            folder.mkdir()
            if config is not None:
                text = json.dumps(config, default=dict, indent=2)
                (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        header = _header(shapes)
        try:
            with (noise / "model.safetensors").open("wb") as file:
                file.write(header)
                for name, (dtype, shape) in shapes.items():
                    for chunk in _scaled(name, math.prod(shape), dtype, norms[name], seed):
                        file.write(chunk)
                size = file.tell()
            with (zeros / "model.safetensors").open("wb") as file:
                file.write(header)
                # A hole where the file system has them: zeros that take no room.
                file.truncate(size)
        except OSError as error:
            # A write that finds no room does not say where.
            raise StorageError(
                error.errno, f"{where} cannot be written: {error.strerror}; make room for twice v", str(where)
            ) from error
        return verbs.extract(noise, zeros, where)


def _header(shapes: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    tensors: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape) in shapes.items():
        end = at + math.prod(shape) * (2 if dtype == "BF16" else 4)
        tensors[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _draws(name: str, count: int, seed: int) -> Iterator[torch.Tensor]:
    import torch

    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
    for start in range(0, count, _CHUNK):
        yield torch.randn(min(_CHUNK, count - start), generator=generator, dtype=torch.float32)


def _scaled(name: str, count: int, dtype: str, norm: float, seed: int) -> Iterator[bytes]:
    import torch

    # Drawn twice, first for its norm: a tensor of any size passes through in chunks.
    drawn = math.sqrt(sum(float(chunk.double().square().sum()) for chunk in _draws(name, count, seed)))
    scale = norm / drawn if drawn else 0.0
    stored = torch.bfloat16 if dtype == "BF16" else torch.float32
    for chunk in _draws(name, count, seed):
        yield (chunk.double() * scale).to(stored).view(torch.uint8).numpy().tobytes()
