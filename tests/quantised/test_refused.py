"""What cannot be read for certain is refused, in one sentence, before anything is written."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import generator, noise, write
from hostile import call, raw, refused
from quantised.layouts import KINDS, made
from quantised.maker import BF16, E4M3, E8M0, F4, F16, F32, I32, U8, Maker, freed
from quantised.shared import base
from taskvec import CorruptError, MismatchError, check, extract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from families import Tensors

ATTENTION, MLP = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj"
Q, GATE = f"{ATTENTION}.weight", f"{MLP}.weight"
UP = "model.layers.0.mlp.up_proj.weight"
ACTIVATIONS = ("input_scale", "input_global_scale", "activation_scale", ".k_scale", ".v_scale")
EXPERTS = "model.layers.0.mlp.experts.down_proj"
EXPERT = "layers.0.ffn.experts.0.w1"


def ones(shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.float32).to(dtype)


def without(name: str) -> Callable[[Maker], object]:
    return lambda make: make.stored.pop(name)


def instead(name: str, shape: list[int], dtype: torch.dtype) -> Callable[[Maker], object]:
    return lambda make: make.stored.update({name: ones(shape, dtype)})


def striped(make: Maker) -> None:
    # Three stripes of 200 rows, each in blocks of its own: 6 rows of scales where 600 rows have 5.
    del make.stored[Q], make.stored[f"{Q}_scale_inv"]
    make.fp8(Q, [600, 160], F32, stored=None)
    make.stored[f"{Q}_scale_inv"] = ones([6, 2], F32)


def unsaid(make: Maker) -> None:
    del make.config["quantization_config"]


def asymmetric(make: Maker) -> None:
    make.config["quantization_config"]["config_groups"]["group_0"]["weights"]["symmetric"] = False
    make.stored[f"{ATTENTION}.weight_zero_point"] = ones([25, 5], I32)


def asymmetric_in_name(make: Maker) -> None:
    make.config["quantization_config"]["config_groups"]["group_0"]["weights"]["symmetric"] = False


def rotated(make: Maker) -> None:
    apply = [{"targets": ["Linear"], "location": "weight_output"}]
    groups = {"R1": {"type": "hadamard", "apply": apply}}
    make.config["quantization_config"]["transform_config"] = {"config_groups": groups}


# What is done to a checkpoint of which kind, the tensor that is to blame, and what is said of it.
BROKEN: dict[str, tuple[str, Callable[[Maker], object], str, str]] = {
    "no scale": ("DeepSeek-V3", without("model.layers.1.self_attn.o_proj.weight_scale_inv"),
                 "model.layers.1.self_attn.o_proj.weight", "scale"),
    "no scale of a row": ("rows", without(f"{GATE}_scale"), GATE, "scale"),
    "no scale of a tensor": ("Mistral", without(f"{GATE}_scale_inv"), GATE, "scale"),
    "no scale of a number": ("Kimi-K2", without(f"{GATE}_scale"), GATE, "scale"),
    "no scale of a pair": ("DeepSeek-V4", without(f"{EXPERT}.scale"), f"{EXPERT}.weight", "scale"),
    "no exponents": ("gpt-oss", without(f"{EXPERTS}_scales"), EXPERTS, "scale"),
    "no blocks": ("gpt-oss", without(f"{EXPERTS}_blocks"), f"{EXPERTS}_scales", ""),
    "no second scale": ("NVFP4", without(f"{GATE}_global_scale"), GATE, "scale"),
    "no second factor": ("ModelOpt NVFP4", without(f"{GATE}_scale_2"), GATE, "scale"),
    "two scales": ("Qwen3 under BF16", instead(f"{Q}_scale", [200, 1], F32), Q, "scale"),
    "a scale of nothing": ("DeepSeek-V3", instead("model.layers.0.x.weight_scale_inv", [1, 1], F32),
                           "model.layers.0.x.weight_scale_inv", ""),
    "a scale of a plain weight": ("DeepSeek-V3", instead("lm_head.weight_scale_inv", [1, 2], F32),
                                  "lm_head.weight", ""),
    "a scale that fits nothing": ("DeepSeek-V3", instead(f"{UP}_scale_inv", [3, 1], F32), UP, "scale|shape"),
    "blocks of 96 or 128": ("DeepSeek-V3", unsaid, "", "quantis|F8_E4M3|block"),
    "one block too many": ("Qwen3 under BF16", instead(f"{Q}_scale_inv", [3, 2], F32), Q, "scale|shape"),
    "stripes": ("Qwen3 under BF16", striped, Q, "scale|shape|block"),
    "scales of four dimensions": ("ModelOpt FP8", instead(f"{Q}_scale", [2, 1, 2, 1], F32), Q, "scale|shape"),
    "exponents of 16 columns": ("Kimi-K3", instead(
        "language_model.model.layers.1.block_sparse_moe.experts.0.w1.weight_scale", [96, 10], U8),
        "language_model.model.layers.1.block_sparse_moe.experts.0.w1.weight", "scale|shape"),
    "scales in a kernel's order": ("NVFP4", instead(f"{Q}_scale", [256, 12], E4M3), Q, "scale|shape"),
    "scales of whole numbers": ("rows", instead(f"{Q}_scale", [200, 1], I32), Q, "scale|I32"),
    "zero points": ("Kimi-K2", asymmetric, f"{ATTENTION}.weight_zero_point", "zero"),
    "an order of columns": ("Kimi-K2", instead(f"{ATTENTION}.weight_g_idx", [160], I32),
                            f"{ATTENTION}.weight_g_idx", ""),
    "another shape": ("Kimi-K2", lambda make: make.stored.update(
        {f"{Q}_shape": torch.tensor([200, 168], dtype=I32)}), Q, "shape"),
    "too few words": ("Kimi-K2", instead(f"{Q}_packed", [200, 19], I32), Q, "shape"),
    "six bits": ("Kimi-K3", instead(
        "language_model.model.layers.1.block_sparse_moe.experts.0.w1.weight_packed", [96, 120], U8),
        "language_model.model.layers.1.block_sparse_moe.experts.0.w1.weight", "scale|shape"),
    "bytes of no format": ("Qwen3 under BF16", instead("model.layers.0.y.weight", [4, 4], U8),
                           "model.layers.0.y.weight", "U8"),
    "bytes of ComfyUI": ("Qwen3 under BF16", instead(f"{ATTENTION}.comfy_quant", [40], U8),
                         f"{ATTENTION}.comfy_quant", ""),
    "one scale where there should be blocks": ("DeepSeek-V3", instead(f"{UP}_scale_inv", [1, 1], F32), UP,
                                               "scale|shape"),
    "a scale of fused weights that are plain": ("rows of experts", instead(
        "model.layers.0.mlp.experts.gate_up_proj", [3, 192, 160], BF16), "gate_up_proj", "scale"),
    "a scale of a plain weight under its stem": ("DeepSeek-V4", lambda make: make.stored.update(
        {"layers.0.attn.wq_a.weight": ones([192, 160], BF16), "layers.0.attn.wq_a.scale": ones([2, 2], F32)}),
        "layers.0.attn.wq_a", "scale"),
    "zero points that are not there": ("Kimi-K2", asymmetric_in_name, "", "zero|symmetric"),
    # The weight that is meant is the stored one times a factor for each column, or plus a product.
    "factors of columns": ("ModelOpt NVFP4", instead(f"{ATTENTION}.pre_quant_scale", [160], BF16), ATTENTION,
                           "pre_quant_scale"),
    "a product to be added": ("ModelOpt NVFP4", lambda make: make.stored.update({
        f"{ATTENTION}.svdquant_lora_a": ones([8, 160], BF16),
        f"{ATTENTION}.svdquant_lora_b": ones([200, 8], BF16)}), ATTENTION, "svdquant"),
    # The weights are meant in a basis of their own, in which no donor's are.
    "rotated weights": ("NVFP4", rotated, "", "transform"),
}  # fmt: skip

# Formats that are refused by the name of their method, with what such a checkpoint stores for a layer.
METHODS: dict[str, tuple[dict[str, Any], Tensors]] = {
    "gptq": ({"bits": 4, "group_size": 128, "desc_act": False}, {
        "qweight": ones([20, 200], I32), "qzeros": ones([2, 25], I32), "scales": ones([2, 200], F16),
        "g_idx": ones([160], I32)}),
    "awq": ({"bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}, {
        "qweight": ones([160, 25], I32), "qzeros": ones([2, 25], I32), "scales": ones([2, 200], F16)}),
    "bitsandbytes": ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, {
        "weight": ones([16000, 1], U8), "weight.absmax": ones([500], F32),
        "weight.quant_map": ones([16], F32), "weight.quant_state.bitsandbytes__nf4": ones([90], U8)}),
    "hqq": ({}, {"W_q": ones([100, 160], U8), "scale": ones([1, 500], F16), "zero": ones([1, 500], F16)}),
    "aqlm": ({"nbits_per_codebook": 16}, {
        "codes": ones([200, 20, 1], torch.int32), "scales": ones([200, 1], F16)}),
    "exl3": ({"bits": 4.0}, {"trellis": ones([10, 12, 32], I32), "svh": ones([160], F16)}),
    "quark": ({"export": {"pack_method": "order"}}, {
        "weight": ones([200, 80], U8), "weight_scale": ones([200, 5], U8)}),
    "torchao": ({"quant_type": "int4_weight_only"}, {"weight": ones([200, 80], U8)}),
    "a-method-of-2027": ({}, {"weight": ones([200, 80], U8), "weight_scale": ones([200, 5], F32)}),
}  # fmt: skip


def assert_refused(folder: Path, make: Maker, tmp_path: Path, tensor: str, says: str) -> None:
    """As the target and as a donor: one sentence with the file and the tensor; nothing is written."""
    rng = generator(make.kind)
    other = {name: noise(one.shape, torch.bfloat16, rng) for name, one in make.logical.items()}
    plain = write(tmp_path / "plain", other, config=freed(make.config))
    before, out = sorted(tmp_path.rglob("*")), tmp_path / "out"
    for paths in ((folder, plain, plain), (plain, folder, plain), (plain, plain, folder)):
        answer = call(["transfer", *paths, "-o", out])
        message = refused(answer, answer[0], str(folder), tensor)
        assert answer[0] in (1, 3), answer
        assert re.search(says, message), message
        if answer[0] == 1:
            plan = check(*paths)
            assert not plan.compatible
            assert plan.problems[0].message in message
        else:
            with pytest.raises(CorruptError, match=re.escape(message.removeprefix("taskvec: ").strip())):
                check(*paths)
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises((MismatchError, CorruptError), match=re.escape(tensor) or "."):
        extract(folder, plain, out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("case", BROKEN)
def test_parts_that_do_not_make_a_whole_are_refused(case: str, tmp_path: Path) -> None:
    kind, change, tensor, says = BROKEN[case]
    make = made(kind)
    change(make)
    assert_refused(make.save(tmp_path / "broken"), make, tmp_path, tensor, says)


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_are_not_read_are_refused_by_name(method: str, tmp_path: Path) -> None:
    make = Maker(method, config=base("qwen3", 1))
    make.plain("model.norm.weight", [160])
    said, stored = METHODS[method]
    make.logical[Q] = torch.zeros(200, 160)
    make.stored |= {f"{ATTENTION}.{name}": one for name, one in stored.items()}
    make.config["quantization_config"] = {"quant_method": method, **said}
    assert_refused(make.save(tmp_path / "broken", 1), make, tmp_path, "", re.escape(method))


def test_a_half_byte_at_the_end_of_a_row_is_refused(tmp_path: Path) -> None:
    """Four rows of fifteen values fill bytes, but no row does."""
    make = made("DeepSeek-V4 in F4")
    name = f"{EXPERT}.weight"
    make.stored[name] = torch.zeros([6, 5], dtype=U8).view(F4)
    make.stored[f"{EXPERT}.scale"] = torch.full([4, 1], 120, dtype=U8).view(E8M0)
    make.logical[name] = torch.zeros(4, 15)
    folder = make.save(tmp_path / "broken")
    for path in folder.glob("*.safetensors"):
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        if name in header:
            assert header[name]["shape"] == [6, 10]
            header[name]["shape"] = [4, 15]
            path.write_bytes(raw(header, content[start:]))
    assert_refused(folder, make, tmp_path, name, "15|odd|shape|scale")


def test_codes_without_a_word_of_how_to_read_them_are_refused(tmp_path: Path) -> None:
    """A scale for each tensor could be read only one way, and is still a guess."""
    make = made("ModelOpt FP8")
    make.files.clear()
    assert_refused(make.save(tmp_path / "broken"), make, tmp_path, "", "quantis|F8_E4M3")


def damaged(make: Maker) -> Iterator[tuple[str, Tensors]]:
    """What a checkpoint stores, with one part missing, cut, or of a type that no part can have."""
    seen: set[tuple[str, int]] = set()
    for name, one in make.stored.items():
        like = name.rpartition(".")[2], one.dim()
        # Without its shape a packed weight still has one; scales of activations belong to no weight.
        if one is make.logical.get(name) or like in seen or name.endswith(("_shape", *ACTIVATIONS)):
            continue
        seen.add(like)
        rest = {key: value for key, value in make.stored.items() if key != name}
        yield f"without {name}", rest
        yield f"{name} in F64", {**rest, name: torch.ones(one.shape, dtype=torch.float64)}
        if one.dim() and one.shape[0] > 1:
            yield f"{name} without its first row", {**rest, name: one[1:].clone()}
        if one.dim() > 1 and one.shape[-1] > 1 and one.dtype != F4:
            yield f"{name} without its last column", {**rest, name: one[..., :-1].contiguous()}


@pytest.mark.parametrize("kind", KINDS)
def test_no_part_may_be_missing_or_cut(kind: str, tmp_path: Path) -> None:
    make = made(kind)
    donors = [write(tmp_path / seed, make.plainly(seed), config=freed(make.config)) for seed in "gs"]
    assert check(make.save(tmp_path / "whole"), *donors).compatible
    for what, stored in damaged(make):
        other = Maker(kind, config=make.config, files=make.files, stored=stored)
        folder = other.save(tmp_path / "damaged")
        try:
            compatible = check(folder, *donors).compatible
        except CorruptError:
            compatible = False
        assert not compatible, what
        shutil.rmtree(folder)
