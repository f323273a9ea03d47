"""Random numbers by position, Philox4x32-10 in numpy, and what they round."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = Words = NDArray[Any]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """The four words of each block; a counter fills the two lower ones of a block."""
    a, b = counter & _LOW, counter >> _HALF
    c, d = np.zeros_like(a), np.zeros_like(a)
    low, high = key
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (
            second >> _HALF ^ b ^ np.uint64(low),
            second & _LOW,
            first >> _HALF ^ d ^ np.uint64(high),
            first & _LOW,
        )
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return np.stack([a, b, c, d], -1).astype(np.uint32)


def words(seed: int, name: str, count: int) -> Words:
    """One random number for each element of a tensor."""
    digest = xxhash.xxh3_64_intdigest(struct.pack("<Q", seed) + name.encode())
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    return philox(blocks, (digest % 2**32, digest >> 32)).reshape(-1)[:count]


def away(x: Floats, random: Words) -> NDArray[Any]:
    """A whole number below or above, the upper one if the number is less than what is cut off."""
    wide = x.astype(np.float64)
    floor = np.floor(wide)
    return floor + (random / 2.0**32 < wide - floor)


def widened(x: Floats, random: Words | None) -> Floats:
    """What bfloat16 makes of values, by chance where there are random numbers."""
    near = torch.as_tensor(np.ascontiguousarray(x)).bfloat16().float().numpy()
    if random is None:
        return near
    bits = x.view(np.uint32).astype(np.uint64)
    moved = (bits + (random >> np.uint32(16)) >> np.uint64(16) << np.uint64(16)).astype(np.uint32)
    large = bits & np.uint64(0x7FFFFFFF) > np.uint64(0x7F7F0000)
    return np.where(large, near, moved.view(np.float32))
