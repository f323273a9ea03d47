"""inspect: what is in a folder, from headers alone, held against what was put there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open

from families import CONFIG, NAMES, TIED, files, generator, manifest, noise, nudged, write
from hostile import call
from taskvec import CorruptError, extract, inspect, transfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer


def test_a_checkpoint(tmp_path: Path) -> None:
    # torch makes no 4-bit numbers out of others.
    names = {dtype: name for dtype, name in NAMES.items() if name != "F4"}
    tensors = {f"t.{name}": torch.ones(3, 2).to(dtype) for dtype, name in names.items()}
    tensors |= {"scalar": torch.tensor(1.0), "none": torch.ones(0, 7, dtype=torch.bfloat16)}
    path = write(tmp_path / "model", tensors, shards=3, pad=5, config=TIED, total_size=-1)
    (path / "README.md").write_text("# Hello")
    (path / "sub").mkdir()
    (path / "sub" / "x.py").write_text("1")
    (path / "pytorch_model.bin").write_bytes(b"stale")
    found = inspect(path)
    assert (found.kind, found.name, found.tied, found.quantized) == ("checkpoint", "model", True, None)
    assert found.parameters == sum(one.numel() for one in tensors.values())
    assert found.bytes == sum(one.numel() * one.element_size() for one in tensors.values())
    assert found.sidecars == ("README.md", "config.json", "sub/x.py")
    assert found.left_out == ("pytorch_model.bin",)
    assert (found.vector, found.manifest) == (None, None)
    shards = sorted(path.glob("*.safetensors"))
    assert [(one.name, one.size) for one in found.files] == [(one.name, one.stat().st_size) for one in shards]
    by_name = {one.name: one for one in found.tensors}
    assert by_name.keys() == tensors.keys()
    for shard, info in zip(shards, found.files, strict=True):
        # The safetensors library says where each tensor lies.
        with safe_open(shard, "pt") as file:
            assert info.tensors == len(file.keys())
            for name in file.keys():  # noqa: SIM118  (not a dict)
                assert by_name[name].file == shard.name
                assert list(by_name[name].shape) == file.get_slice(name).get_shape()
                assert by_name[name].dtype == file.get_slice(name).get_dtype()
    for dtype, name in names.items():
        these = [one for one in tensors.values() if one.dtype == dtype]
        count = found.dtypes[name]
        assert (count.tensors, count.elements) == (len(these), sum(one.numel() for one in these))


def test_the_command_prints_what_the_function_returns(tmp_path: Path) -> None:
    tensors = {"ä.漢.weight": torch.ones(3), 'b"\\.weight': torch.ones(0, 2), "plain": torch.tensor(1.0)}
    path = write(tmp_path / "größe", tensors, config=CONFIG)
    answer = call(["inspect", path, "--json"])
    assert answer[0] == 0
    assert answer[1].isascii()
    assert json.loads(answer[1]) == inspect(path).to_json()
    # The table does not need the tensors, and with --verbose has them.
    assert "ä.漢" not in call(["inspect", path])[1]
    assert "ä.漢" in call(["inspect", path, "--verbose"])[1]


@pytest.mark.parametrize("config", [None, {}, {"text_config": {"tie_word_embeddings": True}}])
def test_what_the_config_says(config: dict[str, object] | None, tmp_path: Path) -> None:
    found = inspect(write(tmp_path / "m", {"w": torch.ones(1)}, config=config))
    assert found.tied is (True if config else None)
    quantised = {"quantization_config": {"quant_method": "gptq"}}
    assert inspect(write(tmp_path / "q", {"w": torch.ones(1)}, config=quantised)).quantized == "gptq"


def test_vectors_and_outputs(tmp_path: Path) -> None:
    rng = generator("inspect")
    s = {name: noise([300], torch.bfloat16, rng) for name in ("a", "b")}
    g = {"a": nudged(s["a"], rng), "b": noise([300], torch.bfloat16, rng)}
    pair = write(tmp_path / "g", g, shards=2), write(tmp_path / "s", s)
    vector = extract(*pair, tmp_path / "v")
    found = inspect(vector)
    assert (found.kind, found.name, found.parameters) == ("vector", "v", 600)
    assert [one.name for one in found.files] == [f"vector-0000{at}-of-00002.safetensors" for at in (1, 2)]
    assert found.vector is not None
    assert found.vector["vector"]["exceptions"] == vector.written.exceptions > 0
    assert found.vector["config"] == CONFIG
    transfer(write(tmp_path / "t", s), *pair, tmp_path / "out")
    made = inspect(tmp_path / "out")
    assert made.kind == "checkpoint"
    assert made.manifest is not None
    # The figures of every tensor are many, and stay in the file.
    whole = manifest(tmp_path / "out")
    assert made.to_json()["manifest"] == {key: value for key, value in whole.items() if key != "tensors"}
    assert "taskvec.json" not in made.sidecars


def test_nothing_is_written_and_weights_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"w": torch.ones(100)})
    before = files(path)
    inspect(path)
    assert files(path) == before
    (path / "taskvec.json").write_text("{")
    with pytest.raises(CorruptError, match=r"taskvec\.json"):
        inspect(path)


def test_the_command(taskvec: Callable[..., Answer], tmp_path: Path) -> None:
    path = write(tmp_path / "m", {"w": torch.ones(100)})
    answer = taskvec("inspect", path, "--json")
    assert answer.code == 0
    assert json.loads(answer.stdout) == inspect(path).to_json()
