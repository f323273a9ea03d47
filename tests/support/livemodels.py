"""Live models and the checkpoints they are loaded from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

import families
import taskvec
from families import Tensors, anything, generator, noise, nudged, raw, write

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from transformers import PreTrainedModel

SIZES: dict[str, Any] = {
    "vocab_size": 1500,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def save_family(root: Path, config: Any, dtype: torch.dtype, shard: str = "5GB") -> Path:
    """Folders t, g and s as transformers saves them, and the vector v."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config).to(dtype)
    for role in ("t", "s", "g"):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_((torch.randn(parameter.shape) * 0.003).to(dtype))
        model.save_pretrained(root / role, max_shard_size=shard)
    taskvec.extract(root / "g", root / "s", root / "v")
    return root


def load(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def state(model: nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_state(model: nn.Module, wanted: Tensors, what: object = "") -> None:
    found = model.state_dict()
    assert list(found) == list(wanted), what
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, (name, what)
        assert raw(found[name]) == raw(tensor), (name, what)


def written(root: Path, dtype: torch.dtype, alpha: Any, **options: Any) -> Tensors:
    """What loading the checkpoint that `apply` writes gives."""
    taskvec.apply(root / "t", root / "v", root / "out", alpha=alpha, sync=False, overwrite=True, **options)
    return state(load(root / "out", dtype))


def enter(context: AbstractContextManager[object]) -> None:
    """A block with nothing in it."""
    with context:
        pass


def holder(tensors: Tensors, *, buffers: tuple[str, ...] = ()) -> nn.Module:
    """A model whose parameters have these names, dots and all."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        if name in buffers:
            module.register_buffer(last, tensor.clone())
        else:
            module.register_parameter(last, nn.Parameter(tensor.clone(), requires_grad=False))
    return root


def odd_trio(root: Path, *, shards: int = 1) -> tuple[Tensors, Tensors, Tensors]:
    """Every kind of tensor behind a header of odd length: elements are cut by the blocks' edges."""
    rng = generator("odd")
    t: Tensors = {
        "mask.values": torch.randint(0, 255, (1001,), generator=rng, dtype=torch.uint8),
        "big.weight": noise((700_001,), torch.float32, rng),
        "wild.weight": anything((600_001,), torch.bfloat16, rng),
        "small.weight": noise((31, 7), torch.float16, rng),
        "wide.table": noise((300_007,), torch.float64, rng),
        "one.scale": noise((), torch.float32, rng),
        "none.weight": torch.empty(0, 8, dtype=torch.bfloat16),
    }
    floats = {name for name, tensor in t.items() if tensor.dtype in families.FLOATS}
    s = {name: nudged(tensor, rng) if name in floats else tensor for name, tensor in t.items()}
    g = {name: nudged(tensor, rng) if name in floats else tensor for name, tensor in s.items()}
    for donor in (g, s):
        del donor["wide.table"]
    for role, tensors in (("t", t), ("g", g), ("s", s)):
        write(root / role, tensors, pad=3, shards=shards)
    return t, g, s


BUFFERS = ("mask.values", "wide.table")
