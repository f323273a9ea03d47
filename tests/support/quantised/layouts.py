"""Every layout by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantised import eights, fours
from quantised.maker import BF16, E8M0, F4, F16, F32, I8, U8, Maker
from quantised.shared import BLOCKS, FP8, INT4, MXFP4, NVFP4, base, compressed

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: dict[str, Callable[[Maker], None]] = {
    "DeepSeek-V3": eights.deepseek_v3,
    "DeepSeek-V3.1": eights.deepseek_v31,
    "blocks under bytes": lambda make: eights.deepseek_v3(make, U8, scale_fmt="ue8m0"),
    "blocks under E8M0": lambda make: eights.deepseek_v3(make, E8M0, scale_fmt="ue8m0"),
    "Qwen3 under BF16": eights.qwen3_fp8,
    "Qwen3 under F16": lambda make: eights.qwen3_fp8(make, F16),
    "fused experts": eights.fused_experts,
    "MXFP8": eights.mxfp8,
    "MXFP8 under E8M0": lambda make: eights.mxfp8(make, E8M0),
    "rows": eights.channels,
    "rows under F32": lambda make: eights.channels(make, F32),
    "rows of experts": eights.expert_channels,
    "rows in a list": eights.listed_channels,
    "whole tensors": eights.tensors,
    "other blocks": eights.blocks,
    "Mistral": eights.mistral,
    "ModelOpt FP8": eights.modelopt_fp8,
    "ModelOpt NVFP4": fours.modelopt_nvfp4,
    "NVFP4": fours.nvfp4,
    "FP8 and NVFP4": fours.mixed,
    "gpt-oss": fours.gpt_oss,
    "Kimi-K3": fours.kimi_k3,
    "Kimi-K2": fours.kimi_k2,
    "Kimi-K2.5": fours.kimi_k25,
    "DeepSeek-V4": fours.deepseek_v4,
    "DeepSeek-V4 in F4": lambda make: fours.deepseek_v4(make, F4),
    "DeepSeek-V4.1": lambda make: fours.deepseek_v4(make, I8, 32),
}  # fmt: skip


# Output of each is some MiB, and hardly a row or a block ends where a MiB does.
LARGE: dict[str, Callable[[Maker, str], None]] = {
    "blocks": lambda make, stem: make.fp8(f"{stem}.weight", [1101, 1301], F32),
    "blocks of three dimensions": lambda make, stem: make.fp8(f"{stem}.weight", [3, 501, 701], BF16),
    "blocks of a row": lambda make, stem: make.fp8(f"{stem}.weight", [1101, 1312], E8M0, block=(1, 32)),
    "rows": lambda make, stem: make.channel(f"{stem}.weight", [1101, 1301], BF16),
    "a whole tensor": lambda make, stem: make.tensor(f"{stem}.weight", [1101, 1301], F32, "_scale", []),
    "NVFP4": lambda make, stem: make.nvfp4(stem, [1101, 1296], divides=True),
    "MXFP4": lambda make, stem: make.mxfp4(
        f"{stem}.weight", [1101, 1312], f"{stem}.weight_packed", f"{stem}.weight_scale"
    ),
    "INT4": lambda make, stem: make.int4(stem, [1101, 1312]),
    "gpt-oss": lambda make, stem: make.gpt_oss("model.layers.0.mlp.experts.gate_up_proj", 3, 736, 1056),
}
_CONFIGS = {
    "blocks of a row": {"quant_method": "mxfp8"},
    "rows": compressed("float-quantized", {**FP8, "strategy": "channel"}),
    "a whole tensor": compressed("float-quantized", {**FP8, "strategy": "tensor"}),
    "NVFP4": compressed("nvfp4-pack-quantized", NVFP4),
    "MXFP4": compressed("mxfp4-pack-quantized", MXFP4),
    "INT4": compressed("pack-quantized", INT4),
    "gpt-oss": {"quant_method": "mxfp4"},
}


def large(kind: str) -> Maker:
    """A checkpoint with one large tensor of some layout and a small one that is plain."""
    make = Maker(kind, "large")
    make.plain("model.norm.weight", [161])
    LARGE[kind](make, "model.layers.0.mlp.down_proj")
    make.config = base("qwen3", 1, quantization_config=_CONFIGS.get(kind, BLOCKS))
    return make


def made(kind: str, seed: object = 0, *, special: bool = False) -> Maker:
    """A checkpoint of that kind."""
    make = Maker(kind, seed, special)
    KINDS[kind](make)
    return make
