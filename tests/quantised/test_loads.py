"""What is written of a quantised model is what transformers makes of it when it dequantises for itself."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CompressedTensorsConfig,
    DeepseekV3Config,
    GptOssConfig,
    Qwen3Config,
)

from families import raw, read, write
from livemodels import load, state
from quantised.maker import BF16, F32, Maker, freed
from quantised.shared import BLOCKS, FP8, INT4, MXFP4, NVFP4, compressed
from taskvec import transfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel

    from quantised.maker import Config, Shape

    Coding = Callable[[Maker, str, Shape], None]

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
LINEAR = re.compile(r"(self_attn|mlp|experts\.\d+|shared_experts)\.\w+_proj(_with_mqa)?\.weight$")
EXPERTS = re.compile(r"experts\.\w+_proj$")
SKIPPED = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]


def qwen3() -> Any:
    return Qwen3Config(**SIZES, hidden_size=256, intermediate_size=384, head_dim=64)


def deepseek() -> Any:
    # transformers takes the sizes of blocks from shapes: as many rows of keys as the real one has for each
    # block would be read wrongly, so that all blocks have to be whole here.
    sizes = {**SIZES, "num_key_value_heads": 4}
    return DeepseekV3Config(
        **sizes, hidden_size=128, intermediate_size=256, moe_intermediate_size=128, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1, q_lora_rank=128,
        kv_lora_rank=64, qk_rope_head_dim=64, qk_nope_head_dim=64, v_head_dim=64,
    )  # fmt: skip


def gpt_oss() -> Any:
    return GptOssConfig(
        **SIZES, hidden_size=64, intermediate_size=64, head_dim=16, num_local_experts=3,
        num_experts_per_tok=2, sliding_window=8,
    )  # fmt: skip


def fp8(form: str, strategy: str, **more: Any) -> Config:
    return compressed(form, {**FP8, "strategy": strategy, **more})


# A model, which of its weights become codes and how, and what its config says of them.
MODELS: dict[str, tuple[Callable[[], Any], re.Pattern[str], Coding, Config]] = {
    "Qwen3": (qwen3, LINEAR, lambda make, name, shape: make.fp8(name, shape, F32), BLOCKS),
    "DeepSeek-V3": (deepseek, LINEAR, lambda make, name, shape: make.fp8(name, shape, F32), BLOCKS),
    "gpt-oss": (
        gpt_oss, EXPERTS, lambda make, name, shape: make.gpt_oss(name, shape[0], shape[2], shape[1]),
        {"quant_method": "mxfp4", "modules_to_not_convert": SKIPPED},
    ),
    "rows": (
        qwen3, LINEAR, lambda make, name, shape: make.channel(name, shape, BF16),
        fp8("float-quantized", "channel"),
    ),
    "whole tensors": (
        qwen3, LINEAR, lambda make, name, shape: make.tensor(name, shape, BF16, "_scale", [1]),
        fp8("naive-quantized", "tensor"),
    ),
    "other blocks": (
        qwen3, LINEAR, lambda make, name, shape: make.fp8(name, shape, BF16, block=(64, 32), scale="_scale"),
        fp8("float-quantized", "block", block_structure=[64, 32]),
    ),
    "INT4": (
        qwen3, LINEAR, lambda make, name, shape: make.int4(name.removesuffix(".weight"), shape),
        compressed("pack-quantized", INT4),
    ),
    "NVFP4": (
        qwen3, LINEAR,
        lambda make, name, shape: make.nvfp4(name.removesuffix(".weight"), shape, divides=True),
        compressed("nvfp4-pack-quantized", NVFP4),
    ),
    "MXFP4": (
        qwen3, LINEAR, lambda make, name, shape: make.mxfp4(name, shape, f"{name}_packed", f"{name}_scale"),
        compressed("mxfp4-pack-quantized", MXFP4),
    ),
}  # fmt: skip


def publish(kind: str, folder: Path) -> Maker:
    """A model that was saved by transformers, with codes in place of the weights that are multiplied."""
    configure, pattern, code, said = MODELS[kind]
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(configure()).to(BF16)
    model.save_pretrained(folder)
    make = Maker(kind, config=json.loads((folder / "config.json").read_text()))
    make.config["quantization_config"] = said
    for name, one in read(folder).items():
        if pattern.search(name):
            code(make, name, list(one.shape))
        else:
            make.stored[name] = make.logical[name] = one
    assert make.coded
    return make


def dequantised(folder: Path, said: Config) -> PreTrainedModel:
    """Without a GPU transformers does so by itself, but for compressed-tensors, which has to be told."""
    if said["quant_method"] != "compressed-tensors":
        return load(folder, BF16)
    told = CompressedTensorsConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=BF16, quantization_config=told)


def ids(model: PreTrainedModel) -> list[int]:
    prompt = torch.tensor([[3, 14, 15, 92, 65, 35]])
    made: Any = model.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)
    return made[0].tolist()


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
@pytest.mark.parametrize("kind", MODELS)
def test_the_output_is_what_transformers_dequantises(kind: str, tmp_path: Path) -> None:
    make = publish(kind, tmp_path / "plain")
    target = make.save(tmp_path / "t")
    donors = [write(tmp_path / seed, make.plainly(seed), config=freed(make.config)) for seed in "gs"]
    transfer(target, *donors, tmp_path / "out", alpha=0, sync=False)
    theirs, ours = dequantised(target, MODELS[kind][3]), load(tmp_path / "out", BF16)
    wanted, found = state(theirs), state(ours)
    assert list(found) == list(wanted)
    for name, one in wanted.items():
        assert found[name].dtype == one.dtype, name
        assert raw(found[name]) == raw(one), name
    assert ids(ours) == ids(theirs)
    assert len({*ids(ours)[6:]}) > 2
    # With a vector it is another model, which loads as well.
    transfer(target, *donors, tmp_path / "out", alpha=0.7, overwrite=True, sync=False)
    changed = state(load(tmp_path / "out", BF16))
    assert any(raw(changed[name]) != raw(one) for name, one in wanted.items())
