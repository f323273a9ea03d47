"""Small checkpoints of every layout with codes of four bits, with the names and configs of real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from quantised.maker import BF16, E8M0, F32, I8, I32
from quantised.shared import BLOCKS, FP8, INT4, MXFP4, NVFP4, base, compressed, ends, linears, qwen3

if TYPE_CHECKING:
    from quantised.maker import Maker


def modelopt_nvfp4(make: Maker) -> None:
    """ModelOpt, in both files: two scales that multiply."""
    config = qwen3(make)
    said = {
        "quant_algo": "NVFP4",
        "group_size": 16,
        "kv_cache_quant_algo": None,
        "exclude_modules": ["lm_head"],
    }
    make.files["hf_quant_config.json"] = {"producer": {"name": "modelopt"}, "quantization": said}
    config["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
    for stem, shape in linears().items():
        make.nvfp4(stem, shape, divides=False)
        make.beside(f"{stem}.input_scale", torch.tensor(0.5))


def nvfp4(make: Maker) -> None:
    """compressed-tensors: the second scale divides."""
    config = qwen3(make)
    config["quantization_config"] = compressed("nvfp4-pack-quantized", NVFP4)
    for stem, shape in linears().items():
        make.nvfp4(stem, shape, divides=True)
        make.beside(f"{stem}.input_global_scale", torch.tensor([2.0]))


def mixed(make: Maker) -> None:
    """Attention in rows of FP8, the rest in NVFP4."""
    config = qwen3(make)
    config["quantization_config"] = compressed("mixed-precision", {**FP8, "strategy": "channel"}, NVFP4)
    for stem, shape in linears().items():
        if "self_attn" in stem:
            make.channel(f"{stem}.weight", shape, BF16)
        else:
            make.nvfp4(stem, shape, divides=True)


def gpt_oss(make: Maker) -> None:
    """Blocks and exponents; the down projection is square, so that no shape tells how it lies."""
    make.config = base("gpt_oss", 2, num_local_experts=3)
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    make.config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": skipped}
    ends(make)
    for layer in range(2):
        front = f"model.layers.{layer}"
        make.plain(f"{front}.self_attn.sinks", [4])
        make.plain(f"{front}.mlp.router.weight", [3, 160])
        for name, rows in (("gate_up_proj", 320), ("down_proj", 160)):
            make.gpt_oss(f"{front}.mlp.experts.{name}", 3, rows, 160)
            make.plain(f"{front}.mlp.experts.{name}_bias", [3, rows])


def kimi_k3(make: Maker) -> None:
    """MXFP4 of compressed-tensors, which the config says inside of `text_config`."""
    text = base("kimi_linear", 2)
    text["quantization_config"] = compressed("mxfp4-pack-quantized", MXFP4)
    make.config = {
        "architectures": ["KimiK3ForConditionalGeneration"],
        "model_type": "kimi_k3",
        "text_config": text,
    }
    ends(make, "language_model.model.", head="language_model.lm_head.weight")
    front = "language_model.model.layers.1"
    make.plain(f"{front}.self_attn.A_log", [8], F32)
    for expert in range(3):
        for name, shape in (("w1", [96, 160]), ("w2", [160, 96]), ("w3", [96, 160])):
            weight = f"{front}.block_sparse_moe.experts.{expert}.{name}.weight"
            make.mxfp4(weight, shape, f"{weight}_packed", f"{weight}_scale")


def kimi_k2(make: Maker, said: torch.dtype = I32) -> None:
    """Whole numbers of four bits, eight in a word."""
    qwen3(make)["quantization_config"] = compressed("pack-quantized", INT4)
    for stem, shape in linears().items():
        make.int4(stem, shape, said=said)


def kimi_k25(make: Maker) -> None:
    """The same inside of `text_config`, with shapes in 64 bits."""
    kimi_k2(make, torch.int64)
    make.config = {"model_type": "kimi_k25", "text_config": make.config, "dtype": "bfloat16"}


def deepseek_v4(make: Maker, codes: torch.dtype = I8, side: int = 128) -> None:
    """Names of its own, exponents for scales, experts of four bits, and parameters called scales."""
    make.config = base("deepseek_v4", 1)
    said = {**BLOCKS, "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [side, side]}
    (make.config if side == 128 else said)["expert_dtype"] = "fp4"
    make.config["quantization_config"] = said
    make.plain("embed.weight", [48, 160])
    make.plain("head.weight", [48, 160])
    for front in ("layers.0", "mtp.0"):
        make.plain(f"{front}.hc_attn_scale", [3], F32)
        make.plain(f"{front}.attn_norm.weight", [160])
        for name, shape in (("wq_a", [192, 160]), ("wo_b", [160, 200])):
            stem = f"{front}.attn.{name}"
            make.fp8(f"{stem}.weight", shape, E8M0, block=(side, side), scale=f"{stem}.scale")
        for expert in range(2):
            for name, shape in (("w1", [96, 160]), ("w2", [160, 96]), ("w3", [96, 160])):
                stem = f"{front}.ffn.experts.{expert}.{name}"
                make.mxfp4(f"{stem}.weight", shape, f"{stem}.weight", f"{stem}.scale", (codes, E8M0))
    if side != 128:
        make.fp8("engram.embed.weight", [70, 160], E8M0, block=(1, 32), scale="engram.embed.scale")
