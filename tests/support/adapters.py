"""Adapters made by PEFT on small models of random weights, and their ΔW from what PEFT says of them."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from families import Tensors, generator, read

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

QWEN = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
}  # fmt: skip
GPT2 = {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 2}


@dataclass(frozen=True)
class Adapted:
    """Folders to be read only: two models of one shape, and an adapter on the first."""

    base: Path
    target: Path
    adapter: Path


def write_adapted(folder: Path) -> Adapted:
    """A small family."""
    base, target = write_base(folder / "base"), write_base(folder / "target", "target")
    modules = ["q_proj", "up_proj"]
    return Adapted(base, target, write_adapter(folder / "adapter", base, "one", r=4, target_modules=modules))


def write_base(folder: Path, seed: str = "base", *, gpt2: bool = False, tied: bool = False) -> Path:
    """A bfloat16 model."""
    model: Any = (
        GPT2LMHeadModel(GPT2Config(**GPT2))
        if gpt2
        else Qwen2ForCausalLM(Qwen2Config(**{**QWEN, "tie_word_embeddings": tied}))
    )
    randomise(model, seed, 0.02)
    model.bfloat16().save_pretrained(folder)
    return folder


def randomise(model: torch.nn.Module, seed: str, size: float, part: str = "") -> None:
    """Gives all parameters that have `part` in their names random values."""
    rng = generator(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if part in name:
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * size)


def load(folder: Path) -> PreTrainedModel:
    """The model, in float32."""
    return cast("PreTrainedModel", AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


def write_adapter(
    folder: Path,
    base: Path,
    seed: str,
    *,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Path:
    """What `save_pretrained` makes of a trained adapter."""
    with warnings.catch_warnings():
        # PEFT warns of layers that it transposes, and of embeddings that it saves along.
        warnings.simplefilter("ignore")
        model: Any = get_peft_model(load(base), LoraConfig(**config), autocast_adapter_dtype=False)
        randomise(model, seed, 0.2, "lora_")
        model.to(dtype).save_pretrained(folder)
    return folder


def change(folder: Path, **keys: Any) -> Path:
    """Writes other values into the adapter's config."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    return folder


def loaded(base: Path, adapter: Path) -> Any:
    """The adapter on its base as PEFT loads it, in float32, which holds factors of any type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(load(base), adapter)


def deltas(base: Path, adapter: Path) -> Tensors:
    """ΔW in float32, by the name of the weight: factors and scales as PEFT has them, summed in float64."""
    found: Tensors = {}
    for name, module in loaded(base, adapter).base_model.model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        embedding = len(module.lora_embedding_A) > 0
        a, b = (
            (module.lora_embedding_A["default"], module.lora_embedding_B["default"])
            if embedding
            else (module.lora_A["default"].weight, module.lora_B["default"].weight)
        )
        a, b = a.detach().double(), b.detach().double()
        total = torch.zeros(len(b), a.shape[1], dtype=torch.float64)
        for k in range(len(a)):
            total = total + b[:, k, None] * a[k]
        made = (module.scaling["default"] * total).float()
        turned = embedding or bool(getattr(module, "fan_in_fan_out", False))
        found[f"{name}.weight"] = made.T.contiguous() if turned else made
    return found


def moved(target: Path, minuend: Tensors, subtrahend: Tensors, alpha: float) -> Tensors:
    """The target's tensors, in its own types, with the difference of two sets of ΔW added."""
    found = read(target)
    for name in minuend.keys() | subtrahend.keys():
        zero = torch.zeros(found[name].shape)
        d = minuend.get(name, zero) - subtrahend.get(name, zero)
        found[name] = (found[name].float() + torch.tensor(alpha) * d).to(found[name].dtype)
    return found
