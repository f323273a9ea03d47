"""Quantised experts, fused or one by one, against donors or targets that have them the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import Tensors, all_combined, assert_tensors, files, read, weights, write
from fitting import assert_refused
from moe import FRONT, MOE, fused
from quantised.maker import BF16, E8M0, F32, Maker
from quantised.shared import BLOCKS, FP8, INT4, MXFP4, NVFP4, compressed
from taskvec import apply, check, extract, transfer

if TYPE_CHECKING:
    from pathlib import Path

ALPHA = 0.7
HIDDEN, INNER, EXPERTS = 160, 96, 3
SHAPES = {"gate": [INNER, HIDDEN], "up": [INNER, HIDDEN], "down": [HIDDEN, INNER]}
Quantise = "Callable[[Maker, str, list[int]], None]"

SINGLE: dict[str, tuple[dict[str, Any], Any]] = {
    "blocks": (BLOCKS, lambda make, stem, shape: make.fp8(f"{stem}.weight", shape, BF16)),
    "small blocks": (
        {**BLOCKS, "weight_block_size": [32, 48]},
        lambda make, stem, shape: make.fp8(f"{stem}.weight", shape, F32, block=(32, 48)),
    ),
    "rows": (
        compressed("float-quantized", {**FP8, "strategy": "channel"}),
        lambda make, stem, shape: make.channel(f"{stem}.weight", shape, BF16),
    ),
    "whole": (
        compressed("naive-quantized", {**FP8, "strategy": "tensor"}),
        lambda make, stem, shape: make.tensor(f"{stem}.weight", shape, F32, "_scale", [1]),
    ),
    "MXFP4": (
        compressed("mxfp4-pack-quantized", MXFP4),
        lambda make, stem, shape: make.mxfp4(
            f"{stem}.weight", shape, f"{stem}.weight_packed", f"{stem}.weight_scale"
        ),
    ),
    "NVFP4": (
        compressed("nvfp4-pack-quantized", NVFP4),
        lambda make, stem, shape: make.nvfp4(stem, shape, divides=True),
    ),
    "INT4": (
        compressed("pack-quantized", INT4),
        lambda make, stem, shape: make.int4(stem, shape),
    ),
}  # fmt: skip
# All experts in one tensor; a name without `.weight`.
FUSED: dict[str, tuple[dict[str, Any], Any]] = {
    "small blocks": (
        {**BLOCKS, "weight_block_size": [32, 48]},
        lambda make, name, shape: make.fp8(name, shape, F32, block=(32, 48)),
    ),
    "blocks of a row": (
        {"quant_method": "mxfp8"},
        lambda make, name, shape: make.fp8(name, shape, E8M0, block=(1, 32)),
    ),
    "rows": (
        compressed("float-quantized", {**FP8, "strategy": "channel"}),
        lambda make, name, shape: make.channel(name, shape, BF16),
    ),
    "MXFP4": (
        compressed("mxfp4-pack-quantized", MXFP4),
        lambda make, name, shape: make.mxfp4(name, shape, f"{name}_packed", f"{name}_scale"),
    ),
}  # fmt: skip


def single(kind: str, seed: object) -> Maker:
    """Two layers whose experts are quantised one by one."""
    said, quantise = SINGLE[kind]
    make = Maker(kind, seed, config={**MOE, "quantization_config": said})
    make.plain("model.norm.weight", [HIDDEN])
    for layer in range(2):
        for one in range(EXPERTS):
            for name, shape in SHAPES.items():
                quantise(make, f"{FRONT.format(layer)}.{one}.{name}_proj", shape)
    return make


def together(kind: str, seed: object, inner: int = INNER) -> Maker:
    """Two layers whose experts are quantised in one tensor."""
    said, quantise = FUSED[kind]
    make = Maker(kind, seed, config={**MOE, "quantization_config": said})
    make.plain("model.norm.weight", [HIDDEN])
    for layer in range(2):
        quantise(make, f"{FRONT.format(layer)}.gate_up_proj", [EXPERTS, 2 * inner, HIDDEN])
        quantise(make, f"{FRONT.format(layer)}.down_proj", [EXPERTS, HIDDEN, inner])
    return make


def apart(tensors: Tensors) -> Tensors:
    """Fused tensors one by one."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        front, _, end = name.rpartition(".")
        if "experts" not in name:
            found[name] = tensor
            continue
        for one, matrix in enumerate(tensor):
            half = len(matrix) // 2
            parts = (
                {"gate": matrix[:half], "up": matrix[half:]} if end == "gate_up_proj" else {"down": matrix}
            )
            for kind, part in parts.items():
                found[f"{front}.{one}.{kind}_proj.weight"] = part.contiguous()
    return found


def bf16(wanted: Tensors) -> Tensors:
    """What is written where codes were."""
    return {name: one.to(BF16) for name, one in wanted.items()}


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("requantise", [False, True])
def test_fused_donors_of_a_target_one_by_one(kind: str, requantise: bool, tmp_path: Path) -> None:
    make = single(kind, "t")
    target = make.save(tmp_path / "t")
    paths = {"": [target], "f": [target]}
    donors: list[Tensors] = []
    for role in "gs":
        one = make.plainly(role)
        donors.append(one)
        paths[""].append(write(tmp_path / role, one, config=MOE))
        paths["f"].append(write(tmp_path / f"f{role}", fused(one), config=MOE, shards=2))
    options: dict[str, Any] = {"alpha": ALPHA, "requantise": requantise, "sync": False}
    if requantise and not check(*paths[""], requantise=True).compatible:
        assert not check(*paths["f"], requantise=True).compatible
        return
    transfer(*paths["f"], tmp_path / "out", **options)
    if not requantise:
        assert_tensors(read(tmp_path / "out"), bf16(all_combined(make.logical, *donors, ALPHA)))
    transfer(*paths[""], tmp_path / "same", **options)
    assert weights(tmp_path / "out") == weights(tmp_path / "same")
    for encoding in ("packed", "dense"):
        extract(*paths["f"][1:], tmp_path / "v", encoding=encoding, overwrite=True)
        apply(target, tmp_path / "v", tmp_path / "applied", overwrite=True, **options)
        assert weights(tmp_path / "applied") == weights(tmp_path / "same")


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("requantise", [False, True])
def test_donors_one_by_one_of_a_fused_target(kind: str, requantise: bool, tmp_path: Path) -> None:
    make = together(kind, "t")
    target = make.save(tmp_path / "t")
    paths = {"": [target], "f": [target]}
    donors: list[Tensors] = []
    for role in "gs":
        one = make.plainly(role)
        donors.append(one)
        paths["f"].append(write(tmp_path / f"f{role}", one, config=MOE))
        paths[""].append(write(tmp_path / role, apart(one), config=MOE, shards=3))
    options: dict[str, Any] = {"alpha": ALPHA, "requantise": requantise, "sync": False}
    transfer(*paths[""], tmp_path / "out", **options)
    if not requantise:
        assert_tensors(read(tmp_path / "out"), bf16(all_combined(make.logical, *donors, ALPHA)))
    transfer(*paths["f"], tmp_path / "same", **options)
    assert weights(tmp_path / "out") == weights(tmp_path / "same")


@pytest.mark.parametrize("kind", SINGLE)
def test_quantised_donors_one_by_one_of_a_fused_target(kind: str, tmp_path: Path) -> None:
    minuend, subtrahend = single(kind, "g"), single(kind, "s")
    t = fused(minuend.plainly("t"))
    paths = [
        write(tmp_path / "t", t, config=MOE),
        minuend.save(tmp_path / "g"),
        subtrahend.save(tmp_path / "s", 1),
    ]
    before = {path: files(path) for path in paths}
    plan = check(*paths)
    assert plan.compatible, plan.problems
    transfer(*paths, tmp_path / "out", alpha=ALPHA, sync=False)
    wanted = all_combined(t, fused(minuend.logical), fused(subtrahend.logical), ALPHA)
    assert_tensors(read(tmp_path / "out"), wanted)
    extract(*paths[1:], tmp_path / "v", sync=False)
    apply(paths[0], tmp_path / "v", tmp_path / "applied", alpha=ALPHA, sync=False)
    assert weights(tmp_path / "applied") == weights(tmp_path / "out")
    assert {path: files(path) for path in paths} == before


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("coded", [False, True])
def test_fused_quantised_donors_of_a_target_one_by_one(kind: str, coded: bool, tmp_path: Path) -> None:
    minuend, subtrahend = together(kind, "g"), together(kind, "s")
    make = single("blocks", "t")
    t = make.logical if coded else make.plainly("t")
    target = make.save(tmp_path / "t") if coded else write(tmp_path / "t", t, config=MOE)
    paths = [target, minuend.save(tmp_path / "g"), subtrahend.save(tmp_path / "s", 1)]
    plan = check(*paths)
    assert plan.compatible, plan.problems
    transfer(*paths, tmp_path / "out", alpha=ALPHA, sync=False)
    wanted = bf16(all_combined(t, apart(minuend.logical), apart(subtrahend.logical), ALPHA))
    assert_tensors(read(tmp_path / "out"), wanted)


def test_a_fused_donor_may_be_subtracted_from_one_with_single_experts(tmp_path: Path) -> None:
    minuend, subtrahend = single("NVFP4", "g"), together("rows", "s")
    g, s = minuend.logical, apart(subtrahend.logical)
    paths = [minuend.save(tmp_path / "g"), subtrahend.save(tmp_path / "s")]
    t = minuend.plainly("t")
    for name, one in (("t", t), ("ft", fused(t))):
        write(tmp_path / name, one, config=MOE)
        transfer(tmp_path / name, *paths, tmp_path / f"{name}-out", alpha=ALPHA, sync=False)
        found = read(tmp_path / f"{name}-out")
        assert_tensors(found if name == "t" else apart(found), all_combined(t, g, s, ALPHA))


def test_windows_end_within_experts_and_blocks(tmp_path: Path) -> None:
    """Whatever the memory and the threads; both ways, and quantised on both sides."""
    said = {**BLOCKS, "weight_block_size": [100, 128]}
    makers: list[Maker] = []
    for role, one_by_one in (("t", True), ("g", False), ("s", False)):
        make = Maker("large", role, config={**MOE, "quantization_config": said})
        front = FRONT.format(0)
        for name, shape in (("gate_up_proj", [3, 600, 701]), ("down_proj", [3, 700, 300])):
            if not one_by_one:
                make.fp8(f"{front}.{name}", shape, F32, block=(100, 128))
        for one in range(3 if one_by_one else 0):
            for name, shape in (("gate", [300, 701]), ("up", [300, 701]), ("down", [700, 300])):
                make.fp8(f"{front}.{one}.{name}_proj.weight", shape, BF16, block=(100, 128))
        make.save(tmp_path / role, 1)
        makers.append(make)
    t, g, s = (make.logical for make in makers)
    options: list[dict[str, Any]] = [
        {"memory": "1GB"},
        {"threads": 1, "memory": "24MB", "io": "pread"},
        {"threads": 3, "io": "direct"},
    ]
    for at, more in enumerate(options):
        out = tmp_path / f"cut-{at}"
        transfer(*(tmp_path / role for role in "tgs"), out, alpha=ALPHA, dtype="f32", sync=False, **more)
        assert_tensors(read(out), all_combined(t, apart(g), apart(s), ALPHA))
        out = tmp_path / f"joined-{at}"
        paths = [tmp_path / role for role in ("g", "t", "t")]
        wanted = all_combined(g, fused(t), fused(t), ALPHA)
        transfer(*paths, out, alpha=ALPHA, dtype="f32", sync=False, **more)
        assert_tensors(read(out), wanted)


def test_blocks_of_rows_of_two_matrices_are_refused(tmp_path: Path) -> None:
    """Rows of gate and up share scales, because no expert's rows fill whole blocks."""
    makers = {role: together("small blocks", role, inner=80) for role in "gs"}
    t = apart(makers["g"].plainly("t"))
    paths = [write(tmp_path / "t", t, config=MOE)]
    paths += [make.save(tmp_path / role, 1) for role, make in makers.items()]
    says = "but the fused tensor has scales for blocks of rows that belong to several matrices"
    problem, *others = check(*paths).problems
    assert not others
    assert problem.tensor == "model.layers.0.mlp.experts.gate_up_proj"
    assert_refused(paths, tmp_path, problem.tensor, says, "g/model.safetensors")
    # Whole matrices have scales of their own.
    transfer(*paths, tmp_path / "out", exclude=["gate", "up_proj"], sync=False)
    both = (apart(makers[role].logical) for role in "gs")
    wanted = all_combined(t, *both, 1.0)
    kept = {name: wanted[name] if "down" in name or "norm" in name else one for name, one in t.items()}
    assert_tensors(read(tmp_path / "out"), kept)


def test_gpt_oss_is_not_read_as_single_experts(tmp_path: Path) -> None:
    """Its fused tensors are transposed, and have gate and up in turn."""
    config = {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}
    make, front = Maker("gpt-oss", config=config), FRONT.format(0)
    for name, rows in (("gate_up_proj", 2 * HIDDEN), ("down_proj", HIDDEN)):
        make.gpt_oss(f"{front}.{name}", EXPERTS, rows, HIDDEN)
    donors = [make.save(tmp_path / role, 1) for role in "gs"]
    t = {
        f"{front}.{one}.{name}_proj.weight": torch.zeros((HIDDEN, HIDDEN), dtype=BF16)
        for one in range(EXPERTS)
        for name in ("gate", "up", "down")
    }
    paths = [write(tmp_path / "t", t, config=MOE), *donors]
    says = "rows of gate and up in turn"
    assert_refused(paths, tmp_path, f"{front}.down_proj", says, "g/model.safetensors")
