"""The tensors of DeepSeek-V3 and Kimi-K3, name by name, in their real sizes or in small ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTHS = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "U8": 1}
_RANKS = {dtype: rank for rank, dtype in enumerate(WIDTHS)}


class Entry(NamedTuple):
    """A stored tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: bool = False
    """Whether it holds the scales of another one."""

    @property
    def size(self) -> int:
        """Its bytes."""
        return WIDTHS[self.dtype] * prod(self.shape)

    @property
    def place(self) -> tuple[int, str]:
        """What the safetensors library sorts a file by."""
        return _RANKS[self.dtype], self.name


@dataclass(frozen=True)
class DeepSeek:
    """The sizes of a DeepSeek-V3; by default the real ones."""

    layers: int = 61
    experts: int = 256
    dense: int = 3
    mtp: int = 1
    vocab: int = 129280
    hidden: int = 7168
    inner: int = 18432
    expert: int = 2048
    q_lora: int = 1536
    kv_lora: int = 512
    kv_rows: int = 576
    q_rows: int = 24576
    kv_b_rows: int = 32768
    o_columns: int = 16384
    block: int = 128

    def small(self) -> DeepSeek:
        """The same tensors with a few KiB each, and with ragged blocks too."""
        return replace(
            self,
            vocab=256,
            hidden=128,
            inner=128,
            expert=128,
            q_lora=192,
            kv_lora=64,
            kv_rows=192,
            q_rows=128,
            kv_b_rows=128,
            o_columns=128,
        )


def deepseek_v3(sizes: DeepSeek, *, plain: bool = False, mtp: bool = True) -> Iterator[Entry]:
    """All tensors, layer by layer; `plain` are those of a checkpoint in bfloat16."""
    hidden = sizes.hidden

    def codes(name: str, rows: int, columns: int) -> Iterator[Entry]:
        if plain:
            yield Entry(f"{name}.weight", "BF16", (rows, columns))
            return
        grid = (-(-rows // sizes.block), -(-columns // sizes.block))
        yield Entry(f"{name}.weight", "F8_E4M3", (rows, columns))
        yield Entry(f"{name}.weight_scale_inv", "F32", grid, scale=True)

    yield Entry("model.embed_tokens.weight", "BF16", (sizes.vocab, hidden))
    for layer in range(sizes.layers + (sizes.mtp if mtp else 0)):
        front = f"model.layers.{layer}"
        for norm, size in (
            ("input_layernorm", hidden),
            ("post_attention_layernorm", hidden),
            ("self_attn.q_a_layernorm", sizes.q_lora),
            ("self_attn.kv_a_layernorm", sizes.kv_lora),
        ):
            yield Entry(f"{front}.{norm}.weight", "BF16", (size,))
        yield from codes(f"{front}.self_attn.q_a_proj", sizes.q_lora, hidden)
        yield from codes(f"{front}.self_attn.q_b_proj", sizes.q_rows, sizes.q_lora)
        yield from codes(f"{front}.self_attn.kv_a_proj_with_mqa", sizes.kv_rows, hidden)
        yield from codes(f"{front}.self_attn.kv_b_proj", sizes.kv_b_rows, sizes.kv_lora)
        yield from codes(f"{front}.self_attn.o_proj", hidden, sizes.o_columns)
        if layer < sizes.dense:
            groups, inner = ["mlp"], sizes.inner
        else:
            groups, inner = [f"mlp.experts.{expert}" for expert in range(sizes.experts)], sizes.expert
            groups.append("mlp.shared_experts")
            yield Entry(f"{front}.mlp.gate.weight", "BF16", (sizes.experts, hidden))
            yield Entry(f"{front}.mlp.gate.e_score_correction_bias", "F32", (sizes.experts,))
        for group in groups:
            yield from codes(f"{front}.{group}.gate_proj", inner, hidden)
            yield from codes(f"{front}.{group}.up_proj", inner, hidden)
            yield from codes(f"{front}.{group}.down_proj", hidden, inner)
        if layer >= sizes.layers:
            # The layer of multi-token prediction has copies of embedding and head.
            yield Entry(f"{front}.embed_tokens.weight", "BF16", (sizes.vocab, hidden))
            yield Entry(f"{front}.enorm.weight", "BF16", (hidden,))
            yield Entry(f"{front}.hnorm.weight", "BF16", (hidden,))
            yield Entry(f"{front}.eh_proj.weight", "BF16", (hidden, 2 * hidden))
            yield Entry(f"{front}.shared_head.norm.weight", "BF16", (hidden,))
            yield Entry(f"{front}.shared_head.head.weight", "BF16", (sizes.vocab, hidden))
    yield Entry("model.norm.weight", "BF16", (hidden,))
    yield Entry("lm_head.weight", "BF16", (sizes.vocab, hidden))


@dataclass(frozen=True)
class Kimi:
    """Small sizes of a Kimi-K3; the numbers of its layers and experts are the real ones by default."""

    layers: int = 93
    experts: int = 896
    vocab: int = 256
    hidden: int = 128
    latent: int = 64
    expert: int = 32
    heads: int = 16


# Every fourth layer attends to all that came before, and the last one does too.
_KDA = {
    "q_proj": "hh", "k_proj": "hh", "v_proj": "hh", "o_proj": "hh", "g_proj": "hh", "f_a_proj": "lh",
    "f_b_proj": "hl", "b_proj": "nh", "q_conv1d": "h4", "k_conv1d": "h4", "v_conv1d": "h4", "o_norm": "h",
}  # fmt: skip
_MLA = {
    "q_a_proj": "lh", "q_a_layernorm": "l", "q_b_proj": "hl", "kv_a_proj_with_mqa": "lh",
    "kv_a_layernorm": "l", "kv_b_proj": "hl", "o_proj": "hh", "g_proj": "hh",
}  # fmt: skip


def kimi_k3(sizes: Kimi, *, plain: bool = False) -> Iterator[Entry]:
    """All tensors, layer by layer; the names of the experts are the released ones.

    The other names are those that converters ask for. `plain` is a checkpoint in bfloat16.
    """
    lengths = {"h": sizes.hidden, "l": sizes.latent, "n": sizes.heads, "4": 4}

    def shape(letters: str) -> tuple[int, ...]:
        return tuple(lengths[letter] for letter in letters)

    def codes(name: str, rows: int, columns: int) -> Iterator[Entry]:
        if plain:
            yield Entry(f"{name}.weight", "BF16", (rows, columns))
            return
        yield Entry(f"{name}.weight_packed", "U8", (rows, columns // 2))
        yield Entry(f"{name}.weight_scale", "U8", (rows, columns // 32), scale=True)

    model = "language_model.model"
    yield Entry(f"{model}.embed_tokens.weight", "BF16", (sizes.vocab, sizes.hidden))
    for layer in range(sizes.layers):
        front = f"{model}.layers.{layer}"
        names = {"input_layernorm": "h", "post_attention_layernorm": "h"}
        names |= {
            f"{one}_res_{kind}": "h" for one, kind in product(("self_attention", "mlp"), ("norm", "proj"))
        }
        full = layer % 4 == 3 or layer == sizes.layers - 1
        names |= {f"self_attn.{name}": letters for name, letters in (_MLA if full else _KDA).items()}
        if layer == 0:
            names |= {f"mlp.{name}_proj": "hh" for name in ("gate", "up", "down")}
        else:
            moe = "block_sparse_moe"
            names |= {f"{moe}.shared_experts.{name}_proj": "hh" for name in ("gate", "up", "down")}
            names |= {
                f"{moe}.routed_expert_down_proj": "lh",
                f"{moe}.routed_expert_up_proj": "hl",
                f"{moe}.routed_expert_norm": "l",
            }
            yield Entry(f"{front}.{moe}.gate.weight", "BF16", (sizes.experts, sizes.hidden))
            yield Entry(f"{front}.{moe}.gate.e_score_correction_bias", "F32", (sizes.experts,))
        for name, letters in names.items():
            yield Entry(f"{front}.{name}.weight", "BF16", shape(letters))
        if not full:
            yield Entry(f"{front}.self_attn.A_log", "F32", (sizes.heads,))
            yield Entry(f"{front}.self_attn.dt_bias", "F32", (sizes.hidden,))
        for expert in range(sizes.experts if layer else 0):
            group = f"{front}.block_sparse_moe.experts.{expert}"
            yield from codes(f"{group}.w1", sizes.expert, sizes.latent)
            yield from codes(f"{group}.w2", sizes.latent, sizes.expert)
            yield from codes(f"{group}.w3", sizes.expert, sizes.latent)
    for name in ("norm", "output_attn_res_norm", "output_attn_res_proj"):
        yield Entry(f"{model}.{name}.weight", "BF16", (sizes.hidden,))
    yield Entry("language_model.lm_head.weight", "BF16", (sizes.vocab, sizes.hidden))
