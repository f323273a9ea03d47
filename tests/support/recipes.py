"""Small models with the names of Llama, and recipes in mergekit's format over them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
import yaml
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

Tensors = dict[str, torch.Tensor]
LAYERS, WIDTH, INNER, VOCAB = 5, 16, 24, 40
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH,
    "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": VOCAB,
    "tie_word_embeddings": False,
}  # fmt: skip


def shapes(layers: int = LAYERS) -> dict[str, tuple[int, ...]]:
    """Every tensor of such a model."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, WIDTH)}
    for layer in range(layers):
        front = f"model.layers.{layer}"
        for name in ("q", "k", "v", "o"):
            found[f"{front}.self_attn.{name}_proj.weight"] = (WIDTH, WIDTH)
        found |= {f"{front}.mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
        found[f"{front}.mlp.down_proj.weight"] = (WIDTH, INNER)
        found |= {
            f"{front}.{name}.weight": (WIDTH,) for name in ("input_layernorm", "post_attention_layernorm")
        }
    return {**found, "model.norm.weight": (WIDTH,), "lm_head.weight": (VOCAB, WIDTH)}


def model(folder: Path, value: Callable[[str, tuple[int, ...]], torch.Tensor], layers: int = LAYERS) -> Path:
    """Writes a model; `value` makes each tensor from its name and shape."""
    folder.mkdir(parents=True)
    tensors = {name: value(name, shape).contiguous() for name, shape in shapes(layers).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
    return folder


def constant(folder: Path, number: float, layers: int = LAYERS) -> Path:
    """A model whose weights are all the same, so that a merge shows how each was weighted."""
    return model(folder, lambda _, shape: torch.full(shape, float(number)), layers)


def family(root: Path, count: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Path]:
    """A base and models near to it, with values that bfloat16 holds; the base comes last."""
    torch.manual_seed(seed)
    base = {name: (0.02 * torch.randn(shape)).bfloat16().float() for name, shape in shapes().items()}
    folders: list[Path] = []
    for at in range(count + 1):
        change = 0.0 if at == count else 2e-3

        def near(name: str, shape: tuple[int, ...], change: float = change) -> torch.Tensor:
            return (base[name] + change * torch.randn(shape)).to(dtype)

        folders.append(model(root / ("base" if at == count else f"m{at}"), near))
    return folders


def recipe(path: Path, content: dict[str, Any] | list[Any] | str) -> Path:
    """Writes a recipe."""
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def tensors(folder: Path) -> Tensors:
    """Everything in a folder."""
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}
