"""Packed files and frames with valid digests and checksums, whatever else they say."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import xxhash

from hostile import raw


@dataclass
class Forged:
    """A packed file taken apart: what its table says of each tensor, and each tensor's frames."""

    texts: dict[str, str]
    frames: dict[str, bytes]
    metadata: dict[str, str]

    def to_bytes(self) -> bytes:
        """The file, with the digest that its table should have."""
        header, at, lines = dict[str, Any](), 0, ""
        for name, frames in self.frames.items():
            end = at + len(frames)
            header[name] = {"dtype": "U8", "shape": [len(frames)], "data_offsets": [at, end]}
            lines += f"{name}\n{at} {end} {self.texts.get(name, '')}\n"
            at = end
        table = {f"taskvec.tensor.{name}": text for name, text in self.texts.items()}
        digest = {"taskvec.digest": xxhash.xxh3_128_hexdigest(lines.encode())}
        return raw(
            {"__metadata__": {"taskvec.packed": "1", **digest, **table, **self.metadata}, **header},
            b"".join(self.frames.values()),
        )


def take(content: bytes) -> Forged:
    """A packed file, to be changed."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    metadata = header.pop("__metadata__")
    frames = {}
    for name, stored in header.items():
        begin, end = stored["data_offsets"]
        frames[name] = content[start + begin : start + end]
    return Forged({name: metadata[f"taskvec.tensor.{name}"] for name in frames}, frames, {})


def text(
    dtype: str = "BF16", shape: str = "[4]", wide: str = "exact", palette: bytes = b"", lengths: Any = ()
) -> str:
    """An entry of a table."""
    numbers = b"".join(length.to_bytes(3, "little") for length in lengths)
    return f"{dtype} {shape} {wide} {unpadded(palette)} {unpadded(numbers)}"


def unpadded(content: bytes) -> str:
    return base64.b64encode(content).decode().rstrip("=")


def frame(name: str, content: bytes, number: int = 0) -> bytes:
    """A frame with the checksum that it should have."""
    seed = (xxhash.xxh3_64_intdigest(name.encode()) + number) % 2**64
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
