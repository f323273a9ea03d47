"""Which tensor of a live model carries which tensor of a checkpoint, and which models cannot be changed."""

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
"""The format's names of element types and torch's; what is packed below a byte no live parameter holds."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A tensor of the model that holds a tensor of the folder."""

    name: str
    """Its name in the model."""
    flat: Tensor
    """All its elements in a row: a view, so that what is written here is in the model."""
    stored: torch.dtype
    """What the folder stores."""
    combined: bool
    """Whether the vector changes it."""

    def load(self, window: Tensor, at: int, elements: int) -> Tensor:
        """Elements at byte `at` of a window, as the folder stores them."""
        return window[at : at + elements * self.stored.itemsize].view(self.stored)


def carriers(
    model: nn.Module, folder: str, tensors: Sequence[Json], prefixes: Sequence[str]
) -> list[Carrier | None]:
    """The carrier of each of the folder's tensors (`Live.tensors`), in their order.

    None for what no tensor of the model carries, and for the repetition of a tied one, which is there once.
    `MismatchError` names a parameter that cannot be changed, or has no tensor in the folder, and a tensor
    that the vector changes and nothing carries.
    """
    import torch

    parameters = dict(model.named_parameters(remove_duplicate=False))
    # Buffers that are saved count too. Parameters come after: a wrapper may hand out copies of them here.
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
                f"shares its memory with `{first['name']}`, but {folder} stores two tensors; set"
                " tie_word_embeddings in its config.json if they are one, or load the model untied",
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
    "; names differ where transformers rebuilds a model as it loads it (it fuses the experts of a mixture),"
    " where the model is wrapped (give the inner model) and where the folder is another model's; otherwise"
    " write the checkpoint with taskvec.apply or taskvec.transfer and load that"
)


def _place(name: str, value: Tensor) -> Any:
    """Equal for two names of one tensor; what has no elements has no address either."""
    return (value.device, value.data_ptr()) if value.numel() else name


def _require_plain(name: str, value: Tensor) -> None:
    import torch

    what = f"parameter `{name}`"
    if value.is_meta:
        _refuse(what, "is not in memory (on the meta device, as offloading leaves it); load the model whole")
    if type(value) not in (torch.nn.Parameter, torch.Tensor) or value.layout is not torch.strided:
        kind = type(value).__name__
        _refuse(
            what,
            f"is a {kind}, quantised or sharded, and no plain tensor; load the model unquantised and whole,"
            " or write the checkpoint with taskvec.apply or taskvec.transfer and load that",
        )
    if not value.is_contiguous():
        _refuse(what, "does not lie in one piece in memory; make it contiguous first")


def _stored(name: str, value: Tensor, folder: str, tensor: Json) -> torch.dtype:
    """The folder's dtype of a tensor, once the model's is known to fit."""
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
    """Whether its values are numbers and not codes that only mean something with their scales."""
    return dtype.is_floating_point and dtype.itemsize > 1


def _refuse(what: str, why: str) -> NoReturn:
    raise MismatchError(f"{what} {why}")
