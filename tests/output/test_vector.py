from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from taskvec import CorruptError, MismatchError, Vector

if TYPE_CHECKING:
    from pathlib import Path


def describe(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "vector.json").write_text(text)
    return folder


def test_a_vector_opens_by_its_description(tmp_path: Path) -> None:
    info = {"schema": "taskvec/vector/1", "minuend": {"name": "grpo"}, "files": ["vector.safetensors"]}
    vector = Vector(describe(tmp_path / "v", json.dumps(info)))
    assert vector.path == os.fspath(vector) == str(tmp_path / "v")
    assert vector.info["minuend"]["name"] == "grpo"
    assert vector.info["files"] == ("vector.safetensors",)
    assert vector.written is None
    assert eval(repr(vector)).path == vector.path
    with pytest.raises(TypeError):
        vector.info["minuend"]["name"] = "sft"  # type: ignore[index]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"schema": 1}', '{"schema": "other/1"}', "[" * 100_000]
)
def test_malformed_descriptions(tmp_path: Path, text: str) -> None:
    with pytest.raises(CorruptError, match=r"vector\.json"):
        Vector(describe(tmp_path, text))


def test_what_is_no_vector(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MismatchError, match="is not a vector"):
            Vector(path)


def test_a_later_form(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="update taskvec"):
        Vector(describe(tmp_path, '{"schema": "taskvec/vector/2"}'))
