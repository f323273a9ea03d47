"""Methods whose every bit is given by the formulas: against numpy, for several shapes, types and budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import merge_formulas as formulas
from merging import check, document, loaded, merge, models, values, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from merge_formulas import Array
    from merging import Tensors

# λ, normalize, weights: of both signs, one that adds up to 0 with another, one that is no power of two.
WEIGHTS = ([0.7, 0.3, -0.4], [1.0, 1.0, 1.0], [0.5, -0.5, 0.25])
CASES = [(w, n, lam) for w in WEIGHTS for n in (False, True) for lam in (1.0, 0.7)]


def arrays(inputs: Sequence[Tensors], name: str) -> list[Array]:
    return [values(tensors[name]) for tensors in inputs]


def same(out: torch.Tensor, right: Array) -> None:
    """Bit for bit, after one rounding to the type of the output."""
    wanted = torch.from_numpy(np.ascontiguousarray(right, dtype=np.float32)).to(out.dtype)
    assert torch.equal(out.view(torch.uint8), wanted.view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", [False, True])
def test_linear(dtype: torch.dtype, normalize: bool, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 2, dtype=dtype)
    weights = [0.7, -0.2, 0.45]
    doc = document("linear", inputs, shared={"normalize": normalize}, each=[{"weight": w} for w in weights])
    merge(folders, doc, tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        assert out.dtype == dtype
        same(out, formulas.linear(arrays(inputs, name), weights, normalize))


def test_passthrough_copies_and_scales(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 0, dtype=torch.bfloat16)
    for each, factor in ((None, 1.0), ({"scale": 0.3}, 0.3)):
        out = tmp_path / f"out-{factor}"
        merge(folders, document("passthrough", inputs, each=[each]), out)
        for name, tensor in loaded(out).items():
            same(tensor, values(inputs[0][name]) * np.float32(factor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("weights", "normalize", "lam"), CASES)
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties"])
def test_differences(
    method: str, weights: list[float], normalize: bool, lam: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    folders, inputs = models(tmp_path, 3, dtype=dtype, kept=0.3)
    densities, gamma = [0.5, 0.29, 0.9], 0.05
    each: list[dict[str, Any] | None] = [{"weight": w} for w in weights]
    if method != "task_arithmetic":
        each = [{"weight": w, "density": p} for w, p in zip(weights, densities, strict=True)]
    if method.startswith("breadcrumbs"):
        each = [{**one, "gamma": gamma} for one in each if one]
    shared = {"normalize": normalize, "lambda": lam}
    merge(folders, document(method, inputs, base=3, shared=shared, each=[*each, None]), tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        *xs, b = arrays(inputs, name)
        if method == "task_arithmetic":
            masks: list[Array | None] = [None] * 3
        elif method == "ties":
            masks = [formulas.largest(x - b, p) for x, p in zip(xs, densities, strict=True)]
        else:
            masks = [formulas.band(x - b, p, gamma) for x, p in zip(xs, densities, strict=True)]
        election = method.endswith("ties")
        right = formulas.family(b, xs, weights, masks, election=election, normalize=normalize, lam=lam)
        same(out, right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nearswap_and_ram(dtype: torch.dtype, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 3, dtype=dtype, kept=0.4)
    merge(
        [folders[0], folders[3]],
        document("nearswap", [inputs[0], inputs[3]], base=1, shared={"t": 1e-4}),
        tmp_path / "near",
    )
    for name, out in loaded(tmp_path / "near").items():
        same(out, formulas.nearswap(values(inputs[3][name]), values(inputs[0][name]), 1e-4))
    merge(folders, document("ram", inputs, base=3), tmp_path / "ram")
    boost = {"r": 0.1, "alpha": 0.3, "epsilon": 1e-5}
    merge(folders, document("ramplus_tl", inputs, base=3, shared=boost), tmp_path / "plus")
    ram, plus = loaded(tmp_path / "ram"), loaded(tmp_path / "plus")
    for name in ram:
        *xs, b = arrays(inputs, name)
        same(ram[name], formulas.ram(b, xs, 1e-5))
        same(plus[name], formulas.ram(b, xs, 1e-5, (0.1, 0.3)))


def test_ram_with_epsilon_0_counts_every_change(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 2, kept=0.5, size=1e-6)
    merge(folders, document("ram", inputs, base=2, shared={"epsilon": 0}), tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        *xs, b = arrays(inputs, name)
        same(out, formulas.ram(b, xs, 0.0))


EDGES = [1.0, 1.05, 0.999, 0.0, 1e-9, 1 / 37, 0.29, -1.0]


@pytest.mark.parametrize("density", EDGES)
@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_densities_at_the_edges(method: str, density: float, tmp_path: Path) -> None:
    shapes = {f"n{n}": (n,) for n in (1, 2, 3, 99, 100, 101)}
    folders, inputs = models(tmp_path, 1, shapes=shapes)
    doc = document(
        method, inputs, base=1, shared={"normalize": False}, each=[{"weight": 1.0, "density": density}, None]
    )
    merge(folders, doc, tmp_path / "out")
    for name, out in loaded(tmp_path / "out").items():
        x, b = arrays(inputs, name)
        if density >= 1:
            mask = np.ones_like(b, bool)
        elif density <= 0:
            mask = np.zeros_like(b, bool)
        else:
            mask = (
                formulas.largest(x - b, density) if method == "ties" else formulas.band(x - b, density, 0.01)
            )
        same(out, formulas.family(b, [x], [1.0], [mask], election=method == "ties", normalize=False))


def test_a_band_drops_the_largest_first(tmp_path: Path) -> None:
    base = {"w": torch.zeros(10)}
    model = {"w": torch.arange(1, 11).float()}
    folders = [write(tmp_path / "m", model), write(tmp_path / "b", base)]
    each = [{"weight": 1.0, "density": 0.9, "gamma": 0.5}, None]
    merge(folders, document("breadcrumbs", [model, base], base=1, each=each), tmp_path / "out")
    assert loaded(tmp_path / "out")["w"].tolist() == [*range(1, 10), 0]


def test_equal_magnitudes_keep_the_number_and_are_fair(tmp_path: Path) -> None:
    """On the lattice of bf16: as many as asked for, and no dropped magnitude is greater than a kept one."""
    shapes = {"w": (300, 700)}
    folders, inputs = models(tmp_path, 2, dtype=torch.bfloat16, kept=0.4, shapes=shapes)
    for density in (0.05, 0.2, 0.5):
        each = [{"weight": 1.0, "density": density}, {"weight": 0.0, "density": 0.3}, None]
        shared = {"normalize": False}
        out = tmp_path / f"out-{density}"
        merge(folders, document("ties", inputs, base=2, shared=shared, each=each, out_dtype="float32"), out)
        delta = values(inputs[0]["w"]) - values(inputs[2]["w"])
        kept = values(loaded(out)["w"]) != values(inputs[2]["w"])
        assert kept.sum() == min(int(density * delta.size), np.count_nonzero(delta))
        assert np.abs(delta[kept]).min() >= np.abs(delta[~kept]).max()


def test_election(tmp_path: Path) -> None:
    """Plus wins a tie; normalize turns a weight below 0 back to the own change; 0 never agrees."""
    base = {"w": torch.zeros(4)}
    one, two = {"w": torch.tensor([1.0, -1.0, 2.0, 0.0])}, {"w": torch.tensor([-1.0, 1.0, 0.0, 0.0])}
    folders = [write(tmp_path / name, t) for name, t in (("1", one), ("2", two), ("b", base))]
    each = [{"weight": 1.0}, {"weight": 1.0}, None]
    merge(folders, document("ties", [one, two, base], base=2, each=each), tmp_path / "tie")
    assert loaded(tmp_path / "tie")["w"].tolist() == [1, 1, 2, 0]
    for normalize, factor in ((True, 1.0), (False, -0.5)):
        doc = document(
            "ties", [one, base], base=1, shared={"normalize": normalize}, each=[{"weight": -0.5}, None]
        )
        merge([folders[0], folders[2]], doc, tmp_path / f"{normalize}")
        assert loaded(tmp_path / f"{normalize}")["w"].tolist() == [factor * x for x in one["w"].tolist()]


@pytest.mark.parametrize(
    "method", ["ties", "task_arithmetic", "sce", "ram", "linear", "slerp", "breadcrumbs"]
)
def test_values_that_are_no_numbers_are_counted_and_stay(method: str, tmp_path: Path) -> None:
    base = {"w": torch.full((64,), 0.5)}
    model = {"w": base["w"] + torch.linspace(0.01, 0.02, 64)}
    model["w"][3], model["w"][9] = float("nan"), float("inf")
    folders = [write(tmp_path / "m", model), write(tmp_path / "b", base)]
    each: list[dict[str, Any] | None] = [None, None]
    if method in ("ties", "breadcrumbs"):
        each = [{"weight": 1.0, "density": 0.5} | ({"gamma": 0.0} if method == "breadcrumbs" else {}), None]
    elif method == "task_arithmetic":
        each = [{"weight": 1.0}, None]
    elif method == "linear":
        each = [{"weight": 1.0}, {"weight": 1.0}]
    shared = {"t": 0.5} if method == "slerp" else {}
    base_at = None if method == "linear" else 1
    doc = document(method, [model, base], base=base_at, shared=shared, each=each)
    done = merge(folders, doc, tmp_path / "out")
    out = loaded(tmp_path / "out")["w"]
    assert done["effect"]["nonfinite_inputs"] == 2
    assert not out[3].isfinite()
    assert not out[9].isfinite()


def test_types_of_the_output(tmp_path: Path) -> None:
    """The common type of the inputs, or the one that is asked for, which the config then says."""
    folders, inputs = models(tmp_path, 1, dtype=torch.bfloat16)
    mixed = {name: tensor.float() for name, tensor in inputs[0].items()}
    folders.append(write(tmp_path / "mixed", mixed))
    each = [{"weight": 0.5}, {"weight": 0.5}]
    for places, given, wanted in (
        ((0, 1), {}, torch.bfloat16),
        ((2, 1), {}, torch.float32),
        ((0, 1), {"work_dtype": "float32"}, torch.float32),
        ((2, 1), {"work_dtype": "float32", "out_dtype": "float16"}, torch.float16),
    ):
        out = tmp_path / f"out{places}{wanted}{len(given)}"
        doc = document("linear", [inputs[0], inputs[1]], each=each, **given)
        merge([folders[place] for place in places], doc, out)
        assert {tensor.dtype for tensor in loaded(out).values()} == {wanted}
        said = f'"torch_dtype": "{given.get("out_dtype", given.get("work_dtype", "bfloat16"))}"'
        assert said in (out / "config.json").read_text()


def test_what_a_plan_says(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 2)
    each = [{"weight": 1.0, "density": 0.5}, {"weight": 1.0}, None]
    plan = check(folders, document("ties", inputs, base=2, each=each))
    assert plan["compatible"], plan
    assert [one["role"] for one in plan["inputs"]] == ["model 1", "model 2", "base"]
    assert plan["tensors"]["combined"] == len(inputs[0])
