"""Packed frames that no packer writes, with valid checksums: refused, without taking much memory."""

from __future__ import annotations

import json
import resource
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zstandard

import taskvec
from families import read
from hostile import call, checkpoint, noise, refused, run
from packed.forge import Forged, frame, number, section, take, text
from packed.reader import read_packed
from taskvec import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "vector.safetensors"
FRAME = 1 << 19

MANY = 1 << 18
"""Elements of the tensor below; each frame that follows would be all of it."""
PALETTE = b"\x80\x3f\x00\x40"
ALL, HALF = section(bytes(MANY)), section(b"\x55" * (MANY // 8))


def zipped(content: bytes, **parameters: int) -> bytes:
    how = zstandard.ZstdCompressionParameters.from_level(1, **parameters)
    return zstandard.ZstdCompressor(compression_params=how).compress(content)


def values(count: int) -> bytes:
    """So many times the first value of the palette."""
    return section(bytes(count)) + number(0)


def mask(changed: int, bits: bytes) -> bytes:
    """A frame with so many values where the section of bits says."""
    return b"\x01" + number(changed) + bits + values(changed)


def places(gaps: bytes, changed: int, rest: bytes | None = None) -> bytes:
    """A frame with so many values behind gaps."""
    return b"\x02" + number(changed) + section(gaps) + (values(changed) if rest is None else rest)


def own(palette: bytes, rest: bytes | None = None) -> bytes:
    """A frame with a value in the first element, and a palette."""
    return b"\x06\x01" + section(b"\x01\x01") + palette + (values(1) if rest is None else rest)


def some_low(count: int, gaps: bytes) -> bytes:
    """A frame with a value in the first element, and so many lower halves behind gaps."""
    lower = number(count) + section(gaps) + section(b"a" * count) * 2
    return b"\x0a\x01" + section(b"\x01\x01") + values(1) + lower


def run_of(count: int) -> bytes:
    """So many gaps of 0: with parameter 1, a bit each."""
    return b"\x01" + ((1 << count) - 1).to_bytes(-(-count // 8), "little")


def two_runs(first: int, middle: int) -> bytes:
    """A run of `first` gaps of 0, and one of 4,500 from `middle` on."""
    return section(run_of(first)) + number(middle) + run_of(4500)


FRAMES: dict[str, bytes] = {
    "empty": b"",
    "a kind of the future": b"\x20",
    "both kinds of lower halves": b"\x18" + ALL + b"\x00",
    "lower halves of a narrow tensor": b"\x10" + ALL + b"\x00" + ALL + ALL,
    "dense with a palette": b"\x07" + bytes(2 * MANY),
    "dense with some lower halves": b"\x0b" + bytes(2 * MANY),
    "dense and too short": b"\x03" + bytes(2 * MANY - 1),
    "dense and too long": b"\x03" + bytes(2 * MANY + 1),
    "no change": mask(0, section(bytes(MANY // 8))),
    "every change, counted": mask(MANY, section(b"\xff" * (MANY // 8))),
    "more changes than elements": mask(MANY + 1, HALF),
    "a count without an end": b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "a count in more bytes than it needs": b"\x02\x81\x00" + section(b"\x01\x01") + values(1),
    "a mask of another count": mask(MANY // 2 - 1, HALF),
    "a mask that is longer": mask(MANY // 2, section(b"\x55" * (MANY // 8 + 1))),
    "a mask cut short": b"\x01" + number(MANY // 2) + number(MANY // 8) + b"\x55" * 100,
    "a mask that is no zstd": mask(MANY // 2, section(b"\x55" * 100)),
    "a mask that unpacks to less": mask(MANY // 2, section(zipped(b"\x55" * (MANY // 8 - 1)))),
    "a mask that unpacks to more": mask(MANY // 2, section(zipped(b"\x55" * (1 << 28)))),
    "a mask in a window of 2 GiB": mask(
        MANY // 2, section(zipped(b"\x55" * (MANY // 8 + 1), window_log=31, write_content_size=0))
    ),
    "two zstd frames": mask(MANY // 2, section(zipped(b"\x55" * (MANY // 16)) * 2)),
    "a zstd frame after one to skip": mask(
        MANY // 2, section(b"\x50\x2a\x4d\x18\x01\x00\x00\x00x" + zipped(b"\x55" * (MANY // 8)))
    ),
    "gaps past the end": places(run_of(MANY - 1) + b"\xff", MANY - 1),
    "a gap past the end": places(b"\x01" + (1 << 31 | MANY << 32).to_bytes(7, "little"), 1),
    "more zeros than announce a gap in full": places(b"\x01" + (1 << 32).to_bytes(8, "little"), 1),
    "gaps with a parameter of 0": places(b"\x00\x01", 1),
    "gaps with a parameter out of range": places(b"\xff\xff\x7f\x01", 1),
    "gaps without a parameter": places(b"", 1),
    "gaps without bits": places(b"\x01", 1),
    "gaps of zeros alone": places(b"\x01" + bytes(40), 1),
    "gaps and a byte more": places(b"\x01\x01\x00", 1),
    "gaps and a bit more": places(b"\x01\x03", 1),
    "one run of many gaps": places(run_of(9000), 9000),
    "two runs with a hole": places(two_runs(4500, 4501), 9000),
    "two runs that overlap": places(two_runs(4500, 4499), 9000),
    "a second run that begins past the end": places(two_runs(4500, MANY + 1), 9000),
    "a first run that is longer": places(two_runs(4501, 4501), 9000),
    "ranks beyond the palette": places(b"\x01\x01", 1, section(b"\x04") + b"\x00"),
    "the last rank before the escape": places(b"\x01\x01", 1, section(b"\xfe") + b"\x00"),
    "an escape that is not counted": places(b"\x01\x01", 1, section(b"\xff") + b"\x00"),
    "an escape that is not there": places(b"\x01\x01", 1, section(b"\x00") + b"\x01" + section(b"a") * 2),
    "an escape without a value": places(b"\x01\x01", 1, section(b"\xff") + b"\x01" + section(b"a")),
    "a byte too many": places(b"\x01\x01", 1) + b"\x00",
    "a palette that is cut": own(b"\x05\x00", b""),
    "a palette with a sign": own(b"\x01\x00\x80"),
    "a magnitude twice": own(b"\x02\x80\x3f\x80\x3f"),
    "a palette of 128": own(b"\x80" + np.arange(128, dtype="<u2").tobytes()),
    "a palette of 255": own(b"\xff" + np.arange(255, dtype="<u2").tobytes()),
}

WIDE: dict[str, bytes] = {
    "no lower half": some_low(0, b"\x01"),
    "more lower halves than values": some_low(2, b"\x01\x03"),
    "a lower half where there is no value": some_low(1, b"\x02\x02"),
    "lower halves that end early": b"\x12\x01" + section(b"\x01\x01") + values(1) + section(b"a"),
    "dense in four bytes, of two": b"\x13" + bytes(2 * MANY),
}


def forge(folder: Path, content: bytes, wide: str = "exact", palette: bytes = PALETTE) -> Path:
    """A vector of one tensor of one frame, the checkpoint it fits beside it."""
    checkpoint(folder / "t", {"w": noise(1, MANY)})
    whole = frame("w", content, palette)
    said = text("BF16", f"[{MANY}]", wide, len(palette) // 2, [len(whole)])
    (folder / "v").mkdir()
    (folder / "v" / FILE).write_bytes(Forged({"w": said}, {"w": palette + whole}, {}).to_bytes())
    body = {"encoding": "packed", "exceptions": 0, "tied": None}
    described = {"schema": "taskvec/vector/1", "vector": body}
    (folder / "v" / "vector.json").write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize("case", [*FRAMES, *WIDE])
def test_a_frame_that_no_packer_writes(case: str, tmp_path: Path) -> None:
    root = forge(tmp_path, (FRAMES | WIDE)[case], "exact" if case in FRAMES else "wide")
    answer = call(["apply", root / "t", root / "v", "-o", root / "out"])
    refused(answer, 3, f"{root / 'v' / FILE}: ", "the packed values of tensor `w` are damaged", "again")
    assert not list((root / "out").glob("*.safetensors"))


@pytest.mark.parametrize("palette", [b"\x80\x3f" * 2, b"\x80\xbf", b"\x00\x80"], ids=bytes.hex)
def test_a_palette_that_no_packer_writes(palette: bytes, tmp_path: Path) -> None:
    """A magnitude twice, or with a sign; under a checksum that speaks for it."""
    root = forge(tmp_path, places(b"\x01\x01", 1), palette=palette)
    answer = call(["apply", root / "t", root / "v", "-o", root / "out"])
    refused(answer, 3, f"{root / 'v' / FILE}: ", "the packed values of tensor `w` are damaged", "again")


def test_forged_frames_are_read_if_nothing_is_wrong(tmp_path: Path) -> None:
    """The refusals above are for what was changed."""
    one, halves = places(b"\x01\x01", 1), section(zipped(b"\x55" * (MANY // 8)))
    for at, (content, wide, bits, to) in enumerate(
        [
            (one, "exact", 0x3F80_0000, slice(1)),
            (one, "wide", 0x3F80_0000, slice(1)),
            (some_low(1, b"\x01\x01"), "wide", 0x3F80_6161, slice(1)),
            (own(b"\x01\x00\x40"), "exact", 0x4000_0000, slice(1)),
            (mask(MANY // 2, HALF), "exact", 0x3F80_0000, slice(None, None, 2)),
            (mask(MANY // 2, halves), "exact", 0x3F80_0000, slice(None, None, 2)),
            (places(two_runs(4500, 4500), 9000), "exact", 0x3F80_0000, slice(9000)),
        ]
    ):
        root = tmp_path / str(at)
        root.mkdir()
        forge(root, content, wide)
        wanted = np.zeros(MANY, np.uint32)
        wanted[to] = bits
        assert (read_packed(root / "v")["w"].view(np.uint32) == wanted).all()
        taskvec.apply(root / "t", root / "v", root / "out", dtype="f32", sync=False)
        made = np.frombuffer((root / "out" / "model.safetensors").read_bytes()[-4 * MANY :], np.float32)
        target = (noise(1, MANY).astype(np.uint32) << 16).view(np.float32)
        assert (made == target + wanted.view(np.float32)).all()


def test_what_is_taken_is_what_another_reader_finds(tmp_path: Path) -> None:
    """Frames with a bit changed under a valid checksum: refused, or the same values for both readers."""
    rng = np.random.default_rng(3)
    s = {"mask": noise(1, 90) >> 1, "gaps": noise(2, 300) >> 1, "wide": noise(3, 60), "low": noise(4, 80)}
    g = {name: one.copy() for name, one in s.items()}
    g["mask"][::3] += 1
    g["gaps"][::40] += 1
    g["wide"] = noise(5, 60)
    g["low"][:60] += 1
    g["low"][60:64] ^= np.uint16(0x3210)
    s["f32"] = rng.standard_normal(50).astype(np.float32)
    g["f32"] = s["f32"] + (rng.random(50) < 0.3)
    for role, tensors in (("g", g), ("s", s), ("t", {name: np.zeros_like(one) for name, one in s.items()})):
        checkpoint(tmp_path / role, tensors)
    path = tmp_path / "v" / FILE
    taskvec.extract(tmp_path / "g", tmp_path / "s", tmp_path / "v", sync=False)
    forged, taken = take(path.read_bytes()), 0
    for name, whole in list(forged.data.items()):
        # One frame, and so no palette before it.
        assert forged.texts[name].split(" ")[3] == "0"
        for at in range(len(whole) - 8):
            content = bytearray(whole[:-8])
            content[at] ^= 1 << at % 8
            forged.data[name] = frame(name, bytes(content))
            path.write_bytes(forged.to_bytes())
            try:
                taskvec.apply(tmp_path / "t", tmp_path / "v", tmp_path / "out", dtype="f32", sync=False)
            except CorruptError as error:
                refusal = str(error)
                assert f"the packed values of tensor `{name}` are damaged" in refusal
                continue
            found = read(tmp_path / "out")
            shutil.rmtree(tmp_path / "out")
            for one, values_ in read_packed(tmp_path / "v").items():
                assert np.array_equal(found[one].numpy(), values_, equal_nan=True), (name, at)
            taken += 1
        forged.data[name] = whole
    assert taken > 100


@pytest.mark.parametrize("case", ["a mask that unpacks to more", "a mask in a window of 2 GiB"])
def test_a_frame_that_promises_much_costs_no_memory(case: str, tmp_path: Path) -> None:
    root = forge(tmp_path, FRAMES[case])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    args = ["apply", root / "t", root / "v", "-o", root / "out", "--threads", "1", "--memory", "32MiB"]
    refused(run(args, preexec_fn=limit), 3, "tensor `w` are damaged")


def test_shapes_that_claim_much_cost_no_memory(tmp_path: Path) -> None:
    """A tensor of 32 GiB whose frames are all empty: the table takes its length in memory, and no more."""
    root = forge(tmp_path, b"\x20")
    frames = 1 << 15
    said = text("BF16", f"[{frames},{FRAME}]", "exact", 0, [0] * frames)
    (root / "v" / FILE).write_bytes(Forged({"w": said}, {"w": b""}, {}).to_bytes())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    args = ["apply", root / "t", root / "v", "-o", root / "out", "--threads", "1"]
    refused(run(args, preexec_fn=limit), 1, "`w`")
    assert taskvec.inspect(root / "v").parameters == frames * FRAME
