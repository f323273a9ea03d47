"""The tests' own reading of quantised checkpoints against the libraries that define the formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from compressed_tensors.compressors.mxfp4.base import MXFP4PackedCompressor
from compressed_tensors.compressors.naive_quantized.base import FloatQuantizationCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

from families import NAMES, assert_same
from quantised.layouts import KINDS, made
from quantised.maker import BF16, E4M3, E8M0, F4, F16, F32, I8, U8, Maker
from quantised.values import E2M1, e2m1

if TYPE_CHECKING:
    from torch import Tensor

COMPRESSED = (
    "rows", "rows under F32", "whole tensors", "other blocks", "NVFP4", "FP8 and NVFP4", "Kimi-K3", "Kimi-K2",
    "Kimi-K2.5",
)  # fmt: skip


def library(make: Maker, name: str) -> Tensor:
    """What compressed-tensors makes of one weight, computed in float32."""
    text = make.config.get("text_config", make.config)
    said = text.get("quantization_config") or text["compression_config"]
    groups = [QuantizationScheme.model_validate(one) for one in said["config_groups"].values()]
    bits = 8 if make.stored[make.coded[name]].dtype == E4M3 else 4
    (scheme,) = [one for one in groups if one.weights is not None and one.weights.num_bits == bits]
    stem = name.removesuffix("weight")
    parts: dict[str, Any] = {
        key[len(stem) :]: one for key, one in make.stored.items() if key.startswith(stem)
    }
    if said["format"] == "mxfp4-pack-quantized":
        # In bfloat16, which holds all of these values.
        return MXFP4PackedCompressor.decompress(parts, scheme)["weight"].float()
    # The library computes in the type of the scale.
    parts["weight_scale"] = parts["weight_scale"].float()
    if said["format"] == "pack-quantized":
        return PackedQuantizationCompressor.decompress(parts, scheme)["weight"]
    if bits == 8:
        return FloatQuantizationCompressor.decompress(parts, scheme)["weight"]
    packed = parts["weight_packed"]
    values = unpack_fp4_from_uint8(packed, packed.shape[0], 2 * packed.shape[1], torch.float32)
    return dequantize(
        values,
        parts["weight_scale"],
        args=scheme.weights,
        dtype=torch.float32,
        global_scale=parts["weight_global_scale"],
    )


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("special", [False, True])
def test_compressed_tensors_reads_the_same(kind: str, special: bool) -> None:
    # The library takes exponent 255 for infinity, where the definition of the format says NaN.
    make = made(kind, special=special and kind != "Kimi-K3")
    assert make.coded
    for name in make.coded:
        assert_same(library(make, name), make.logical[name], name)


@pytest.mark.parametrize("dtype", [F32, BF16, F16, E8M0, U8])
@pytest.mark.parametrize(
    ("shape", "block"), [([256, 384], (128, 128)), ([3, 96], (1, 32)), ([2, 64, 96], (32, 32))]
)
def test_transformers_reads_whole_blocks_the_same(dtype: torch.dtype, shape: list[int], block: Any) -> None:
    # It takes the blocks from the shapes, so that only whole ones can be compared.
    make = Maker("whole blocks", dtype, special=dtype not in (E8M0, U8))
    make.fp8("w.weight", shape, dtype, block=block)
    reader = Fp8Dequantize(None)
    found = reader._dequantize_one(make.stored["w.weight"], make.stored["w.weight_scale_inv"], torch.float32)
    assert_same(found, make.logical["w.weight"])


@pytest.mark.parametrize("dtype", [I8, F4])
def test_transformers_reads_pairs_of_four_bits_the_same(dtype: torch.dtype) -> None:
    make = Maker("pairs", dtype)
    make.mxfp4("w.weight", [70, 96], "w.weight", "w.scale", (dtype, E8M0))
    found = Fp8Dequantize(None)._dequantize_one(
        make.stored["w.weight"], make.stored["w.scale"], torch.float32
    )
    assert_same(found, make.logical["w.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_reads_gpt_oss_the_same(dtype: torch.dtype) -> None:
    make = made("gpt-oss")
    for name in make.coded:
        blocks, scales = make.stored[f"{name}_blocks"], make.stored[f"{name}_scales"]
        found = _convert_moe_packed_tensors(blocks, scales, dtype=dtype)
        assert_same(found.float().contiguous(), make.logical[name], name)


def test_every_code_has_the_value_of_its_definition() -> None:
    for code in range(16):
        sign, exponent, mantissa = -1.0 if code & 8 else 1.0, code >> 1 & 3, code & 1
        wanted = mantissa / 2 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
        assert_same(E2M1[code], torch.tensor(sign * wanted))
    every = torch.arange(256).to(U8)
    assert_same(e2m1(every)[:4], torch.tensor([0, 0, 0.5, 0]))
    for code, value in enumerate(every.view(E4M3).float()):
        exponent, mantissa = code >> 3 & 15, code & 7
        wanted = 2.0**-6 * mantissa / 8 if exponent == 0 else 2.0 ** (exponent - 7) * (1 + mantissa / 8)
        wanted = float("nan") if code & 0x7F == 0x7F else wanted
        assert_same(value, torch.tensor(-wanted if code & 0x80 else wanted), code)
    # The least exponent is a subnormal number, and the largest means NaN.
    wanted = torch.tensor([2.0 ** (code - 127) for code in range(255)] + [float("nan")])
    assert_same(every.view(E8M0).float(), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_is_what_it_says(kind: str) -> None:
    """Finite values without special ones, all codes of eight bits, and NaN only where they are asked for."""
    make, special = made(kind), made(kind, special=True)
    assert make.logical.keys() == special.logical.keys()
    for name, values in make.logical.items():
        assert values.isfinite().all(), name
        assert values.is_contiguous(), name
        assert (name in make.coded) == (values is not make.stored.get(name)), name
    assert any(values.isnan().any() for values in special.logical.values())
    for one in make.stored.values():
        if one.numel() >= 4096 and NAMES[one.dtype] in ("F8_E4M3", "U8", "I8", "F4"):
            codes = one.view(torch.uint8).unique().numel()
            assert codes >= (254 if one.dtype == E4M3 else 25), codes
