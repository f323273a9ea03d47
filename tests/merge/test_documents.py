"""Documents: names, slices, files beside the weights, and what is refused before anything is written."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hostile import sums
from merging import check, document, loaded, merge, models, values, write
from quantised.layouts import made
from taskvec import verify
from taskvec.errors import TaskvecError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from merging import Tensors

LAYERS = {f"model.layers.{layer}.w": (5, 7) for layer in range(4)} | {"model.norm": (7,)}


def refused(
    folders: Sequence[Path], doc: dict[str, Any], out: Path, code: int, *parts: str, **options: Any
) -> None:
    """One sentence with all of the parts in it, the right exit code, and nothing left behind."""
    with pytest.raises(TaskvecError) as error:
        merge(folders, doc, out, **options)
    assert error.value.exit_code == code, error.value
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value), error.value
    assert not out.exists() or not list(out.iterdir())


def test_layers_are_moved_repeated_and_dropped(tmp_path: Path) -> None:
    """Depth up-scaling out of two models, whose weights are in several files."""
    made_, inputs = models(tmp_path / "raw", 1, dtype=torch.bfloat16, shapes=LAYERS)
    folders = [
        write(
            tmp_path / f"in{n}", tensors, shards=2, num_hidden_layers=4, text_config={"num_hidden_layers": 4}
        )
        for n, tensors in enumerate(inputs)
    ]
    assert len(made_) == 2
    order = [(0, 0), (0, 1), (1, 1), (1, 2), (1, 2), (0, 3)]
    tensors: list[dict[str, Any]] = []
    for layer, (model, source) in enumerate(order):
        name = f"model.layers.{source}.w"
        tensors.append(
            {
                "name": f"model.layers.{layer}.w",
                "from": [name if model == 0 else None, name if model else None],
                "settings": 0,
            }
        )
    tensors.append({"name": "model.norm", "from": [None, True], "settings": 0})
    doc = document("linear", inputs, each=[{"weight": 1.0}] * 2, tensors=tensors)
    edits = {"num_hidden_layers": 6, "text_config.num_hidden_layers": 6}
    doc |= {"sidecars_from": 0, "config_edits": edits}
    done = merge(folders, doc, tmp_path / "out")
    out = loaded(tmp_path / "out")
    assert set(out) == {tensor["name"] for tensor in tensors}
    for layer, (model, source) in enumerate(order):
        assert torch.equal(out[f"model.layers.{layer}.w"], inputs[model][f"model.layers.{source}.w"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == config["text_config"]["num_hidden_layers"] == 6
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(out)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in out.values())
    assert any("model 1 are not used: model.layers.2.w" in note for note in done["notes"])
    assert verify(tmp_path / "out").ok


def test_files_beside_the_weights_come_from_the_named_input(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1)
    for number, folder in enumerate(folders):
        (folder / "tokenizer.json").write_text(str(number))
    doc = document("linear", inputs, each=[{"weight": 1.0}] * 2)
    for source in (0, 1):
        merge(folders, {**doc, "sidecars_from": source}, tmp_path / f"out{source}")
        assert (tmp_path / f"out{source}" / "tokenizer.json").read_text() == str(source)
        assert (tmp_path / f"out{source}" / "README.md").read_text() == "card"


def test_other_layouts_of_the_files_give_the_same_values(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1, shapes=LAYERS)
    sharded = [write(tmp_path / f"s{n}", tensors, shards=3) for n, tensors in enumerate(inputs)]
    doc = document("ties", inputs, base=1, each=[{"weight": 1.0, "density": 0.5}, None])
    for number, places in enumerate(([folders[0], folders[1]], [sharded[0], folders[1]], sharded)):
        merge(places, doc, tmp_path / f"out{number}")
        if number:
            one, other = loaded(tmp_path / "out0"), loaded(tmp_path / f"out{number}")
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_tensors_that_are_no_floats(tmp_path: Path) -> None:
    steps = torch.arange(12).reshape(3, 4)
    one, two = {"w": torch.ones(3), "ids": steps}, {"w": torch.zeros(3), "ids": steps}
    folders = [write(tmp_path / "1", one), write(tmp_path / "2", two)]
    doc = document("linear", [one, two], each=[{"weight": 1.0}] * 2)
    merge(folders, doc, tmp_path / "out")
    assert torch.equal(loaded(tmp_path / "out")["ids"], steps)
    other = [folders[0], write(tmp_path / "3", {**two, "ids": steps + 1})]
    refused(other, doc, tmp_path / "no", 1, "`ids` is no float tensor and differs from that of model 1")
    mixed = [folders[0], write(tmp_path / "4", {**two, "ids": steps.float()})]
    refused(mixed, doc, tmp_path / "no", 1, "`ids`", "I64 in model 1 but F32 in model 2")


def test_missing_inputs(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 2, shapes={"w": (6, 5)})

    def only(*places: int) -> list[dict[str, Any]]:
        return [{"name": "w", "from": [True if at in places else None for at in range(3)], "settings": 0}]

    each = [{"weight": 0.5}, {"weight": 0.25}, {"weight": 0.25}]
    # Weights are normalised over the inputs that take part.
    merge(folders, document("linear", inputs, each=each, tensors=only(1, 2)), tmp_path / "linear")
    right = (values(inputs[1]["w"]) * 0.25 + values(inputs[2]["w"]) * 0.25) / 0.5
    assert torch.equal(loaded(tmp_path / "linear")["w"], torch.from_numpy(right))
    stock = document("model_stock", inputs, base=2, tensors=only(2))
    merge(folders, stock, tmp_path / "stock")
    assert torch.equal(loaded(tmp_path / "stock")["w"], inputs[2]["w"])
    refused(
        folders,
        document("model_stock", inputs, base=2, tensors=only(0, 2)),
        tmp_path / "no",
        1,
        "only one model",
    )
    ties = document("ties", inputs, base=2, each=[each[0], each[1], None], tensors=only(0, 1))
    refused(folders, ties, tmp_path / "no", 1, "the base lacks it, but ties needs it")
    slerp = document(
        "slerp",
        [inputs[0], inputs[2]],
        base=1,
        shared={"t": 0.5},
        tensors=[{"name": "w", "from": [True, None], "settings": 0}],
    )
    merge([folders[0], folders[2]], slerp, tmp_path / "slerp")
    assert torch.equal(loaded(tmp_path / "slerp")["w"], inputs[0]["w"])


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1, shapes={"w": (6, 5)})
    doc = document("linear", inputs, each=[{"weight": 1.0}] * 2)
    other = [folders[0], write(tmp_path / "other", {"w": torch.zeros(5, 6)})]
    refused(other, doc, tmp_path / "no", 1, "tensor `w`", "[6, 5] in model 1 but [5, 6] in model 2")
    assert not check(other, doc)["compatible"]
    less = [folders[0], write(tmp_path / "less", {"v": torch.zeros(5, 6)})]
    refused(less, doc, tmp_path / "no", 1, "the model 2 has no tensor `w`")
    doc = document("linear", inputs, each=[{"weight": 1.0}, {"weight": -1.0}])
    refused(folders, doc, tmp_path / "no", 1, "add up to 0")
    doc = document("linear", inputs, each=[{"weight": 1.0}] * 2, config_edits={"layers": 3})
    refused(folders, doc, tmp_path / "no", 1, "config.json", "has no member `layers`")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    refused(
        [folders[0], adapter], doc, tmp_path / "no", 3, "is an adapter, and a merge takes whole models only"
    )


BAD: list[tuple[dict[str, Any], str]] = [
    ({"method": "tie"}, "no merge method `tie`"),
    ({"method": "arcee_fusion"}, "arcee_fusion is not offered"),
    ({"base": None}, "ties needs a base model"),
    ({"base": 7}, "no place among its 2 input(s)"),
    ({"out_dtype": "bf16"}, "bfloat16, float16 or float32"),
    ({"tensors": []}, "names no tensor"),
    ({"tensors": [{"name": "w", "from": [True], "settings": 0}]}, "does not go with its inputs"),
    ({"tensors": [{"name": "w", "from": [False, True], "settings": 0}]}, "true, a name or null"),
    ({"tensors": [{"name": "w", "from": [True, True], "settings": 0}] * 2}, "two tensors `w`"),
    ({"settings": [{"shared": {"smooth": 1}, "each": [None, None]}]}, "ties has no parameter `smooth`"),
    ({"settings": [{"shared": {}, "each": [{"epsilon": 1}, None]}]}, "ties has no parameter `epsilon`"),
    ({"settings": [{"shared": {}, "each": [{"density": 1}, None]}]}, "ties: weight is missing"),
    ({"settings": [{"shared": {"lambda": "1"}, "each": [{"weight": 1}, None]}]}, "lambda has to be a number"),
    (
        {"settings": [{"shared": {"normalize": 1}, "each": [{"weight": 1}, None]}]},
        "normalize has to be true or false",
    ),
    ({"settings": [{"shared": {}, "each": [{"weight": 1e300}, None]}]}, "weight"),
    ({"settings": [{"shared": {}, "each": [None]}]}, "for 1 inputs, but there are 2"),
    ({"seed": -1}, "not one of this version"),
    ({"name": "x"}, "unknown field `name`"),
]


@pytest.mark.parametrize(("change", "what"), BAD)
def test_documents_that_are_refused(change: dict[str, Any], what: str, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1, shapes={"w": (6, 5)})
    doc = document("ties", inputs, base=1, each=[{"weight": 1.0}, None])
    refused(folders, {**doc, **change}, tmp_path / "no", 2, what)


def test_every_member_of_a_document_is_required(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1, shapes={"w": (6, 5)})
    doc = document("ties", inputs, base=1, each=[{"weight": 1.0}, None])
    for member in doc:
        less = {key: value for key, value in doc.items() if key != member}
        refused(folders, less, tmp_path / "no", 2, f"missing field `{member}`")


def test_methods_and_the_number_of_their_models(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 3, shapes={"w": (6, 5)})
    for method, count, base, what in (
        ("slerp", 3, 2, "exactly 1 model(s) beside the base, not 2"),
        ("nuslerp", 4, 3, "exactly 2 model(s) beside the base, not 3"),
        ("model_stock", 2, 1, "at least 2 model(s) beside the base, not 1"),
    ):
        doc = document(method, inputs[:count], base=base)
        refused(folders[:count], doc, tmp_path / "no", 2, what)
    # Its tensors may come from several models, but each from one.
    several = document("passthrough", inputs[:2])
    refused(folders[:2], several, tmp_path / "no", 1, "passthrough takes it from one model")
    doc = document(
        "nuslerp",
        inputs[:2],
        shared={"nuslerp_flatten": False, "nuslerp_row_wise": True},
        each=[{"weight": 1.0}] * 2,
    )
    refused(folders[:2], doc, tmp_path / "no", 2, "nuslerp_row_wise takes the columns")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dtype", "bf16"),
        ("vocab", "common"),
        ("include", ("w",)),
        ("schedule", "linear:0,1"),
        ("prefixes", ("p.",)),
    ],
)
def test_options_without_meaning(option: str, value: Any, tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1, shapes={"w": (6, 5)})
    doc = document("linear", inputs, each=[{"weight": 1.0}] * 2)
    refused(folders, doc, tmp_path / "no", 2, "a merge takes no --", **{option: value})


@pytest.mark.parametrize("kind", ["rows", "NVFP4", "gpt-oss", "Kimi-K2"])
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "slerp"])
def test_quantised_inputs_are_read_as_their_values(kind: str, method: str, tmp_path: Path) -> None:
    """The same as merging the values themselves, in bfloat16 where the checkpoint has codes."""
    one, two = made(kind, 1), made(kind, 2)
    folders = [one.save(tmp_path / "1"), two.save(tmp_path / "2")]
    logical: list[Tensors] = [dict(one.logical), dict(two.logical)]
    plain = [write(tmp_path / f"p{n}", tensors) for n, tensors in enumerate(logical)]
    each: list[dict[str, Any] | None] = [None if method == "slerp" else {"weight": 0.5}, None]
    doc = document(method, logical, base=1, shared={"t": 0.3} if method == "slerp" else {}, each=each)
    doc["out_dtype"] = "bfloat16"
    merge(folders, doc, tmp_path / "codes")
    merge(plain, doc, tmp_path / "values")
    codes, right = loaded(tmp_path / "codes"), loaded(tmp_path / "values")
    assert set(codes) == set(right)
    assert all(torch.equal(codes[name], right[name]) for name in codes)
    assert "quantization_config" not in (tmp_path / "codes" / "config.json").read_text()


def test_a_changed_input_is_noticed(tmp_path: Path) -> None:
    folders, inputs = models(tmp_path, 1)
    doc = document("linear", inputs, each=[{"weight": 1.0}] * 2)
    file = folders[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(folders, doc, tmp_path / "no", 3, "model.safetensors")
    shutil.rmtree(folders[0])
    write(folders[0], inputs[0])
    merge(folders, doc, tmp_path / "out")
    with pytest.raises(TaskvecError, match="overwrite"):
        merge(folders, {**doc, "seed": 1}, tmp_path / "out")
    before = sums(tmp_path / "out")
    merge(folders, doc, tmp_path / "out", overwrite=True)
    assert sums(tmp_path / "out") == before
