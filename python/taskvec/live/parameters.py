"""Finds which tensor of a live model holds which tensor of a checkpoint; refuses models it cannot change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .._core import strip_prefixes
from ..errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor, nn

    from ..records import Json

_TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
}
"""Dtypes by their name in safetensors and in torch; types below one byte do not occur in live models."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A tensor of the model that holds a tensor of the folder."""

    name: str
    """Its name in the model."""
    flat: Tensor
    """A view of all its elements in one dimension, so that writing to it changes the model."""
    stored: torch.dtype
    """The dtype in the folder."""
    combined: bool
    """Whether the vector changes it."""

    def load(self, window: Tensor, at: int, elements: int) -> Tensor:
        """`elements` elements from byte `at` of a window, in the folder's dtype."""
        return window[at : at + elements * self.stored.itemsize].view(self.stored)


def carriers(
    model: nn.Module, folder: str, tensors: Sequence[Json], prefixes: Sequence[str]
) -> list[Carrier | None]:
    """The carrier of each of the folder's tensors (`Live.tensors`), in their order.

    It is None for a tensor that is not in the model, and for the second of two tied tensors, which share one
    memory. Raises `MismatchError` for a parameter that cannot be changed or has no tensor in the folder, and
    for a tensor that the vector changes but the model does not have.
    """
    import torch

    parameters = dict(model.named_parameters(remove_duplicate=False))
    # Saved buffers count too. Parameters are added last and replace entries of the state dict, in which a
    # wrapper may have put copies.
    saved = model.state_dict(keep_vars=True)
    live = {name: value for name, value in saved.items() if isinstance(value, torch.Tensor)} | parameters
    for name, parameter in parameters.items():
        _require_plain(name, parameter)
    found: list[Carrier | None] = []
    places: dict[Any, Json] = {}
    for tensor in tensors:
        name = tensor["name"]
        if name not in live:
            name = strip_prefixes(name, prefixes)
        value = live.get(name)
        if value is None:
            if tensor["combined"]:
                _refuse(
                    f"tensor `{tensor['name']}` of {folder}",
                    f"is changed by the vector, but the model has no parameter of this name{_ELSEWHERE}",
                )
            found.append(None)
            continue
        stored = _stored(name, value, folder, tensor)
        first = places.setdefault(_place(name, value), tensor)
        if first["base"] != tensor["base"]:
            _refuse(
                f"parameter `{name}`",
                f"shares its memory with `{first['name']}`, but {folder} stores two tensors; if they are one,"
                " set tie_word_embeddings in its config.json, else load the model untied",
            )
        repeated = first is not tensor
        found.append(
            None if repeated else Carrier(name, value.detach().view(-1), stored, bool(tensor["combined"]))
        )
    for name, parameter in parameters.items():
        if _place(name, parameter) not in places:
            _refuse(f"parameter `{name}`", f"has no tensor of that name in {folder}{_ELSEWHERE}")
    return found


_ELSEWHERE = (
    "; if the model is wrapped, give the inner model; if the folder is another model's, name the right one;"
    " if transformers renames tensors when it loads this model (as for fused experts), write the checkpoint"
    " with taskvec.apply or taskvec.transfer and load that"
)


def _place(name: str, value: Tensor) -> Any:
    """A key that is equal for two names of one tensor; an empty tensor has no address, but its name."""
    return (value.device, value.data_ptr()) if value.numel() else name


def _require_plain(name: str, value: Tensor) -> None:
    import torch

    what = f"parameter `{name}`"
    if value.is_meta:
        _refuse(what, "is not in memory but offloaded (on the meta device); load the whole model to memory")
    if type(value) not in (torch.nn.Parameter, torch.Tensor) or value.layout is not torch.strided:
        kind = type(value).__name__
        _refuse(
            what,
            f"is a {kind} (quantised or sharded), not a plain tensor; load the model unquantised and whole,"
            " or write the checkpoint with taskvec.apply or taskvec.transfer and load that",
        )
    if not value.is_contiguous():
        _refuse(what, "is not contiguous in memory; make it contiguous first")


def _stored(name: str, value: Tensor, folder: str, tensor: Json) -> torch.dtype:
    """The dtype of a tensor in the folder; `MismatchError` if the tensor of the model does not fit it."""
    import torch

    what = f"parameter `{name}`"
    _require_plain(name, value)
    if list(value.shape) != tensor["shape"]:
        _refuse(
            what,
            f"has shape {list(value.shape)} in the model and {tensor['shape']} in {folder}; load the model"
            " from that folder, unquantised and whole, not sharded over processes",
        )
    stored: torch.dtype | None = getattr(torch, _TYPES.get(tensor["dtype"], ""), None)
    if stored is not None and (value.dtype == stored if not _is_float(stored) else _is_float(value.dtype)):
        return stored
    _refuse(
        what,
        f"holds {str(value.dtype).removeprefix('torch.')} in the model and {tensor['dtype']} in {folder};"
        " load the model unquantised",
    )


def _is_float(dtype: torch.dtype) -> bool:
    """Whether values of this dtype are plain numbers, not 8-bit codes that need a scale."""
    return dtype.is_floating_point and dtype.itemsize > 1


def _refuse(what: str, why: str) -> NoReturn:
    raise MismatchError(f"{what} {why}")
