"""How the layers of an output are put together from layers of its models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ..errors import MismatchError
from .models import Layer, Model, layer_of, side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..records import Json
    from .recipe import Document, Slice

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


@dataclass(frozen=True, slots=True)
class Piece:
    """Tensors of the output that come from the same slice: those of no layer, or some layers.

    A key names a tensor within the piece; the same key in two models means tensors that are merged.
    """

    slice: int
    names: dict[str, list[str]]
    """The keys that each model has."""
    first: dict[str, int]
    """The number of the first layer of the piece, in each model."""
    offset: int
    """The number of the first layer, in the output."""
    count: int
    """How many layers it has; 0 for tensors of no layer."""

    def output(self, key: str) -> str:
        """The name in the output."""
        return self._moved(key, self.offset)

    def name_in(self, model: str, key: str) -> str:
        """The name in a model."""
        return self._moved(key, self.first.get(model, 0))

    def t(self, model: str | None, key: str) -> float:
        """How far along the layers of its slice a tensor is, from 0 to 1; 0 without layer."""
        layer = layer_of(key) if self.count else None
        if layer is None:
            return 0.0
        return 1.0 if self.count == 1 else layer.number / (self.count - 1)

    def _moved(self, key: str, by: int) -> str:
        layer = layer_of(key) if self.count and by else None
        return layer._replace(number=layer.number + by).name if layer else key


def pieces(document: Document, models: dict[str, Model], base: str | None) -> Iterator[Piece]:
    """The pieces of the output, in order.

    Raises:
        MismatchError: The models do not have the same layers, or a slice has layers that they lack.
    """
    if document.whole or _is_whole(document, models):
        yield from _whole(document, models, base)
        return
    offset = 0
    last = len(document.slices) - 1
    if len(document.slices[0].sources) != len(document.slices[last].sources):
        document.fail(
            document.slices[last].sources[0].place,
            "the first and the last slice have to have equally many sources",
        )
    yield from _outside(document, models, 0, "before", both=last == 0)
    for number, one in enumerate(document.slices):
        count = _count(document, one)
        names: dict[str, list[str]] = {}
        for source in one.sources:
            model = models[source.model]
            stack, (begin, end) = _stack(model), source.layers or (0, 0)
            if end > model.stacks[stack]:
                document.fail(
                    source.place,
                    f"{source.model} has layers 0 to {model.stacks[stack] - 1}, not up to {end - 1}",
                )
            names[source.model] = [
                Layer(stack, layer.number - begin, layer.rest).name
                for layer in map(layer_of, model.names)
                if layer and layer.stack == stack and begin <= layer.number < end
            ]
        first = {source.model: (source.layers or (0, 0))[0] for source in one.sources}
        yield Piece(number, names, first, offset, count)
        offset += count
    if last:
        yield from _outside(document, models, last, "after", both=False)


def config_edits(document: Document, models: dict[str, Model], leader: Model) -> Json | None:
    """What changes in the config: the number of layers, and lists with an entry for each.

    Raises:
        MismatchError: The config has other members that depend on the layers.
    """
    if document.whole or _is_whole(document, models):
        return None
    config = leader.config()
    layers = leader.stacks[_stack(leader)]
    keys = [key for key in _COUNTS if config.get(key) == layers]
    if len(keys) != 1:
        raise MismatchError(
            f"{leader.text}: config.json does not say that it has {layers} layers ({' or '.join(_COUNTS)}),"
            " so the number of layers of the output cannot be written into it"
        )
    if config.get("num_nextn_predict_layers"):
        raise MismatchError(
            f"{leader.text} has layers that predict further tokens, which cannot be renumbered; use all of"
            " its layers"
        )
    edits: Json = {keys[0]: sum(_count(document, one) for one in document.slices)}
    for key, value in config.items():
        if not isinstance(value, list) or len(cast("list[Any]", value)) != layers:
            continue
        if key != "layer_types":
            raise MismatchError(
                f"{leader.text}: {key} in config.json has an entry for each layer, and what that means is not"
                " known; use all layers of the models"
            )
        edits[key] = [
            value[at] for one in document.slices for at in range(*(one.sources[0].layers or (0, 0)))
        ]
    return edits


def _is_whole(document: Document, models: dict[str, Model]) -> bool:
    """Whether it is one slice with all layers of each source."""
    if len(document.slices) != 1:
        return False
    return all(
        source.layers == (0, models[source.model].stacks.get(models[source.model].main or "", 0))
        for source in document.slices[0].sources
    )


def _whole(document: Document, models: dict[str, Model], base: str | None) -> Iterator[Piece]:
    listed = [source.model for source in document.slices[0].sources]
    taking = [*listed, base] if base is not None and base not in listed else listed
    first = models[taking[0]]
    for name in taking[1:]:
        other = models[name]
        if other.stacks != first.stacks:
            ours, theirs = (_shown(one.stacks) for one in (first, other))
            raise MismatchError(
                f"{first.text} has {ours}, and {name} has {theirs}; merge models with the same layers, or"
                " name the layers of each in slices"
            )
    loose = {name: [one for one in models[name].names if layer_of(one) is None] for name in taking}
    if any(loose.values()):
        yield Piece(0, loose, {}, 0, 0)
    for stack, count in first.stacks.items():
        names = {
            name: [one for one in models[name].names if (layer := layer_of(one)) and layer.stack == stack]
            for name in taking
        }
        yield Piece(0, names, {}, 0, count)


def _outside(
    document: Document, models: dict[str, Model], number: int, wanted: str, *, both: bool
) -> Iterator[Piece]:
    """The tensors of no layer that come before or after the layers."""
    names: dict[str, list[str]] = {}
    for source in document.slices[number].sources:
        model = models[source.model]
        _stack(model)
        loose = [name for name in model.names if layer_of(name) is None]
        unknown = [name for name in loose if side(name) is None]
        if unknown and not both:
            raise MismatchError(
                f"{source.model}: whether {unknown[0]} comes before the layers or after them is not known, so"
                " slices cannot be put together; use all layers of the models"
            )
        names[source.model] = [name for name in loose if both or side(name) == wanted]
    yield Piece(number, names, {}, 0, 0)


def _count(document: Document, one: Slice) -> int:
    counts = {end - begin for begin, end in (source.layers or (0, 0) for source in one.sources)}
    if len(counts) != 1:
        document.fail(one.sources[-1].place, "all sources of a slice need the same number of layers")
    return counts.pop()


def _stack(model: Model) -> str:
    """Its only stack of layers."""
    if len(model.stacks) != 1:
        raise MismatchError(
            f"{model.text} has {_shown(model.stacks)}; slices are for models with one stack of layers, so use"
            " all of them"
        )
    return next(iter(model.stacks))


def _shown(stacks: dict[str, int]) -> str:
    return ", ".join(f"{count} layers in {stack}" for stack, count in stacks.items()) or "no layers"
