"""What is written of a quantised model is what transformers makes of it when it dequantises for itself."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, GptOssConfig, Qwen3Config

from families import raw, read, write
from livemodels import load, state
from quantised.maker import BF16, F32, Maker, freed
from taskvec import transfer

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
BLOCKS: dict[str, Any] = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
}
LINEAR = re.compile(r"(self_attn|mlp|experts\.\d+|shared_experts)\.\w+_proj(_with_mqa)?\.weight$")
# transformers takes the sizes of blocks from shapes, so that all have to be whole here.
MODELS: dict[str, Any] = {
    "Qwen3": lambda: Qwen3Config(**SIZES, hidden_size=256, intermediate_size=384, head_dim=64),
    "DeepSeek-V3": lambda: DeepseekV3Config(
        **{**SIZES, "num_key_value_heads": 4},
        hidden_size=128, intermediate_size=256, moe_intermediate_size=128, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1, q_lora_rank=128,
        kv_lora_rank=64, qk_rope_head_dim=64, qk_nope_head_dim=64, v_head_dim=64,
    ),
    "gpt-oss": lambda: GptOssConfig(
        **SIZES, hidden_size=64, intermediate_size=64, head_dim=16, num_local_experts=3,
        num_experts_per_tok=2, sliding_window=8,
    ),
}  # fmt: skip


def publish(kind: str, folder: Path) -> Maker:
    """A model that was saved by transformers, with codes in place of the weights that are multiplied."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(MODELS[kind]()).to(BF16)
    model.save_pretrained(folder / "plain")
    make = Maker(kind)
    for name, one in read(folder / "plain").items():
        shape = list(one.shape)
        if kind != "gpt-oss" and LINEAR.search(name):
            make.fp8(name, shape, F32)
        elif kind == "gpt-oss" and name.endswith("_proj"):
            experts, columns, rows = shape
            make.gpt_oss(name, experts, rows, columns)
        else:
            make.stored[name] = make.logical[name] = one
    return make


def ids(model: PreTrainedModel) -> list[int]:
    prompt = torch.tensor([[3, 14, 15, 92, 65, 35]])
    made: Any = model.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=0)
    return made[0].tolist()


@pytest.mark.parametrize("kind", MODELS)
def test_the_output_is_what_transformers_dequantises(kind: str, tmp_path: Path) -> None:
    make = publish(kind, tmp_path)
    make.config = json.loads((tmp_path / "plain" / "config.json").read_text())
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    mxfp4 = {"quant_method": "mxfp4", "modules_to_not_convert": skipped}
    make.config["quantization_config"] = mxfp4 if kind == "gpt-oss" else BLOCKS
    assert make.coded
    target = make.save(tmp_path / "t")
    donors = [write(tmp_path / seed, make.plainly(seed), config=freed(make.config)) for seed in "gs"]
    transfer(target, *donors, tmp_path / "out", alpha=0, sync=False)
    theirs, ours = load(target, BF16), load(tmp_path / "out", BF16)
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
