"""How much of a vector between quantised donors is rounding noise: what is said, and what is known here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from families import generator, write
from quantised.shared import BLOCKS
from taskvec import advise, extract, transfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from taskvec import WriteResult

SIDE, SIZE = 128, 384
NAME = "model.layers.0.mlp.up_proj.weight"


def step_of_bf16(weight: Tensor) -> Tensor:
    """±1 unit in the last place of bfloat16, or none: what a short run of reinforcement learning does."""
    unit = torch.exp2(torch.frexp(weight)[1].float() - 8)
    return unit * torch.randint(-1, 2, weight.shape, generator=generator("units"))


def relative(size: float) -> Callable[[Tensor], Tensor]:
    return lambda weight: size * 0.02 * torch.randn(weight.shape, generator=generator("moved"))


def blocks(weight: Tensor) -> Tensor:
    return weight.view(SIZE // SIDE, SIDE, SIZE // SIDE, SIDE)


def quantised(folder: Path, weight: Tensor, scale: Tensor) -> tuple[Path, Tensor]:
    """The folder, and the values that it holds."""
    codes = (blocks(weight) / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    tensors = {NAME: codes.view(SIZE, SIZE), f"{NAME}_scale_inv": scale.view(SIZE // SIDE, SIZE // SIDE)}
    made = write(folder, tensors, config={"model_type": "qwen3", "quantization_config": BLOCKS})
    return made, (codes.float() * scale).view(SIZE, SIZE)


def scales(weight: Tensor) -> Tensor:
    return blocks(weight).abs().amax((1, 3), keepdim=True) / 448


def extracted(g: Path, s: Path, out: Path) -> WriteResult:
    result = extract(g, s, out).written
    assert result is not None
    return result


def plain(folder: Path, weight: Tensor) -> Path:
    return write(folder, {NAME: weight.bfloat16()}, config={"model_type": "qwen3"})


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    ("change", "least", "most"),
    [
        (step_of_bf16, 0.9, 1.0),
        (relative(0.01), 0.75, 0.95),
        (relative(0.05), 0.25, 0.45),
        (relative(0.5), 0, 0.02),
    ],
)
def test_the_share_is_near_the_true_one_and_not_below_it(
    change: Callable[[Tensor], Tensor], least: float, most: float, fresh: bool, tmp_path: Path
) -> None:
    sft = (0.02 * torch.randn(SIZE, SIZE, generator=generator("sft"))).bfloat16().float()
    asked = change(sft)
    scale = scales(sft)
    s, its = quantised(tmp_path / "s", sft, scale)
    g, mine = quantised(tmp_path / "g", sft + asked, scales(sft + asked) if fresh else scale)
    v = mine - its
    true = float((v - asked).square().sum() / v.square().sum())
    # What is known here is what was meant to be tested.
    assert least <= true <= most
    vector = extracted(g, s, tmp_path / "v")
    said = vector.effect.grid_noise
    assert said is not None
    assert -0.005 < said - true < 0.17
    written = transfer(plain(tmp_path / "t", sft), g, s, tmp_path / "o", alpha=0.5)
    assert written.effect.grid_noise == pytest.approx(said, rel=1e-12)
    for result in (vector, written):
        assert f"up to {100 * said:.0f} % of the vector's squared norm is rounding noise" in " ".join(
            result.warnings
        )
    again = transfer(s, g, s, tmp_path / "again", alpha=0.5, requantise=True)
    assert again.effect.grid_noise == pytest.approx(said, abs=0.05)
    first, *_ = advise(tmp_path / "t", g, s, alphas=[0.5]).variants
    assert first.effect.grid_noise == pytest.approx(said, rel=1e-12)


def test_one_quantised_donor_brings_the_noise_of_its_own_grid(tmp_path: Path) -> None:
    sft = (0.02 * torch.randn(SIZE, SIZE, generator=generator("sft"))).bfloat16().float()
    asked = relative(0.05)(sft)
    s, grpo = plain(tmp_path / "s", sft), (sft + asked).bfloat16().float()
    g, mine = quantised(tmp_path / "g", grpo, scales(grpo))
    v = mine - sft
    true = float((v - asked).square().sum() / v.square().sum())
    assert extracted(g, s, tmp_path / "v").effect.grid_noise == pytest.approx(true, abs=0.05)


def test_donors_that_are_not_quantised_have_none(tmp_path: Path) -> None:
    sft = 0.02 * torch.randn(SIZE, SIZE, generator=generator("sft"))
    s, g = plain(tmp_path / "s", sft), plain(tmp_path / "g", sft + relative(0.05)(sft))
    target, _ = quantised(tmp_path / "t", sft, scales(sft))
    for result in (extracted(g, s, tmp_path / "v"), transfer(target, g, s, tmp_path / "o")):
        assert result.effect.grid_noise is None
        assert "rounding noise" not in " ".join(result.warnings)
