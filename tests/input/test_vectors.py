"""Folders of dense vectors that are not as `extract` wrote them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hostile import call, checkpoint, noise, raw, refused, shard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

ELEMENTS = 3 << 20
FILE = "vector-exceptions.safetensors"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target `t` and a vector `v` of six blocks with exceptions everywhere, and what they make."""
    root = tmp_path_factory.mktemp("sound")
    tensors = {"small": noise(5, 100), "w": noise(6, ELEMENTS)}
    checkpoint(root / "t", tensors)
    for seed, role in enumerate("gs"):
        checkpoint(root / role, {"small": noise(seed, 100), "w": noise(seed + 2, ELEMENTS)})
    assert call(["extract", root / "g", root / "s", "-o", root / "v", "--encoding", "dense"])[0] == 0
    assert call(["apply", root / "t", root / "v", "-o", root / "out"])[0] == 0
    return root


@pytest.fixture
def vector(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound / "v", tmp_path / "v")


def exceptions(folder: Path) -> dict[str, NDArray[Any]]:
    """The exceptions file, read without taskvec."""
    content = (folder / FILE).read_bytes()
    length = int.from_bytes(content[:8], "little")
    types = {"I64": np.int64, "F32": np.float32}
    found = {}
    for name, place in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = place["data_offsets"]
            data = content[8 + length + begin : 8 + length + end]
            found[name] = np.frombuffer(data, types[place["dtype"]]).copy()
    return found


def put(folder: Path, found: dict[str, NDArray[Any]]) -> None:
    (folder / FILE).write_bytes(shard(found))


def describe(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "vector.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def test_it_is_read_as_it_was_written(sound: Path, vector: Path, tmp_path: Path) -> None:
    """The helpers above change nothing by themselves, so the refusals below are for what was changed."""
    found = exceptions(vector)
    assert len(found["w.index"]) > ELEMENTS // 10
    put(vector, found)
    describe(vector, lambda document: None)
    assert call(["apply", sound / "t", vector, "-o", tmp_path / "out"])[0] == 0
    whole = [(folder / "out" / "model.safetensors").read_bytes() for folder in (sound, tmp_path)]
    assert whole[0] == whole[1]


DESCRIPTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another schema": (lambda d: d.update(schema="taskvec/vector/2"), "update taskvec"),
    "a foreign schema": (lambda d: d.update(schema="other"), "update taskvec"),
    "a schema that is no text": (lambda d: d.update(schema=1), "extract the vector again"),
    "no schema": (lambda d: d.pop("schema"), "schema"),
    "another encoding": (lambda d: d["vector"].update(encoding="zipped"), "`zipped` encoding"),
    "packed": (
        lambda d: d["vector"].update(encoding="packed"),
        "says that the values are packed, but the files beside it are not",
    ),
    "an encoding that writes to the terminal": (
        lambda d: d["vector"].update(encoding="\x1b[2J\n"),
        r"`\u{1b}[2J\n`",
    ),
    "a schema without an end": (lambda d: d.update(schema="x" * 5000), "x…` with `dense`"),
    "no body": (lambda d: d.pop("vector"), "vector"),
    "no count": (lambda d: d["vector"].pop("exceptions"), "exceptions"),
    "a count below zero": (lambda d: d["vector"].update(exceptions=-1), "extract the vector again"),
    "too many promised": (lambda d: d["vector"].update(exceptions=10**15), "promises 1000000000000000"),
    "one promised": (lambda d: d["vector"].update(exceptions=1), "promises 1 exceptions"),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_wrong_description(case: str, sound: Path, vector: Path, tmp_path: Path) -> None:
    change, says = DESCRIPTIONS[case]
    describe(vector, change)
    answer = call(["apply", sound / "t", vector, "-o", tmp_path / "out"])
    refused(answer, 3, f"{vector / 'vector.json'}: ", says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"\xff":1}',
        b"[" * 200_000,
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
    ids=["empty", "cut", "array", "null", "not UTF-8", "deep", "LFS"],
)
@pytest.mark.parametrize("verb", ["apply", "check", "inspect", "verify"])
def test_a_description_that_is_none(
    content: bytes, verb: str, sound: Path, vector: Path, tmp_path: Path
) -> None:
    (vector / "vector.json").write_bytes(content)
    args = {
        "apply": [sound / "t", vector, "-o", tmp_path / "out"],
        "check": [sound / "t", vector],
        "inspect": [vector],
        "verify": [vector],
    }
    refused(call([verb, *args[verb]]), 3, f"{vector / 'vector.json'}: ")
    assert not (tmp_path / "out").exists()


def test_a_description_that_hides_the_exceptions(sound: Path, vector: Path, tmp_path: Path) -> None:
    """Nothing would fail, and every number that bfloat16 cannot hold would be wrong."""
    describe(vector, lambda document: document["vector"].update(exceptions=0))
    answer = call(["apply", sound / "t", vector, "-o", tmp_path / "out"])
    refused(answer, 3, str(vector), "exceptions")
    assert not (tmp_path / "out").exists()


Found = dict[str, Any]


def swap(at: int) -> Callable[[Found], None]:
    def change(found: Found) -> None:
        index = found["w.index"]
        index[at], index[at + 1] = index[at + 1], index[at]

    return change


def setting(at: int, value: int) -> Callable[[Found], None]:
    def change(found: Found) -> None:
        found["w.index"][at] = value

    return change


def all_equal(found: Found) -> None:
    found["w.index"][:] = 7


def reversed_order(found: Found) -> None:
    found["w.index"][:] = found["w.index"][::-1].copy()


def far_apart(found: Found) -> None:
    """A stretch of the last block among those of the first: one search passes over it, another does not."""
    found["w.index"][1000:1010] = ELEMENTS - 11 + np.arange(10)


def doubled(found: Found) -> None:
    found["w.index"][501] = found["w.index"][500]


DISORDER: dict[str, Callable[[Found], None]] = {
    "swapped": swap(1000),
    "swapped at the end": swap(-2),
    "doubled": doubled,
    "all equal": all_equal,
    "reversed": reversed_order,
    "far apart": far_apart,
    "past the end": setting(-1, ELEMENTS),
    "far past the end": setting(-1, 2**63 - 1),
    "below zero": setting(0, -1),
    "the least": setting(0, -(2**63)),
    "past the end in the middle": setting(2000, ELEMENTS + 5),
    "below zero in the middle": setting(2000, -5),
}


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("case", DISORDER)
def test_indices_out_of_order_or_range(case: str, io: str, sound: Path, vector: Path, tmp_path: Path) -> None:
    found = exceptions(vector)
    DISORDER[case](found)
    put(vector, found)
    answer = call(["apply", sound / "t", vector, "-o", tmp_path / "out", "--io", io, "--memory", "32MiB"])
    refused(
        answer,
        3,
        f"{vector / FILE}: ",
        "tensor `w`",
        "are not in ascending order",
        "extract the vector again",
    )
    assert not (tmp_path / "out").exists()


def renamed(found: Found, old: str, new: str) -> None:
    found[new] = found.pop(old)


def retyped(name: str, dtype: Any) -> Callable[[Found], None]:
    def change(found: Found) -> None:
        found[name] = found[name].astype(dtype)

    return change


CONTENTS: dict[str, tuple[Callable[[Found], object], str]] = {
    "no values": (lambda f: f.pop("w.value"), "tensor `w`"),
    "no indices": (lambda f: f.pop("w.index"), "not pairs of indices and values"),
    "a tensor missing": (lambda f: (f.pop("w.index"), f.pop("w.value")), "promises"),
    "fewer values": (lambda f: f.update({"w.value": f["w.value"][1:]}), "tensor `w`"),
    "indices of another type": (retyped("small.index", np.float32), "`small`"),
    "values of another type": (retyped("small.value", np.int64), "`small`"),
    "values as bf16": (retyped("small.value", np.uint16), "`small`"),
    "of a tensor that is not there": (
        lambda f: (renamed(f, "small.index", "x.index"), renamed(f, "small.value", "x.value")),
        "tensor `x`",
    ),
    "too many for the tensor": (
        lambda f: f.update(
            {
                "small.index": np.arange(101),
                "small.value": np.zeros(101, np.float32),
                "w.index": f["w.index"][: len(f["w.index"]) + len(f["small.index"]) - 101],
                "w.value": f["w.value"][: len(f["w.index"]) + len(f["small.index"]) - 101],
            }
        ),
        "tensor `small`",
    ),
    "a stranger": (lambda f: f.update(extra=np.zeros(4, np.float32)), "not pairs of indices and values"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENTS)
def test_exceptions_that_do_not_belong(case: str, sound: Path, vector: Path, tmp_path: Path) -> None:
    change, says = CONTENTS[case]
    found = exceptions(vector)
    change(found)
    put(vector, found)
    answer = call(["apply", sound / "t", vector, "-o", tmp_path / "out"])
    refused(answer, 3, f"{vector}/", says)
    assert not (tmp_path / "out").exists()


def test_exceptions_cut_short_or_gone(sound: Path, vector: Path, tmp_path: Path) -> None:
    path, args = vector / FILE, ["apply", sound / "t", vector, "-o", tmp_path / "out"]
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    refused(call(args), 3, f"{path}: tensor `w.value` ends at byte")
    path.write_bytes(raw("{}"))
    refused(call(args), 3, str(vector), "promises")
    path.unlink()
    refused(call(args), 3, str(vector), "vector-exceptions.safetensors")
    assert not (tmp_path / "out").exists()


def test_weights_cut_short_or_gone(sound: Path, vector: Path, tmp_path: Path) -> None:
    path, args = vector / "vector.safetensors", ["apply", sound / "t", vector, "-o", tmp_path / "out"]
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    refused(call(args), 3, f"{path}: tensor `w` ends at byte")
    path.unlink()
    refused(call(args), 3, str(vector), "holds no vector.safetensors")
    assert not (tmp_path / "out").exists()
