"""Whole merges beside mergekit 0.1.5 itself, in an environment of its own.

`TASKVEC_MERGEKIT` is the Python of that environment; without it, these tests are skipped.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

import taskvec
from recipes import LAYERS, family, recipe, tensors

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = os.environ.get("TASKVEC_MERGEKIT", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="TASKVEC_MERGEKIT is not set")

# Runs many recipes in one process, because the import alone takes ten seconds.
SCRIPT = """
import sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
for path in sys.argv[1:]:
    with open(path) as file:
        run_merge(MergeConfiguration.model_validate(yaml.safe_load(file)), path[:-4] + "-theirs", options)
"""
RUNS = 20
# How far a value may be from mergekit's, relative to the largest of the values that went in: its sums
# are in float32, and arc cosines of near twins are noisy.
BITS = {"linear": 2e-7, "task_arithmetic": 0.0, "passthrough": 0.0, "ram": 0.0, "nearswap": 1e-7, "ties": 0.0}
BITS |= {"breadcrumbs": 0.0, "breadcrumbs_ties": 0.0, "ramplus_tl": 2e-7, "model_stock": 1e-6, "slerp": 1e-5}
BITS |= {"nuslerp": 1e-5, "multislerp": 3e-5, "karcher": 3e-5, "sce": 1e-6}


def parameters(method: str, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the merge, and of a model."""
    spread = [round(rng.uniform(0.1, 1), 3) for _ in range(rng.choice([1, 1, 3]))]
    weight = spread[0] if len(spread) == 1 else spread
    if rng.random() < 0.2:
        weight = [{"filter": "mlp", "value": weight}, {"value": round(rng.uniform(-0.5, 0.9), 3)}]
    family = {"normalize": rng.random() < 0.5, "lambda": round(rng.uniform(0.5, 1.2), 2)}
    density = round(rng.uniform(0.2, 0.9), 2)
    return {
        "linear": ({"normalize": rng.random() < 0.5}, {"weight": weight}),
        "task_arithmetic": (family, {"weight": weight}),
        "ties": (family, {"weight": weight, "density": density}),
        "breadcrumbs": (family, {"weight": weight, "density": density, "gamma": 0.05}),
        "breadcrumbs_ties": (family, {"weight": weight, "density": density, "gamma": 0.05}),
        "slerp": ({"t": [{"filter": "self_attn", "value": [0, 0.4, 1]}, {"value": 0.5}]}, {}),
        "nearswap": ({"t": 1e-3}, {}),
        "ramplus_tl": ({"r": 0.2, "alpha": 0.3}, {}),
        "nuslerp": ({"nuslerp_flatten": rng.random() < 0.5}, {"weight": weight}),
        "multislerp": ({}, {"weight": spread[0]}),
        "sce": ({"select_topk": rng.choice([1.0, 0.3])}, {}),
    }.get(method, ({}, {}))


def recipes(method: str, folders: list[Path], count: int) -> list[dict[str, Any]]:
    """Random recipes of a method over models whose last is the base."""
    *models, base = map(str, folders)
    made: list[dict[str, Any]] = []
    for number in range(count):
        rng = random.Random(f"{method}/{number}")
        based = method not in ("linear", "karcher", "passthrough")
        chosen = models[
            : {"slerp": 1, "nearswap": 1, "nuslerp": 2, "passthrough": 1}.get(method, rng.choice([2, 3]))
        ]
        shared, _ = parameters(method, rng)
        listed: list[dict[str, Any]] = []
        for one in chosen:
            _, each = parameters(method, rng)
            listed.append({"model": one, "parameters": each})
        if based and (method == "slerp" or rng.random() < 0.5):
            listed.insert(0, {"model": base})
        content: dict[str, Any] = {"merge_method": method, "dtype": "float32", "parameters": shared}
        if based:
            content["base_model"] = base
        if method == "passthrough":
            ranges = [(0, 3), (rng.choice([1, 2]), LAYERS)]
            sources = [[{"model": rng.choice(models), "layer_range": list(one)}] for one in ranges]
            content["slices"] = [{"sources": one} for one in sources]
        else:
            content["models"] = listed
        made.append(content)
    return made


def theirs(paths: list[Path]) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT, *map(str, paths)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("method", BITS)
def test_float32_is_what_mergekit_computes(method: str, tmp_path: Path) -> None:
    # Continuous noise has no equal magnitudes, so that no threshold cuts through equals.
    folders = family(tmp_path / "models", 3)
    paths = [
        recipe(tmp_path / f"r{number}.yml", content)
        for number, content in enumerate(recipes(method, folders, RUNS))
    ]
    theirs(paths)
    largest = max(float(one.abs().max()) for one in tensors(folders[-1]).values())
    for path in paths:
        taskvec.merge(path, tmp_path / "ours", overwrite=True)
        ours, right = tensors(tmp_path / "ours"), tensors(path.with_name(path.stem + "-theirs"))
        assert ours.keys() == right.keys()
        for name, one in ours.items():
            assert one.dtype == right[name].dtype == torch.float32
            far = (one - right[name]).abs()
            # An element at a threshold may be another where the threshold itself is rounded.
            others = int((far > BITS[method] * largest).sum())
            assert others <= (0.15 * one.numel() if method == "sce" else 0), (method, path.read_text(), name)


@pytest.mark.parametrize(
    "method", ["linear", "task_arithmetic", "slerp", "model_stock", "ram", "karcher", "multislerp"]
)
def test_bfloat16_is_within_a_unit_of_the_last_place(method: str, tmp_path: Path) -> None:
    folders = family(tmp_path / "models", 3, torch.bfloat16)
    paths: list[Path] = []
    for number, content in enumerate(recipes(method, folders, 5)):
        paths.append(recipe(tmp_path / f"r{number}.yml", {**content, "out_dtype": "bfloat16"}))
    theirs(paths)
    elements = far = 0
    for path in paths:
        taskvec.merge(path, tmp_path / "ours", overwrite=True)
        ours, right = tensors(tmp_path / "ours"), tensors(path.with_name(path.stem + "-theirs"))
        base = tensors(folders[-1])
        for name, one in ours.items():
            a, b = one.float(), right[name].float()
            unit = torch.exp2(
                torch.maximum(torch.maximum(a.abs(), b.abs()), base[name].float().abs()).frexp()[1] - 8.0
            )
            elements += a.numel()
            far += int(((a - b).abs() > unit).sum())
    assert far <= 1e-3 * elements


def test_what_stands_in_their_card_runs_here(tmp_path: Path) -> None:
    """mergekit writes its own form of the recipe, with modules, into its output."""
    folders = family(tmp_path / "models", 2)
    path = recipe(tmp_path / "r.yml", recipes("ties", folders, 1)[0])
    theirs([path])
    written = tmp_path / "r-theirs" / "mergekit_config.yml"
    again = recipe(
        tmp_path / "again.yml", yaml.safe_load(written.read_text()) if written.exists() else path.read_text()
    )
    taskvec.merge(again, tmp_path / "ours")
    right = tensors(tmp_path / "r-theirs")
    assert all(torch.equal(right[name], one) for name, one in tensors(tmp_path / "ours").items())
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["num_hidden_layers"] == LAYERS
