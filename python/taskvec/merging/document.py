"""From a recipe and the names in its models to what the core is asked for, tensor by tensor."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import MismatchError
from .methods import METHODS, WITHOUT_EFFECT
from .models import HEADS, layer_of
from .parameters import Settings, look_up
from .slices import Piece, config_edits, pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..records import Json
    from .models import Model
    from .parameters import Value
    from .recipe import Document


@dataclass(slots=True)
class Asked:
    """What the core is asked for, and what the user should know about it."""

    document: Json
    inputs: list[str]
    """The models in the order of the core's inputs."""
    notes: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])


def model_names(document: Document) -> list[str]:
    """The distinct models in the order of the file; a base that is not listed comes last."""
    listed = [source.model for one in document.slices for source in one.sources]
    bases = [one.base for one in document.slices if one.base] + ([document.base] if document.base else [])
    return list(dict.fromkeys([*listed, *bases]))


def base_of(document: Document) -> str | None:
    """The base of all slices."""
    found = {one.base or document.base for one in document.slices}
    if len(found) != 1:
        document.fail(document.place, "slices with different bases are not supported; write one base_model")
    return found.pop()


class Builder:
    """Works out the document of one merge."""

    def __init__(self, document: Document, models: dict[str, Model], *, seed: int, dtype: str | None) -> None:
        """`models` are the opened models by their names in the file."""
        self._document, self._models = document, models
        self._method = METHODS[document.method]
        self._names, self._base = model_names(document), base_of(document)
        self._seed, self._dtype = seed, dtype
        self._asked = Asked({}, self._names, list(document.notes))
        self._settings: dict[str, int] = {}
        self._require_models()
        warnings = self._asked.warnings
        self._outer = [Settings(document, level, warnings, shared=True) for level in document.levels]
        self._slices = [Settings(document, one.parameters, warnings, shared=True) for one in document.slices]
        self._sources = [
            [Settings(document, source.parameters, warnings, shared=False) for source in one.sources]
            for one in document.slices
        ]

    def build(self) -> Asked:
        """The document for the core.

        Raises:
            UsageError: A parameter is missing or makes no sense, with the line.
            MismatchError: The models do not have the same tensors or layers.
        """
        tensors: list[Json] = []
        parts = list(pieces(self._document, self._models, self._base))
        for piece in parts:
            tensors += self._tensors(piece)
        document = self._document
        inputs = self._names
        leader = self._base or document.slices[0].sources[0].model
        self._asked.document = {
            "method": document.method,
            "base": inputs.index(self._base) if self._base else None,
            "work_dtype": document.dtype,
            "out_dtype": self._dtype or document.out_dtype,
            "seed": self._seed,
            "settings": [json.loads(text) for text in self._settings],
            "tensors": tensors,
            "sidecars_from": inputs.index(leader),
            "config_edits": config_edits(document, self._models, self._models[leader]),
        }
        return self._asked

    def _require_models(self) -> None:
        document, method, base = self._document, self._method, self._base
        if method.base == "needed" and base is None:
            document.fail(document.place, f"{document.method} needs a base_model")
        for number, one in enumerate(document.slices):
            listed = [source.model for source in one.sources]
            for at, source in enumerate(one.sources):
                if source.model in listed[:at]:
                    document.fail(source.place, f"{source.model} is listed twice; keep it once")
            if base is not None and method.base != "model" and base not in listed and not document.whole:
                document.fail(
                    one.sources[0].place,
                    f"slice {number + 1} does not list the base {base}, which {document.method} needs there",
                )
            count = len(listed) - (base in listed and method.base != "model")
            if base is not None and method.base == "model" and base not in listed and document.whole:
                count += 1
            if count < method.least or (method.most is not None and count > method.most):
                most = f"exactly {method.most}" if method.most == method.least else f"at least {method.least}"
                beside = " beside the base" if method.base != "model" else ""
                document.fail(
                    one.sources[0].place,
                    f"{document.method} takes {most} model(s){beside}, not {count}",
                )

    def _tensors(self, piece: Piece) -> Iterator[Json]:
        """The tensors of one piece of the output, in the order of its first model that has them."""
        owners = {model: set(names) for model, names in piece.names.items()}
        order: dict[str, None] = {}
        for names in piece.names.values():
            order |= dict.fromkeys(names)
        lacking: dict[str, list[str]] = {}
        for key in order:
            name = piece.output(key)
            origin: list[Any] = [None] * len(self._names)
            for model in piece.names:
                place = self._names.index(model)
                if key in owners[model]:
                    mine = piece.name_in(model, key)
                    origin[place] = True if mine == name else mine
                elif key.endswith(HEADS) and (embedding := self._models[model].embedding()):
                    origin[place] = embedding
                    self._note(f"{model} has no {key}, which is tied to its embedding: that is merged for it")
                elif key.endswith(".bias") or key.endswith(HEADS):
                    self._note(f"{model} has no {key}; it takes no part in that tensor")
                else:
                    lacking.setdefault(model, []).append(piece.name_in(model, key))
            yield {"name": name, "from": origin, "settings": self._setting(piece, key, origin)}
        for model, names in lacking.items():
            shown = ", ".join(names[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise MismatchError(
                f"{model} lacks {shown}{more}, which other models of the merge have; merge models of one"
                " architecture"
            )

    def _note(self, note: str) -> None:
        if note not in self._asked.notes:
            self._asked.notes.append(note)

    def _setting(self, piece: Piece, key: str, origin: list[Any]) -> int:
        """The number of the parameters that a tensor gets."""
        document, method = self._document, self._method
        common = [self._slices[piece.slice], *self._outer]
        name = piece.output(key)
        shared = self._values(common, method.shared, name, piece.t(None, key), document.place, "")
        each: list[Json | None] = [None] * len(self._names)
        sources = {source.model: at for at, source in enumerate(document.slices[piece.slice].sources)}
        for model in piece.names:
            place = self._names.index(model)
            if origin[place] is None or (model == self._base and method.base != "model"):
                continue
            levels, where = common, document.place
            if model in sources:
                levels = [self._sources[piece.slice][sources[model]], *common]
                where = document.slices[piece.slice].sources[sources[model]].place
            mine = piece.name_in(model, key)
            each[place] = self._values(levels, method.each, mine, piece.t(model, key), where, f" for {model}")
        text = json.dumps({"shared": shared, "each": each})
        return self._settings.setdefault(text, len(self._settings))

    def _values(
        self,
        levels: Iterable[Settings],
        parameters: dict[str, Any],
        tensor: str,
        t: float,
        where: tuple[int | str, ...],
        whose: str,
    ) -> dict[str, Value]:
        found: dict[str, Value] = {}
        places: dict[str, tuple[int | str, ...]] = {}
        for name, parameter in parameters.items():
            known = look_up(levels, name, tensor, t)
            if known is None:
                if parameter.required:
                    self._document.fail(where, f"{name} is missing{whose} (needed for {tensor})")
                continue
            found[name], places[name] = known
        density = found.get("density", 1.0)
        if "epsilon" in parameters and "density" in parameters and 0 < density < 1:
            epsilon = found.get("epsilon", 0.15)
            if density - epsilon <= 0 or density + epsilon >= 1:
                self._document.fail(
                    places["density"],
                    f"density ± epsilon has to be between 0 and 1, but density is {density:g} and epsilon"
                    f" {epsilon:g}",
                )
        for name in WITHOUT_EFFECT:
            if name != "density" or self._document.method == "task_arithmetic":
                found.pop(name, None)
        return found


def explained(asked: Asked) -> list[tuple[str, str, int, str]]:
    """For each group of tensors with equal parameters: layers, an example, their number, the parameters."""
    groups: dict[int, list[str]] = {}
    for one in asked.document["tensors"]:
        groups.setdefault(one["settings"], []).append(one["name"])
    rows: list[tuple[str, str, int, str]] = []
    for number, names in groups.items():
        numbers = sorted({layer.number for layer in map(layer_of, names) if layer})
        layers = f"{numbers[0]}–{numbers[-1]}" if len(numbers) > 1 else "".join(map(str, numbers))
        rows.append((layers, names[0], len(names), _parameters(asked, number)))
    return rows


def _parameters(asked: Asked, number: int) -> str:
    setting = asked.document["settings"][number]
    words = [f"{name} {_short(value)}" for name, value in setting["shared"].items()]
    for model, values in zip(asked.inputs, setting["each"], strict=True):
        if values:
            words.append(
                f"{model}: " + ", ".join(f"{name} {_short(value)}" for name, value in values.items())
            )
    return "; ".join(words) or "defaults"


def _short(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
