"""Adapters that are no plain LoRA, do not belong together or are malformed: each refused in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters import change
from taskvec import CorruptError, MismatchError, check, transfer

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def copy(adapter: Path, tmp_path: Path) -> Path:
    """The adapter's copy, to be changed."""
    return Path(shutil.copytree(adapter, tmp_path / "copy"))


def test_pairs_that_do_not_belong_together(
    base: Path, target: Path, adapter: Path, copy: Path, tmp_path: Path
) -> None:
    change(copy, base_model_name_or_path="org/other")
    with pytest.raises(MismatchError, match=f"base is `{base}`, and that of .*copy is `org/other`"):
        transfer(target, adapter, copy, tmp_path / "out")
    with pytest.raises(
        MismatchError, match=r"nothing shows that .*base is that model; give --base .*/base if"
    ):
        transfer(target, copy, base, tmp_path / "out")
    # The target is not the base either, although all shapes fit.
    with pytest.raises(MismatchError, match=r"nothing shows that .*target is that model"):
        transfer(target, adapter, target, tmp_path / "out")
    change(copy, base_model_name_or_path=str(base), revision="v2")
    with pytest.raises(MismatchError, match="v2"):
        transfer(target, adapter, copy, tmp_path / "out")
    # Another spelling of the same folder is the same base.
    change(copy, base_model_name_or_path=f"{base}/../base/", revision="main")
    assert check(target, adapter, copy).compatible
    assert not (tmp_path / "out").exists()


def test_a_base_without_the_adapted_tensors(base: Path, target: Path, copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(2, 48, dtype=torch.bfloat16)
    save_file(tensors, other / "model.safetensors")
    change(copy, base_model_name_or_path=str(other))
    with pytest.raises(
        MismatchError,
        match=r"adapts .*0.mlp.up_proj.weight` with shape \[80, 48\], which has shape \[2, 48\] in",
    ):
        transfer(target, copy, other, tmp_path / "out")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "LOHA"}, '`peft_type` is "LOHA", but only LORA'),
    ({"peft_type": None}, "`peft_type` is `null`"),
    ({"use_dora": True}, "`use_dora` is `true` .DoRA."),
    ({"bias": "all"}, '`bias` is "all"'),
    ({"lora_bias": True}, "`lora_bias`"),
    ({"modules_to_save": ["lm_head"]}, "`modules_to_save`"),
    ({"trainable_token_indices": [1]}, "`trainable_token_indices`"),
    ({"init_lora_weights": "pissa_niter_4"}, '`init_lora_weights` is "pissa_niter_4", which changes'),
    ({"init_lora_weights": "olora"}, "olora"),
    ({"init_lora_weights": "corda"}, "corda"),
    ({"init_lora_weights": "loftq"}, "loftq"),
    ({"init_lora_weights": "lora_ga"}, "lora_ga"),
    ({"layer_replication": [[0, 2], [1, 2]]}, "`layer_replication`"),
    ({"target_parameters": ["experts.down_proj"]}, "`target_parameters`"),
    ({"alora_invocation_tokens": [3]}, "aLoRA"),
    ({"use_qalora": True}, "QA-LoRA"),
    ({"megatron_config": {"a": 1}}, "Megatron"),
    ({"ensure_weight_tying": True}, "`ensure_weight_tying`"),
    ({"arrow_config": {"top_k": 2}}, "`arrow_config`"),
    ({"use_something_new": 1}, "`use_something_new` is `1`, which changes what the factors mean"),
    (
        {"rank_pattern": {"(?<=x)q_proj": 4}},
        r"has the pattern .* which is not a supported regular expression",
    ),
]


@pytest.mark.parametrize(("keys", "words"), REFUSED)
def test_adapters_of_other_kinds_are_refused_by_name(
    keys: dict[str, Any], words: str, base: Path, target: Path, copy: Path, tmp_path: Path
) -> None:
    change(copy, **keys)
    with pytest.raises(MismatchError, match=words) as refused:
        transfer(target, copy, base, tmp_path / "out")
    assert "adapter_config.json" in str(refused.value)
    assert "merge it into its base model" in str(refused.value)
    assert not (tmp_path / "out").exists()


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"r": 0}, "`r` to `0`, which is not a rank"),
    ({"r": 2.5}, "which is not a rank"),
    ({"r": True}, "which is not a rank"),
    ({"rank_pattern": {"q_proj": -1}}, "`q_proj` to `-1`, which is not a rank"),
    ({"rank_pattern": {"q_proj": 5}}, "the rank in adapter_config.json is 5"),
    ({"rank_pattern": [1]}, "`rank_pattern`"),
    ({"lora_alpha": "8"}, '`lora_alpha` to "8", which is not a number'),
    ({"lora_alpha": None}, "which is not a number"),
    ({"lora_alpha": float("nan")}, "not a JSON object"),
    ({"alpha_pattern": {"q_proj": None}}, "which is not a number"),
    ({"use_rslora": "yes"}, "neither true nor false"),
    ({"base_model_name_or_path": 3}, "which is not a name"),
    ({"r": 8}, "the rank in adapter_config.json is 8"),
]


@pytest.mark.parametrize(("keys", "words"), MALFORMED)
def test_malformed_configs(
    keys: dict[str, Any], words: str, base: Path, target: Path, copy: Path, tmp_path: Path
) -> None:
    change(copy, **keys)
    with pytest.raises(CorruptError, match=words):
        transfer(target, copy, base, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "not a JSON object"),
        ('{"peft_type": "LORA"', "not a JSON object"),
        ('{"r": 4, "r": 5}', "`r` occurs twice"),
        ('{"peft_type": ' + "[" * 500 + "]" * 500 + "}", "not a JSON object"),
        (" " * (1 << 20) + "{}", "1048576 bytes allowed"),
    ],
)
def test_hostile_configs(text: str, words: str, base: Path, target: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "adapter_config.json").write_text(text)
    with pytest.raises(CorruptError, match=words):
        transfer(target, copy, base, tmp_path / "out")


FRONT = "base_model.model."
Q = f"{FRONT}model.layers.0.self_attn.q_proj"


def spoil(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        (lambda t: t.pop(f"{Q}.lora_B.weight"), "q_proj` does not have exactly one A and one B"),
        (lambda t: t.pop(f"{Q}.lora_A.weight"), "q_proj` does not have exactly one A and one B"),
        (
            lambda t: t.update({f"{Q}.lora_embedding_A": torch.ones(4, 48)}),
            "does not have exactly one A and one B",
        ),
        (lambda t: t.update({f"{Q}.lora_A.weight": torch.ones(3, 48)}), "but the rank in .* is 4"),
        (lambda t: t.update({f"{Q}.lora_B.weight": torch.ones(48, 3)}), "but the rank in .* is 4"),
        (lambda t: t.clear(), "holds no LoRA factors"),
    ],
)
def test_factors_that_do_not_fit_each_other(
    spoiled: Any, words: str, base: Path, target: Path, copy: Path, tmp_path: Path
) -> None:
    spoil(copy, spoiled)
    with pytest.raises(CorruptError, match=words):
        transfer(target, copy, base, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        (f"{Q}.lora_magnitude_vector", torch.ones(48), "is not a factor of a LoRA"),
        (f"{Q}.lora_B.bias", torch.ones(48), "is not a factor of a LoRA"),
        (f"{FRONT}lm_head.weight", torch.ones(97, 48), "is not a factor of a LoRA"),
        (
            "model.layers.0.self_attn.q_proj.lora_A.weight",
            torch.ones(4, 48),
            "does not begin with `base_model.model.`.*save_pretrained",
        ),
        (f"{FRONT}lora_A.weight", torch.ones(4, 48), "is not a factor of a LoRA"),
        (
            f"{FRONT}lm_head.base_layer.weight",
            torch.ones(97, 48),
            "the full weight of a module that has no factors",
        ),
        (f"{Q}.base_layer.weight", torch.ones(48, 47), "its shape differs from that of ΔW"),
        (f"{Q}.lora_A.weight", torch.ones(4, 48, 1, 1), "only matrices are supported"),
        (f"{Q}.lora_A.weight", torch.ones(4, 0), "only matrices are supported"),
        (f"{Q}.lora_B.weight", torch.ones(0), "DeepSpeed ZeRO-3 saved this adapter without gathering"),
        (f"{Q}.lora_A.weight", torch.ones(4, 48).double(), "it is F64, but only BF16, F16 and F32 factors"),
    ],
)
def test_tensors_that_are_not_taken(
    name: str, tensor: torch.Tensor, words: str, base: Path, target: Path, copy: Path, tmp_path: Path
) -> None:
    spoil(copy, lambda tensors: tensors.update({name: tensor}))
    with pytest.raises(MismatchError, match=words):
        transfer(target, copy, base, tmp_path / "out")


def test_only_pickled_factors(base: Path, target: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    with pytest.raises(CorruptError, match=r"only `adapter_model.bin`; convert it to safetensors first"):
        transfer(target, copy, base, tmp_path / "out")
