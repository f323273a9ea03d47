"""Packed files that are not as `extract` wrote them are refused, whatever the digest of their table says."""

from __future__ import annotations

import base64
import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

import taskvec
from hostile import call, checkpoint, noise, refused
from packed.forge import Forged, take
from taskvec import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

FILE = "vector.safetensors"
TENSOR, FRAME = 600, 1 << 19


def weights(seed: int, count: int) -> NDArray[np.uint16]:
    """bfloat16 patterns as a model has them."""
    values = np.random.default_rng(seed).standard_normal(count).astype(np.float32) * 0.05
    return (values.view(np.uint32) >> 16).astype(np.uint16)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target `t`, a vector `v` with a frame of every form, and `out`, what they make."""
    root, rng = tmp_path_factory.mktemp("sound"), np.random.default_rng(7)
    s = {"gaps": weights(1, TENSOR), "mask": weights(2, 100), "every": weights(3, 60), "twin": weights(4, 60)}
    g = {name: one.copy() for name, one in s.items()}
    g["gaps"][::37] += 1
    g["mask"][::2] += 2
    g["every"] ^= np.uint16(0x8000)
    g["twin"] ^= np.uint16(0x8000)
    s["same"] = g["same"] = weights(8, 30)
    s["wide"], g["wide"] = noise(5, 40), noise(6, 40)
    s["f32"], s["dense"] = (rng.standard_normal(size).astype(np.float32) for size in (20, 9))
    g["f32"] = s["f32"] + np.where(np.arange(20) % 3, 0, np.float32(1.1))
    g["dense"] = s["dense"] * np.float32(0.37)
    t = {name: np.ones_like(one) for name, one in s.items()}
    for role, tensors in (("t", t), ("g", g), ("s", s)):
        checkpoint(root / role, tensors)
    taskvec.extract(root / "g", root / "s", root / "v", sync=False)
    taskvec.apply(root / "t", root / "v", root / "out", alpha=0.7, sync=False)
    return root


@pytest.fixture
def vector(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound / "v", tmp_path / "v")


def outcome(sound: Path, vector: Path, out: Path) -> bytes | None:
    """What the vector makes; None if it is refused as corrupt. Then nothing is left to be loaded."""
    try:
        taskvec.apply(sound / "t", vector, out, alpha=0.7, sync=False, overwrite=True, threads=1)
    except CorruptError:
        assert not list(out.glob("*.safetensors"))
        return None
    made = (out / "model.safetensors").read_bytes()
    shutil.rmtree(out)
    return made


def test_every_byte_that_is_another(sound: Path, vector: Path, tmp_path: Path) -> None:
    content = (sound / "v" / FILE).read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    padding = range(len(content[:length].rstrip(b" ")), length)
    taken = []
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        (vector / FILE).write_bytes(damaged)
        made = outcome(sound, vector, tmp_path / "out")
        if made is not None:
            assert made == (sound / "out" / "model.safetensors").read_bytes(), at
            taken.append(at)
    assert set(taken) <= set(padding)


def test_every_length_that_is_too_short(sound: Path, vector: Path, tmp_path: Path) -> None:
    content = (sound / "v" / FILE).read_bytes()
    for length in range(len(content)):
        (vector / FILE).write_bytes(content[:length])
        assert outcome(sound, vector, tmp_path / "out") is None, length


def test_a_forged_file_is_read_if_nothing_is_wrong(sound: Path, vector: Path, tmp_path: Path) -> None:
    """The refusals below are for what was changed, not for how it was written."""
    forged = take((sound / "v" / FILE).read_bytes())
    (vector / FILE).write_bytes(forged.to_bytes())
    made = outcome(sound, vector, tmp_path / "out")
    assert made == (sound / "out" / "model.safetensors").read_bytes()


def entry(name: str, at: int, field: str) -> Callable[[Forged], None]:
    def change(forged: Forged) -> None:
        fields = forged.texts[name].split(" ")
        fields[at] = field
        forged.texts[name] = " ".join(fields)

    return change


def without_frames(forged: Forged) -> None:
    forged.data["gaps"] = b""


TABLES: dict[str, Callable[[Forged], object]] = {
    "a palette of 128 magnitudes": entry("gaps", 3, "128"),
    "a palette that is not there": entry("gaps", 3, "1"),
    "a palette below zero": entry("gaps", 3, "-1"),
    "a palette with a zero before its length": entry("gaps", 3, "00"),
    "a palette without a length": entry("gaps", 3, ""),
    "lengths that are not base64": entry("gaps", 4, "A*AA"),
    "lengths with padding": entry("gaps", 4, "AQAAAQ=="),
    "bits that no byte has": entry("gaps", 4, "AQAAAB"),
    "frames that are gone": without_frames,
    "a length too short": entry("gaps", 4, "AQAA"),
    "two lengths for one frame": entry("gaps", 4, "AQAAAQAA"),
    "no lengths": entry("gaps", 4, ""),
    "half a length": entry("gaps", 4, "AQA"),
    "one field too few": lambda f: f.texts.update(gaps="BF16 [600] exact "),
    "one field too many": entry("gaps", 4, "AQAA x"),
    "too many elements for the frames": entry("gaps", 1, f"[{FRAME + 1}]"),
    "more elements than any disk has": entry("gaps", 1, f"[{2**62},2]"),
    "more elements than can be counted": entry("gaps", 1, f"[{2**63},4]"),
    "a dimension that is no number": entry("gaps", 1, "[600,]"),
    "a dimension below zero": entry("gaps", 1, "[-600]"),
    "a dimension with a sign": entry("gaps", 1, "[+600]"),
    "a dimension with a zero before it": entry("gaps", 1, "[0600]"),
    "a space in the shape": entry("gaps", 1, "[600, 1]"),
    "no brackets": entry("gaps", 1, "600"),
    "wide float32": entry("f32", 2, "wide"),
    "neither wide nor exact": entry("gaps", 2, "Exact"),
    "float16": entry("gaps", 0, "F16"),
    "an integer": entry("gaps", 0, "U8"),
    "lower case": entry("gaps", 0, "bf16"),
    "an entry for no tensor": lambda f: f.texts.update(other=f.texts["same"]),
    "no entries": lambda f: f.texts.clear(),
    "entries that changed places": lambda f: f.texts.update(gaps=f.texts["mask"], mask=f.texts["gaps"]),
    "no entry for a tensor": lambda f: f.texts.pop("gaps"),
    "another digest": lambda f: f.metadata.update({"taskvec.digest": "0" * 32}),
    "a digest in capitals": lambda f: f.metadata.update({"taskvec.digest": "A" * 32}),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_no_packer_writes(case: str, sound: Path, vector: Path, tmp_path: Path) -> None:
    forged = take((sound / "v" / FILE).read_bytes())
    TABLES[case](forged)
    (vector / FILE).write_bytes(forged.to_bytes())
    answers = {
        verb: call([verb, *args])
        for verb, args in {
            "apply": [sound / "t", vector, "-o", tmp_path / "out"],
            "check": [sound / "t", vector],
            "inspect": [vector],
            "diff": [vector, sound / "v"],
        }.items()
    }
    for answer in answers.values():
        refused(answer, 3, f"{vector / FILE}: ", "damaged table", "again")
    assert not (tmp_path / "out").exists()
    code, stdout, _ = call(["verify", vector])
    assert code == 1
    assert FILE in stdout


def test_frames_of_another_tensor(sound: Path, vector: Path, tmp_path: Path) -> None:
    """Of as many elements, with an entry that follows them."""
    forged = take((sound / "v" / FILE).read_bytes())
    for of in (forged.data, forged.texts):
        of["twin"], of["every"] = of["every"], of["twin"]
    (vector / FILE).write_bytes(forged.to_bytes())
    answer = call(["apply", sound / "t", vector, "-o", tmp_path / "out"])
    refused(answer, 3, f"{vector / FILE}: ", "the packed values of tensor `", "are damaged", "again")


@pytest.mark.parametrize("version", ["2", "", "01", "1.0"])
def test_a_later_version(version: str, sound: Path, vector: Path, tmp_path: Path) -> None:
    forged = take((sound / "v" / FILE).read_bytes())
    forged.metadata["taskvec.packed"] = version
    (vector / FILE).write_bytes(forged.to_bytes())
    for answer in (
        call(["apply", sound / "t", vector, "-o", tmp_path / "out"]),
        call(["check", sound / "t", vector]),
        call(["inspect", vector]),
    ):
        refused(answer, 3, f"{vector / FILE}: ", "update taskvec")


@pytest.fixture
def two_frames(tmp_path: Path) -> Path:
    """A vector of one tensor of two frames that share a palette."""
    s = {"w": weights(1, 2 * FRAME)}
    g = {"w": s["w"].copy()}
    g["w"][[5, 1000, FRAME + 7]] += 1
    for role, tensors in (("g", g), ("s", s)):
        checkpoint(tmp_path / role, tensors)
    taskvec.extract(tmp_path / "g", tmp_path / "s", tmp_path / "v", sync=False)
    return tmp_path / "v"


def test_frames_that_changed_places(two_frames: Path) -> None:
    """Of one tensor, with lengths that follow them."""
    forged = take((two_frames / FILE).read_bytes())
    *fields, magnitudes, lengths = forged.texts["w"].split(" ")
    palette, content = forged.data["w"][: 2 * int(magnitudes)], forged.data["w"][2 * int(magnitudes) :]
    at = int.from_bytes(base64.b64decode(lengths)[:3], "little")
    assert palette
    assert 0 < at < len(content)
    forged.data["w"] = palette + content[at:] + content[:at]
    forged.texts["w"] = " ".join([*fields, magnitudes, lengths[4:] + lengths[:4]])
    damaged(two_frames, forged)


@pytest.mark.parametrize("magnitude", [1, 0x8000, None])
def test_another_palette(magnitude: int | None, two_frames: Path) -> None:
    """Its frames would have other values, so their checksums speak for it too."""
    forged = take((two_frames / FILE).read_bytes())
    *fields, magnitudes, lengths = forged.texts["w"].split(" ")
    content = forged.data["w"]
    if magnitude is None:
        forged.data["w"] = content[2:]
        forged.texts["w"] = " ".join([*fields, str(int(magnitudes) - 1), lengths])
    else:
        forged.data["w"] = magnitude.to_bytes(2, "little") + content[2:]
    damaged(two_frames, forged)


def damaged(vector: Path, forged: Forged) -> None:
    """The vector with this file is refused."""
    (vector / FILE).write_bytes(forged.to_bytes())
    answer = call(["apply", vector.parent / "s", vector, "-o", vector.parent / "out"])
    refused(answer, 3, f"{vector / FILE}: ", "the packed values of tensor `w` are damaged", "again")


@pytest.mark.parametrize("said", ["dense", "packed"])
def test_a_description_of_other_files(said: str, sound: Path, tmp_path: Path) -> None:
    other = {"dense": "packed", "packed": "dense"}[said]
    folder = tmp_path / "v"
    taskvec.extract(sound / "g", sound / "s", folder, encoding=other, sync=False)
    document = json.loads((folder / "vector.json").read_bytes())
    document["vector"]["encoding"] = said
    (folder / "vector.json").write_text(json.dumps(document))
    answer = call(["apply", sound / "t", folder, "-o", tmp_path / "out"])
    refused(
        answer, 3, f"{folder / 'vector.json'}: says that the values are {said}", "extract the vector again"
    )


def test_files_of_both_kinds(tmp_path: Path) -> None:
    for role, seed in (("g", 1), ("s", 2)):
        checkpoint(tmp_path / role, {"a": weights(seed, 50), "b": weights(seed + 5, 50)}, shards=2)
    for encoding in ("packed", "dense"):
        taskvec.extract(tmp_path / "g", tmp_path / "s", tmp_path / encoding, encoding=encoding, sync=False)
    for number_ in (1, 2):
        folder = shutil.copytree(tmp_path / "packed", tmp_path / f"mixed{number_}")
        name = f"vector-0000{number_}-of-00002.safetensors"
        shutil.copyfile(tmp_path / "dense" / name, folder / name)
        answer = call(["apply", tmp_path / "s", folder, "-o", tmp_path / "out"])
        refused(answer, 3, str(folder), "some are packed and some are not")
