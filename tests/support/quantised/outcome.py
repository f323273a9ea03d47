"""The whole output of a job that quantises again, as `again` makes it, and its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from families import Tensors, assert_tensors, manifest, read
from quantised.again import Figures, requantised, shares, sums
from quantised.chance import widened, words

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from quantised.maker import Maker

    Floats = NDArray[Any]


@dataclass
class Outcome:
    """Stored tensors, and figures by logical name."""

    alpha: float
    """The factor of the request; of several vectors the request is their sum, factors included."""
    stored: Tensors
    figures: dict[str, Figures] = field(default_factory=dict[str, Figures])
    plain: dict[str, Figures] = field(default_factory=dict[str, Figures])
    """Of tensors that are not quantised."""


@np.errstate(all="ignore")
def summed(t: Floats, terms: list[tuple[Floats, float]]) -> tuple[Floats, Floats, float]:
    """Results and request of some vectors, and the factor that the request lacks: that of a single one."""
    r = t
    for v, alpha in terms:
        r = r + np.float32(alpha) * v
    if len(terms) == 1:
        return r, terms[0][0], terms[0][1]
    request = sum((np.float32(alpha) * v for v, alpha in terms[1:]), np.float32(terms[0][1]) * terms[0][0])
    return r, request, 1.0


@np.errstate(all="ignore")
def outcome(
    make: Maker, vectors: list[tuple[Tensors, Tensors, float]], *, mode: str = "keep", seed: int | None = None
) -> Outcome:
    """What becomes of a target under minuends, subtrahends and factors; what these lack stays as it is."""
    found = Outcome(vectors[0][2] if len(vectors) == 1 else 1.0, dict(make.stored))
    for name, values in make.logical.items():
        terms = [
            ((g[name].float() - s[name].float()).numpy(), alpha)
            for g, s, alpha in vectors
            if alpha and name in g
        ]
        if not terms:
            continue
        t = values.float().numpy()
        r, v, alpha = summed(t, terms)
        key = None if seed is None else (seed, name)
        if way := make.ways.get(name):
            codes, scales = make.coded[name], way.scale
            found.stored[codes], found.stored[scales], found.figures[name] = requantised(
                way, make.stored[codes], make.stored[scales], (t, r, v), alpha=alpha, mode=mode, key=key
            )
            continue
        o = torch.as_tensor(r).to(values.dtype)
        if key and values.dtype == torch.bfloat16:
            o = torch.as_tensor(widened(r, words(*key, r.size).reshape(r.shape))).bfloat16()
        found.stored[name] = o
        measured = sums(t, t, v, o.float().numpy(), alpha)
        found.plain[name] = Figures(again=measured, plain=measured)
    return found


def assert_figures(said: dict[str, Any], wanted: dict[str, float | None], what: object) -> None:
    """Sums in another order differ in the last places of their largest terms."""
    gain, cosine = wanted["gain"], wanted["cosine"]
    largest = {"gain": gain / cosine if gain and cosine else 1.0}
    for name, figure in wanted.items():
        near = None if figure is None else pytest.approx(figure, rel=1e-6, abs=1e-6 * largest.get(name, 1))
        assert said[name] == near, (name, what)


def _again(said: dict[str, Any], wanted: Figures, what: object) -> None:
    counts = {
        "blocks_copied": wanted.copied,
        "blocks_kept": wanted.kept,
        "blocks_rescaled": wanted.rescaled,
        "saturated": wanted.saturated,
    }
    assert {name: said[name] for name in counts} == counts, what
    assert said["codes_changed"] == pytest.approx(wanted.changed / wanted.codes), what


def assert_outcome(out: Path, wanted: Outcome, what: object = "") -> None:
    """The bytes of every tensor, and the figures of each and of all."""
    assert_tensors(read(out), wanted.stored, what)
    said = manifest(out)
    alpha = wanted.alpha
    total, quantised = Figures(), Figures()
    for entry in said["tensors"]:
        name = entry["name"]
        figures = wanted.figures.get(name)
        assert ("requantised" in entry) == (figures is not None), name
        if figures:
            _again(entry["requantised"], figures, (name, what))
            assert_figures(entry["requantised"]["bf16"], shares(figures.plain, alpha), (name, what))
            quantised += figures
        if both := figures or wanted.plain.get(name):
            assert_figures(entry["effect"], shares(both.again, alpha), (name, what))
            total += both
    assert_figures(said["effect"], shares(total.again, alpha), what)
    if quantised.codes:
        _again(said["requantised"], quantised, what)
    assert_figures(said["requantised"]["bf16"], shares(total.plain, alpha), what)
