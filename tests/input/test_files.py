"""Files of docs/inputs.md: what is refused, in which words and by every verb, and what is not."""

from __future__ import annotations

import json
import os
import resource
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hostile import accepted, call, checkpoint, donors, entry, noise, raw, refused, run, shard

if TYPE_CHECKING:
    from pathlib import Path

SINGLE = "model.safetensors"
GOOD = shard({"a": noise(1, 6).reshape(2, 3), "b": noise(2, 4)})
TENSOR = entry("BF16", [4], 0, 8)
DATA = bytes(8)


def member(text: str) -> bytes:
    """A header with one tensor `w` whose entry is this text."""
    return raw('{"w":' + text + "}", DATA)


def place(dtype: str = '"BF16"', shape: str = "[4]", offsets: str = "[0,8]", more: str = "") -> bytes:
    return member(f'{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}{more}}}')


def two(first: tuple[str, list[int], int, int], second: tuple[str, list[int], int, int], data: int) -> bytes:
    return raw({"v": entry(*first), "w": entry(*second)}, bytes(data))


DEEP = "[" * 200_000
FILES: dict[str, tuple[bytes, str]] = {
    # The file as such
    "empty": (b"", "is empty"),
    "seven bytes": (b"1234567", "7 bytes, too few"),
    "only a length": (raw(b"", length=2), "claims a header of 2 bytes, but only 0 bytes follow"),
    "header of length 0": (raw(b"", b"rest"), "header of length 0"),
    "length over 100 MB": (raw(b"{}", length=100_000_001), "100000001 bytes, but at most 100000000"),
    "length of 2^64 - 1": (raw(b"{}", length=2**64 - 1), "18446744073709551615"),
    "length over the file's": (raw(b"{}", length=50), "claims a header of 50 bytes, but only 2 bytes follow"),
    "cut in the header": (GOOD[:40], "claims a header of"),
    "cut in the data": (GOOD[:-1], "ends at byte"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "web page": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "is a web page"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip or pickle"),
    "pickle": (b"\x80\x02}q\x00" + bytes(100), "zip or pickle"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(100), "GGUF"),
    # The header's text
    "not UTF-8": (raw(b'{"\xff\xfe":1}'), "not UTF-8"),
    "byte order mark": (raw(b"\xef\xbb\xbf{}"), "does not begin with `{`"),
    "NUL bytes behind": (raw(b"{}\x00\x00"), "malformed header"),
    "white space before": (raw(b" {}"), "does not begin with `{`"),
    "an array": (raw(b"[]"), "does not begin with `{`"),
    "not JSON": (raw(b"{hello}"), "malformed header"),
    "two objects": (raw(b"{}{}"), "malformed header"),
    "cut JSON": (raw(b'{"w":{"dtype":"BF16"'), "malformed header"),
    "nested without end": (raw('{"w":' + DEEP), "malformed header"),
    "nested objects": (raw('{"a":' * 100_000), "malformed header"),
    "a tensor twice": (raw(f'{{"w":{json.dumps(TENSOR)},"w":{json.dumps(TENSOR)}}}', DATA), "`w`"),
    "a tensor twice in escapes": (
        raw(f'{{"w":{json.dumps(TENSOR)},"\\u0077":{json.dumps(TENSOR)}}}', DATA),
        "`w`",
    ),
    "a field twice": (place(more=',"dtype":"BF16"'), "dtype"),
    "metadata twice": (raw('{"__metadata__":{},"__metadata__":{}}'), "__metadata__"),
    "a key of the metadata twice": (raw('{"__metadata__":{"k":"1","k":"2"}}'), "`k`"),
    "metadata not of text": (raw('{"__metadata__":{"k":1}}'), "malformed header"),
    "a tensor called __metadata__": (raw({"__metadata__": TENSOR}, DATA), "malformed header"),
    "an unknown field": (place(more=',"stride":[1]'), "stride"),
    "a field missing": (member('{"dtype":"BF16","shape":[4]}'), "data_offsets"),
    "an entry that is no object": (member('["BF16",[4],[0,8]]'), "malformed header"),
    "an entry that is null": (member("null"), "malformed header"),
    "an unknown type": (place(dtype='"BF17"'), "BF17"),
    "a type in another case": (place(dtype='"bf16"'), "bf16"),
    "a dimension negative": (place(shape="[-4]"), "malformed header"),
    "a dimension fractional": (place(shape="[4.0]"), "malformed header"),
    "a dimension with exponent": (place(shape="[4e0]"), "malformed header"),
    "a dimension as text": (place(shape='["4"]'), "malformed header"),
    "a dimension over 2^64": (place(shape="[18446744073709551616]"), "malformed header"),
    "an offset negative": (place(offsets="[-8,0]"), "malformed header"),
    "an offset over 2^64": (place(offsets="[0,18446744073709551616]"), "malformed header"),
    "three offsets": (place(offsets="[0,4,8]"), "malformed header"),
    "one offset": (place(offsets="[8]"), "malformed header"),
    "a name that is empty": (raw({"": TENSOR}, DATA), "without a name"),
    "a name with control characters": (raw({"a\nb\x1b[31m": TENSOR}, DATA), "control characters"),
    # The layout
    "begin above end": (place(offsets="[8,0]"), "tensor `w` ends at byte 0, before it begins"),
    "end past the data": (place(shape="[5]", offsets="[0,10]"), "tensor `w` ends at byte 10"),
    "overlap": (two(("BF16", [4], 0, 8), ("BF16", [4], 4, 12), 12), "tensor `w` overlaps"),
    "two tensors of the same bytes": (two(("BF16", [4], 0, 8), ("BF16", [4], 0, 8), 8), "overlaps"),
    "a gap": (two(("BF16", [4], 0, 8), ("BF16", [4], 10, 18), 18), "tensor `w` leaves a gap"),
    "a gap before the first": (raw({"w": entry("BF16", [4], 2, 10)}, bytes(10)), "`w` leaves a gap"),
    "bytes behind the last": (GOOD + b"PK\x05\x06 a zip behind", "belong to no tensor"),
    "shape overflows": (place(shape="[4294967296,4294967296,4294967296]"), "`w` has a shape too large"),
    "bits overflow": (place(shape="[2305843009213693952]"), "`w` has a shape too large"),
    "overflow to a fitting size": (place(shape="[9223372036854775808,2,4]"), "`w` has a shape too large"),
    "shape of another size": (place(shape="[3]"), "tensor `w` needs 6 bytes for BF16 [3] but has 8"),
    "4-bit type ends in a byte": (place(dtype='"F4"', shape="[15]"), "`w` of type F4 does not fill"),
    "65 dimensions": (place(shape=json.dumps([4] + [1] * 64)), "64 dimensions"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_malformed_file(case: str, tmp_path: Path) -> None:
    content, says = FILES[case]
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    # Every role gets its share; a malformed donor is no better than a malformed target.
    bad = inputs[list(FILES).index(case) % 3]
    (bad / SINGLE).write_bytes(content)
    answer = call(["transfer", *inputs, "-o", tmp_path / "out"])
    sentence = refused(answer, 3, f"{bad / SINGLE}: ", says)
    assert len(sentence) < 600
    assert not (tmp_path / "out").exists()
    assert call(["inspect", bad]) == (3, "", sentence)


@pytest.mark.parametrize("verb", ["check", "extract", "transfer", "diff", "inspect", "apply"])
def test_every_verb_refuses(verb: str, tmp_path: Path) -> None:
    target, minuend, subtrahend = donors(tmp_path, {"w": noise(1, 4)})
    vector = tmp_path / "v"
    assert call(["extract", minuend, subtrahend, "-o", vector, "--encoding", "dense"])[0] == 0
    bad = vector / "vector.safetensors" if verb == "apply" else minuend / SINGLE
    bad.write_bytes(bad.read_bytes()[:-1])
    args = {
        "check": [target, minuend, subtrahend],
        "extract": [minuend, subtrahend, "-o", tmp_path / "out"],
        "transfer": [target, minuend, subtrahend, "-o", tmp_path / "out"],
        "diff": [target, minuend],
        "inspect": [minuend],
        "apply": [target, vector, "-o", tmp_path / "out"],
    }
    refused(call([verb, *args[verb]]), 3, f"{bad}: tensor `w` ends at byte 8 but the file holds 7 bytes")
    assert not (tmp_path / "out").exists()


def test_a_sparse_giant_costs_no_memory(tmp_path: Path) -> None:
    """A file of a terabyte that holds nothing: its header's claim is looked at before anything is read."""
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    path = inputs[0] / SINGLE

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    path.write_bytes(raw(b"{}", length=100_000_000))
    os.truncate(path, 1 << 40)
    refused(run(["inspect", inputs[0]], preexec_fn=limit), 3, str(path))
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)
    refused(run(["inspect", inputs[0]], preexec_fn=limit), 3, str(path), "header of length 0")


def padded(header: dict[str, Any], data: bytes, length: int) -> bytes:
    text = json.dumps(header).encode()
    return raw(text + b" " * (length - len(text)), data)


def bf16(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@pytest.mark.parametrize("odd", [1, 3, 7])
def test_odd_header_lengths_and_unaligned_data(odd: int, tmp_path: Path) -> None:
    inputs, values = donors(tmp_path, {"w": noise(1, 3)}), [noise(seed, 501) for seed in range(3)]
    header = {"pad": entry("U8", [odd], 0, odd), "w": entry("BF16", [501], odd, odd + 1002)}
    for number, (folder, bits) in enumerate(zip(inputs, values, strict=True)):
        content = padded(header, bytes(odd) + bits.tobytes(), 201 + 2 * number)
        (folder / SINGLE).write_bytes(content)
    manifest = accepted(inputs, tmp_path / "out")
    assert [tensor["action"] for tensor in manifest["tensors"]] == ["copied", "combined"]
    t, g, s = (bf16(bits) for bits in values)
    got = np.frombuffer((tmp_path / "out" / SINGLE).read_bytes()[-1002:], np.uint16)
    assert np.array_equal(got, rounded(t + np.float32(1) * (g - s)))


def test_zero_size_scalars_and_equal_offsets(tmp_path: Path) -> None:
    header = {
        "none": entry("BF16", [0], 0, 0),
        "none.too": entry("F32", [4, 0, 9], 0, 0),
        "scalar": entry("BF16", [], 0, 2),
        "between": entry("BF16", [0, 5], 2, 2),
        "w": entry("BF16", [7], 2, 16),
        "last": entry("F32", [0], 16, 16),
    }
    inputs, values = donors(tmp_path, {"w": noise(1, 3)}), [noise(seed, 8) for seed in range(3)]
    for folder, bits in zip(inputs, values, strict=True):
        (folder / SINGLE).write_bytes(raw(header, bits.tobytes()))
    accepted(inputs, tmp_path / "out")
    t, g, s = (bf16(bits) for bits in values)
    got = np.frombuffer((tmp_path / "out" / SINGLE).read_bytes()[-16:], np.uint16)
    assert np.array_equal(got, rounded(t + np.float32(1) * (g - s)))
    assert call(["extract", *inputs[1:], "-o", tmp_path / "v"])[0] == 0
    assert call(["apply", inputs[0], tmp_path / "v", "-o", tmp_path / "out2"])[0] == 0
    assert (tmp_path / "out2" / SINGLE).read_bytes() == (tmp_path / "out" / SINGLE).read_bytes()


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_metadata_may_be_null_or_empty(metadata: Any, tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    for folder in inputs:
        (folder / SINGLE).write_bytes(raw({"__metadata__": metadata, "w": TENSOR}, noise(3, 4).tobytes()))
    accepted(inputs, tmp_path / "out")


def test_no_tensors_at_all(tmp_path: Path) -> None:
    inputs = donors(tmp_path, {})
    code, _, stderr = call(["transfer", *inputs, "-o", tmp_path / "out"])
    assert code == 0
    assert stderr == "taskvec: warning: no tensor was combined: the output is the target without any vector\n"
    assert (tmp_path / "out" / SINGLE).read_bytes() == (inputs[0] / SINGLE).read_bytes()


@pytest.mark.parametrize("length", [26_000_000, 100_000_000])
def test_headers_longer_than_the_hub_takes(length: int, tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    (inputs[0] / SINGLE).write_bytes(padded({"w": TENSOR}, noise(1, 4).tobytes(), length))
    accepted(inputs, tmp_path / "out")


NAMES = {
    "very long": "n" * 100_000,
    "slashes": "/etc/passwd",
    "dots": "../../escape",
    "look-alike": "wеight",  # noqa: RUF001
    "right to left": "a\u202eb",
    "lone space": " ",
    "index": "layer.index",
    "value": "layer.value",
    "back tick": "a`b",
    "windows": "C:\\con",
    "percent": "%2e%2e",
}


@pytest.mark.parametrize("encoding", ["packed", "dense"])
@pytest.mark.parametrize("case", NAMES)
def test_names_that_are_only_names(case: str, encoding: str, tmp_path: Path) -> None:
    """Also through a vector, whose exceptions or table have names made of these."""
    tensors = [{NAMES[case]: noise(seed, 300), "layer": noise(seed + 5, 300)} for seed in range(3)]
    inputs = [checkpoint(tmp_path / role, one) for role, one in zip("tgs", tensors, strict=True)]
    accepted(inputs, tmp_path / "out")
    assert call(["extract", *inputs[1:], "-o", tmp_path / "v", "--encoding", encoding])[0] == 0
    assert json.loads((tmp_path / "v" / "vector.json").read_bytes())["vector"]["exceptions"] > 100
    code, _, stderr = call(["apply", inputs[0], tmp_path / "v", "-o", tmp_path / "out2"])
    assert (code, stderr) == (0, "")
    assert (tmp_path / "out2" / SINGLE).read_bytes() == (tmp_path / "out" / SINGLE).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g", "out", "out2", "s", "t", "v"]


@pytest.mark.parametrize(("mine", "theirs"), [("BF16", "I16"), ("F32", "I32"), ("BF16", "U16")])
def test_types_of_equal_width_are_told_apart(mine: str, theirs: str, tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    for folder, dtype in zip(inputs, (mine, theirs, theirs), strict=True):
        count = 4 if dtype.endswith("16") else 2
        (folder / SINGLE).write_bytes(raw({"w": entry(dtype, [count], 0, 8)}, DATA))
    assert call(["inspect", inputs[1]])[0] == 0
    refused(call(["transfer", *inputs, "-o", tmp_path / "out"]), 1, "`w`", theirs)
    assert not (tmp_path / "out").exists()
