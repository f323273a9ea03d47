"""Folders of docs/inputs.md: indexes, shards, configs and the files beside them."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hostile import accepted, call, checkpoint, donors, noise, refused, run, shard, unwarned

if TYPE_CHECKING:
    from collections.abc import Callable

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ONE, TWO = "m-1.safetensors", "m-2.safetensors"
DEEP = "[" * 200_000


def sharded(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / ONE).write_bytes(shard({"a": noise(1, 4), "b": noise(2, 4)}))
    (folder / TWO).write_bytes(shard({"c": noise(3, 4)}))
    put_index(folder, {"a": ONE, "b": ONE, "c": TWO})
    return folder


def put_index(folder: Path, weight_map: Any, **more: Any) -> None:
    (folder / INDEX).write_text(
        json.dumps({"metadata": {"total_size": 24}, "weight_map": weight_map, **more})
    )


def edit(weight_map: dict[str, str]) -> Callable[[Path], None]:
    return lambda folder: put_index(folder, weight_map)


def text(content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / INDEX).write_bytes(data) and None


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def stray(folder: Path) -> None:
    (folder / SINGLE).write_bytes(shard({"a": noise(1, 4)}))


def twice(folder: Path) -> None:
    (folder / TWO).write_bytes(shard({"a": noise(1, 4), "c": noise(3, 4)}))


def other_model(folder: Path) -> None:
    (folder / ONE).write_bytes(shard({"x": noise(1, 4), "y": noise(2, 4)}))


HUGE = b'{"weight_map":{"a":"m-1.safetensors"}}' + b" " * 100_000_000
INDEXES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    **{
        f"shard name {name!r}": (edit({"a": name, "b": ONE, "c": TWO}), INDEX, "tensor `a`")
        for name in (
            "../m-1.safetensors", "/etc/m-1.safetensors", "C:m-1.safetensors", "C:\\m-1.safetensors",
            "\\\\host\\share\\m-1.safetensors", "https://host/m-1.safetensors", "sub/m-1.safetensors",
            "%2e%2e%2fm-1.safetensors", "m-1.safetensors\x00", "m\n-1.safetensors", ".m-1.safetensors",
            "m" * 250 + ".safetensors", "m-1.bin", "m-1.safetensors/", "..", "", "/dev/zero",
        )
    },
    "names that differ in case": (edit({"a": ONE, "b": "M-1.safetensors", "c": TWO}), INDEX, "ignore case"),
    "a tensor twice": (text(f'{{"weight_map":{{"a":"{ONE}","a":"{ONE}"}}}}'), INDEX, "`a`"),
    "weight_map twice": (text('{"weight_map":{"a":"m-1.safetensors"},"weight_map":{}}'), INDEX, "weight_map"),
    "a key of metadata twice": (text('{"metadata":{"k":1,"k":2},"weight_map":{}}'), INDEX, "`k`"),
    "no weight_map": (text('{"metadata":{}}'), INDEX, "no `weight_map`"),
    "an empty weight_map": (edit({}), INDEX, "lists no tensors"),
    "weight_map no object": (text('{"weight_map":[]}'), INDEX, "not a valid index"),
    "a shard that is no text": (text('{"weight_map":{"a":1}}'), INDEX, "not a valid index"),
    "not JSON": (text("{"), INDEX, "not a valid index"),
    "not UTF-8": (text(b'{"weight_map":{"\xff":"m-1.safetensors"}}'), INDEX, "not a valid index"),
    "nested without end": (text('{"x":' + DEEP), INDEX, "not a valid index"),
    "empty": (text(""), INDEX, "not a valid index"),
    "Git LFS pointer": (text("version https://git-lfs.github.com/spec/v1\n"), INDEX, "git lfs pull"),
    "over 100 MB": (text(HUGE), INDEX, "100000000 bytes"),
    "a shard missing": (remove(TWO), INDEX, "lists tensor `c` in m-2.safetensors, which is missing"),
    "a tensor in two shards": (twice, ONE, "holds tensor `a`, and so does m-2.safetensors"),
    "a tensor in another shard": (edit({"a": TWO, "b": ONE, "c": TWO}), INDEX, "but m-1.safetensors has it"),
    "a tensor not listed": (edit({"a": ONE, "c": TWO}), INDEX, "does not list tensor `b`"),
    "a tensor in no shard": (edit({"a": ONE, "b": ONE, "c": TWO, "d": TWO}), INDEX, "lists tensor `d`"),
    "shards of another model": (other_model, INDEX, "lists tensor `a` in m-1.safetensors, which"),
    "a single file beside": (stray, INDEX, "does not list model.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("case", INDEXES)
def test_a_malformed_index(case: str, tmp_path: Path) -> None:
    spoil, file, says = INDEXES[case]
    bad = sharded(tmp_path / "t")
    spoil(bad)
    inputs = [bad, sharded(tmp_path / "g"), sharded(tmp_path / "s")]
    refused(call(["transfer", *inputs, "-o", tmp_path / "out"]), 3, f"{bad / file}: ", says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("total", [0, -1, 10**30, "many", None, 1.5])
def test_total_size_means_nothing(total: Any, tmp_path: Path) -> None:
    inputs = [sharded(tmp_path / role) for role in "tgs"]
    put_index(inputs[0], {"a": ONE, "b": ONE, "c": TWO}, metadata={"total_size": total})
    accepted(inputs, tmp_path / "out")
    assert (tmp_path / "out" / INDEX).read_bytes() == (inputs[0] / INDEX).read_bytes()


@pytest.mark.parametrize("total", ["1e999", '"\\ud800"'])
def test_what_json_readers_disagree_on_does_not_stop_a_change_of_dtype(total: str, tmp_path: Path) -> None:
    inputs = [sharded(tmp_path / role) for role in "tgs"]
    places = {"a": ONE, "b": ONE, "c": TWO}
    (inputs[0] / INDEX).write_text(
        f'{{"metadata":{{"total_size":{total}}},"weight_map":{json.dumps(places)}}}'
    )
    assert call(["transfer", *inputs, "-o", tmp_path / "out", "--dtype", "f32"])[0] == 0
    index = json.loads((tmp_path / "out" / INDEX).read_bytes())
    assert index == {"metadata": {"total_size": 48}, "weight_map": places}


def test_shard_counts_in_names_mean_nothing(tmp_path: Path) -> None:
    inputs = [sharded(tmp_path / role) for role in "tgs"]
    name = "model-00001-of-00005.safetensors"
    (inputs[0] / ONE).rename(inputs[0] / name)
    put_index(inputs[0], {"a": name, "b": name, "c": TWO})
    accepted(inputs, tmp_path / "out")
    assert (tmp_path / "out" / name).exists()


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    inputs = [sharded(tmp_path / role) for role in "tgs"]
    target = inputs[0]
    stale = ["m-3.safetensors", "pytorch_model.bin", "m.pth", "m.gguf", "pytorch_model.bin.index.json"]
    for name in stale:
        (target / name).write_bytes(b"stale")
    (target / "merges.txt").write_text("kept")
    (target / "code").mkdir()
    (target / "code" / "modeling.py").write_text("kept too")
    (target / ".hidden").write_text("kept as well")
    (target / ".git").mkdir()
    os.mkfifo(target / "pipe")
    (target / "nowhere").symlink_to(tmp_path / "not-there")
    (tmp_path / "elsewhere.txt").write_text("linked")
    (target / "linked.txt").symlink_to(tmp_path / "elsewhere.txt")
    out = tmp_path / "out"
    code, stdout, stderr = call(["transfer", *inputs, "-o", out, "--json"])
    assert (code, unwarned(stderr)) == (0, "")
    notes = "\n".join(json.loads(stdout)["notes"])
    for name in (*stale, "pipe", "nowhere"):
        assert name in notes
        assert not (out / name).exists()
    assert ".git" not in notes
    copied = {"merges.txt", "code/modeling.py", ".hidden", "linked.txt", "config.json"}
    for name in copied:
        assert (out / name).read_bytes() == (target / name).read_bytes()
        assert not (out / name).is_symlink()
    found = {str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()}
    assert found == copied | {ONE, TWO, INDEX, "README.md", "taskvec.json"}


def a_folder(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (a_folder, "is a directory"),
    "a pipe": (os.mkfifo, "is a pipe, socket or device"),
    "a socket": (a_socket, "is a pipe, socket or device"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a pipe, socket or device"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "is a link to a file that is not there"),
    "a link to itself": (lambda path: path.symlink_to(path.name), ""),
    "a link to a pipe": (lambda path: (os.mkfifo(path.parent / "p"), path.symlink_to("p")), "is a pipe"),
}


@pytest.mark.parametrize("file", [ONE, INDEX, "config.json", "vector.json", "vector-exceptions.safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file(kind: str, file: str, tmp_path: Path) -> None:
    make, says = KINDS[kind]
    inputs = [sharded(tmp_path / role) for role in "tgs"]
    if file.startswith("vector"):
        other = checkpoint(tmp_path / "x", {name: noise(ord(name), 4) for name in "abc"})
        assert call(["extract", inputs[1], other, "-o", tmp_path / "v", "--encoding", "dense"])[0] == 0
        bad, args = tmp_path / "v" / file, ["apply", inputs[0], tmp_path / "v"]
    else:
        bad, args = inputs[1] / file, ["transfer", *inputs]
    bad.unlink()
    make(bad)
    answer = call([*args, "-o", tmp_path / "out"])
    # Links without end are the system's to refuse.
    refused(answer, 4 if kind == "a link to itself" else 3, f"{bad}: ", says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["tokenizer.json", "README.md", "generation_config.json"])
def test_a_pipe_among_the_sidecars_is_not_waited_for(file: str, tmp_path: Path) -> None:
    inputs = [sharded(tmp_path / role) for role in "tgs"]
    os.mkfifo(inputs[0] / file)
    assert run(["transfer", *inputs, "-o", tmp_path / "out"])[0] == 0
    assert not (tmp_path / "out" / file).is_fifo()
    code, stdout, stderr = run(["check", *inputs, "--json"])
    assert code == 0, stderr
    # Only the tokenizer is looked at: it could mix up the rows of the embedding.
    warnings = json.loads(stdout)["warnings"]
    said = any(str(inputs[0] / file) in one and "not compared" in one for one in warnings)
    assert said == (file == "tokenizer.json")


def test_links_to_files_anywhere(tmp_path: Path) -> None:
    """As the Hub's cache keeps them: snapshots of links into a folder of blobs."""
    inputs = [sharded(tmp_path / role) for role in "tgs"]
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    shutil.copytree(inputs[0], blobs)
    snapshot.mkdir()
    for number, path in enumerate(sorted(blobs.iterdir())):
        blob = path.rename(blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(Path("..") / "blobs" / blob.name)
    accepted([snapshot, *inputs[1:]], tmp_path / "out")
    accepted(inputs, tmp_path / "plain")
    for name in (ONE, TWO, INDEX, "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_folders_without_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    args = ["transfer", folder, folder, folder, "-o", tmp_path / "out"]
    refused(call(args), 3, f"{folder}: holds no model.safetensors and no {INDEX}; name the folder")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    refused(call(args), 3, "only `pytorch_model.bin`", "convert it to safetensors first")
    (folder / "adapter_model.safetensors").write_bytes(shard({"a": noise(1, 4)}))
    refused(call(args), 3, "only an adapter")
    checkpoint(folder / "step-100", {"w": noise(1, 4)})
    refused(call(args), 3, "its subfolders do", "`step-100`")
    assert not (tmp_path / "out").exists()


CONFIGS = {
    "an array": b"[]",
    "not JSON": b"{,}",
    "empty": b"",
    "not UTF-8": b'{"a":"\xff"}',
    "nested without end": b'{"a":' + b"[" * 200_000,
    "byte order mark": b"\xef\xbb\xbf{}",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "text behind": b"{} {}",
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_malformed_config(case: str, tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    path = inputs[2] / "config.json"
    path.write_bytes(CONFIGS[case])
    refused(call(["transfer", *inputs, "-o", tmp_path / "out"]), 3, f"{path}: is not a JSON object")
    refused(call(["check", *inputs]), 3, f"{path}: is not a JSON object")
    assert not (tmp_path / "out").exists()


def test_python_numbers_in_a_config(tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    (inputs[0] / "config.json").write_text('{"limit": [0.0, Infinity], "x": NaN, "y": -Infinity}')
    accepted(inputs, tmp_path / "out")
    assert call(["check", *inputs])[0] == 0


TOKENIZERS = {
    "infinite id": '{"model": {"vocab": {"a": Infinity}}}',
    "an id of text": '{"model": {"vocab": {"a": "x"}}}',
    "no vocabulary": "{}",
    "an array": "[]",
    "not JSON": "{",
    "pieces of three": '{"model": {"vocab": [["a", 0, 1]]}}',
    "vocabulary null": '{"model": {"vocab": null}}',
    "added tokens no list": '{"model": {"vocab": {"a": 0}}, "added_tokens": 5}',
    "nested without end": DEEP,
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_malformed_tokenizer_is_said_and_not_compared(case: str, tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    path = inputs[1] / "tokenizer.json"
    path.write_text(TOKENIZERS[case])
    code, stdout, stderr = call(["check", *inputs, "--json"])
    (warning,) = unwarned(stderr).splitlines()
    assert code == 0
    assert f"warning: {path}" in warning
    assert any(str(path) in one and "not compared" in one for one in json.loads(stdout)["warnings"])
    code, _, stderr = call(["transfer", *inputs, "-o", tmp_path / "out"])
    assert code == 0
    assert f"warning: {path}" in stderr


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    inputs[0].rename(odd)
    code, _, stderr = call(["transfer", odd, *inputs[1:], "-o", tmp_path / "out"])
    assert (code, unwarned(stderr)) == (0, "")
    assert call(["verify", tmp_path / "out"])[0] == 0
