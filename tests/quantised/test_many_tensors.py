"""As many tensors as the largest checkpoints have: all of them exactly, within the default budget."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import Tensors, assert_tensors, combined, read
from hostile import call, refused
from quantised.census import DeepSeek, Kimi
from quantised.maker import E4M3, U8, freed
from quantised.miniature import write_deepseek, write_kimi_k3
from quantised.values import e2m1, spread
from taskvec import check, transfer

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

ALPHA = 0.7
SCALE = re.compile(r"\.weight_scale(_inv)?$")


def logical(folder: Path, names: Collection[str]) -> Tensors:
    """The values of some of a miniature's tensors; codes and scales are in any of its files."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    parts = {name: SCALE.sub(".weight", name).removesuffix("_packed") for name in index}
    stored: Tensors = {}
    for file in sorted({file for name, file in index.items() if parts[name] in names}):
        stored |= read(folder, file)
    found: Tensors = {}
    for name, one in stored.items():
        if parts[name] not in names or SCALE.search(name):
            continue
        values = one
        if one.dtype == E4M3:
            values = one.float() * spread(stored[f"{name}_scale_inv"], (128, 128), one.shape)
        elif one.dtype == U8:
            values = e2m1(one)
            values *= spread(stored[name.removesuffix("packed") + "scale"], (1, 32), values.shape)
        found[parts[name]] = values
    return found


def assert_exact(folders: list[Path], out: Path, pattern: str = "*.safetensors") -> None:
    found = read(out, pattern)
    t, g, s = (logical(folder, found.keys()) for folder in folders)
    assert g.keys() == s.keys()
    wanted: Tensors = {}
    for name, one in t.items():
        dtype = torch.float32 if name.endswith(("bias", "A_log")) else torch.bfloat16
        wanted[name] = combined(one, g[name], s[name], ALPHA, dtype) if name in g else one.to(dtype)
    assert_tensors(found, wanted)


@pytest.mark.parametrize(
    ("model", "donors"),
    [("DeepSeek-V3", "bf16"), ("DeepSeek-V3", "fp8"), ("Kimi-K3", "bf16"), ("Kimi-K3", "mxfp4")],
)
def test_a_miniature_is_combined_exactly(model: str, donors: str, tmp_path: Path) -> None:
    if model == "Kimi-K3":
        folders = write_kimi_k3(tmp_path, Kimi(layers=5, experts=6), count=4, donors=donors)
    else:
        folders = write_deepseek(tmp_path, DeepSeek(layers=5, experts=6).small(), count=7, donors=donors)
    plan = check(*folders)
    assert plan.compatible, plan.problems
    transfer(*folders, tmp_path / "out", alpha=ALPHA, sync=False)
    assert_exact(folders, tmp_path / "out")
    config = json.loads((folders[0] / "config.json").read_text())
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == freed(config)


def test_a_refusal_of_thousands_of_tensors_is_one_sentence(tmp_path: Path) -> None:
    """Each weight lacks its scale, in a model whose donors are sound."""
    folders = write_deepseek(tmp_path, DeepSeek(layers=8, experts=200).small(), count=3)
    for path in folders[0].glob("*.safetensors"):
        path.write_bytes(path.read_bytes().replace(b"_scale_inv", b"_scale_off"))
    index = folders[0] / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("_scale_inv", "_scale_off"))
    answer = call(["transfer", *folders, "-o", tmp_path / "out"])
    message = refused(answer, answer[0], str(folders[0]), "scale")
    assert len(message) < 1000
    code, stdout, stderr = call(["check", *folders])
    assert code in (1, 3)
    assert len((stdout + stderr).splitlines()) < 50


@pytest.mark.slow
@pytest.mark.parametrize("donors", ["bf16", "fp8"])
def test_91991_tensors_need_no_more_than_the_default_budget(donors: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"alpha": ALPHA, "sync": False, "memory": "256MiB"}
    folders = write_deepseek(tmp_path, DeepSeek().small(), donors=donors)
    result = transfer(*folders, tmp_path / "out", **options)
    counts = result.tensors
    assert counts.combined + counts.copied + counts.converted == 46_183
    for number in (1, 77, 163):
        assert_exact(folders, tmp_path / "out", f"model-{number:05}-of-000163.safetensors")


@pytest.mark.slow
def test_497052_tensors_need_no_more_than_the_default_budget(tmp_path: Path) -> None:
    folders = write_kimi_k3(tmp_path, Kimi())
    result = transfer(*folders, tmp_path / "out", alpha=ALPHA, sync=False, memory="256MiB")
    counts = result.tensors
    assert counts.combined + counts.copied + counts.converted == 249_756
    assert_exact(folders, tmp_path / "out", "model-00050-of-000096.safetensors")
