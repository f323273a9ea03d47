"""What each merge method computes, in numpy, written from the formulas of mergekit 0.1.5 and of the papers.

Arrays are float32 where a value is a weight, float64 where it is a sum over a tensor. `b` is the base, `xs`
are the other models. Masks are given where they are drawn.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array = np.ndarray[Any, np.dtype[Any]]
F = np.float32


def linear(xs: Sequence[Array], weights: Sequence[float], normalize: bool) -> Array:
    total = np.zeros_like(xs[0])
    for x, w in zip(xs, weights, strict=True):
        total = total + x * F(w)
    return total / sum((F(w) for w in weights), F(0)) if normalize else total


def largest(delta: Array, density: float) -> Array:
    """Which elements TIES keeps: the k largest, of equal ones the first."""
    k = max(1, int(density * delta.size))
    order = np.lexsort((np.arange(delta.size), -np.abs(delta).ravel().astype(np.float64)))
    mask = np.zeros(delta.size, bool)
    mask[order[:k]] = True
    return mask.reshape(delta.shape)


def band(delta: Array, density: float, gamma: float) -> Array:
    """Which elements breadcrumbs keeps: positions in ascending order, of equal ones the first comes first."""
    n = delta.size
    target, top = int(density * n), int(gamma * n)
    low = max(0, n - target - top)
    order = np.lexsort((np.arange(n), np.abs(delta).ravel().astype(np.float64)))
    mask = np.zeros(n, bool)
    mask[order[low : low + target]] = True
    return mask.reshape(delta.shape)


def rescaled(delta: Array, masked: Array) -> Array:
    whole, kept = F(np.abs(delta).sum(dtype=np.float64)), F(np.abs(masked).sum(dtype=np.float64))
    return masked if whole < 1e-7 or kept < 1e-7 else masked * (whole / kept)


def family(
    b: Array,
    xs: Sequence[Array],
    weights: Sequence[float],
    masks: Sequence[Array | None],
    *,
    election: bool,
    normalize: bool,
    rescale: bool = False,
    lam: float = 1.0,
) -> Array:
    """task_arithmetic, ties, dare, della and breadcrumbs, once it is known which elements are kept."""
    ds = []
    for x, w, mask in zip(xs, weights, masks, strict=True):
        delta = x - b
        if mask is not None:
            masked = np.where(mask, delta, F(0))
            delta = rescaled(delta, masked) if rescale else masked
        ds.append(delta * F(w))
    if not ds:
        return b
    total = ds[0]
    for d in ds[1:]:
        total = total + d
    if election:
        sign = np.where(total >= 0, F(1), F(-1))
        mix, div = np.zeros_like(b), np.zeros_like(b)
        for d, w in zip(ds, weights, strict=True):
            agrees = np.sign(d) == sign
            mix = mix + np.where(agrees, d, F(0))
            div = div + np.where(agrees, F(w), F(0))
        div = np.where(div == 0, F(1), div)
    else:
        mix, div = total, sum((F(w) for w in weights), F(0))
        div = F(1) if abs(div) < 1e-8 else div
    if normalize:
        mix = mix / div
    return b + mix * F(lam)


def dot(a: Array, b: Array) -> float:
    return float(np.dot(a.ravel().astype(np.float64), b.ravel().astype(np.float64)))


def norm(a: Array) -> float:
    return dot(a, a) ** 0.5


def arc(a: Array, b: Array, t: float, cosine: float) -> Array:
    theta = np.arccos(cosine)
    left, right = np.sin((1 - t) * theta) / np.sin(theta), np.sin(t * theta) / np.sin(theta)
    return left * a.astype(np.float64) + right * b.astype(np.float64)


def slerp(a: Array, b: Array, t: float) -> Array:
    na, nb = (n if n > 1e-8 else 1.0 for n in (norm(a), norm(b)))
    cosine = float(np.clip(dot(a, b) / na / nb, -1, 1))
    if abs(cosine) > 0.9995:
        return (F(1) - F(t)) * a + F(t) * b
    return arc(a, b, t, cosine)


def nuslerp(x: Array, y: Array, t: float) -> Array:
    """Of one pair of vectors."""
    cosine = float(np.clip(dot(x, y) / max(norm(x), 1e-7) / max(norm(y), 1e-7), -1, 1))
    if 1 - cosine**2 <= 1e-16:
        return (1 - t) * x.astype(np.float64) + t * y.astype(np.float64)
    return arc(x, y, t, cosine)


def by_rows(one: Callable[..., Array], *arrays: Array) -> Array:
    """The same for each row: the last axis."""
    width = arrays[0].shape[-1]
    rows = [one(*row) for row in zip(*(array.reshape(-1, width) for array in arrays), strict=True)]
    return np.array(rows).reshape(arrays[0].shape)


def stock(b: Array, *xs: Array) -> Array:
    os = [x - b for x in xs]
    cosines = [np.clip(dot(p, q) / max(norm(p) * norm(q), 1e-6), -1, 1) for p, q in combinations(os, 2)]
    c, m = float(np.mean(cosines)), len(xs)
    below = 1 + (m - 1) * c
    t = F(0 if abs(below) < 1e-6 else m * c / below)
    mean = xs[0]
    for x in xs[1:]:
        mean = mean + x
    return t * (mean / F(m)) + (F(1) - t) * b


def nearswap(b: Array, x: Array, t: float) -> Array:
    w = np.clip(F(t) * (F(1) / np.maximum(np.abs(b - x), F(1e-6))), F(0), F(1))
    return w * x + (F(1) - w) * b


def ram(b: Array, xs: Sequence[Array], epsilon: float, boost: tuple[float, float] | None = None) -> Array:
    deltas = np.stack([x - b for x in xs])
    moved = np.abs(deltas) > F(epsilon)
    count = moved.sum(0)
    total = np.zeros_like(b)
    for delta, mine in zip(deltas, moved, strict=True):
        factor, alone = F(1), count == 1
        if boost:
            r, alpha = boost
            shared, unique = (mine & (count > 1)).sum(), (mine & (count == 1)).sum()
            quotient = F(shared) / max(F(unique), F(epsilon))
            factor = F(1) + F(r) * np.clip(quotient, F(0), F(alpha))
        part = np.where(alone, delta * factor, delta / np.maximum(count, 1).astype(F))
        total = total + np.where(mine, part, F(0))
    return b + total


def multislerp(vectors: Sequence[Array], weights: Sequence[float], eps: float) -> Array:
    """The whole formula, with the tangent step, of vectors or of differences."""
    w = np.array(weights, np.float64)
    u = [x.astype(np.float64) / (norm(x) + eps) for x in vectors]
    mean = sum(wi * ui for wi, ui in zip(w, u, strict=True))
    mean = mean / norm(mean)
    tangent = sum(wi * (ui - dot(ui, mean) * mean) for wi, ui in zip(w, u, strict=True))
    length = norm(tangent)
    if length > eps:
        mean = np.cos(length) * mean + np.sin(length) * tangent / length
    return mean * sum(wi * norm(x) for wi, x in zip(w, vectors, strict=True))


def karcher(xs: Sequence[Array], steps: int, tol: float) -> Array:
    """The iteration element by element."""
    units = [x.astype(np.float64) / norm(x) for x in xs if norm(x) > tol]
    scale = float(np.mean([norm(x) for x in xs]))
    if not units:
        return np.zeros(xs[0].shape)
    u = sum(units) / len(units)
    u = units[0] if norm(u) < tol else u / norm(u)
    for _ in range(steps):
        tangent = np.zeros_like(u)
        for one in units:
            cosine = np.clip(dot(one, u), -1, 1)
            theta = np.arccos(cosine)
            if theta >= tol:
                tangent += theta / np.sin(theta) * (one - cosine * u) / len(units)
        length = norm(tangent)
        if length < tol:
            break
        u = np.cos(length) * u + np.sin(length) * tangent / length
        u = u / norm(u)
    return scale * u


def sce(b: Array, xs: Sequence[Array], share: float) -> Array:
    deltas = np.stack([x - b for x in xs])
    if share < 1:
        variance = deltas.astype(np.float64).var(0).astype(F)
        k = int(F(np.count_nonzero(variance)) * F(share))
        order = np.lexsort((np.arange(b.size), -variance.ravel().astype(np.float64)))
        kept = np.zeros(b.size, bool)
        kept[order[:k]] = True
        deltas = np.where(kept.reshape(b.shape), deltas, F(0))
    squares = np.array([F((d.astype(np.float64) ** 2).mean()) for d in deltas])
    weights = squares / squares.sum(dtype=F) if squares.sum() >= 1e-6 else np.full(len(xs), F(1 / len(xs)))
    total = deltas[0]
    for d in deltas[1:]:
        total = total + d
    sign = np.where(total >= 0, F(1), F(-1))
    mix, div = np.zeros_like(b), np.zeros_like(b)
    for d, w in zip(deltas, weights.astype(F), strict=True):
        agrees = np.sign(d) == sign
        mix = mix + np.where(agrees, d * w, F(0))
        div = div + np.where(agrees, w, F(0))
    return b + mix / np.maximum(div, F(1e-6))
