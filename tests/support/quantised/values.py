"""What stored codes and scales mean, in torch's own arithmetic: nothing of taskvec's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_MAGNITUDES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E2M1 = torch.cat([_MAGNITUDES, -_MAGNITUDES])
"""The values of the sixteen codes of four bits; code 8 is −0."""


def e2m1(packed: Tensor) -> Tensor:
    """The float32 values of bytes that hold two codes each, the low half first."""
    octets = packed.view(torch.uint8).long()
    return E2M1[torch.stack([octets & 15, octets >> 4], -1)].flatten(-2)


def int4(words: Tensor, columns: int) -> Tensor:
    """The float32 values of words that hold eight codes each, the lowest bits first, stored as value + 8."""
    shifts = torch.arange(0, 32, 4)
    codes = (words.long().unsqueeze(-1) >> shifts) & 15
    return (codes.flatten(-2)[..., :columns] - 8).float()


def factors(scale: Tensor) -> Tensor:
    """Scales in float32; bytes are exponents, of which 255 is NaN and 0 is 2⁻¹²⁷."""
    return (scale.view(torch.float8_e8m0fnu) if scale.dtype == torch.uint8 else scale).float()


def spread(scale: Tensor, block: Sequence[int], shape: Sequence[int]) -> Tensor:
    """A factor for each element: all of a block share one, and the last blocks are cut off at the edge."""
    rows, columns = block
    wide = factors(scale).repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    return wide[..., : shape[-2], : shape[-1]]
