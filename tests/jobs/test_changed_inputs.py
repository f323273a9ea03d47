"""An input that changes while a job is under way is noticed, and nothing is made from both states."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hostile import PARTIAL, call, refused
from parted import FIRST, Inputs, edit, finish, planned, run_all
from taskvec import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable


def replace_bytes(folder: Path) -> str:
    path = folder / FIRST
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return "was changed since the job was planned"


def replace_size(folder: Path) -> str:
    path = folder / FIRST
    size = path.stat().st_size
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes((start).to_bytes(8, "little") + content[8:start] + b"        " + content[start:])
    assert path.stat().st_size == size + 8
    return f"has {size + 8} bytes, but had {size} when the job was planned"


def replace_header(folder: Path) -> str:
    path = folder / FIRST
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:start].replace(b'"pt"', b'"tf"') + content[start:])
    assert path.read_bytes() != content
    return "has another header than when the job was planned"


def replace_config(folder: Path) -> str:
    edit(folder / "config.json", lambda config: config.update(new=1))
    return "has another configuration than when the job was planned"


def replace_index(folder: Path) -> str:
    edit(folder / "model.safetensors.index.json", lambda index: index["metadata"].update(new=1))
    return "has another index than when the job was planned"


def replace_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").write_text('{"model":{}}')
    return "when the job was planned"


def add_file(folder: Path) -> str:
    (folder / "new.txt").write_text("new")
    return "was not there when the job was planned"


def remove_file(folder: Path) -> str:
    (folder / "sub" / "code.py").unlink()
    return "was there when the job was planned, and is not now"


CHANGES = [
    replace_bytes, replace_size, replace_header, replace_config, replace_index, replace_tokenizer, add_file,
    remove_file,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
def test_an_input_changed_between_parts(change: Callable[[Path], str], mine: Inputs, tmp_path: Path) -> None:
    job = planned(mine, tmp_path)
    run_all(job, [0, 1, 2])
    what = change(mine[0])
    refused(call(["run", job.folder, "--part", "3"]), 3, str(mine[0]), what, "restore it, or plan anew")
    refused(call(["run", job.folder, "--part", "4", "--quiet"]), 3, what)
    assert job.status().missing == "3-4"
    assert list((Path(job.folder) / "attempts").glob("*.journal")) == []


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
def test_an_input_changed_before_the_commit(
    change: Callable[[Path], str], mine: Inputs, tmp_path: Path
) -> None:
    job = planned(mine, tmp_path)
    run_all(job)
    what = change(mine[0])
    refused(call(["commit", job.folder]), 3, what)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [PARTIAL]


def test_an_input_is_gone(mine: Inputs, tmp_path: Path) -> None:
    job = planned(mine, tmp_path)
    shutil.rmtree(mine[1])
    assert call(["run", job.folder, "--part", "0"])[0] in (3, 4)


def test_a_copy_with_the_same_times_will_do(mine: Inputs, tmp_path: Path, single: Path) -> None:
    """Other inodes and times of attributes, as another client of a file system may show them."""
    job = planned(mine, tmp_path)
    run_all(job, [0, 1])
    for folder in mine:
        shutil.copytree(folder, tmp_path / "copy")
        shutil.rmtree(folder)
        (tmp_path / "copy").rename(folder)
    finish(job, tmp_path, single)


def test_a_donor_that_is_damaged_leaves_no_part(mine: Inputs, tmp_path: Path) -> None:
    """A file whose header is sound and whose data end too early is refused by the plan itself."""
    path = mine[2] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptError, match=r"model\.safetensors"):
        planned(mine, tmp_path)
    assert not (tmp_path / "job").exists()
