"""Methods that need sums over a whole tensor, against numpy in float64: equal but for the order of sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import merge_formulas as formulas
from merging import close, document, loaded, merge, models, values, write
from taskvec.errors import TaskvecError

if TYPE_CHECKING:
    from pathlib import Path

    from merge_formulas import Array

# Near twins, and models that have little in common.
SIZES = [1e-4, 1e-2, 0.5]


def largest_of(*arrays: Array) -> Array:
    return np.max(np.abs(np.stack(arrays)), axis=0)


@pytest.mark.parametrize("t", [0.0, 1.0, 0.3, -0.5, 1.5])
@pytest.mark.parametrize("size", SIZES)
def test_slerp(size: float, t: float, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1, size=size)
    merge(folders, document("slerp", inputs, base=1, shared={"t": t}), tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        x, b = (values(tensors[name]) for tensors in inputs)
        if t == 0.0:
            assert np.array_equal(values(out), b)
        close(out, formulas.slerp(b, x, t), largest_of(b, x), 1e-6)


def test_slerp_of_zeros_and_opposites(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn((8, 9), generator=rng)
    base = {"zero": torch.zeros_like(x), "opposite": -x, "both": torch.zeros_like(x)}
    model = {"zero": x, "opposite": x, "both": torch.zeros_like(x)}
    folders = [write(tmp_path / "m", model), write(tmp_path / "b", base)]
    merge(folders, document("slerp", [model, base], base=1, shared={"t": 0.3}), tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        close(out, formulas.slerp(values(base[name]), values(model[name]), 0.3), values(x), 1e-6)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_model_stock(size: float, rows: bool, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 3, size=size)
    merge(folders, document("model_stock", inputs, base=3, shared={"filter_wise": rows}), tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        *xs, b = (values(tensors[name]) for tensors in inputs)
        right = formulas.by_rows(formulas.stock, b, *xs) if rows else formulas.stock(b, *xs)
        close(out, right, largest_of(b, *xs), 5e-7)


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_nuslerp(size: float, rows: bool, based: bool, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 2, size=size)
    if not based:
        folders, inputs = folders[:2], inputs[:2]
    each: list[dict[str, Any] | None] = [{"weight": 0.6}, {"weight": 0.2}]
    each += [None] if based else []
    doc = document(
        "nuslerp", inputs, base=2 if based else None, shared={"nuslerp_flatten": not rows}, each=each
    )
    merge(folders, doc, tmp_path / "out")

    def one(x: Array, y: Array) -> Array:
        return formulas.nuslerp(x, y, 0.25)

    for name, out in loaded(tmp_path / "out").items():
        x, y, *b = (values(tensors[name]) for tensors in inputs)
        start = b[0] if based else np.zeros_like(x)
        x, y = x - start, y - start
        right = start + (formulas.by_rows(one, x, y) if rows else one(x, y))
        # Where the angle is small or near to half a circle, the numpy sines lose digits, too.
        close(out, right, largest_of(start, x, y) + 1e-9, 2e-5 if rows else 1e-5)


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_multislerp(size: float, based: bool, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 3, size=size)
    if not based:
        folders, inputs = folders[:3], inputs[:3]
    weights = np.array([0.6, 0.2, 0.4])
    each: list[dict[str, Any] | None] = [{"weight": float(w)} for w in weights]
    each += [None] if based else []
    merge(folders, document("multislerp", inputs, base=3 if based else None, each=each), tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        *xs, b = (values(tensors[name]) for tensors in inputs)
        if not based:
            xs, b = [*xs, b], np.zeros_like(b)
        right = b + formulas.multislerp([x - b for x in xs], list(weights / weights.sum()), 1e-8)
        close(out, right, np.abs(right).max(), 2e-6)


def test_multislerp_of_one_model_and_of_opposites(tmp_path: Path) -> None:
    x = torch.randn((5, 7), generator=torch.Generator().manual_seed(2))
    model, base, opposite = {"w": x}, {"w": x * 0.5}, {"w": -x}
    folders = [write(tmp_path / name, t) for name, t in (("m", model), ("o", opposite), ("b", base))]
    doc = document("multislerp", [model, base], base=1, each=[{"weight": 1.0}, None])
    merge([folders[0], folders[2]], doc, tmp_path / "one")
    assert torch.equal(loaded(tmp_path / "one")["w"], x)
    weights = [{"weight": 0.25}, {"weight": 0.75}]
    merge(folders[:2], document("multislerp", [model, opposite], each=weights), tmp_path / "two")
    # They do not cancel: the direction is that of the heavier one.
    close(loaded(tmp_path / "two")["w"], -values(x), values(x), 1e-6)
    equal = document("multislerp", [model, opposite], each=[{"weight": 0.5}] * 2, shared={"eps": 1e-3})
    merge(folders[:2], equal, tmp_path / "cancel")
    assert not loaded(tmp_path / "cancel")["w"].any()
    three = write(tmp_path / "3", {"w": torch.zeros_like(x)})
    doc = document("multislerp", [model, opposite, base], each=[{"weight": 1.0}] * 3, shared={"eps": 1e-3})
    with pytest.raises(TaskvecError, match=r"tensor `w`: the weighted directions of its models cancel"):
        merge([*folders[:2], three], doc, tmp_path / "none")
    assert not (tmp_path / "none").exists() or not any((tmp_path / "none").iterdir())


@pytest.mark.parametrize("size", SIZES)
def test_karcher(size: float, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 3, size=size)
    merge(folders, document("karcher", inputs), tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        right = formulas.karcher([values(tensors[name]) for tensors in inputs], 10, 1e-5)
        close(out, right, np.abs(right).max(), 2e-6)


@pytest.mark.parametrize("share", [1.0, 0.3, 0.01, 0.0])
@pytest.mark.parametrize("size", [1e-3, 0.1])
def test_sce(size: float, share: float, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 3, size=size, kept=0.3)
    merge(folders, document("sce", inputs, base=3, shared={"select_topk": share}), tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        *xs, b = (values(tensors[name]) for tensors in inputs)
        right = formulas.sce(b, xs, share)
        if share == 0.0:
            assert np.array_equal(values(out), b)
        close(out, right, largest_of(b, *xs), 5e-7)


def test_sce_of_equal_donors_is_the_base(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1)
    doc = document("sce", [inputs[0], inputs[0], inputs[1]], base=2, shared={"select_topk": 0.5})
    twin = write(tmp_path / "twin", inputs[0])
    merge([folders[0], twin, folders[1]], doc, tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        assert torch.equal(out, inputs[1][name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_rescale(method: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 2, dtype=dtype)
    weights, densities = [0.7, -0.3], [0.3, 0.6]
    each: list[dict[str, Any] | None] = [
        {"weight": w, "density": p} for w, p in zip(weights, densities, strict=True)
    ]
    shared = {"rescale": True, "normalize": False}
    doc = document(method, inputs, base=2, shared=shared, each=[*each, None], out_dtype="float32")
    merge(folders, doc, tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        *xs, b = (values(tensors[name]) for tensors in inputs)
        keep = formulas.largest if method == "ties" else lambda d, p: formulas.band(d, p, 0.01)
        masks = [keep(x - b, p) for x, p in zip(xs, densities, strict=True)]
        election = method == "ties"
        right = formulas.family(b, xs, weights, masks, election=election, normalize=False, rescale=True)
        close(out, right, largest_of(b, *xs), 2e-7)
