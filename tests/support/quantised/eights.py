"""Small checkpoints of every layout with codes of eight bits, with the names and configs of real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from quantised.maker import BF16, F32, U8
from quantised.shared import BLOCKS, FP8, base, compressed, ends, linears, qwen3

if TYPE_CHECKING:
    from quantised.maker import Maker


def deepseek_v3(make: Maker, dtype: torch.dtype = F32, **more: Any) -> None:
    """A dense layer, one with experts, and the layer of multi-token prediction beyond the last one."""
    make.config = base("deepseek_v3", 2, num_nextn_predict_layers=1, n_routed_experts=2)
    make.config["quantization_config"] = {**BLOCKS, "fmt": "e4m3", **more}
    ends(make)
    for layer in range(3):
        front = f"model.layers.{layer}"
        for norm, size in (("input_layernorm", 160), ("self_attn.kv_a_layernorm", 128)):
            make.plain(f"{front}.{norm}.weight", [size])
        # 192 rows under two factors are blocks of 128, not of 96.
        for name, shape in {
            "q_a_proj": [192, 160], "q_b_proj": [384, 192], "kv_a_proj_with_mqa": [192, 160],
            "kv_b_proj": [256, 128], "o_proj": [160, 128],
        }.items():  # fmt: skip
            make.fp8(f"{front}.self_attn.{name}.weight", shape, dtype)
        inner, groups = (
            (300, ["mlp"]) if layer == 0 else (96, ["mlp.experts.0", "mlp.experts.1", "mlp.shared_experts"])
        )
        for group in groups:
            for name, shape in (("gate", [inner, 160]), ("up", [inner, 160]), ("down", [160, inner])):
                make.fp8(f"{front}.{group}.{name}_proj.weight", shape, dtype)
        if layer:
            make.plain(f"{front}.mlp.gate.weight", [2, 160])
            make.plain(f"{front}.mlp.gate.e_score_correction_bias", [2], F32)
    for name, shape in (
        ("enorm", [160]),
        ("eh_proj", [160, 320]),
        ("embed_tokens", [48, 160]),
        ("shared_head.norm", [160]),
    ):
        make.plain(f"model.layers.2.{name}.weight", shape)


def deepseek_v31(make: Maker) -> None:
    """As the first, but its config speaks of exponents while the scales are float32."""
    deepseek_v3(make, F32, scale_fmt="ue8m0")


def qwen3_fp8(make: Maker, dtype: torch.dtype = BF16) -> None:
    """Blocks under scales of two bytes, with ragged edges both ways, a single row and a single column."""
    config = qwen3(make)
    config["quantization_config"] = {**BLOCKS, "modules_to_not_convert": ["lm_head", "model.embed_tokens"]}
    for stem, shape in {**linears(), "model.layers.0.mlp.up_proj": [150, 1]}.items():
        make.fp8(f"{stem}.weight", shape, dtype)


def fused_experts(make: Maker) -> None:
    """Experts in one tensor of three dimensions, whose scales have no word `weight` in their names."""
    config = qwen3(make)
    config["quantization_config"] = dict(BLOCKS)
    for name, shape in (("gate_up_proj", [3, 300, 160]), ("down_proj", [3, 160, 150])):
        make.fp8(f"model.layers.0.mlp.experts.{name}", shape, BF16)


def mxfp8(make: Maker, dtype: torch.dtype = U8) -> None:
    """Blocks of one row and 32 columns; the scales are exponents under the name of DeepSeek's."""
    config = qwen3(make)
    config["quantization_config"] = {"quant_method": "mxfp8", "ignored_layers": ["lm_head"]}
    for stem, shape in linears().items():
        make.fp8(f"{stem}.weight", shape, dtype, block=(1, 32))


def channels(make: Maker, dtype: torch.dtype = BF16) -> None:
    """GLM: one scale a row."""
    config = qwen3(make)
    config["compression_config"] = compressed("float-quantized", {**FP8, "strategy": "channel"})
    for stem, shape in linears().items():
        make.channel(f"{stem}.weight", shape, dtype)


def expert_channels(make: Maker) -> None:
    """compressed-tensors: one scale a row of each expert, all experts in one tensor."""
    config = qwen3(make)
    config["quantization_config"] = compressed("float-quantized", {**FP8, "strategy": "channel"})
    for name, shape in (("gate_up_proj", [3, 192, 160]), ("down_proj", [3, 160, 96])):
        make.channel(f"model.layers.0.mlp.experts.{name}", shape, BF16)


def listed_channels(make: Maker) -> None:
    """ModelOpt: one scale a row, in a list."""
    said = {
        "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN",
        "kv_cache_quant_algo": None,
        "exclude_modules": ["lm_head"],
    }
    qwen3(make)["quantization_config"] = {"quant_method": "modelopt", **said}
    for stem, shape in linears().items():
        make.channel(f"{stem}.weight", shape, F32, [shape[0]])


def tensors(make: Maker) -> None:
    """compressed-tensors: one scale a tensor, stored as a list of one."""
    config = qwen3(make, torch_dtype="float8_e4m3fn")
    config["quantization_config"] = compressed("naive-quantized", {**FP8, "strategy": "tensor"})
    for stem, shape in linears().items():
        make.tensor(f"{stem}.weight", shape, F32, "_scale", [1])
        make.beside(f"{stem}.input_scale", torch.ones(1))


def blocks(make: Maker) -> None:
    """compressed-tensors: blocks whose scales lack the ending of DeepSeek's."""
    config = qwen3(make)
    weights = {**FP8, "strategy": "block", "block_structure": [64, 32]}
    config["quantization_config"] = compressed("float-quantized", weights)
    for stem, shape in linears().items():
        make.fp8(f"{stem}.weight", shape, BF16, block=(64, 32), scale="_scale")


def mistral(make: Maker) -> None:
    """One scale a tensor and one for the activations, each without dimensions."""
    config = qwen3(make)
    config["quantization_config"] = {
        "quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None,
        "modules_to_not_convert": ["lm_head"], "dequantize": False,
    }  # fmt: skip
    for stem, shape in linears().items():
        make.tensor(f"{stem}.weight", shape, BF16, "_scale_inv", [])
        make.beside(f"{stem}.activation_scale", torch.tensor(0.5, dtype=BF16))


def modelopt_fp8(make: Maker) -> None:
    """ModelOpt, which says so in a file of its own alone; the scales of a cache belong to no weight."""
    qwen3(make)
    make.files["hf_quant_config.json"] = {
        "producer": {"name": "modelopt", "version": "0.40.0"},
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
    }
    for stem, shape in linears().items():
        make.tensor(f"{stem}.weight", shape, F32, "_scale", [])
        make.beside(f"{stem}.input_scale", torch.tensor(0.5))
    for letter in "kv":
        make.beside(f"model.layers.0.self_attn.{letter}_proj.{letter}_scale", torch.tensor(0.25))
