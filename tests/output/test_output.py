"""What a run leaves on the disk: a checkpoint that loads, the target's own files, an honest manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from families import (
    CONFIG,
    OUTPUTS,
    Tensors,
    all_combined,
    assert_tensors,
    combined,
    files,
    generator,
    manifest,
    noise,
    nudged,
    read,
    weights,
    write,
)
from taskvec import UsageError, transfer, verify


def make(tmp_path: Path, **target: Any) -> tuple[list[Path], list[Tensors]]:
    rng = generator("output")
    shapes = {"z": (40, 30), "a": (7,), "m": (), "empty": (0,)}
    s = {name: noise(shape, torch.bfloat16, rng) for name, shape in shapes.items()}
    g = {name: nudged(one, rng, 0.5) for name, one in s.items()}
    t = {name: noise(shape, torch.bfloat16, rng) for name, shape in shapes.items()}
    paths = [
        write(tmp_path / "t", t, **{"shards": 3, "pad": 5, "total_size": 12, **target}),
        write(tmp_path / "g", g),
        write(tmp_path / "s", s, shards=2),
    ]
    return paths, [t, g, s]


def front(content: bytes) -> bytes:
    """A safetensors file up to its data."""
    return content[: 8 + int.from_bytes(content[:8], "little")]


def test_headers_and_index_are_the_targets_own(tmp_path: Path) -> None:
    paths, tensors = make(tmp_path)
    transfer(*paths, tmp_path / "out", alpha=0.7)
    ours, theirs = files(tmp_path / "out"), files(paths[0])
    assert set(ours) == {*theirs, "README.md", "taskvec.json"}
    for name, content in theirs.items():
        if name.endswith(".safetensors"):
            assert front(ours[name]) == front(content)
            assert len(ours[name]) == len(content)
        else:
            # The index too, though its total_size is wrong.
            assert ours[name] == content
    assert_tensors(read(tmp_path / "out"), all_combined(*tensors, 0.7))


def test_files_beside_the_weights(tmp_path: Path) -> None:
    paths, _ = make(tmp_path)
    target, elsewhere = paths[0], tmp_path / "elsewhere"
    kept = {
        "README.md": b"---\nlicense: mit\n---\n# Mine\n",
        "tokenizer.json": b'{"a": 1}\r\n',
        "modeling_custom.py": b"\xff not even text",
        "chat_template.jinja": "{{ α }}".encode(),
        "empty.txt": b"",
        ".gitattributes": b"*.bin filter=lfs\n",
        "onnx/notes/deep.txt": b"deep",
        "figures/π.png": b"\x89PNG" + bytes(range(256)) * 5000,
    }
    for name, content in kept.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    elsewhere.mkdir()
    (elsewhere / "vocab.txt").write_bytes(b"linked")
    (target / "vocab.txt").symlink_to(elsewhere / "vocab.txt")
    (elsewhere / "folder").mkdir()
    (elsewhere / "folder" / "inner.txt").write_bytes(b"inner")
    (target / "linked").symlink_to(elsewhere / "folder")
    for name in (".git/config", ".cache/x.json"):
        (target / name).parent.mkdir()
        (target / name).write_bytes(b"never")
    stale = ["pytorch_model.bin", "consolidated.00.pth", "model-q4.gguf", "old.safetensors", "vector.json"]
    for name in stale:
        (target / name).write_bytes(b"stale")

    result = transfer(*paths, tmp_path / "out")
    found = files(tmp_path / "out")
    assert found["README.target.md"] == kept.pop("README.md")
    assert found["README.md"].startswith(b"---\n")
    assert b"license: mit" in found["README.md"]
    for name, content in kept.items():
        assert found[name] == content, name
    assert found["vocab.txt"] == b"linked"
    assert found["linked/inner.txt"] == b"inner"
    assert not (tmp_path / "out" / "vocab.txt").is_symlink()
    assert not (tmp_path / "out" / "linked").is_symlink()
    assert not [name for name in found if name.startswith((".git/", ".cache"))]
    (note,) = [note for note in result.notes if "left out" in note]
    for name in stale:
        assert name not in found
        assert name in note
    listed = {entry["name"] for entry in manifest(tmp_path / "out")["files"]}
    assert listed == set(found) - {"taskvec.json"}
    assert verify(tmp_path / "out").ok


def test_an_output_is_a_target_again(tmp_path: Path) -> None:
    paths, tensors = make(tmp_path)
    (paths[0] / "README.md").write_text("# The first\n")
    transfer(*paths, tmp_path / "once", alpha=0.7)
    transfer(tmp_path / "once", *paths[1:], tmp_path / "twice", alpha=-0.7)
    first = all_combined(*tensors, 0.7)
    assert_tensors(read(tmp_path / "twice"), all_combined(first, *tensors[1:], -0.7))
    assert verify(tmp_path / "twice").ok
    assert manifest(tmp_path / "twice")["inputs"][0]["name"] == "once"
    assert files(tmp_path / "twice")["README.target.md"] == files(tmp_path / "once")["README.md"]


@pytest.mark.parametrize("dtype", OUTPUTS)
def test_another_dtype_rewrites_headers_index_and_config(dtype: str, tmp_path: Path) -> None:
    config = (
        '{"torch_dtype" : "bfloat16","dtype":null,  "note": "torch_dtype",\n'
        ' "text_config":{"dtype":"float64"}, "other": {"dtype": "kept"}, "time_step_limit": [0.0, Infinity]}'
    )
    paths, tensors = make(tmp_path)
    tensors[0]["steps"] = torch.tensor([3])
    write(paths[0], tensors[0], shards=3, pad=5, total_size=12)
    (paths[0] / "config.json").write_text(config)
    result = transfer(*paths, tmp_path / "out", alpha=0.7, dtype=dtype)
    found = files(tmp_path / "out")
    if dtype == "bf16":
        # Nothing changes its type, so every header, index and config is the target's own.
        for name, content in files(paths[0]).items():
            assert (
                front(found[name]) == front(content) if name.endswith("tensors") else found[name] == content
            )
        return
    name = str(OUTPUTS[dtype]).removeprefix("torch.")
    wanted = config.replace('"bfloat16"', f'"{name}"').replace("null", f'"{name}"').replace("float64", name)
    assert found["config.json"].decode() == wanted
    names = [one for one in tensors[0] if one != "steps"]
    expected = all_combined(*({at: one[at] for at in names} for one in tensors), 0.7, OUTPUTS[dtype])
    assert_tensors(read(tmp_path / "out"), expected | {"steps": tensors[0]["steps"]})
    index = json.loads(found["model.safetensors.index.json"])
    total = sum(one.numel() * one.element_size() for one in read(tmp_path / "out").values())
    assert index["metadata"]["total_size"] == total
    assert (
        index["weight_map"]
        == json.loads((paths[0] / "model.safetensors.index.json").read_text())["weight_map"]
    )
    assert result.tensors.combined == 4
    # Shard by shard in the order that the target has.
    for path in paths[0].glob("*.safetensors"):
        entries = json.loads(front(found[path.name])[8:])
        assert list(entries) == list(json.loads(front(path.read_bytes())[8:]))
        assert entries["__metadata__"] == {"format": "pt"}


@pytest.mark.parametrize("dtype", [None, "f32", "f16"])
def test_transformers_opens_it_and_generates(dtype: Any, family: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    paths = [family / role for role in ("instruct", "grpo", "sft")]
    transfer(*paths, tmp_path / "out", alpha=0.7, dtype=dtype)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", dtype="auto", output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], kind
    wanted = all_combined(*map(read, paths), 0.7, OUTPUTS.get(dtype))
    loaded = model.state_dict()
    assert model.dtype == OUTPUTS.get(dtype, torch.bfloat16)
    for name, tensor in wanted.items():
        assert torch.equal(loaded[name], tensor), name
    assert torch.equal(loaded["lm_head.weight"], wanted["model.embed_tokens.weight"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("2 + 2 =", return_tensors="pt")["input_ids"]
    generated = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert generated.shape[1] > ids.shape[1]


def test_the_manifest_knows_no_place_and_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, _ = make(tmp_path / "here")
    transfer(*paths, tmp_path / "here" / "out", alpha="0.7", threads=1)
    shutil.copytree(tmp_path / "here", tmp_path / "there", ignore=shutil.ignore_patterns("out"))
    monkeypatch.chdir(tmp_path / "there")
    for path in (tmp_path / "there").rglob("*"):
        os.utime(path, (1, 1))
    transfer("t", "./g", tmp_path / "there" / "s", "another-name", alpha="0.7", threads=3, memory="32MiB")
    assert files(Path("another-name")) == files(tmp_path / "here" / "out")
    for name, content in files(Path("another-name")).items():
        assert str(tmp_path).encode() not in content, name
        assert b"another-name" not in content, name


def test_the_manifest_says_what_was_done(tmp_path: Path) -> None:
    paths, _ = make(tmp_path)
    options: dict[str, Any] = {"include": ["z|a|m"], "exclude": ["m"], "alpha_rules": ["a=-0.5"]}
    transfer(*paths, tmp_path / "out", alpha="0.70", rounding="stochastic", seed=2**64 - 1, **options)
    said = manifest(tmp_path / "out")
    assert (said["schema"], said["numeric_spec"], said["verb"]) == ("taskvec/manifest/1", 1, "transfer")
    assert [one["role"] for one in said["inputs"]] == ["target", "minuend", "subtrahend"]
    assert [one["name"] for one in said["inputs"]] == ["t", "g", "s"]
    recipe = said["recipe"]
    assert (recipe["rounding"], recipe["seed"], recipe["dtype"]) == ("stochastic", 2**64 - 1, None)
    assert recipe["alpha"] == [{"text": "0.70", "bits": "0x3f333333"}]
    assert recipe["alpha_rules"] == [{"pattern": "a", "alpha": {"text": "-0.5", "bits": "0xbf000000"}}]
    assert (recipe["include"], recipe["exclude"]) == (["z|a|m"], ["m"])
    actions = {one["name"]: one["action"] for one in said["tensors"]}
    assert actions == {"z": "combined", "a": "combined", "m": "copied", "empty": "copied"}


def test_sha256_on_request(tmp_path: Path) -> None:
    paths, _ = make(tmp_path)
    transfer(*paths, tmp_path / "plain")
    assert "sha256" not in (tmp_path / "plain" / "taskvec.json").read_text()
    transfer(*paths, tmp_path / "out", sha256=True)
    said = manifest(tmp_path / "out")

    def sha256(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert len(said["files"]) == 6
    for entry in said["files"]:
        assert entry["sha256"] == sha256(tmp_path / "out" / entry["name"])
        assert entry["size"] == (tmp_path / "out" / entry["name"]).stat().st_size
    for path, one in zip(paths, said["inputs"], strict=True):
        assert {file["name"] for file in one["files"]} == set(weights(path))
        for file in one["files"]:
            assert (file["size"], file["sha256"]) == (
                (path / file["name"]).stat().st_size,
                sha256(path / file["name"]),
            )


def test_nothing_to_combine_is_said(tmp_path: Path) -> None:
    paths, _ = make(tmp_path)
    result = transfer(*paths, tmp_path / "out", alpha=0)
    assert result.warnings == ("no tensor was combined: the output is the target without any vector",)
    assert result.effect.gain is None


def test_counts_and_bytes(tmp_path: Path) -> None:
    paths, tensors = make(tmp_path)
    result = transfer(*paths, tmp_path / "out")
    written = files(tmp_path / "out")
    assert result.files == len(written)
    assert result.bytes.written == sum(len(one) for one in written.values()) - len(written["taskvec.json"])
    assert result.elements == sum(one.numel() for one in tensors[0].values())
    assert result.out == str(tmp_path / "out")
    # Every tensor of the three inputs once, and the target's headers.
    data = sum(one.numel() * 2 for one in tensors[0].values())
    assert result.bytes.read == 3 * data + sum(len(front(one)) for one in weights(paths[0]).values())


@pytest.mark.parametrize("where", ["t", "g", "t/inside", "", "link"])
def test_an_output_never_touches_an_input(where: str, tmp_path: Path) -> None:
    root = tmp_path / "models"
    paths, _ = make(root)
    (tmp_path / "link-to-t").symlink_to(root / "t")
    out = tmp_path / "link-to-t" if where == "link" else root / where
    before = files(root)
    with pytest.raises(UsageError, match="choose another folder"):
        transfer(*paths, out, overwrite=True)
    assert files(root) == before


def test_an_existing_output_is_replaced_on_request_alone(tmp_path: Path) -> None:
    paths, tensors = make(tmp_path)
    out = tmp_path / "out"
    transfer(*paths, out)
    (out / "mine.txt").write_text("kept")
    before = files(out)
    with pytest.raises(UsageError, match="--overwrite"):
        transfer(*paths, out, alpha=0.5)
    assert files(out) == before
    single = write(tmp_path / "single", tensors[0], config={**CONFIG, "torch_dtype": "bfloat16"})
    transfer(single, *paths[1:], out, alpha=0.5, overwrite=True)
    assert set(weights(out)) == {"model.safetensors"}
    assert not (out / "model.safetensors.index.json").exists()
    assert (out / "mine.txt").read_text() == "kept"
    assert_tensors(
        read(out),
        {name: combined(t, tensors[1][name], tensors[2][name], 0.5) for name, t in tensors[0].items()},
    )
    assert verify(out).ok
    assert not (out / ".taskvec-partial").exists()
