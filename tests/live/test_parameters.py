"""Live models that cannot be changed are refused by name, and requests that make no sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from transformers import Qwen3MoeConfig

import taskvec
from families import raw, write
from livemodels import BUFFERS, SIZES, assert_state, enter, holder, load, odd_trio, save_family, state
from taskvec import MismatchError, UsageError
from taskvec.live import inject

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel


class Wrapped(torch.Tensor):
    """As quantisers and sharders have them."""


def spoil_meta(model: nn.Module) -> None:
    model.get_submodule("small").weight = nn.Parameter(torch.empty(31, 7, device="meta"))


def spoil_subclass(model: nn.Module) -> None:
    small = model.get_submodule("small")
    small.weight = nn.Parameter(small.weight.data.as_subclass(Wrapped), requires_grad=False)


def spoil_integer(model: nn.Module) -> None:
    small = model.get_submodule("small")
    small.weight = nn.Parameter(torch.zeros(31, 7, dtype=torch.int8), requires_grad=False)


def spoil_float8(model: nn.Module) -> None:
    small = model.get_submodule("small")
    small.weight = nn.Parameter(small.weight.data.to(torch.float8_e4m3fn), requires_grad=False)


def spoil_shape(model: nn.Module) -> None:
    model.get_submodule("small").weight = nn.Parameter(torch.empty(0))


def spoil_order(model: nn.Module) -> None:
    small = model.get_submodule("small")
    small.weight = nn.Parameter(small.weight.data.T.contiguous().T)


def spoil_more(model: nn.Module) -> None:
    model.get_submodule("small").register_parameter("extra", nn.Parameter(torch.zeros(3)))


def spoil_fewer(model: nn.Module) -> None:
    del model.get_submodule("small").weight


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_meta, "`small.weight` is not in memory"),
        (spoil_subclass, r"`small.weight` is a Wrapped \(quantised or sharded\)"),
        (spoil_integer, "`small.weight` holds int8 in the model and F16 in"),
        (spoil_float8, "`small.weight` holds float8_e4m3fn in the model"),
        (spoil_shape, r"`small.weight` has shape \[0\] in the model and \[31, 7\]"),
        (spoil_order, "`small.weight` is not contiguous in memory"),
        (spoil_more, "`small.extra` has no tensor of that name in"),
        (spoil_fewer, "`small.weight` of .* is changed by the vector, but the model has no parameter"),
    ],
)
def test_models_that_cannot_be_changed(
    tmp_path: Path, spoil: Callable[[nn.Module], None], message: str
) -> None:
    t, _, _ = odd_trio(tmp_path)
    model = holder(t, buffers=BUFFERS)
    spoil(model)
    with pytest.raises(MismatchError, match=message):
        enter(taskvec.transferred(model, tmp_path / "g", tmp_path / "s", target=tmp_path / "t"))
    if spoil is not spoil_fewer:
        with pytest.raises(MismatchError, match=message):
            inject.unlike(model, tmp_path / "t")
    for name, tensor in t.items():
        if name != "small.weight":
            assert raw(model.state_dict()[name]) == raw(tensor)


def test_fused_experts_are_named(tmp_path: Path) -> None:
    more = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    root = save_family(tmp_path, Qwen3MoeConfig(**SIZES, **more), torch.bfloat16)
    model = load(root / "t", torch.bfloat16)
    before = state(model)
    for options in ({}, {"include": ["self_attn"]}):
        with pytest.raises(MismatchError, match=r"experts.*as for fused experts"):
            enter(taskvec.Vector(root / "v").applied(model, **options))
    assert_state(model, before)


def test_requests_that_make_no_sense(qwen: Path, tmp_path: Path, model: PreTrainedModel) -> None:
    vector = taskvec.Vector(qwen / "v")
    with pytest.raises(UsageError, match="dtype is for checkpoints that are written"):
        vector.applied(model, dtype="f32")
    with pytest.raises(UsageError, match="overwrite is for"):
        vector.applied(model, overwrite=True)
    with pytest.raises(UsageError, match="no option 'rouding'"):
        vector.applied(model, rouding="nearest")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="2 alphas do not fit 1 vectors"):
        vector.applied(model, [1, 2])
    with pytest.raises(UsageError, match="'disk' is not one of folder, cpu"):
        vector.applied(model, originals="disk")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"loaded from '', which is not a local folder; .* target"):
        vector.applied(holder({"a.weight": torch.zeros(3)}))
    model.config._name_or_path = model.name_or_path = "Qwen/Qwen3"
    with pytest.raises(UsageError, match="'Qwen/Qwen3', which is not a local folder"):
        vector.applied(model)
    write(tmp_path / "other", {"a.weight": torch.zeros(3)})
    with pytest.raises(MismatchError, match="24 tensors of the vector are not in the target"):
        vector.applied(model, target=tmp_path / "other")
