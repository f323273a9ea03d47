"""What a transfer must write, said in numpy: checks an output without any of the package's code."""

from __future__ import annotations

import json
import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checkpoints import to_bf16, to_f32

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

PIECE = 1 << 21


@dataclass(frozen=True)
class Stored:
    """Where a bf16 tensor lies."""

    path: Path
    offset: int
    shape: tuple[int, ...]

    def read(self, start: int, elements: int) -> NDArray[np.uint16]:
        """Some of its values, as bits."""
        with self.path.open("rb", buffering=0) as file:
            raw = os.pread(file.fileno(), 2 * elements, self.offset + 2 * start)
        if len(raw) != 2 * elements:
            raise SystemExit(f"{self.path}: ends too early")
        return np.frombuffer(raw, "<u2")


def tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a checkpoint, in the order of its files."""
    found: dict[str, Stored] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            if entry["dtype"] != "BF16" or name in found:
                raise SystemExit(f"{path}: {name} is not bf16, or is there twice")
            found[name] = Stored(path, 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
    return found


def differing(output: Path, target: Path, minuend: Path, subtrahend: Path, alpha: float) -> int:
    """How many values of an output are not `target + α·(minuend − subtrahend)`, bit for bit."""
    written, *inputs = (tensors(folder) for folder in (output, target, minuend, subtrahend))
    if any(
        {name: stored.shape for name, stored in checkpoint.items()}
        != {name: stored.shape for name, stored in written.items()}
        for checkpoint in inputs
    ):
        raise SystemExit(f"{output}: its tensors are not the inputs' tensors")
    factor = np.float32(alpha)

    def jobs() -> Iterator[tuple[str, int, int]]:
        for name, stored in written.items():
            total = math.prod(stored.shape)
            for start in range(0, total, PIECE):
                yield name, start, min(PIECE, total - start)

    def check(job: tuple[str, int, int]) -> int:
        name, start, elements = job
        t, g, s = (to_f32(checkpoint[name].read(start, elements)) for checkpoint in inputs)
        # One operation at a time, each rounded to f32.
        change = g - s
        change *= factor
        change += t
        return int(np.count_nonzero(to_bf16(change) != written[name].read(start, elements)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(check, jobs()))


def require_equal_files(output: Path, other: Path) -> None:
    """Stops the benchmark unless two checkpoints have the same weights, index and config, byte for byte."""
    patterns = ("*.safetensors", "*.index.json", "config.json")
    names = [sorted(path.name for p in patterns for path in folder.glob(p)) for folder in (output, other)]
    if names[0] != names[1]:
        raise SystemExit(f"{output} and {other} don't have the same files")
    for name in names[0]:
        require_equal_file(output / name, other / name)


def require_equal_file(one: Path, other: Path) -> None:
    """Stops the benchmark unless two files are the same, byte for byte."""
    buffers = bytearray(4 << 20), bytearray(4 << 20)
    with one.open("rb", buffering=0) as a, other.open("rb", buffering=0) as b:
        while length := a.readinto(buffers[0]):
            if b.readinto(buffers[1]) != length or buffers[0] != buffers[1]:
                raise SystemExit(f"{one} and {other} differ")
        if b.read(1):
            raise SystemExit(f"{one} is shorter than {other}")
