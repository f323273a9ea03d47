"""verify: whatever happens to a file of an output, that file is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import BLOCK, generator, noise, nudged, write
from taskvec import CorruptError, MismatchError, StorageError, apply, extract, transfer, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """An output of two shards, one of several blocks, and a vector with exceptions."""
    rng = generator("verify")
    shapes = {"a": (BLOCK + 5001,), "b": (300,)}
    s = {name: noise(shape, torch.bfloat16, rng) for name, shape in shapes.items()}
    g = {"a": nudged(s["a"], rng), "b": noise((300,), torch.bfloat16, rng)}
    t = {name: noise(shape, torch.bfloat16, rng) for name, shape in shapes.items()}
    paths = [write(tmp_path / role, one, shards=2) for role, one in (("t", t), ("g", g), ("s", s))]
    (paths[0] / "tokenizer.json").write_text("{}")
    (paths[0] / "sub").mkdir()
    (paths[0] / "sub" / "code.py").write_text("pass\n")
    (paths[0] / "README.md").write_text("# Target\n")
    transfer(*paths, tmp_path / "out", sync=False)
    extract(*paths[1:], tmp_path / "v", sync=False)
    return tmp_path / "out", tmp_path / "v"


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def described(folder: Path) -> Path:
    return next(folder / name for name in ("taskvec.json", "vector.json") if (folder / name).exists())


def test_what_was_written_is_what_is_there(made: tuple[Path, Path]) -> None:
    for folder in made:
        found = verify(folder)
        assert found.ok
        assert found.problems == ()
        said = json.loads(described(folder).read_text())
        assert (found.files, found.tensors) == (len(said["files"]), 2)
        there = [path for path in folder.rglob("*") if path.is_file() and path != described(folder)]
        assert found.files == len(there)
        assert found.bytes == sum(path.stat().st_size for path in there)


@pytest.mark.parametrize("threads", [1, 3])
def test_one_flipped_bit_names_its_file(threads: int, made: tuple[Path, Path]) -> None:
    flipped = 0
    for folder in made:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path == described(folder):
                continue
            size = path.stat().st_size
            # The ends, both sides of a block's edge, and the middle.
            places = {0, size - 1, size // 2, *(at for at in (BLOCK - 1, BLOCK, 2 * BLOCK) if at < size)}
            for at in sorted(places):
                flip(path, at)
                found = verify(folder, threads=threads)
                assert not found.ok
                assert {one.file for one in found.problems} == {path.relative_to(folder).as_posix()}, at
                flip(path, at)
                flipped += 1
        assert verify(folder).ok
    assert flipped > 30


@pytest.mark.parametrize("change", [b"x", None])
def test_another_length_names_its_file(change: bytes | None, made: tuple[Path, Path]) -> None:
    for folder in made:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or path == described(folder):
                continue
            content = path.read_bytes()
            path.write_bytes(content + change if change else content[:-1])
            (problem,) = verify(folder).problems
            assert problem.file == path.relative_to(folder).as_posix()
            assert f"instead of {len(content)}" in problem.message
            path.write_bytes(content)


def test_a_missing_file_is_named(made: tuple[Path, Path]) -> None:
    for folder in made:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path != described(folder):
                content = path.read_bytes()
                path.unlink()
                assert [one.file for one in verify(folder).problems] == [path.relative_to(folder).as_posix()]
                path.write_bytes(content)


def test_weights_that_nobody_vouches_for(made: tuple[Path, Path]) -> None:
    for folder in made:
        write(folder / "elsewhere", {"c": torch.ones(1)})
        assert verify(folder).ok
        (folder / "model-00003-of-00002.safetensors").write_bytes(
            (folder / "elsewhere" / "model.safetensors").read_bytes()
        )
        # Notes of the user's own do no harm.
        (folder / "notes.txt").write_text("mine")
        assert [one.file for one in verify(folder).problems] == ["model-00003-of-00002.safetensors"]


def test_swapped_files_are_both_named(made: tuple[Path, Path]) -> None:
    one, other = sorted(made[0].glob("*.safetensors"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert {problem.file for problem in verify(made[0]).problems} == {one.name, other.name}


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    said = json.loads(described(folder).read_text())
    change(said)
    described(folder).write_text(json.dumps(said))


def test_a_manifest_that_was_changed(made: tuple[Path, Path]) -> None:
    out = made[0]
    original = described(out).read_bytes()
    shard = "model-00001-of-00002.safetensors"

    def entry(said: dict[str, Any]) -> dict[str, Any]:
        return next(one for one in said["files"] if one["name"] == shard)

    changes: list[tuple[Callable[[dict[str, Any]], object], str]] = [
        (lambda said: entry(said).update(xxh3_128="0" * 32), shard),
        (lambda said: entry(said).update(size=1), shard),
        (lambda said: entry(said).update(sha256="0" * 64), shard),
        (lambda said: said["files"].remove(entry(said)), shard),
        (lambda said: said["tensors"][0].update(dtype="F32"), shard),
        (lambda said: said["tensors"][0].update(name="other"), shard),
        (lambda said: said["tensors"].pop(0), shard),
        (lambda said: said["tensors"].append({"name": "ghost", "dtype": "BF16"}), "taskvec.json"),
        (lambda said: said["files"].append({**entry(said), "name": "ghost.txt"}), "ghost.txt"),
    ]
    for change, file in changes:
        edited(out, change)
        found = verify(out)
        assert not found.ok
        assert file in {one.file for one in found.problems}
        described(out).write_bytes(original)
    assert verify(out).ok


def test_a_vectors_manifest_is_called_by_its_name(made: tuple[Path, Path]) -> None:
    edited(made[1], lambda said: said["tensors"].append({"name": "ghost", "dtype": "BF16"}))
    assert [one.file for one in verify(made[1]).problems] == ["vector.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b"{}", b'{"schema": "taskvec/manifest/1"}', b"[" * 100_000]
)
def test_a_manifest_that_is_none(content: bytes, made: tuple[Path, Path]) -> None:
    for folder in made:
        described(folder).write_bytes(content)
        with pytest.raises(CorruptError, match=described(folder).name):
            verify(folder)


def test_a_manifest_of_a_later_form_or_one_that_leads_out(made: tuple[Path, Path]) -> None:
    out = made[0]
    edited(out, lambda said: said.update(schema="taskvec/manifest/2"))
    with pytest.raises(CorruptError, match="update taskvec"):
        verify(out)
    edited(out, lambda said: said.update(schema="taskvec/manifest/1"))
    for name in ("../t/config.json", "/etc/hostname", ""):
        edited(out, lambda said, name=name: said["files"][0].update(name=name))
        with pytest.raises(CorruptError, match="outside its folder"):
            verify(out)


def test_nothing_to_verify_against(made: tuple[Path, Path], tmp_path: Path) -> None:
    described(made[0]).unlink()
    with pytest.raises(MismatchError, match=r"taskvec\.json"):
        verify(made[0])
    with pytest.raises(StorageError, match="nowhere"):
        verify(tmp_path / "nowhere")


def test_sha256_is_verified_where_it_is_promised(made: tuple[Path, Path], tmp_path: Path) -> None:
    apply(tmp_path / "t", made[1], tmp_path / "hashed", sha256=True, sync=False)
    assert verify(tmp_path / "hashed").ok
    (path, _) = sorted((tmp_path / "hashed").glob("*.safetensors"))
    flip(path, path.stat().st_size - 3)
    messages = [one.message for one in verify(tmp_path / "hashed").problems if one.file == path.name]
    assert any("XXH3-128" in one for one in messages)
    assert any("SHA-256" in one for one in messages)


def test_the_command_answers_with_its_exit_code(
    made: tuple[Path, Path], taskvec: Callable[..., Answer]
) -> None:
    assert taskvec("verify", made[0]).code == 0
    (path, other) = sorted(made[0].glob("*.safetensors"))
    flip(path, 5000)
    answer = taskvec("verify", made[0], "--json")
    assert answer.code == 1
    assert [one["file"] for one in json.loads(answer.stdout)["problems"]] == [path.name]
    printed = taskvec("verify", made[0])
    assert path.name in printed.stdout + printed.stderr
    assert other.name not in printed.stdout + printed.stderr
