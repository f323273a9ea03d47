"""What becomes of single blocks: limits of scales, codes that are no numbers, results that no code holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from families import read, write
from quantised.again import Unfit
from quantised.maker import BF16, E8M0, F16, F32, I32, U8, Maker, Way
from quantised.outcome import assert_outcome, outcome
from quantised.shared import BLOCKS, FP8, INT4, MXFP4, base, compressed
from quantised.values import e2m1, int4, spread
from taskvec import CorruptError, MismatchError, apply, extract, transfer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from taskvec import WriteResult

NAME = "model.layers.0.mlp.down_proj.weight"
NAN, INF = float("nan"), float("inf")
CONFIGS: dict[str, Any] = {
    "blocks": BLOCKS,
    "tensor": compressed("float-quantized", {**FP8, "strategy": "tensor"}),
    "MXFP4": compressed("mxfp4-pack-quantized", MXFP4),
    "INT4": compressed("pack-quantized", INT4),
}


def target(layout: str, codes: Tensor, scales: Tensor) -> Maker:
    """A checkpoint of one weight, from its codes, one a byte, and its scales."""
    make = Maker(layout)
    make.config = base("qwen3", 1, quantization_config=CONFIGS[layout])
    shape = list(codes.shape)
    pairs = codes[..., 0::2] | codes[..., 1::2] << 4
    if layout in ("blocks", "tensor"):
        whole = layout == "tensor"
        block = (shape[0], shape[1]) if whole else (128, 128)
        stored, kind, scale = codes.view(torch.float8_e4m3fn), "E4M3", f"{NAME}_scale" + "_inv" * (not whole)
        values, name = stored.float() * spread(scales.reshape(-1, 1) if whole else scales, block, shape), NAME
    else:
        whole, block, name, scale = False, (1, 32), f"{NAME}_packed", f"{NAME}_scale"
        stored, kind = (pairs, "E2M1") if layout == "MXFP4" else (pairs.view(I32), "INT4")
        values = (e2m1(pairs) if layout == "MXFP4" else int4(stored, shape[1])) * spread(scales, block, shape)
        if layout == "INT4":
            make.stored[f"{NAME}_shape"] = torch.tensor(shape)
    make.stored |= {name: stored, scale: scales}
    make.mean(NAME, name, values)
    make.ways[NAME] = Way(kind, scale, block, whole)
    return make


def run(
    folder: Path, make: Maker, v: Tensor, alpha: float = 1.0, s: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor, WriteResult]:
    """New codes, a byte each of the file, and scales; all of it compared with the tests' own arithmetic."""
    s = torch.zeros_like(v) if s is None else s
    paths = [
        write(folder / "t", make.stored, config=make.config),
        write(folder / "g", {NAME: v}, config=base("qwen3", 1)),
        write(folder / "s", {NAME: s}, config=base("qwen3", 1)),
    ]
    result = transfer(*paths, folder / "out", alpha=alpha, requantise=True, overwrite=True, **options)
    wanted = outcome(make, [({NAME: v}, {NAME: s}, alpha)], mode=options.get("scales", "keep"))
    assert_outcome(folder / "out", wanted, options)
    found = read(folder / "out")
    codes = found[make.coded[NAME]].view(torch.uint8)
    return codes, found[make.ways[NAME].scale], result


def at(shape: tuple[int, int], **where: float) -> Tensor:
    """Zeros but for some elements, by number."""
    v = torch.zeros(shape)
    for place, value in where.items():
        v.view(-1)[int(place[1:])] = value
    return v


def every_code(rows: int = 128, columns: int = 128) -> Tensor:
    codes = torch.arange(rows * columns).remainder(256).to(U8).reshape(rows, columns)
    codes[codes & 0x7F == 0x7F] = 0x7E
    return codes


@pytest.mark.parametrize("dtype", [F32, BF16, F16, E8M0, U8])
def test_the_largest_value_decides(dtype: torch.dtype, tmp_path: Path) -> None:
    """To 464 · scale the scale is kept; beyond it is doubled as often as needed, and values stay."""
    scale = torch.tensor([[118]], dtype=U8).view(E8M0).float()
    stored = torch.tensor([[118]], dtype=U8).view(dtype) if dtype in (E8M0, U8) else scale.to(dtype)
    size, codes = scale.item(), every_code()
    make = target("blocks", codes, stored)
    # Element 0x7E is 448.
    shape = (128, 128)
    step = 16 * size
    found, new, result = run(tmp_path, make, at(shape, _126=step))
    assert torch.equal(found, codes)
    assert torch.equal(new.view(U8), stored.view(U8))
    assert result.requantised is not None
    assert (result.requantised.blocks_kept, result.requantised.codes_changed) == (1, 0)
    above = float(np.nextafter(np.float32(464 * size), np.float32(INF)) - np.float32(448 * size))
    for place, value, doublings in ((126, above, 1), (254, -above, 1), (126, 3000 * size, 3)):
        found, new, result = run(tmp_path, make, at(shape, **{f"_{place}": value}))
        assert result.requantised is not None
        assert (result.requantised.blocks_rescaled, result.requantised.saturated) == (1, 0)
        wide = (new if dtype is not U8 else new.view(E8M0)).float()
        assert wide.item() == size * 2**doublings
        values = found.view(torch.float8_e4m3fn).float() * wide
        # The least codes lose their last bits, all others move by whole exponents.
        exact = (make.logical[NAME].abs() >= size * 2.0 ** (doublings - 6)) & (at(shape, _126=1, _254=1) == 0)
        assert torch.equal(values[exact], make.logical[NAME][exact])
        assert found[1, 0] == 0x80


@pytest.mark.parametrize("scales", ["keep", "fresh"])
@pytest.mark.parametrize("dtype", [F32, BF16, F16])
def test_a_block_without_a_scale_gets_one(dtype: torch.dtype, scales: str, tmp_path: Path) -> None:
    make = target("blocks", every_code(130, 130), torch.tensor([[0, 1], [1, 0]], dtype=dtype))
    _, new, _ = run(tmp_path, make, at((130, 130), _5=3.0), scales=scales)
    assert torch.equal(new, torch.tensor([[3 / 448, 1], [1, 0]]).to(dtype))


def test_negative_scales(tmp_path: Path) -> None:
    make = target("blocks", every_code(), torch.tensor([[-0.5]]))
    assert run(tmp_path, make, at((128, 128), _126=-100.0))[1].item() == -1
    codes = torch.arange(64, dtype=U8).remainder(15).reshape(1, 64) + 1
    make = target("INT4", codes, torch.tensor([[-1.0, -1.0]], dtype=BF16))
    # The codes −8 would hold 8 under it, but the block does not use them; −7.5 and 7.5 are the ends.
    assert run(tmp_path / "4", make, at((1, 64), _7=7.5))[1].tolist() == [[-1, -1]]


@pytest.mark.parametrize(("lowest", "value", "kept"), [
    (0, -8.5, True), (0, -8.75, False), (1, -7.5, True), (1, -7.75, False), (0, 7.5, True), (0, 7.75, False),
])  # fmt: skip
def test_integers_reach_further_down_where_they_do(
    lowest: int, value: float, kept: bool, tmp_path: Path
) -> None:
    codes = torch.full((1, 32), 8, dtype=U8)
    codes[0, 3] = lowest
    make = target("INT4", codes, torch.tensor([[2.0]], dtype=BF16))
    _, new, result = run(tmp_path, make, at((1, 32), _9=2 * value))
    assert result.requantised is not None
    assert result.requantised.saturated == 0
    assert (new.item() == 2) == kept
    if not kept:
        # Never below the largest value / 7.
        assert new.item() >= 2 * max(abs(value), 8 - lowest) / 7


def test_numbers_that_no_type_of_scale_can_hold(tmp_path: Path) -> None:
    make = target("blocks", every_code(), torch.tensor([[60000]], dtype=F16))
    for scales in ("keep", "fresh"):
        with pytest.raises(MismatchError, match=NAME) as refusal:
            run(tmp_path, make, at((128, 128), _5=1e9), scales=scales)
        assert "scales that their type cannot hold" in str(refusal.value)
        assert not any((tmp_path / "out").glob("*.safetensors"))
        with pytest.raises(Unfit, match="type"):
            outcome(make, [({NAME: at((128, 128), _5=1e9)}, {NAME: torch.zeros(128, 128)}, 1.0)], mode=scales)


@pytest.mark.parametrize("scale", [NAN, INF, -INF])
def test_a_request_to_a_block_whose_scale_is_no_number(scale: float, tmp_path: Path) -> None:
    make = target("blocks", every_code(128, 256), torch.tensor([[1, scale]]))
    codes, new, _ = run(tmp_path, make, at((128, 256), _5=1.0))
    assert torch.equal(new.view(U8), torch.tensor([[1, scale]]).view(U8))
    assert torch.equal(codes[:, 128:], every_code(128, 256)[:, 128:])
    with pytest.raises(CorruptError, match=NAME):
        run(tmp_path, make, at((128, 256), _5=1.0, _200=1e-9))
    assert sorted(read(tmp_path / "out")) == sorted(make.stored)


def test_results_that_are_no_numbers(tmp_path: Path) -> None:
    """NaN has one code whatever made it; what is infinite is as large as it gets."""
    shape = (128, 128)
    minus = np.array([0xFFC00000], np.uint32).view(np.float32)
    v = at(shape, _1=NAN, _3=INF, _4=-INF, _5=INF)
    v[0, 2] = torch.as_tensor(minus)[0]
    s = at(shape, _5=INF)
    make = target("blocks", every_code(), torch.tensor([[2.0**-9]]))
    for scales in ("keep", "fresh"):
        codes, _, result = run(tmp_path, make, v, s=s, scales=scales)
        assert codes[0, 1:6].tolist() == [0x7F, 0x7F, 0x7E, 0xFE, 0x7F]
        assert result.effect.nonfinite_inputs == 5
    for layout in ("MXFP4", "INT4"):
        scale = torch.tensor([[127]], dtype=U8) if layout == "MXFP4" else torch.ones(1, 1, dtype=BF16)
        make = target(layout, torch.full((1, 32), 9, dtype=U8), scale)
        codes, _, _ = run(tmp_path / layout, make, at((1, 32), _0=INF, _1=-INF))
        assert codes[0, 0] == (0xF7 if layout == "MXFP4" else 0x0F)
        with pytest.raises(MismatchError, match=NAME) as refusal:
            run(tmp_path / layout, make, at((1, 32), _0=NAN))
        assert "NaN" in str(refusal.value)


def test_codes_of_unchanged_elements_keep_their_signs(tmp_path: Path) -> None:
    codes = every_code()
    codes[0, :4] = torch.tensor([0x80, 0xFF, 0x7F, 0])
    # Under a larger scale −0 stays as well, and NaN is NaN. A request to what is NaN changes nothing.
    for value in (1.0, 1000.0):
        v = at((128, 128), _1=1.0, _2=1.0, _9=value)
        found, _, _ = run(tmp_path, target("blocks", codes, torch.tensor([[1.0]])), v)
        assert found[0, 0] == 0x80
        assert (found[0, 1] == 0xFF) == (value == 1)
    # Less than f32 can say is no request either.
    found, _, _ = run(tmp_path, target("blocks", codes, torch.tensor([[1.0]])), at((128, 128), _0=1e-45), 0.1)
    assert torch.equal(found, codes)


@pytest.mark.parametrize("scales", ["keep", "fresh"])
def test_the_scale_of_a_tensor_stays(scales: str, tmp_path: Path) -> None:
    make = target("tensor", every_code(100, 96), torch.tensor([0.5]))
    found, new, result = run(tmp_path, make, at((100, 96), _5=1000.0, _6=-1000.0, _7=231.0), scales=scales)
    assert new.tolist() == [0.5]
    assert found[0, 5:8].tolist() == [0x7E, 0xFE, 0x7E]
    done = result.requantised
    assert done is not None
    assert (done.blocks_kept, done.blocks_rescaled, done.blocks_copied, done.saturated) == (1, 0, 0, 2)


@pytest.mark.parametrize("shape", [(96, 100), (128, 128), (1, 1)])
def test_a_single_block_is_a_block(shape: tuple[int, int], tmp_path: Path) -> None:
    make = target("blocks", every_code(*shape), torch.tensor([[0.5]]))
    assert run(tmp_path, make, at(shape, _0=1000.0))[1].item() == 4


def test_vectors_that_cancel_leave_what_arithmetic_leaves(tmp_path: Path) -> None:
    """What is quantised is what f32 output would hold, also where the request is 0 and bits are lost."""
    make = target("blocks", every_code(), torch.tensor([[2.0**-9]]))
    zero, v = torch.zeros(128, 128), at((128, 128), _5=1e8, _100=1e-3)
    paths = [write(tmp_path / "t", make.stored, config=make.config)]
    for name, one in (("g", v), ("s", zero)):
        paths.append(write(tmp_path / name, {NAME: one}, config=base("qwen3", 1)))
    extract(*paths[1:], tmp_path / "v")
    apply(paths[0], [tmp_path / "v"] * 2, tmp_path / "out", alpha=[1, -1], requantise=True)
    vectors = [({NAME: v}, {NAME: zero}, alpha) for alpha in (1.0, -1.0)]
    assert_outcome(tmp_path / "out", outcome(make, vectors))
    assert read(tmp_path / "out")[NAME].view(U8)[0, 5] == 0
