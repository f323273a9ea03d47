"""Packed files and frames with valid digests and checksums, whatever else they say."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from hostile import raw

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class Forged:
    """A packed file taken apart: the entries of its table, and each tensor's palette and frames."""

    texts: dict[str, str]
    data: dict[str, bytes]
    metadata: dict[str, str]

    def to_bytes(self) -> bytes:
        """The file, with the digest that its table should have."""
        header, at, lines = dict[str, Any](), 0, ""
        for name, data in self.data.items():
            end = at + len(data)
            header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, end]}
            lines += f"{name}\n{at} {end} {self.texts.get(name, '')}\n"
            at = end
        metadata = {
            "taskvec.packed": "1",
            "taskvec.digest": xxhash.xxh3_128_hexdigest(lines.encode()),
            "taskvec.tensors": ";".join(self.texts.values()),
        }
        return raw({"__metadata__": metadata | self.metadata, **header}, b"".join(self.data.values()))


def take(content: bytes) -> Forged:
    """A packed file, to be changed."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    texts = header.pop("__metadata__")["taskvec.tensors"].split(";")
    data = {}
    for name, stored in header.items():
        begin, end = stored["data_offsets"]
        data[name] = content[start + begin : start + end]
    return Forged(dict(zip(data, texts, strict=True)), data, {})


def text(dtype: str, shape: str, wide: str, magnitudes: int, lengths: Iterable[int]) -> str:
    """An entry of a table."""
    numbers = b"".join(length.to_bytes(3, "little") for length in lengths)
    letters = base64.b64encode(numbers).decode().rstrip("=")
    return f"{dtype} {shape} {wide} {magnitudes} {letters}"


def frame(name: str, content: bytes, palette: bytes = b"", number: int = 0) -> bytes:
    """A frame with the checksum that it should have."""
    seed = xxhash.xxh3_64_intdigest(palette, xxhash.xxh3_64_intdigest(name.encode()))
    seed = (seed + number) % 2**64
    return content + xxhash.xxh3_64_intdigest(content, seed).to_bytes(8, "little")


def number(value: int) -> bytes:
    """A number as frames have it."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def section(content: bytes) -> bytes:
    """Bytes that are stored as they are."""
    return number(len(content)) + content
