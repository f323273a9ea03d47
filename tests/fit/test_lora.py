"""Adapters as donors: made by PEFT, multiplied out by torch in float64, merged by PEFT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapters import change, deltas, load, loaded, moved, write_adapter, write_base
from families import assert_tensors, files, manifest, read, weights
from taskvec import MismatchError, apply, check, extract, inspect, transfer, transferred
from vectors import ENCODINGS, exact

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters import Adapted
    from command import Answer
    from hubserver import Hub

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"r": 4, "lora_alpha": 8, "target_modules": ALL}, {"r": 3, "target_modules": ALL}),
    "of one type each": (
        {"r": 4, "target_modules": ALL, "dtype": torch.bfloat16},
        {"r": 4, "target_modules": ALL, "dtype": torch.float16},
    ),
    "on different modules": (
        {"r": 2, "target_modules": ["q_proj", "up_proj"]},
        {"r": 5, "target_modules": ["q_proj", "down_proj"]},
    ),
    "rank-stabilised, with patterns": (
        {
            "r": 4,
            "lora_alpha": 7,
            "use_rslora": True,
            "target_modules": ALL,
            "rank_pattern": {"model.layers.1.self_attn.q_proj": 6, "q_proj": 2,
                             r"layers\.\d+\.mlp\.(up|gate)_proj": 3},
            "alpha_pattern": {"0.self_attn.k_proj": 3, "_proj": 99, "v_proj": 5, "self_attn.o_proj": 11},
        },
        {"r": 2, "target_modules": ALL, "alpha_pattern": {"^model.layers.1.*o_proj": 1, "down_proj": 31}},
    ),
    "with embeddings": (
        {"r": 4, "target_modules": ["embed_tokens", "q_proj", "lm_head"], "dtype": torch.bfloat16},
        {"r": 2, "lora_alpha": 3, "use_rslora": True, "target_modules": ["embed_tokens"]},
    ),
    "with alpha 0": ({"r": 4, "lora_alpha": 0, "target_modules": ALL}, {"r": 1, "target_modules": ALL}),
}  # fmt: skip


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    """The adapter's copy, to be changed."""
    return Path(shutil.copytree(adapter, tmp_path / "copy"))


@pytest.mark.parametrize("pair", PAIRS)
def test_the_transfer_of_two_adapters_is_torchs(pair: str, base: Path, target: Path, tmp_path: Path) -> None:
    first, second = (
        write_adapter(tmp_path / f"a{at}", base, f"{pair}{at}", **config)
        for at, config in enumerate(PAIRS[pair])
    )
    wanted = moved(target, deltas(base, first), deltas(base, second), 0.7)
    transfer(target, first, second, tmp_path / "out", alpha=0.7, sync=False)
    assert_tensors(read(tmp_path / "out"), wanted, pair)
    # The same in two steps, and the vector holds the exact differences.
    d1, d2 = deltas(base, first), deltas(base, second)
    differences = {name: d1.get(name, 0.0) - d2.get(name, 0.0) for name in d1.keys() | d2.keys()}
    for encoding in ENCODINGS:
        vector, applied = tmp_path / f"{encoding}-vector", tmp_path / f"{encoding}-applied"
        extract(first, second, vector, encoding=encoding, sync=False)
        assert_tensors(exact(vector), differences, (pair, encoding))
        apply(target, vector, applied, alpha=0.7, sync=False)
        assert weights(applied) == weights(tmp_path / "out")


def test_what_peft_merges_is_nearly_that(base: Path, tmp_path: Path) -> None:
    config = PAIRS["rank-stabilised, with patterns"][0]
    adapter = write_adapter(tmp_path / "a", base, "merged", **config)
    transfer(base, adapter, base, tmp_path / "out", dtype="f32", sync=False)
    merged = loaded(base, adapter).merge_and_unload().state_dict()
    found = read(tmp_path / "out")
    assert found.keys() == merged.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, merged[name], rtol=1e-6, atol=1e-6)
    assert not torch.equal(found["lm_head.weight"] + 1, read(base)["lm_head.weight"].float())
    # transformers opens what was written.
    assert load(tmp_path / "out").num_parameters() == sum(tensor.numel() for tensor in found.values())


def test_weights_stored_the_other_way_round(tmp_path: Path) -> None:
    base, target = write_base(tmp_path / "base", gpt2=True), write_base(tmp_path / "t", "target", gpt2=True)
    # c_proj is square in the attention: nothing but the flag tells which way round it is.
    config: dict[str, Any] = {"r": 3, "target_modules": ["c_attn", "c_proj", "wte"], "fan_in_fan_out": True}
    first = write_adapter(tmp_path / "a", base, "a", **config)
    second = write_adapter(tmp_path / "b", base, "b", dtype=torch.float16, **config)
    transfer(target, first, second, tmp_path / "out", sync=False)
    d1, d2 = ({f"{name}": d for name, d in deltas(base, one).items()} for one in (first, second))
    assert "transformer.h.0.attn.c_proj.weight" in d1
    assert_tensors(read(tmp_path / "out"), moved(target, d1, d2, 1.0))
    # PEFT asks the layer, not the flag.
    change(first, fan_in_fan_out=False)
    assert not check(target, first, second).problems
    transfer(target, first, second, tmp_path / "again", sync=False)
    assert weights(tmp_path / "again") == weights(tmp_path / "out")


@pytest.mark.parametrize("flag", [True, False])
def test_the_layer_says_which_way_round_a_weight_is_as_in_pefts_own_merge(flag: bool, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", gpt2=True)
    adapter = write_adapter(tmp_path / "a", base, "a", r=3, target_modules=["c_attn", "c_proj", "c_fc"])
    change(adapter, fan_in_fan_out=flag)
    transfer(base, adapter, base, tmp_path / "out", dtype="f32", sync=False)
    merged = loaded(base, adapter).merge_and_unload().state_dict()
    found = read(tmp_path / "out")
    assert (
        found["transformer.h.0.attn.c_proj.weight"].shape[0]
        == found["transformer.h.0.attn.c_proj.weight"].shape[1]
    )
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, merged[name], rtol=1e-6, atol=1e-6)


def test_a_flag_that_the_layer_does_not_bear_out(base: Path, target: Path, tmp_path: Path) -> None:
    """A square linear layer: PEFT resets the flag there, and only a file written by hand has it set."""
    adapter = write_adapter(tmp_path / "adapter", base, "square", r=2, target_modules=["q_proj"])
    change(adapter, fan_in_fan_out=True)
    with pytest.raises(MismatchError, match=r"`fan_in_fan_out` is true, but .* set the flag to false"):
        transfer(target, adapter, base, tmp_path / "out")
    change(adapter, fan_in_fan_out=False)
    transfer(target, adapter, base, tmp_path / "out")
    assert_tensors(read(tmp_path / "out"), moved(target, deltas(base, adapter), {}, 1.0))


def test_against_the_base_itself(base: Path, target: Path, adapter: Path, tmp_path: Path) -> None:
    transfer(target, adapter, base, tmp_path / "plus", sync=False)
    transfer(target, base, adapter, tmp_path / "minus", sync=False)
    d = deltas(base, adapter)
    assert_tensors(read(tmp_path / "plus"), moved(target, d, {}, 1.0))
    assert_tensors(read(tmp_path / "minus"), moved(target, {}, d, 1.0))
    inputs = {one["role"]: one for one in manifest(tmp_path / "plus")["inputs"]}
    said = json.loads((adapter / "adapter_config.json").read_text())
    assert inputs["minuend"]["adapter"]["base_model"] == said["base_model_name_or_path"] == str(base)
    assert (inputs["minuend"]["adapter"]["rank"], inputs["minuend"]["adapter"]["alpha"]) == (4, 8.0)
    assert "adapter" not in inputs["subtrahend"]
    assert any("base" in note and "not read" in note for note in manifest(tmp_path / "plus")["notes"])
    # A vector too, in either direction.
    for name, pair in {"plus": (adapter, base), "minus": (base, adapter)}.items():
        vector = extract(*pair, tmp_path / f"v-{name}", sync=False)
        apply(target, vector, tmp_path / f"applied-{name}", sync=False)
        assert weights(tmp_path / f"applied-{name}") == weights(tmp_path / name)


def test_an_adapted_embedding_moves_a_tied_head_with_it(tmp_path: Path) -> None:
    base, target = (write_base(tmp_path / name, name, tied=True) for name in ("base", "target"))
    adapter = write_adapter(tmp_path / "a", base, "a", r=2, target_modules=["embed_tokens"])
    transfer(target, adapter, base, tmp_path / "out", sync=False)
    assert_tensors(read(tmp_path / "out"), moved(target, deltas(base, adapter), {}, 1.0))
    # An untied target's head stays, whichever way the vector comes.
    untied = write_base(tmp_path / "untied", "untied")
    transfer(untied, adapter, base, tmp_path / "out2", sync=False)
    assert_tensors(read(tmp_path / "out2"), moved(untied, deltas(base, adapter), {}, 1.0))
    vector = extract(adapter, base, tmp_path / "v", sync=False)
    apply(untied, vector, tmp_path / "out3", sync=False)
    assert weights(tmp_path / "out3") == weights(tmp_path / "out2")


def test_budget_threads_and_input_do_not_change_a_byte(
    base: Path, target: Path, adapter: Path, tmp_path: Path
) -> None:
    transfer(target, adapter, base, tmp_path / "one", sync=False, threads=1, io="pread")
    transfer(target, adapter, base, tmp_path / "two", sync=False, threads=3, io="mmap", memory="1GiB")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_another_alpha_in_the_config_is_another_run(
    base: Path, target: Path, copy: Path, tmp_path: Path
) -> None:
    transfer(target, copy, base, tmp_path / "one", sync=False)
    change(copy, lora_alpha=9)
    transfer(target, copy, base, tmp_path / "two", sync=False)
    one, two = (manifest(tmp_path / name)["inputs"][1] for name in ("one", "two"))
    assert one["files"] == two["files"]
    assert one["adapter"] != two["adapter"]
    assert weights(tmp_path / "one") != weights(tmp_path / "two")


def test_check_inspect_and_the_card_name_it(base: Path, target: Path, adapter: Path, tmp_path: Path) -> None:
    found = check(target, adapter, base)
    assert found.compatible, found.problems
    assert [(one.role, one.name, one.tensors) for one in found.inputs][1:] == [
        ("minuend", "adapter", 4), ("subtrahend", "base", 4)
    ]  # fmt: skip
    assert found.tensors.combined == 4
    assert any("LoRA adapter" in note for note in found.notes)
    assert not any("adapter/" in note for note in found.notes), "no config or tokenizer is missed"
    shown = inspect(adapter)
    assert (shown.kind, len(shown.tensors)) == ("adapter", 8)
    assert shown.adapter is not None
    assert shown.adapter["base_model"] == str(base)
    transfer(target, adapter, base, tmp_path / "out", sync=False)
    assert "| minuend (LoRA adapter) | adapter |" in (tmp_path / "out" / "README.md").read_text()


def test_weights_saved_beside_an_embedding_are_named_and_not_used(
    base: Path, target: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "a", base, "a", r=2, target_modules=["embed_tokens"])
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    assert name in load_file(adapter / "adapter_model.safetensors"), "PEFT saves it"
    assert any(name in note and "not used" in note for note in check(target, adapter, base).notes)


def test_on_a_live_model(base: Path, target: Path, adapter: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16)
    wanted = moved(target, deltas(base, adapter), {}, 0.5)
    with transferred(model, adapter, base, alpha=0.5):
        assert_tensors(dict(model.state_dict()), wanted)
    assert_tensors(dict(model.state_dict()), read(target))


def test_an_adapter_from_the_hub(
    hub: Hub, adapted: Adapted, copy: Path, taskvec: Callable[..., Answer], tmp_path: Path
) -> None:
    base, target, adapter = adapted.base, adapted.target, adapted.adapter
    change(copy, base_model_name_or_path="lab/base")
    hub.publish("lab/base", base)
    hub.publish("lab/adapter", copy)
    home = hub.env(tmp_path / "home")
    answer = taskvec("transfer", target, "lab/adapter", "lab/base", "-o", "out", "--no-sync", **home)
    assert answer.code == 0, answer.stderr
    transfer(target, adapter, base, tmp_path / "local", sync=False)
    assert weights(tmp_path / "out") == weights(tmp_path / "local")
    # Of the base, headers are enough.
    assert not list((tmp_path / "home" / "hub" / "models--lab--base").rglob("*.safetensors"))
    plan = json.loads(taskvec("check", target, "lab/adapter", "lab/base", "--json", **home).stdout)
    assert plan["download"]["bytes"] == 0
    assert taskvec("inspect", "lab/adapter", **home).stdout.startswith("  adapter")


@pytest.mark.parametrize("alpha", [31.245270191439438, 0.1, 1.7976931348623157e308, 5e-324, 16])
def test_alpha_is_read_as_python_reads_it(alpha: float, adapter: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(adapter, tmp_path / "adapter")
    settings = json.loads((changed / "adapter_config.json").read_text())
    (changed / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": alpha}))
    shown = inspect(changed).adapter
    assert shown is not None
    assert shown["alpha"] == alpha
