"""What the layouts share: the shape of a small model, and the words of configs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantised.maker import Config, Maker

LINEAR: Config = {"dynamic": False, "symmetric": True, "observer": "minmax", "actorder": None}


def compressed(form: str, *weights: Config, **more: Any) -> Config:
    """A config of compressed-tensors with one group for each way to store weights."""
    groups = {
        f"group_{at}": {
            "targets": ["Linear"] if len(weights) == 1 else [f"re:.*{'mlp' if at else 'self_attn'}.*"],
            "weights": {**LINEAR, **one},
            "input_activations": None,
            "output_activations": None,
        }
        for at, one in enumerate(weights)
    }
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        **more,
    }


FP8 = {"num_bits": 8, "type": "float", "group_size": None, "block_structure": None}
MXFP4 = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
BLOCKS: Config = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def base(model_type: str, layers: int, **more: Any) -> Config:
    """The start of a config, as transformers writes it."""
    return {
        "architectures": ["MadeForCausalLM"],
        "model_type": model_type,
        "hidden_size": 160,
        "num_hidden_layers": layers,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **more,
    }


def ends(make: Maker, prefix: str = "model.", hidden: int = 160, head: str = "lm_head.weight") -> None:
    """Embedding, last norm and head, which nobody quantises."""
    make.plain(f"{prefix}embed_tokens.weight", [48, hidden])
    make.plain(f"{prefix}norm.weight", [hidden])
    make.plain(head, [48, hidden])


def qwen3(make: Maker, **config: Any) -> Config:
    """What all dense models here have beside their linear layers."""
    make.config = base("qwen3", 1, **config)
    ends(make)
    make.plain("model.layers.0.input_layernorm.weight", [160])
    return make.config


def linears() -> dict[str, list[int]]:
    """The linear layers of a small model: columns are a multiple of 32, rows of nothing."""
    front = "model.layers.0"
    return {
        f"{front}.self_attn.q_proj": [200, 160],
        f"{front}.self_attn.k_proj": [1, 160],
        f"{front}.mlp.gate_proj": [150, 160],
        f"{front}.mlp.down_proj": [160, 96],
    }
