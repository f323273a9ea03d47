"""Vectors from vectors: another encoding loses nothing, and sums are torch's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

import taskvec
from families import Tensors, assert_same, manifest, write
from hostile import call, refused
from vectors import ENCODINGS, exact

if TYPE_CHECKING:
    from pathlib import Path


def donors(root: Path, dtype: torch.dtype, seed: int, **more: torch.Tensor) -> tuple[Path, Path]:
    """A pair in which some differences are not bfloat16, one is −0 and one comes from infinity."""
    draw = torch.Generator().manual_seed(seed)
    s = {"a.weight": torch.randn(40, 30, generator=draw), "b.weight": torch.randn(7, generator=draw), **more}
    g = {name: value + torch.randn(value.shape, generator=draw) * 0.01 for name, value in s.items()}
    s["b.weight"][0], g["b.weight"][0] = 0.0, -0.0
    s["b.weight"][1] = float("inf")
    for name, tensors in (("g", g), ("s", s)):
        write(root / name, {key: value.to(dtype) for key, value in tensors.items()})
    return root / "g", root / "s"


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float32], ids=str)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    return donors(tmp_path, request.param, 1)


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_there_and_back_are_the_same_bytes(encoding: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = ENCODINGS[1 - ENCODINGS.index(encoding)]
    taskvec.extract(*pair, tmp_path / "v", encoding=encoding)
    taskvec.extract(*pair, tmp_path / "straight", encoding=other)
    there = taskvec.convert(tmp_path / "v", tmp_path / "there", encoding=other)
    taskvec.convert(there, tmp_path / "back", encoding=encoding)
    assert weights(tmp_path / "there") == weights(tmp_path / "straight")
    assert weights(tmp_path / "back") == weights(tmp_path / "v")
    assert taskvec.verify(there).ok
    first, last = manifest(tmp_path / "v"), manifest(tmp_path / "back")
    assert [last[part] for part in ("vector", "config")] == [first[part] for part in ("vector", "config")]


def test_a_sum_is_torchs(tmp_path: Path) -> None:
    kinds = torch.bfloat16, torch.float32, torch.bfloat16
    for number, dtype in enumerate(kinds):
        pair = donors(tmp_path / str(number), dtype, number)
        taskvec.extract(*pair, tmp_path / f"v{number}", encoding=ENCODINGS[number % 2])
    alphas = ["0.7", "-1.5", "0.25"]
    refs = [tmp_path / f"v{number}" for number in range(len(kinds))]
    parts = [exact(ref) for ref in refs]
    scales = [torch.tensor(float(alpha), dtype=torch.float32) for alpha in alphas]
    wanted: Tensors = {}
    for name in parts[0]:
        products = [scale * part[name] for scale, part in zip(scales, parts, strict=True)]
        wanted[name] = products[0] + products[1] + products[2]
    for encoding in ENCODINGS:
        made = taskvec.combine(refs, tmp_path / encoding, alpha=alphas, encoding=encoding)
        found = exact(tmp_path / encoding)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert_same(found[name], value)
        assert [one["made"]["verb"] for one in made.info["inputs"] if "made" in one] == ["extract"] * 3
        assert [one["text"] for one in made.info["recipe"]["alpha"]] == alphas


def test_a_vector_less_itself_is_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    taskvec.extract(*pair, tmp_path / "v", exclude=["b"])
    out = tmp_path / "w"
    answer = call(
        ["combine", tmp_path / "v", tmp_path / "v", "-o", out, "--alpha", "1", "--alpha=-1", "--json"]
    )
    assert answer[0] == 0
    assert json.loads(answer[1])["effect"]["norm_v"] == 0
    assert "0 everywhere" in call(["inspect", out])[2]
    for value in exact(out).values():
        assert_same(value, torch.zeros_like(value))


def test_what_cannot_be_combined(tmp_path: Path) -> None:
    taskvec.extract(*donors(tmp_path / "1", torch.bfloat16, 1), tmp_path / "v")
    taskvec.extract(*donors(tmp_path / "2", torch.bfloat16, 2, c=torch.ones(3)), tmp_path / "more")
    v, more, out = tmp_path / "v", tmp_path / "more", tmp_path / "out"
    refused(call(["combine", v, more, "-o", out]), 1, "`c`", "vector 2 has this tensor but vector 1 does not")
    refused(call(["combine", more, v, "-o", out]), 1, "`c`", "vector 2 has no tensor of this name")
    for several in ([v], [v, v]):
        refused(call(["combine", *several, "-o", out, "--alpha", "0"]), 2, "alpha is not 0")
    refused(call(["combine", v, "-o", v, "--overwrite"]), 2, "v")
    for command in (["convert", tmp_path / "1" / "g"], ["combine", tmp_path / "1" / "g"]):
        refused(call([*command, "-o", out]), 1, "is not a vector", "taskvec extract")
    with pytest.raises(taskvec.UsageError, match="include is not an option"):
        taskvec.convert(v, out, include=["a"])
    described: dict[str, Any] = json.loads((more / "vector.json").read_text())
    described["vector"]["tied"] = True
    taskvec.extract(*donors(tmp_path / "3", torch.bfloat16, 3), tmp_path / "same")
    (tmp_path / "same" / "vector.json").write_text(json.dumps({**manifest(v), "vector": described["vector"]}))
    refused(call(["combine", v, tmp_path / "same", "-o", out]), 1, "they belong to different models")
    assert not out.exists()


@pytest.mark.parametrize("verb", ["convert", "combine"])
def test_a_dry_run_writes_nothing(verb: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    taskvec.extract(*pair, tmp_path / "v")
    code, stdout, _ = call([verb, tmp_path / "v", "-o", tmp_path / "out", "--dry-run", "--json"])
    assert (code, json.loads(stdout)["verb"]) == (0, verb)
    assert not (tmp_path / "out").exists()
