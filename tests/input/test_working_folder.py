"""The working folder changes while relative paths are in use: they lead where they led when given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import taskvec
from livemodels import assert_state, state
from taskvec.live import inject

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@pytest.fixture
def elsewhere(qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to change to; the working folder is the family's."""
    monkeypatch.chdir(qwen)
    return tmp_path


@pytest.mark.parametrize("originals", ["folder", "cpu"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_model_is_itself_again(
    fused: bool, originals: Any, elsewhere: Path, model: PreTrainedModel
) -> None:
    before = state(model)
    how: dict[str, Any] = {"target": "t", "originals": originals}
    with (
        taskvec.transferred(model, "g", "s", **how) if fused else taskvec.Vector("v").applied(model, **how)
    ) as done:
        os.chdir(elsewhere)
        assert done.effect.norm_v
    assert_state(model, before)


@pytest.mark.parametrize("fused", [False, True])
def test_a_block_is_entered_elsewhere(
    fused: bool, elsewhere: Path, qwen: Path, model: PreTrainedModel
) -> None:
    before = state(model)
    block = (
        taskvec.transferred(model, "g", "s", target="t")
        if fused
        else taskvec.Vector("v").applied(model, target="t")
    )
    os.chdir(elsewhere)
    # What is there under the same names is not meant.
    (elsewhere / "t").mkdir()
    with block:
        changed = inject.unlike(model, qwen / "t")
        assert changed
    assert_state(model, before)


def test_the_folder_of_the_model_itself(elsewhere: Path, model: PreTrainedModel) -> None:
    before = state(model)
    model.name_or_path = "t"
    with taskvec.Vector("v").applied(model):
        os.chdir(elsewhere)
    assert_state(model, before)


def test_a_vector_is_used_elsewhere(elsewhere: Path, qwen: Path) -> None:
    vector = taskvec.Vector("v")
    assert (vector.path, os.fspath(vector), repr(vector)) == ("v", "v", "Vector('v')")
    os.chdir(elsewhere)
    assert (vector.path, repr(vector)) == ("v", "Vector('v')")
    assert Path(os.fspath(vector)) == qwen / "v"
    taskvec.apply(qwen / "t", vector, "out", sync=False)
    taskvec.apply(qwen / "t", qwen / "v", "right", sync=False)
    for name in ("taskvec.json", "README.md"):
        assert Path("out", name).read_bytes() == Path("right", name).read_bytes()


def test_a_vector_that_extract_has_just_made(elsewhere: Path, qwen: Path) -> None:
    os.chdir(elsewhere)
    vector = taskvec.extract(qwen / "g", qwen / "s", "made", sync=False)
    (elsewhere / "below").mkdir()
    os.chdir(elsewhere / "below")
    assert taskvec.check(qwen / "t", vector).compatible
    assert vector.path == "made"
    assert vector.written
    assert vector.written.out == "made"


def test_the_working_folder_is_gone(elsewhere: Path, model: PreTrainedModel) -> None:
    before = state(model)
    (elsewhere / "gone").mkdir()
    with taskvec.Vector("v").applied(model, target="t"):
        os.chdir(elsewhere / "gone")
        (elsewhere / "gone").rmdir()
    assert_state(model, before)
