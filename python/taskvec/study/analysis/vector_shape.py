"""The norm of v in each layer, and how well rounding kept its direction there."""

from __future__ import annotations

import re
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...records import Json

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def vector_shape(tensors: list[Json] | None, targets: dict[str, float]) -> Json | None:
    """Norms and cosines by layer; each tensor outside the layers has an entry of its own, embeddings first.

    Args:
        tensors: The measured effect on each tensor of +v (`arms/plus.json`); None if not measured yet.
        targets: The norms of the target's tensors, as far as they are known.
    """
    if tensors is None:
        return None
    layers: dict[str, list[Json]] = {}
    for tensor in tensors:
        if tensor["norm_v"] is not None:
            layers.setdefault(_layer(tensor["name"]), []).append(tensor)
    found: list[Json] = [
        {
            "layer": layer,
            "norm": _root(tensor["norm_v"] for tensor in layers[layer]),
            "relative": _relative(layers[layer], targets),
            "cosine": _cosine(layers[layer]),
        }
        for layer in sorted(layers, key=_place)
    ]
    return {"norm": _root(layer["norm"] for layer in found), "layers": found}


def _relative(tensors: list[Json], targets: dict[str, float]) -> float | None:
    """‖v‖ / ‖target‖; None if the norm of a tensor of the target is not known, or all are zero."""
    if any(tensor["name"] not in targets for tensor in tensors):
        return None
    whole = _root(targets[tensor["name"]] for tensor in tensors)
    return _root(tensor["norm_v"] for tensor in tensors) / whole if whole else None


def _cosine(tensors: list[Json]) -> float | None:
    """⟨e, r⟩ / (‖e‖·‖r‖) over all tensors, where r = α·v was requested and e is what was added.

    The gain of a tensor is ⟨e, r⟩ / ‖r‖², so the sum of gain·‖r‖² is the inner product.
    """
    requested = _root(tensor["norm_requested"] or 0.0 for tensor in tensors)
    effective = _root(tensor["norm_effective"] or 0.0 for tensor in tensors)
    inner = sum((tensor["gain"] or 0.0) * (tensor["norm_requested"] or 0.0) ** 2 for tensor in tensors)
    return inner / (requested * effective) if requested and effective else None


def _root(norms: Iterable[float]) -> float:
    """The norm of several parts together."""
    return sqrt(sum(norm**2 for norm in norms))


def _layer(name: str) -> str:
    found = _LAYER.search(name)
    return found[1] if found else name.removeprefix("model.").removesuffix(".weight")


def _place(layer: str) -> tuple[int, int, str]:
    """Sort key: the embedding, then layers by number, then the rest."""
    if layer.isdigit():
        return 1, int(layer), ""
    return (0 if "emb" in layer or "wte" in layer else 2), 0, layer
