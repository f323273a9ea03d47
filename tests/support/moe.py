"""Small mixtures of experts, one by one or fused, alone or within a larger model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from families import Tensors, generator, noise

if TYPE_CHECKING:
    from collections.abc import Callable

FRONT = "model.layers.{}.mlp.experts"
MOE: dict[str, Any] = {"model_type": "qwen3_5_moe_text", "hidden_size": 6, "tie_word_embeddings": False}


def separate(
    seed: object, experts: int = 3, inner: int = 4, hidden: int = 6, dtype: torch.dtype = torch.bfloat16
) -> Tensors:
    """Two layers whose experts have three matrices each."""
    rng = generator(("moe", seed))
    found = {"model.embed_tokens.weight": noise([8, hidden], dtype, rng)}
    for layer in range(2):
        found[f"model.layers.{layer}.mlp.gate.weight"] = noise([experts, hidden], dtype, rng)
        for one in range(experts):
            for name, shape in (
                ("down", [hidden, inner]),
                ("gate", [inner, hidden]),
                ("up", [inner, hidden]),
            ):
                found[f"{FRONT.format(layer)}.{one}.{name}_proj.weight"] = noise(shape, dtype, rng)
    found["model.norm.weight"] = noise([hidden], dtype, rng)
    return found


def fused(tensors: Tensors, how: Callable[[torch.Tensor], torch.Tensor] = lambda one: one) -> Tensors:
    """The same with one tensor for gates and ups and one for downs, each changed by `how`."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        front, experts, _ = name.partition(".experts.")
        if not experts:
            found[name] = tensor
        elif (start := f"{front}.experts.") + "down_proj" not in found:
            count = len({one.split(".")[5] for one in tensors if one.startswith(start)})

            def all_of(kind: str, start: str = start, count: int = count) -> list[torch.Tensor]:
                return [tensors[f"{start}{at}.{kind}_proj.weight"] for at in range(count)]

            both = [torch.cat(pair) for pair in zip(all_of("gate"), all_of("up"), strict=True)]
            found[f"{start}gate_up_proj"] = how(torch.stack(both)).contiguous()
            found[f"{start}down_proj"] = how(torch.stack(all_of("down"))).contiguous()
    return found


def renamed(tensors: Tensors, body: str, head: str = "lm_head.") -> Tensors:
    """The same with another front in place of `model.`, and another of the head."""
    fronts = {"model.": body, "lm_head.": head}
    found: Tensors = {}
    for name, one in tensors.items():
        (front,) = (front for front in fronts if name.startswith(front))
        found[fronts[front] + name.removeprefix(front)] = one
    return found
