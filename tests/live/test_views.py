"""Donors whose experts are stored otherwise: in a live model, and as transformers has them in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

import taskvec
from families import raw, read, weights, write
from livemodels import holder
from moe import MOE, fused, separate

if TYPE_CHECKING:
    from pathlib import Path


def test_a_live_model_gets_the_bits_of_the_written_checkpoint(tmp_path: Path) -> None:
    for target in ("t", "ft"):
        tensors = {role: separate(role) for role in "tgs"}
        if target == "ft":
            tensors["t"] = fused(tensors["t"])
        else:
            tensors |= {role: fused(tensors[role]) for role in "gs"}
        root = tmp_path / target
        for role, one in tensors.items():
            write(root / role, one, config=MOE)
        taskvec.transfer(root / "t", root / "g", root / "s", root / "out", alpha=0.7)
        taskvec.extract(root / "g", root / "s", root / "v")
        model = holder(tensors["t"])
        added = (
            taskvec.transferred(model, root / "g", root / "s", alpha=0.7, target=root / "t"),
            taskvec.Vector(root / "v").applied(model, 0.7, target=root / "t"),
        )
        for one in added:
            with one:
                for name, wanted in read(root / "out").items():
                    assert raw(model.get_parameter(name).data) == raw(wanted), name
            for name, before in tensors["t"].items():
                assert raw(model.get_parameter(name).data) == raw(before), name


def test_transformers_fuses_experts_in_the_same_order(tmp_path: Path) -> None:
    """It keeps them fused in memory and writes them one by one."""
    config = Qwen3MoeConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_experts=4,
        num_experts_per_tok=2, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16,
        decoder_sparse_step=1, tie_word_embeddings=False,
    )  # fmt: skip
    for role in "tgs":
        torch.manual_seed(ord(role))
        model: Any = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
        model.save_pretrained(tmp_path / role)
        state = {name: one.detach().contiguous() for name, one in model.state_dict().items()}
        assert "model.layers.1.mlp.experts.gate_up_proj" in state
        write(tmp_path / f"f{role}", state, config=config.to_dict())
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in read(tmp_path / "t")
    taskvec.transfer(*(tmp_path / role for role in ("t", "g", "s")), tmp_path / "out", alpha=0.7)
    taskvec.transfer(*(tmp_path / role for role in ("t", "fg", "fs")), tmp_path / "cut", alpha=0.7)
    assert weights(tmp_path / "cut") == weights(tmp_path / "out")
    taskvec.transfer(*(tmp_path / role for role in ("ft", "fg", "fs")), tmp_path / "fused", alpha=0.7)
    taskvec.transfer(*(tmp_path / role for role in ("ft", "g", "s")), tmp_path / "joined", alpha=0.7)
    assert weights(tmp_path / "joined") == weights(tmp_path / "fused")
