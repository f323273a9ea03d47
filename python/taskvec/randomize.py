"""The control of a study: a vector of random numbers, each tensor scaled to the norm of that tensor of v.

If such a vector gives a gain too, the gain is not due to v: any change of that size brings it.
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
"""Elements drawn at a time. A constant, since with another size the same seed would draw other numbers."""


def write_control(vector: str | os.PathLike[str], out: str | os.PathLike[str], seed: int) -> Vector:
    """Writes to the new folder `out` a vector of Gaussian noise with v's names, shapes, dtypes and norms.

    Each tensor is drawn from its own stream, keyed by `seed` and the tensor's name. It is scaled to the
    Euclidean norm that `extract` recorded for that tensor of v, then rounded to the dtype in which v is
    stored (in bf16 the norm is right to about one part in a thousand). The same seed gives the same bytes
    with the same version of torch. It takes some megabytes of memory and, while it runs, twice the disk
    space of the vector.

    Raises:
        MismatchError: v was extracted from inputs with NaN or Inf.
        UsageError: `seed` is below 0.
        StorageError: There is no disk space.
    """
    if seed < 0:
        raise UsageError(f"seed {seed} is below 0; give a whole number from 0 up")
    source = vector if isinstance(vector, Vector) else Vector(vector)
    shapes = {one.name: (one.dtype, one.shape) for one in verbs.inspect(source).tensors}
    norms: dict[str, float] = {}
    for one in source.info["tensors"]:
        # A tensor without elements has no effect recorded.
        effect = one.get("effect")
        if effect and effect["nonfinite_inputs"]:
            raise MismatchError(
                f"tensor {one['name']} of {source.path} comes from NaN or Inf, so it has no norm for a random"
                " vector to match; leave it out with --exclude when extracting"
            )
        norms[one["name"]] = (effect and effect["norm_v"]) or 0.0
    where = Path(out).absolute()
    where.parent.mkdir(parents=True, exist_ok=True)
    # The vector is extracted as noise − 0, so that it is written, described and given digests by the same
    # code as every other vector, and `verify` can check it.
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
                # A sparse file, if the file system has them: zeros that take no disk space.
                file.truncate(size)
        except OSError as error:
            # The error of a full disk names no file.
            raise StorageError(
                error.errno,
                f"{where} cannot be written: {error.strerror}; free twice the disk space of v",
                str(where),
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

    # The tensor is drawn twice, first to compute its norm: so it never has to be in memory as a whole.
    drawn = math.sqrt(sum(float(chunk.double().square().sum()) for chunk in _draws(name, count, seed)))
    scale = norm / drawn if drawn else 0.0
    stored = torch.bfloat16 if dtype == "BF16" else torch.float32
    for chunk in _draws(name, count, seed):
        yield (chunk.double() * scale).to(stored).view(torch.uint8).numpy().tobytes()
