"""What a recipe means, read off the outputs of models whose weights are all one number."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

import taskvec
from recipes import LAYERS, constant, family, recipe, tensors

if TYPE_CHECKING:
    from pathlib import Path

    from recipes import Tensors

Content = dict[str, Any]


@pytest.fixture
def numbers(tmp_path: Path) -> list[str]:
    """Models of zeros, ones and twos."""
    return [str(constant(tmp_path / f"n{number}", number)) for number in range(3)]


def merged(tmp_path: Path, content: Content, **options: Any) -> Tensors:
    path = recipe(tmp_path / "recipe.yml", content)
    taskvec.merge(path, tmp_path / "out", overwrite=True, **options)
    return tensors(tmp_path / "out")


def value(found: Tensors, name: str) -> float:
    tensor = found[name].float()
    assert bool((tensor == tensor.view(-1)[0]).all()), name
    return tensor.view(-1)[0].item()


def along(found: Tensors, rest: str = "mlp.up_proj.weight", layers: int = LAYERS) -> list[float]:
    """The values of a tensor in all layers."""
    return [value(found, f"model.layers.{at}.{rest}") for at in range(layers)]


def test_a_gradient_runs_over_the_layers_and_others_get_its_first_value(
    tmp_path: Path, numbers: list[str]
) -> None:
    content: Content = {
        "models": [{"model": numbers[1], "parameters": {"weight": [0.25, 1, 3]}}],
        "merge_method": "task_arithmetic", "base_model": numbers[0], "dtype": "float32",
    }  # fmt: skip
    found = merged(tmp_path, content)
    assert along(found) == [0.25, 0.625, 1, 2, 3]
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert value(found, name) == 0.25


def test_filters_are_parts_of_names_and_the_first_that_matches_wins(
    tmp_path: Path, numbers: list[str]
) -> None:
    weight = [
        {"filter": "mlp", "value": 0.5}, {"filter": "layers.1", "value": 7}, {"filter": "*", "value": 0.25},
        {"value": 9},
    ]  # fmt: skip
    content: Content = {
        "models": [{"model": numbers[0]}, {"model": numbers[1], "parameters": {"weight": weight}}],
        "merge_method": "task_arithmetic", "base_model": numbers[0], "dtype": "float32",
    }  # fmt: skip
    found = merged(tmp_path, content)
    assert along(found) == [0.5] * LAYERS
    assert along(found, "self_attn.q_proj.weight") == [0.25, 7, 0.25, 0.25, 0.25]
    assert value(found, "lm_head.weight") == 0.25


def test_what_no_filter_matches_falls_through_to_the_next_level(tmp_path: Path, numbers: list[str]) -> None:
    mine = [{"filter": "self_attn", "value": 2}]
    content: Content = {
        "models": [{"model": numbers[1], "parameters": {"weight": mine}}],
        "merge_method": "task_arithmetic", "base_model": numbers[0], "dtype": "float32",
        "parameters": {"weight": 0.5, "lambda": [{"filter": "mlp", "value": 4}]},
    }  # fmt: skip
    found = merged(tmp_path, content)
    assert along(found, "self_attn.q_proj.weight") == [2] * LAYERS
    assert along(found) == [2] * LAYERS
    assert value(found, "model.norm.weight") == 0.5


def test_shared_parameters_see_the_name_in_the_output_and_others_that_in_the_model(
    tmp_path: Path, numbers: list[str]
) -> None:
    def part(begin: int, end: int) -> Content:
        models = [{"model": one, "layer_range": [begin, end]} for one in numbers[:2]]
        models[1]["parameters"] = {"weight": [{"filter": "layers.3.", "value": 0.5}, {"value": 1}]}
        return {"sources": models}

    content: Content = {
        "slices": [part(0, 2), part(3, 5)], "merge_method": "task_arithmetic", "base_model": numbers[0],
        "dtype": "float32", "parameters": {"lambda": [{"filter": "layers.3.", "value": 8}, {"value": 1}]},
    }  # fmt: skip
    found = merged(tmp_path, content)
    # Output layers 2 and 3 are the model's layers 3 and 4.
    assert along(found, layers=4) == [1, 1, 0.5, 8]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 4


def test_gradients_begin_anew_in_every_slice_and_a_slice_of_one_layer_has_the_last_value(
    tmp_path: Path, numbers: list[str]
) -> None:
    def part(begin: int, end: int) -> Content:
        return {
            "sources": [{"model": numbers[1], "layer_range": [begin, end], "parameters": {"scale": [2, 4]}}]
        }

    content: Content = {"slices": [part(0, 3), part(0, 1), part(1, 3)], "merge_method": "passthrough"}
    found = merged(tmp_path, content)
    assert along(found, layers=6) == [2, 3, 4, 4, 2, 4]


@pytest.mark.parametrize("normalize", [True, False])
def test_a_negative_weight_with_election(tmp_path: Path, numbers: list[str], normalize: bool) -> None:
    content: Content = {
        "models": [{"model": numbers[1], "parameters": {"weight": -0.5}}],
        "merge_method": "ties", "base_model": numbers[0], "dtype": "float32",
        "parameters": {"normalize": normalize},
    }  # fmt: skip
    assert along(merged(tmp_path, content)) == [1 if normalize else -0.5] * LAYERS


@pytest.mark.parametrize(("written", "read"), [(1, True), ("true", True), (0.0, False), ("no", False)])
def test_flags_are_written_in_many_ways(tmp_path: Path, numbers: list[str], written: Any, read: bool) -> None:
    content: Content = {
        "models": [{"model": one, "parameters": {"weight": 2}} for one in numbers[1:]],
        "merge_method": "linear", "dtype": "float32", "parameters": {"normalize": written},
    }  # fmt: skip
    assert along(merged(tmp_path, content)) == [1.5 if read else 6] * LAYERS


def test_modules_and_whole_slices_mean_what_models_mean(tmp_path: Path) -> None:
    *_, base = folders = [str(one) for one in family(tmp_path, 2)]
    parameters = {"weight": 0.5, "density": 0.6}
    models = [{"model": one, "parameters": parameters} for one in folders[:2]]
    rest: Content = {"merge_method": "ties", "base_model": base}
    slices = [{"sources": [{**one, "layer_range": [0, LAYERS]} for one in [*models, {"model": base}]]}]
    outputs = [
        merged(tmp_path, {**rest, **one})
        for one in (
            {"models": models}, {"slices": slices}, {"modules": {"default": {"slices": slices}}},
            {"modules": {"default": {"models": models}}},
        )
    ]  # fmt: skip
    for other in outputs[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in outputs[0].items())


def test_a_merge_is_repeated_from_its_card_and_from_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    content: Content = {
        "models": [{"model": one, "parameters": {"weight": 0.5, "density": 0.4}} for one in ("m0", "m1")],
        "merge_method": "dare_ties", "base_model": "base", "dtype": "float32", "out_dtype": "bfloat16",
    }  # fmt: skip
    first = merged(tmp_path, content, seed=7)
    card = (tmp_path / "out" / "README.md").read_text()
    lines = card.split("in mergekit's format:\n")[1].split("\n    taskvec merge")[0].splitlines()
    recipe(tmp_path / "card.yml", "\n".join(line[4:] for line in lines))
    taskvec.merge("card.yml", "again", seed=7)
    taskvec.merge("out/taskvec.json", "third")
    for folder in ("again", "third"):
        assert all(torch.equal(first[name], one) for name, one in tensors(tmp_path / folder).items())
    assert json.loads((tmp_path / "third/taskvec.json").read_text())["recipe"]["document"]["seed"] == 7


def test_groups_are_explained(tmp_path: Path, numbers: list[str]) -> None:
    weight = [{"filter": "mlp", "value": 2}, {"value": 1}]
    content: Content = {
        "models": [{"model": numbers[1], "parameters": {"weight": weight}}],
        "merge_method": "task_arithmetic", "base_model": numbers[0],
    }  # fmt: skip
    groups = taskvec.explain_merge(recipe(tmp_path / "r.yml", content))
    assert [(one.tensors, one.layers, f"weight {2 if 'mlp' in one.example else 1}") for one in groups] == [
        (3 + 6 * LAYERS, f"0–{LAYERS - 1}", "weight 1"),
        (3 * LAYERS, f"0–{LAYERS - 1}", "weight 2"),
    ]
    assert all(numbers[1] in one.parameters for one in groups)


def test_a_head_that_one_model_ties_is_merged_from_its_embedding(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    untied, tied = constant(tmp_path / "untied", 1), constant(tmp_path / "tied", 3)
    without = {name: one for name, one in tensors(tied).items() if name != "lm_head.weight"}
    save_file(without, tied / "model.safetensors", metadata={"format": "pt"})
    content: Content = {
        "models": [{"model": str(one), "parameters": {"weight": 1}} for one in (untied, tied)],
        "merge_method": "linear",
    }  # fmt: skip
    found = merged(tmp_path, content)
    assert value(found, "lm_head.weight") == 2


def test_parameters_that_the_method_ignores_are_told(tmp_path: Path, numbers: list[str]) -> None:
    content: Content = {
        "models": [{"model": one} for one in numbers[1:]],
        "merge_method": "model_stock", "base_model": numbers[0],
        "parameters": {"weight": 0.5, "int8_mask": True},
    }  # fmt: skip
    result = taskvec.merge(recipe(tmp_path / "r.yml", content), tmp_path / "o")
    assert sum("has no effect with model_stock" in warning for warning in result.warnings) == 2
    assert any("r.yml:" in warning for warning in result.warnings)
