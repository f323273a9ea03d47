"""Every layout by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantised import eights, fours
from quantised.maker import E8M0, F4, F16, F32, I8, U8, Maker

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


def made(kind: str, seed: object = 0, *, special: bool = False) -> Maker:
    """A checkpoint of that kind."""
    make = Maker(kind, seed, special)
    KINDS[kind](make)
    return make
