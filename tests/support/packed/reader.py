"""Reads packed vectors without taskvec, as docs/packed.md says; takes nothing else."""

from __future__ import annotations

import base64
import json
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash
import zstandard

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BLOCK = 1 << 20
(EVERY, MASK, GAPS, DENSE), (NO_LOW, SOME_LOW, ALL_LOW), ESCAPE = range(4), range(3), 255
# Gaps that share a parameter; zero bits before a gap in full, and its bits; gaps that are cut into two runs.
GROUP, LONG, FULL, MANY = 64, 31, 20, 8192


class Entry(NamedTuple):
    """What the table of a file says of a tensor."""

    each: int  # Elements of a frame, but for the last.
    low: bool  # Whether values may have a lower half.
    shape: tuple[int, ...]
    magnitudes: int
    lengths: list[int]


def read_packed(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a packed vector, exactly, in the order of its files."""
    found: dict[str, NDArray[np.float32]] = {}
    for path in sorted(folder.glob("vector*.safetensors")):
        table, data = read_table(path.read_bytes())
        for name, (at, entry) in table.items():
            values, palette = np.zeros(prod(entry.shape), np.uint32), data[at : at + 2 * entry.magnitudes]
            seed = xxhash.xxh3_64_intdigest(palette, xxhash.xxh3_64_intdigest(name.encode()))
            at += len(palette)
            for number, length in enumerate(entry.lengths):
                part = values[number * entry.each : (number + 1) * entry.each]
                # An empty frame is all zeros.
                if length:
                    part[:] = read_frame(data[at : at + length], seed + number, palette, part.size, entry.low)
                at += length
            found[name] = values.view(np.float32).reshape(entry.shape)
    return found


def read_table(content: bytes) -> tuple[dict[str, tuple[int, Entry]], bytes]:
    """Where each tensor begins in the data, its entry, and the data."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    metadata: dict[str, str] = header.pop("__metadata__")
    assert metadata["taskvec.packed"] == "1"
    lines, table = "", dict[str, tuple[int, Entry]]()
    tensors = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    texts = metadata["taskvec.tensors"].split(";") if tensors else []
    for (name, stored), text in zip(tensors, texts, strict=True):
        begin, end = stored["data_offsets"]
        lines += f"{name}\n{begin} {end} {text}\n"
        entry = read_entry(text)
        assert (stored["dtype"], stored["shape"]) == ("U8", [end - begin])
        assert 2 * entry.magnitudes + sum(entry.lengths) == end - begin
        table[name] = begin, entry
    assert metadata["taskvec.digest"] == xxhash.xxh3_128_hexdigest(lines.encode())
    return table, content[start:]


def read_entry(text: str) -> Entry:
    dtype, dims, wide, magnitudes, lengths = text.split(" ")
    assert (dtype, wide) in {("BF16", "exact"), ("BF16", "wide"), ("F32", "exact")}
    shape = tuple(json.loads(dims))
    numbers = base64.b64decode(lengths + "=" * (-len(lengths) % 4))
    frames = [int.from_bytes(numbers[at : at + 3], "little") for at in range(0, len(numbers), 3)]
    each = BLOCK // {"BF16": 2, "F32": 4}[dtype]
    assert len(frames) == -(-prod(shape) // each)
    return Entry(each, wide == "wide" or dtype == "F32", shape, int(magnitudes), frames)


class Cursor:
    """Reads a frame from its start to its end."""

    def __init__(self, content: bytes) -> None:
        self.rest = content

    def bytes(self, count: int) -> bytes:
        assert count <= len(self.rest)
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def number(self) -> int:
        value, shift, byte = 0, 0, 0x80
        while byte >= 0x80:
            (byte,) = self.bytes(1)
            value |= (byte & 0x7F) << shift
            shift += 7
        return value

    def section(self, size: int) -> NDArray[np.uint8]:
        stored = self.bytes(self.number())
        if len(stored) < size:
            stored = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
        assert len(stored) == size
        return np.frombuffer(stored, np.uint8)

    def halves(self, count: int) -> NDArray[np.uint32]:
        upper, lower = self.section(count), self.section(count)
        return upper.astype(np.uint32) << 8 | lower


def read_frame(frame: bytes, seed: int, shared: bytes, elements: int, may: bool) -> NDArray[np.uint32]:
    """The float32 patterns of a frame's elements; `may` they have lower halves."""
    content, checksum = frame[:-8], frame[-8:]
    assert xxhash.xxh3_64_intdigest(content, seed % 2**64) == int.from_bytes(checksum, "little")
    cursor = Cursor(content)
    (kind,) = cursor.bytes(1)
    where, own, low = kind & 3, bool(kind & 4), kind >> 3
    assert low <= (ALL_LOW if may else NO_LOW)
    if where == DENSE:
        assert (own, low == SOME_LOW) == (False, False)
        upper = np.frombuffer(cursor.rest, "<u2").astype(np.uint32) << 16
        return np.frombuffer(cursor.rest, "<u4") if low == ALL_LOW else upper
    values = np.zeros(elements, np.uint32)
    places = read_places(cursor, where, elements)
    palette = np.frombuffer(cursor.bytes(2 * cursor.bytes(1)[0]) if own else shared, "<u2")
    assert len(set(palette.tolist())) == len(palette)
    assert (palette < 1 << 15).all()
    ranks = cursor.section(len(places))
    escaped = ranks == ESCAPE
    assert (escaped | (ranks < 2 * len(palette))).all()
    # Escapes look beyond the palette.
    halves = np.append(palette, np.zeros(128, np.uint16))[ranks // 2] | (ranks & 1).astype(np.uint16) << 15
    missed = cursor.number()
    assert missed == escaped.sum()
    if missed:
        halves[escaped] = cursor.halves(missed)
    values[places] = halves.astype(np.uint32) << 16
    if low == ALL_LOW:
        values[places] |= cursor.halves(len(places))
    elif low == SOME_LOW:
        count = cursor.number()
        with_low = read_gaps(cursor.bytes(cursor.number()), count)
        assert np.isin(with_low, places).all()
        values[with_low] |= cursor.halves(count)
    assert not cursor.rest
    return values


def read_places(cursor: Cursor, where: int, elements: int) -> NDArray[Any]:
    """The elements that have a value."""
    if where == EVERY:
        return np.arange(elements)
    changed = cursor.number()
    if where == MASK:
        places = np.unpackbits(cursor.section(-(-elements // 8)), bitorder="little").nonzero()[0]
    else:
        places = read_gaps(cursor.bytes(cursor.number()), changed)
    assert 0 < len(places) == changed < elements > places[-1]
    return places


def read_gaps(content: bytes, count: int) -> NDArray[Any]:
    cursor = Cursor(content)
    if count < MANY:
        return np.array(read_run(cursor, 0, count))
    left = read_run(Cursor(cursor.bytes(cursor.number())), 0, count - count // 2)
    assert cursor.number() == left[-1] + 1
    return np.array(left + read_run(cursor, left[-1] + 1, count // 2))


def read_run(cursor: Cursor, start: int, count: int) -> list[int]:
    """The places after one run of gaps in Golomb code."""
    m, codes, at = cursor.number(), cursor.rest, 0
    places, place, first = list[int](), start, start
    for number in range(1, count + 1):
        word = int.from_bytes(codes[at // 8 : at // 8 + 8], "little") >> at % 8
        zeros = (word & -word).bit_length() - 1
        assert 0 <= zeros <= LONG
        word >>= zeros + 1
        bits = max(1, (m - 1).bit_length())
        cut = 2**bits - m
        gap, used = word & (1 << FULL) - 1, FULL
        if zeros < LONG:
            rest, used = word & (1 << bits - 1) - 1, bits - 1
            if rest >= cut:
                rest, used = 2 * rest - cut + (word >> used & 1), bits
            gap = zeros * m + rest
        at += zeros + 1 + used
        places.append(place + gap)
        place += gap + 1
        if number % GROUP == 0:
            m = max(1, ((place - first - GROUP + GROUP // 2) * 11_357 + (1 << 19)) >> 20)
            first = place
    assert (-(-at // 8), int.from_bytes(codes, "little") >> at) == (len(codes), 0)
    return places
