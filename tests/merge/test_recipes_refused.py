"""Recipes that make no sense, or that are not supported: one sentence, with file and line."""

# ruff: noqa: E501 (a recipe and what is said of it, one a line)

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import taskvec
from recipes import constant, recipe
from taskvec import MismatchError, StorageError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "models: [{model: A, parameters: {weight: 1}}]\nmerge_method: task_arithmetic\nbase_model: B\n"
WRONG = {
    "merge_method: [": "r.yml:1: not valid YAML",
    "- a\n- b": "r.yml:1: a merge is a mapping",
    "": "r.yml has 0 documents",
    f"{HEAD}---\n{HEAD}": "r.yml has 2 documents; a merge is one",
    f"{HEAD}dtype: float32\ndtype: float16": "'dtype' is given twice",
    f"{HEAD}dype: float32": "r.yml:4: there is no key 'dype' here; did you mean 'dtype'",
    f"{HEAD}dtype: bf16": "r.yml:4: dtype 'bf16' is not one of bfloat16, float16, float32",
    "models: [{model: A}]": "r.yml:1: merge_method is missing",
    "models: [{model: A}]\nmerge_method: tise": "r.yml:2: there is no method 'tise'; did you mean 'ties'",
    "models: [{model: A}]\nmerge_method: arcee_fusion": "r.yml:2: arcee_fusion is not supported: its mask",
    "merge_method: ties": "r.yml:1: a merge has exactly one of models, slices and modules",
    f"{HEAD}slices: []": "a merge has exactly one of models, slices and modules",
    "models: []\nmerge_method: ties": "r.yml:1: models is not a list with at least one entry",
    "models: [{model: A, weight: 1}]\nmerge_method: ties": "r.yml:1: 'weight' has no effect here; put it under",
    "models: [{}]\nmerge_method: ties": "r.yml:1: model is missing",
    "models: [{model: A}]\nmerge_method: ties": "r.yml:1: ties needs a base_model",
    "experts: [{}]\ngate_mode: hidden": "r.yml:1: mixture-of-experts assembly (mergekit-moe)",
    "genome: {}": "r.yml:1: evolution (mergekit-evolve)",
    "models: [{model: A}, {model: A}]\nmerge_method: ties\nbase_model: B": "A is listed twice",
    "models: [{model: A}]\nmerge_method: model_stock\nbase_model: B": "takes at least 2 model(s) beside the base",
    "models: [{model: A}]\nmerge_method: ties\nbase_model: B": "weight is missing for A",
    "slices: [{sources: [{model: A}]}]\nmerge_method: passthrough": "r.yml:1: layer_range is missing",
    "slices: [{sources: [{model: A, layer_range: [2, 2]}]}]\nmerge_method: passthrough": "holds no layer",
    "slices: [{sources: [{model: A, layer_range: [0, 9]}]}]\nmerge_method: passthrough": "A has layers 0 to 4",
    "slices: [{sources: [{model: A, layer_range: [0, 5]}]}]\nmerge_method: ties\nbase_model: B": "list the base B",
    f"{HEAD}tokenizer_source: union": "r.yml:4: a tokenizer would have to be built",
    f"{HEAD}tokenizer: {{}}": "r.yml:4: a tokenizer would have to be built",
    f"{HEAD}tokenizer: {{source: base}}\ntokenizer_source: base": "exclude each other",
    f"{HEAD}chat_template: chatml": "r.yml:4: the chat template is copied",
    f"{HEAD}parameters: {{weights: 1}}": "r.yml:4: there is no parameter 'weights'; did you mean 'weight'",
    f"{HEAD}parameters: {{density: 1.5}}": "r.yml:4: density is 1.5, but has to be from 0 to 1",
    f"{HEAD}parameters: {{density: half}}": "r.yml:4: density is 'half', which is not a number",
    f"{HEAD}parameters: {{normalize: maybe}}": "r.yml:4: normalize is 'maybe', which is not true or false",
    f"{HEAD}parameters: {{density: [{{value: 1}}, 2]}}": "write {filter: …, value: …} for every entry",
    f"{HEAD}parameters: {{density: [{{vale: 1}}]}}": "there is no key 'vale' here",
    f"{HEAD}parameters: {{lambda: .inf}}": "lambda is inf, which is not a number",
    "models: [{model: A+L}]\nmerge_method: linear\nparameters: {weight: 1}": "an adapter has to be applied first",
    "models: [{model: A, parameters: {t: 1}}]\nmerge_method: slerp\nbase_model: B": "one value for all models",
    "models: [{model: A}]\nmerge_method: slerp\nbase_model: B": "t is missing",
    "models: [{model: A, parameters: {weight: 1, density: 0.9}}]\nmerge_method: della\nbase_model: B": (
        "density ± epsilon has to be between 0 and 1, but density is 0.9 and epsilon 0.15"
    ),
    "modules: {text: {models: [{model: A}]}}\nmerge_method: linear": "modules can only be {default: …}",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("AB"):
        constant(tmp_path / name, number)
    return tmp_path


@pytest.mark.parametrize("text", WRONG)
def test_it_is_told_with_its_line(text: str, folder: Path) -> None:
    recipe(folder / "r.yml", text)
    for call in (taskvec.explain_merge, lambda path: taskvec.merge(path, "out")):
        with pytest.raises((UsageError, MismatchError)) as caught:
            call("r.yml")
        assert WRONG[text] in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (folder / "out").exists()


def test_models_that_do_not_fit(folder: Path) -> None:
    constant(folder / "short", 1, layers=3)
    recipe(folder / "r.yml", HEAD.replace("A,", "short,"))
    with pytest.raises(MismatchError, match=r"3 layers in model\.layers, and B has 5 layers"):
        taskvec.merge("r.yml", "out")
    taskvec.extract("A", "B", "V")
    recipe(folder / "r.yml", HEAD.replace("A,", "V,"))
    with pytest.raises(MismatchError, match="is a vector, and a merge is of checkpoints"):
        taskvec.merge("r.yml", "out")


def test_a_tensor_that_one_model_lacks(folder: Path) -> None:
    from safetensors.torch import save_file

    from recipes import tensors

    lacking = {name: one for name, one in tensors(folder / "A").items() if "q_proj" not in name}
    save_file(lacking, folder / "A" / "model.safetensors")
    recipe(folder / "r.yml", HEAD)
    with pytest.raises(
        MismatchError, match=r"A lacks model\.layers\.0\.self_attn\.q_proj\.weight.* and 2 more"
    ):
        taskvec.merge("r.yml", "out")


def test_configs_that_layers_cannot_be_counted_in(folder: Path) -> None:
    text = "slices: [{sources: [{model: A, layer_range: [0, 2]}]}]\nmerge_method: passthrough"
    recipe(folder / "r.yml", text)
    config = json.loads((folder / "A" / "config.json").read_text())
    for change, said in (
        ({"num_nextn_predict_layers": 1}, "layers that predict further tokens"),
        ({"sliding": [1, 2, 3, 4, 5]}, "sliding in config.json has an entry for each layer"),
        ({"num_hidden_layers": 7}, "does not say that it has 5 layers"),
    ):
        (folder / "A" / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(MismatchError, match=said):
            taskvec.merge("r.yml", "out")


def test_files_that_are_no_recipes(folder: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.yml: No such file"):
        taskvec.merge("none.yml", "out")
    (folder / "bytes.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"bytes\.yml is not text"):
        taskvec.merge("bytes.yml", "out")
    taskvec.transfer("A", "B", "A", "other")
    with pytest.raises(UsageError, match="is the manifest of transfer, not of merge"):
        taskvec.merge("other/taskvec.json", "out")
