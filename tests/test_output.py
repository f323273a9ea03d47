"""What a run leaves on the disk: a checkpoint that loads, the target's own files, and a manifest that can be trusted."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from families import (
    CONFIG,
    FLOATS,
    NAMES,
    OUTPUTS,
    Tensors,
    all_combined,
    anything,
    assert_tensors,
    combined,
    files,
    generator,
    manifest,
    noise,
    nudged,
    patterns,
    read,
    to_f64,
    weights,
    write,
)
from taskvec import UsageError, apply, extract, transfer, verify


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
    stale = ["pytorch_model.bin", "consolidated.00.pth", "model-q4.gguf", "old.safetensors"]
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
            assert front(found[name]) == front(content) if name.endswith("tensors") else found[name] == content
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
    assert index["weight_map"] == json.loads((paths[0] / "model.safetensors.index.json").read_text())["weight_map"]
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
            assert (file["size"], file["sha256"]) == ((path / file["name"]).stat().st_size, sha256(path / file["name"]))


class Sums:
    """What the figures of one or more tensors are made of, in f64 by numpy."""

    def __init__(self) -> None:
        self.counts = np.zeros(6)
        self.v2 = self.requested2 = self.e2 = self.product = 0.0

    def add(self, t: torch.Tensor, g: torch.Tensor, s: torch.Tensor, alpha: float, o: torch.Tensor) -> None:
        d = g.float() - s.float()
        bad = ~(t.isfinite() & g.isfinite() & s.isfinite()).reshape(-1).numpy()
        over = ~bad & ~o.isfinite().reshape(-1).numpy()
        fine = ~bad & ~over & d.isfinite().reshape(-1).numpy()
        asked = fine & (torch.tensor(alpha) * d != 0).reshape(-1).numpy()
        changed = fine & (patterns(o) != patterns(t.to(o.dtype))).numpy()
        self.counts += [x.sum() for x in (bad, over, asked, changed, asked & changed)] + [d.numel()]
        v, e = to_f64(d)[fine], to_f64(o)[fine] - to_f64(t)[fine]
        m = float(torch.tensor(alpha)) * v
        self.v2 += float(v @ v)
        self.requested2 += float(m @ m)
        self.e2 += float(e @ e)
        self.product += float(e @ m)

    def effect(self) -> dict[str, Any]:
        bad, over, asked, changed, survived, count = self.counts

        def ratio(above: float, below: float) -> float | None:
            return above / below if below > 0 else None

        return {
            "norm_v": math.sqrt(self.v2),
            "norm_requested": math.sqrt(self.requested2),
            "norm_effective": math.sqrt(self.e2),
            "gain": ratio(self.product, self.requested2),
            "cosine": ratio(self.product, math.sqrt(self.e2 * self.requested2)),
            "changed": ratio(changed, count),
            "survival": ratio(survived, asked),
            "nonfinite_inputs": bad,
            "overflowed": over,
        }


def assert_effect(found: dict[str, Any], wanted: dict[str, Any], what: object) -> None:
    assert found.keys() == wanted.keys(), what
    for key, value in wanted.items():
        assert found[key] == (None if value is None else pytest.approx(value, rel=2e-6, abs=1e-300)), (what, key)


@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.01])
@pytest.mark.parametrize("options", [{}, {"dtype": "bf16"}, {"dtype": "f16"}, {"dtype": "f32"}, {"rounding": "stochastic"}])
def test_figures_against_numpy(alpha: float, options: dict[str, Any], tmp_path: Path) -> None:
    rng = generator(("figures", alpha))
    t: Tensors = {}
    g: Tensors = {}
    s: Tensors = {}
    for at, dtype in enumerate(FLOATS):
        for kind in ("close", "apart", "same", "wild", "tiny", "empty", "rule", "kept"):
            name = f"{kind}.{NAMES[dtype]}"
            shape = [0] if kind == "empty" else [9001 + at]
            draw = anything if kind == "wild" else noise
            scale = {"scale": 1e-30 if dtype != torch.float16 else 1e-7} if kind == "tiny" else {}
            s[name] = draw(shape, dtype, rng, **scale)
            t[name] = draw(shape, dtype, rng, **scale)
            if kind == "apart":
                g[name] = noise(shape, FLOATS[at - 1], rng)
            elif kind == "same":
                g[name] = s[name].clone()
            else:
                g[name] = draw(shape, dtype, rng) if kind == "wild" else nudged(s[name], rng)
    t["alone"] = noise([50], torch.float32, rng)
    paths = [write(tmp_path / role, one, shards=2) for role, one in (("t", t), ("g", g), ("s", s))]
    result = transfer(*paths, tmp_path / "out", alpha=alpha, alpha_rules=["^rule=-2", "^kept=0"], **options)
    found = read(tmp_path / "out")
    total = Sums()
    entries = {one["name"]: one for one in manifest(tmp_path / "out")["tensors"]}
    assert list(entries) == [name for path in sorted(weights(tmp_path / "out")) for name in read(tmp_path / "out", path)]
    for name, tensor in t.items():
        converted = found[name].dtype != tensor.dtype
        factor = {"rule": -2.0, "kept": 0.0}.get(name.split(".")[0], alpha)
        if name == "alone" or factor == 0:
            # Without a vector v is nothing; a change of dtype is an effect all the same.
            if not converted:
                assert "effect" not in entries[name]
                continue
            factor, minuend = 1.0, torch.zeros_like(tensor)
            other = minuend
        else:
            minuend, other = g[name], s[name]
        if not tensor.numel():
            assert "effect" not in entries[name]
            continue
        one = Sums()
        for sums in (one, total):
            sums.add(tensor, minuend, other, factor, found[name])
        assert_effect(entries[name]["effect"], one.effect(), name)
    said = manifest(tmp_path / "out")["effect"]
    assert_effect(said, total.effect(), "total")
    assert result.to_json()["effect"] == said
    assert said["nonfinite_inputs"] > 0


@pytest.mark.parametrize("several", [False, True])
def test_figures_of_vectors(several: bool, tmp_path: Path) -> None:
    rng = generator("vectors")
    t = {"w": noise([20_000], torch.bfloat16, rng)}
    target = write(tmp_path / "t", t)
    d: list[torch.Tensor] = []
    for at in range(2):
        s = noise([20_000], torch.bfloat16, rng)
        g = nudged(s, rng)
        extract(write(tmp_path / f"g{at}", {"w": g}), write(tmp_path / f"s{at}", {"w": s}), tmp_path / f"v{at}")
        d.append(g.float() - s.float())
    alphas = [0.7, -2.0]
    if several:
        # With several vectors the request is their sum, and there is no one ‖v‖.
        request = alphas[0] * d[0] + alphas[1] * d[1]
        found = apply(target, [tmp_path / "v0", tmp_path / "v1"], tmp_path / "out", alpha=alphas)
        wanted = Sums()
        out = (t["w"].float() + alphas[0] * d[0] + alphas[1] * d[1]).bfloat16()
        wanted.add(t["w"], request, torch.zeros_like(request), 1.0, out)
        expected = {**wanted.effect(), "norm_v": None}
    else:
        found = apply(target, tmp_path / "v0", tmp_path / "out", alpha=0.7)
        wanted = Sums()
        wanted.add(t["w"], d[0], torch.zeros_like(d[0]), 0.7, (t["w"].float() + 0.7 * d[0]).bfloat16())
        expected = wanted.effect()
    assert_effect(found.to_json()["effect"], expected, several)


def test_a_gain_that_is_off_is_said_with_the_ways_out(tmp_path: Path) -> None:
    rng = generator("gain")
    s = {"w": noise([50_000], torch.bfloat16, rng)}
    family = [s, {"w": nudged(s["w"], rng)}, s]
    paths = [write(tmp_path / role, one) for role, one in zip("tgs", family, strict=True)]
    lost = transfer(*paths, tmp_path / "lost", alpha=0.25)
    assert lost.effect.gain is not None
    assert abs(lost.effect.gain - 1) > 0.05
    (warning,) = lost.warnings
    assert "--rounding stochastic" in warning
    assert "--dtype f32" in warning
    for options in ({"rounding": "stochastic"}, {"dtype": "f32"}, {"alpha": 1.0}):
        kept = transfer(*paths, tmp_path / "kept", overwrite=True, **{"alpha": 0.25, **options})
        assert kept.warnings == (), options
        assert kept.effect.gain == pytest.approx(1, abs=0.03)


def test_nothing_to_combine_is_said(tmp_path: Path) -> None:
    paths, _ = make(tmp_path)
    result = transfer(*paths, tmp_path / "out", alpha=0)
    assert result.warnings == ("nothing was combined: the output is the target",)
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
    assert_tensors(read(out), {name: combined(t, tensors[1][name], tensors[2][name], 0.5) for name, t in tensors[0].items()})
    assert verify(out).ok
    assert not (out / ".taskvec-partial").exists()
