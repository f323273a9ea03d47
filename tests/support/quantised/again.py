"""What quantising again gives: the rule of docs/quantised.md in numpy's float32, nothing of taskvec's own.

Blocks are worked on all at once: matrices are padded to whole blocks, see `blocked`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from quantised.chance import away, widened, words
from quantised.values import E2M1, factors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from quantised.maker import Way

    Floats = Codes = Words = NDArray[Any]

# What a code holds at most, and the largest value that is stored with no more than half a step of error.
MOST = {"E4M3": 448.0, "E2M1": 6.0, "INT4": 7.0}
LIMIT = {"E4M3": 464.0, "E2M1": 7.0, "INT4": 7.5}
_TABLES = {
    "E4M3": torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy(),
    "E2M1": E2M1[:8].numpy(),
}


class Unfit(Exception):
    """A block that cannot be quantised again: its first argument is the reason."""


@dataclass
class Figures:
    """What happened to some elements, added up."""

    codes: int = 0
    changed: int = 0
    copied: int = 0
    kept: int = 0
    rescaled: int = 0
    saturated: int = 0
    again: NDArray[Any] = field(default_factory=lambda: np.zeros(5))
    """Σ v², Σ e², Σ e·v, requested, survived."""
    plain: NDArray[Any] = field(default_factory=lambda: np.zeros(5))
    """The same for output in bfloat16."""

    def __iadd__(self, other: Figures) -> Figures:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


def shares(sums: NDArray[Any], alpha: float) -> dict[str, float | None]:
    """Gain, cosine and survival from sums; without a request there are none."""
    v2, e2, ev, requested, survived = map(float, sums)
    alpha = float(np.float32(alpha))
    return {
        "gain": alpha * ev / (alpha**2 * v2) if v2 else None,
        "cosine": alpha * ev / (e2**0.5 * (alpha**2 * v2) ** 0.5) if v2 and e2 else None,
        "survival": survived / requested if requested else None,
    }


def sums(t: Floats, base: Floats, v: Floats, o: Floats, alpha: float) -> NDArray[Any]:
    """See `Figures.again`; over elements that are finite on every side."""
    sound = np.isfinite(t) & np.isfinite(v) & np.isfinite(o)
    requested = sound & (np.float32(alpha) * v != 0)
    survived = requested & (o.view(np.uint32) != base.view(np.uint32))
    t, v, o = (one[sound] for one in (t, v, o))
    wide, e = v.astype(np.float64), (o - t).astype(np.float64)
    return np.array([(wide * wide).sum(), (e * e).sum(), (e * wide).sum(), requested.sum(), survived.sum()])


def unpack(kind: str, stored: Tensor, columns: int) -> Codes:
    """The codes of a stored tensor, one a byte."""
    octets = stored.contiguous().view(torch.uint8).numpy()
    if kind == "E4M3":
        return octets.copy()
    return np.stack([octets & 15, octets >> 4], -1).reshape(*octets.shape[:-1], -1)[..., :columns]


def pack(kind: str, codes: Codes, stored: Tensor) -> Tensor:
    """The inverse, in the type of the stored tensor; rows are not padded."""
    octets = codes if kind == "E4M3" else codes[..., 0::2] | codes[..., 1::2] << 4
    return torch.as_tensor(np.ascontiguousarray(octets)).view(stored.dtype).reshape(stored.shape)


def values(kind: str, codes: Codes) -> Floats:
    """What codes mean before their scale."""
    if kind == "INT4":
        return codes.astype(np.float32) - 8
    if kind == "E2M1":
        return E2M1.numpy()[codes]
    return torch.as_tensor(codes).view(torch.float8_e4m3fn).float().numpy()


def nearest(kind: str, x: Floats) -> Codes:
    """The closest code, of two the even one; what is too large becomes the largest, NaN is 0x7F."""
    if kind == "INT4":
        return (np.clip(np.rint(x), -8, 7) + 8).astype(np.uint8)
    table = _TABLES[kind].astype(np.float64)
    middles = (table[1:] + table[:-1]) / 2
    magnitude = np.abs(x).astype(np.float64)
    code = np.searchsorted(middles, magnitude)
    tied = (code < len(middles)) & (middles[np.minimum(code, len(middles) - 1)] == magnitude)
    return _signed(kind, x, code + (tied & (code % 2 == 1)))


def stochastic(kind: str, x: Floats, random: Words) -> Codes:
    """A neighbour by chance; its random number decides."""
    if kind == "INT4":
        return (np.clip(away(x, random), -8, 7) + 8).astype(np.uint8)
    bits = 3 if kind == "E4M3" else 1
    small = 2.0**-6 if kind == "E4M3" else 1.0
    step = small / (1 << bits)
    magnitude = np.abs(x)
    low = away(magnitude / np.float32(step), random) * step
    drop = 23 - bits
    patterns = magnitude.view(np.uint32).astype(np.uint64) + (random >> np.uint32(32 - drop))
    high = (patterns >> drop << drop).astype(np.uint32).view(np.float32)
    found = np.where(magnitude < small, low, np.where(np.isfinite(high), high, MOST[kind]))
    table = _TABLES[kind].astype(np.float64)
    return _signed(kind, x, np.searchsorted(table, np.minimum(found, MOST[kind])))


def _signed(kind: str, x: Floats, code: NDArray[Any]) -> Codes:
    sign = 0x80 if kind == "E4M3" else 8
    found = np.where(np.signbit(x), code + sign, code)
    return np.where(np.isnan(x), 0x7F, found).astype(np.uint8)


def stored_scale(scale: Floats, dtype: torch.dtype) -> Tensor:
    """Scales in their type: to nearest, exponents upwards. None becomes 0."""
    if dtype in (torch.uint8, torch.float8_e8m0fnu):
        mantissa, exponent = np.frexp(scale.astype(np.float64))
        exponent = np.where(mantissa == 0.5, exponent - 1, exponent)
        if (exponent > 127).any():
            raise Unfit("type")
        return torch.as_tensor(np.clip(exponent + 127, 1, 254).astype(np.uint8)).view(dtype)
    found = torch.as_tensor(scale).to(dtype)
    least = torch.tensor(1, dtype=torch.int32 if dtype.itemsize == 4 else torch.int16).view(dtype)
    return torch.where((found == 0) & torch.as_tensor(scale > 0), least, found)


def raised(scale: Floats, dtype: torch.dtype) -> Tensor:
    """As `stored_scale`, but never below."""
    found = stored_scale(scale, dtype)
    whole = torch.int32 if dtype.itemsize == 4 else torch.int16
    above = (found.view(whole) + 1).view(dtype)
    return torch.where(torch.as_tensor(found.float().numpy() < scale), above, found)


def chosen(way: Way, codes: Codes, scale: Tensor, seen: Floats, touched: Any, mode: str) -> Tensor:
    """The scales of all blocks; those of untouched blocks as they are."""
    kind, dtype = way.codes, scale.dtype
    old = factors(scale).numpy().reshape(touched.shape)
    finite = np.where(np.isfinite(seen), seen, np.float32(0))
    high, low = (np.maximum(one, 0).max((2, 3)) for one in (finite, -finite))
    most = np.maximum(high, low)
    change = touched & (most > 0) & (not way.whole)
    stored = scale.clone().reshape(touched.shape)
    if mode == "fresh":
        new = stored_scale(np.where(change, most / np.float32(MOST[kind]), 1).astype(np.float32), dtype)
    else:
        deep = LIMIT[kind] + ((codes == 0).any((2, 3)) if kind == "INT4" else 0.0)
        above: Floats = np.where(old < 0, low, high)
        below: Floats = np.where(old < 0, high, low)

        def fits(scale: Floats) -> NDArray[Any]:
            wide: Floats = np.abs(scale.astype(np.float64))
            return (above <= LIMIT[kind] * wide) & (below <= deep * wide)

        zero = change & (old == 0)
        change &= ~fits(old)
        wanted = np.where(change, old, 1).astype(np.float32)
        if kind == "INT4":
            new = raised(np.where(change, most / np.float32(7), 1).astype(np.float32), dtype)
        else:
            while (again := change & ~zero & ~fits(wanted)).any():
                wanted = np.where(again, wanted * np.float32(2), wanted)
            new = stored_scale(np.abs(wanted), dtype)
            if not (factors(new).numpy() == np.abs(wanted))[change & ~zero].all():
                raise Unfit("type")
            if (wanted < 0).any():
                new = torch.where(torch.as_tensor(wanted < 0), -new, new)
        first = stored_scale(np.where(zero, most / np.float32(MOST[kind]), 1).astype(np.float32), dtype)
        new = torch.where(torch.as_tensor(zero), first.float(), new.float()).to(dtype) if zero.any() else new
    if not np.isfinite(factors(new).numpy()).all():
        raise Unfit("type")
    if dtype.itemsize == 1:
        new, stored = new.view(torch.uint8), stored.view(torch.uint8)
    return torch.where(torch.as_tensor(change), new, stored).view(dtype)


def blocked(array: NDArray[Any], block: tuple[int, int]) -> NDArray[Any]:
    """A stack of matrices as rows of blocks, columns of blocks, rows, columns; what pads them is 0."""
    rows, columns = block
    wide = np.pad(array, ((0, 0), (0, -array.shape[1] % rows), (0, -array.shape[2] % columns)))
    return wide.reshape(-1, rows, wide.shape[2] // columns, columns).swapaxes(1, 2)


@np.errstate(all="ignore")
def requantised(
    way: Way,
    stored: Tensor,
    scale: Tensor,
    operands: tuple[Floats, Floats, Floats],
    *,
    alpha: float,
    mode: str = "keep",
    key: tuple[int, str] | None = None,
) -> tuple[Tensor, Tensor, Figures]:
    """New codes and scales of one weight, from its values, the results and the request before α.

    With a key, a seed and a name, rounding is stochastic.
    """
    kind, shape = way.codes, operands[0].shape
    t, r, v = (one.reshape(-1, *shape[-2:]) for one in operands)
    # One scale for all matrices is that of all their rows.
    if way.whole:
        t, r, v = (one.reshape(1, -1, shape[-1]) for one in (t, r, v))
    block = (t.shape[1], t.shape[2]) if way.whole else way.block
    codes = unpack(kind, stored, shape[-1]).reshape(t.shape)
    same = (r == t) | (np.isnan(r) & np.isnan(t))
    seen = np.where(same, t, r)
    # A pad is no change, and no code of an integer.
    touched = blocked(~same, block).any((2, 3))
    asked = blocked(v != 0, block).any((2, 3))
    old = factors(scale).numpy().reshape(touched.shape)
    if (asked & ~np.isfinite(old)).any():
        raise Unfit("scale")
    new = chosen(way, blocked(codes + 1, block) - 1, scale, blocked(seen, block), touched, mode)

    def spread(scales: Floats) -> Floats:
        wide = (
            scales.repeat(block[0], 0).repeat(block[1], 1).reshape(t.shape[0], -1, scales.shape[1] * block[1])
        )
        return wide[:, : t.shape[1], : t.shape[2]]

    was, now = spread(old), spread(factors(new).numpy())
    x = seen / now
    random = words(*key, x.size).reshape(x.shape) if key else None
    found = nearest(kind, x) if random is None else stochastic(kind, x, random)
    kept = same & (was.view(np.uint32) == now.view(np.uint32))
    if kind != "E4M3" and (np.isnan(x) & ~kept).any():
        raise Unfit("NaN")
    found = np.where(kept, codes, found)
    limit = np.where(np.signbit(x), LIMIT[kind] + (kind == "INT4"), LIMIT[kind])
    saturated = ~kept & (np.abs(x).astype(np.float64) > limit)
    bits = {4: torch.int32, 2: torch.int16, 1: torch.uint8}[scale.dtype.itemsize]
    moved = (new.view(bits) != scale.reshape(new.shape).view(bits)).numpy()
    o = values(kind, found) * now
    base, plain = (widened(one, random) for one in (t, r))
    figures = Figures(
        codes=found.size,
        changed=int((found != codes).sum()),
        copied=int((~touched).sum()),
        kept=int((touched & ~moved).sum()),
        rescaled=int(moved.sum()),
        saturated=int(saturated.sum()),
        again=sums(t, t, v, o, alpha),
        plain=sums(t, base, v, plain, alpha),
    )
    return pack(kind, found, stored), new.reshape(scale.shape), figures
