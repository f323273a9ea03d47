"""DARE and DELLA: what is drawn, and what is computed with it."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import merge_formulas as formulas
from merging import close, document, loaded, merge, models, values
from quantised.chance import words
from taskvec.errors import TaskvecError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from merge_formulas import Array
    from merging import Tensors

SHAPES = {"a": (37,), "b": (64, 48), "c": (96, 257), "d": (96, 257)}


def masks(
    folders: Sequence[Path],
    inputs: Sequence[Tensors],
    each: Sequence[dict[str, Any]],
    method: str,
    root: Path,
    seed: int = 0,
) -> list[dict[str, Array]]:
    """Which elements of each model are kept: told by merges that add the difference of this model alone."""
    found = []
    for model in range(len(each)):
        alone: list[dict[str, Any] | None] = [
            {**one, "weight": float(place == model)} for place, one in enumerate(each)
        ]
        shared = {"rescale": False, "normalize": False}
        linear = method.replace("_ties", "_linear") if "_" in method else "della_linear"
        doc = document(linear, inputs, base=len(each), shared=shared, each=[*alone, None], seed=seed)
        out = root / f"mask-{method}-{model}-{seed}"
        merge(folders, doc, out)
        base = inputs[-1]
        found.append({name: (t != base[name]).numpy() for name, t in loaded(out).items()})
    return found


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
@pytest.mark.parametrize("rescale", [True, False])
def test_arithmetic_with_the_masks_that_were_drawn(method: str, rescale: bool, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 2, shapes=SHAPES)
    weights, densities = [0.7, -0.3], [0.53, 0.3]
    each = [{"density": p, **({"epsilon": 0.2} if "della" in method else {})} for p in densities]
    kept = masks(folders, inputs, each, method, tmp_path)
    whole: list[dict[str, Any] | None] = [{**one, "weight": w} for one, w in zip(each, weights, strict=True)]
    shared = {"rescale": rescale, "normalize": True, "lambda": 0.7}
    merge(folders, document(method, inputs, base=2, shared=shared, each=[*whole, None]), tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        *xs, b = (values(tensors[name]) for tensors in inputs)
        election = method in ("dare_ties", "della")
        mine = [mask[name] for mask in kept]
        right = formulas.family(
            b, xs, weights, mine, election=election, normalize=True, rescale=rescale, lam=0.7
        )
        close(out, right, np.abs(np.stack([b, *xs])).max(0), 5e-7 if rescale else 0)


def test_the_shares_that_are_kept(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 2, shapes={"w": (400, 500), "v": (400, 500)})
    for density in (0.1, 0.53, 0.999):
        kept = masks(folders, inputs, [{"density": density}] * 2, "dare_linear", tmp_path / f"{density}")
        for mask in (mask for model in kept for mask in model.values()):
            allowed = 5 * (density * (1 - density) / mask.size) ** 0.5
            assert abs(mask.mean() - density) < allowed


def test_masks_are_independent(tmp_path: Path) -> None:
    """Of models, of tensors, of seeds; and of the bits of stochastic rounding with the same seed."""
    folders, inputs = models(tmp_path, 2, shapes={"w": (400, 500), "v": (400, 500)})
    each = [{"density": 0.5}] * 2
    all_masks = [m for model in masks(folders, inputs, each, "dare_linear", tmp_path) for m in model.values()]
    all_masks += masks(folders, inputs, each, "dare_linear", tmp_path, seed=1)[0].values()
    for a, b in combinations(all_masks, 2):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / a.size**0.5


@pytest.mark.parametrize("method", ["dare_linear", "della"])
def test_masks_are_those_of_philox(method: str, tmp_path: Path) -> None:
    """By position: word `i` of the tensor's key, below the chance to be kept as a share of 2³²."""
    folders, inputs = models(tmp_path, 2, shapes=SHAPES)
    each = [{"density": 0.53}, {"density": 0.3}]
    kept = masks(folders, inputs, each, method, tmp_path, seed=7)
    for place, model in enumerate(kept):
        for name, mask in model.items():
            random = words(7, f"mask\0{place}\0{name}", mask.size).reshape(mask.shape)
            p = np.full(mask.shape, np.float32(each[place]["density"]))
            if method == "della":
                delta = np.abs(values(inputs[place][name]) - values(inputs[2][name]))
                rank = delta.argsort(-1, kind="stable").argsort(-1).astype(np.float32)
                share = rank / np.float32(mask.shape[-1] - 1) * np.float32(2)
                p = share * np.float32(0.15) + np.float32(each[place]["density"] - 0.15)
            assert np.array_equal(mask, random < np.ceil(p.astype(np.float64) * 2.0**32))


def test_della_keeps_by_rank_in_the_row(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1, shapes={"w": (2000, 100)})
    density, epsilon = 0.5, 0.3
    (kept,) = masks(folders, inputs, [{"density": density, "epsilon": epsilon}], "della", tmp_path)
    delta = np.abs(values(inputs[0]["w"]) - values(inputs[1]["w"]))
    ranks = delta.argsort(1).argsort(1)
    for decile in range(10):
        mine = kept["w"][(ranks >= decile * 10) & (ranks < decile * 10 + 10)]
        wanted = density - epsilon + 2 * epsilon * (decile * 10 + 4.5) / 99
        assert abs(mine.mean() - wanted) < 5 * (0.25 / mine.size) ** 0.5


def test_density_1_draws_nothing_and_needs_no_valid_epsilon(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1)
    for method, extra in (("dare_ties", {}), ("della", {"epsilon": 5.0})):
        doc = document(method, inputs, base=1, each=[{"weight": 1.0, **extra}, None])
        merge(folders, doc, tmp_path / method)
        for name, out in loaded(tmp_path / method).items():
            x, b = (values(tensors[name]) for tensors in inputs)
            assert np.array_equal(values(out), b + (x - b))


def test_what_della_refuses(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1)
    doc = document("della", inputs, base=1, each=[{"weight": 1.0, "density": 0.85}, None])
    with pytest.raises(TaskvecError, match=r"density is 0\.85 and epsilon 0\.15"):
        merge(folders, doc, tmp_path / "out")
    # The tensor `d.1` is a row of one element.
    doc = document("della", inputs, base=1, each=[{"weight": 1.0, "density": 0.5}, None])
    with pytest.raises(TaskvecError, match=r"tensor `d\.1`: its rows have one element"):
        merge(folders, doc, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tensor_of_zeros_is_not_rescaled(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1, size=0.0)
    doc = document("dare_linear", inputs, base=1, each=[{"weight": 1.0, "density": 0.5}, None])
    merge(folders, doc, tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        assert torch.equal(out, inputs[1][name])
