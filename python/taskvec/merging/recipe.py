"""The file as it is written: documents, slices, sources. Every unknown key is an error with its line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

from ..errors import UsageError
from .methods import EVERY_PARAMETER, METHODS, OTHERS, REFUSED, nearest

if TYPE_CHECKING:
    from ..inputs.yaml_lines import Lines, Place
    from ..records import Json

_TOP = {
    "merge_method", "models", "slices", "modules", "base_model", "parameters", "dtype", "out_dtype",
    "tokenizer_source", "tokenizer", "chat_template", "name",
}  # fmt: skip
_DTYPES = {"bfloat16", "float16", "float32"}


@dataclass(frozen=True, slots=True)
class Level:
    """One `parameters` mapping, and where it is in the file."""

    values: Json
    place: Place


@dataclass(frozen=True, slots=True)
class Source:
    """A model of a slice."""

    model: str
    layers: tuple[int, int] | None
    """First layer, and the one after the last; None for all."""
    parameters: Level
    place: Place


@dataclass(frozen=True, slots=True)
class Slice:
    """Some layers of the output."""

    sources: tuple[Source, ...]
    base: str | None
    parameters: Level


@dataclass(frozen=True, slots=True)
class Document:
    """One merge."""

    lines: Lines
    place: Place
    name: str | None
    method: str
    base: str | None
    whole: bool
    """Whether it names `models`, each with all of its layers, and not slices."""
    slices: tuple[Slice, ...]
    levels: tuple[Level, ...]
    """Parameters of the module and of the document, in the order in which they are looked up."""
    dtype: str | None
    out_dtype: str | None
    notes: tuple[str, ...]

    def fail(self, place: Place, message: str) -> NoReturn:
        """Raises `UsageError` that names the file and the line."""
        raise UsageError(f"{self.lines.file}:{self.lines.at(place)}: {message}")


class Reader:
    """Reads one document."""

    def __init__(self, lines: Lines, place: Place = ()) -> None:
        """`place` is where the document is among several."""
        self._lines, self._place = lines, place

    def fail(self, place: Place, message: str) -> NoReturn:
        """Raises `UsageError` that names the file and the line."""
        raise UsageError(f"{self._lines.file}:{self._lines.at(place)}: {message}")

    def document(self, content: Json) -> Document:
        """The document that a mapping describes."""
        top = self._place
        for key in content:
            if key in OTHERS:
                self.fail((*top, key), OTHERS[key])
        self._keys(content, _TOP, top)
        method = self._text(content, "merge_method", top)
        if method is None:
            self.fail(top, f"merge_method is missing; {nearest('', set(METHODS))}")
        if method in REFUSED:
            self.fail((*top, "merge_method"), f"{method} is not supported: {REFUSED[method]}")
        if method not in METHODS:
            self.fail(
                (*top, "merge_method"),
                f"there is no method {method!r}; {nearest(method, set(METHODS) | set(REFUSED))}",
            )
        forms = [key for key in ("models", "slices", "modules") if content.get(key) is not None]
        if len(forms) != 1:
            self.fail(top, "a merge has exactly one of models, slices and modules")
        inner, where, module = content, top, None
        if forms == ["modules"]:
            inner, where, module = self._module(content["modules"], (*top, "modules"))
        whole = inner.get("models") is not None
        key = "models" if whole else "slices"
        items = self._list(inner[key], (*where, key))
        slices = (
            (Slice(tuple(self._source(one, place, layers=False) for one, place in items), None, _no(where)),)
            if whole
            else tuple(self._slice(one, place) for one, place in items)
        )
        levels = [self._parameters(module, where)] if module is not None else []
        return Document(
            self._lines,
            top,
            self._text(content, "name", top),
            method,
            self._model(content["base_model"], (*top, "base_model")) if content.get("base_model") else None,
            whole,
            slices,
            (*levels, self._parameters(content, top)),
            self._dtype(content, "dtype"),
            self._dtype(content, "out_dtype"),
            tuple(self._tokenizer(content)),
        )

    def _module(self, modules: Any, place: Place) -> tuple[Json, Place, Json]:
        found = self._mapping(modules, place)
        if set(found) != {"default"}:
            self.fail(
                place, "modules can only be {default: …}: other ones are parts of models with several towers"
            )
        where = (*place, "default")
        inner = self._mapping(found["default"], where)
        self._keys(inner, {"models", "slices", "parameters"}, where)
        if len([key for key in ("models", "slices") if inner.get(key) is not None]) != 1:
            self.fail(where, "a module has exactly one of models and slices")
        return inner, where, inner

    def _slice(self, item: Any, place: Place) -> Slice:
        content = self._mapping(item, place)
        self._keys(content, {"sources", "base_model", "parameters", "residual_weight"}, place)
        if "residual_weight" in content:
            self.fail((*place, "residual_weight"), "residual_weight has no effect in mergekit; leave it out")
        sources = self._list(content.get("sources"), (*place, "sources"))
        base = content.get("base_model")
        return Slice(
            tuple(self._source(one, where, layers=True) for one, where in sources),
            self._model(base, (*place, "base_model")) if base else None,
            self._parameters(content, place),
        )

    def _source(self, item: Any, place: Place, *, layers: bool) -> Source:
        content = self._mapping(item, place)
        self._keys(content, {"model", "parameters"} | ({"layer_range"} if layers else set()), place)
        if content.get("model") is None:
            self.fail(place, "model is missing: a folder, or org/name on the Hub")
        span = content.get("layer_range")
        if layers and span is None:
            self.fail(place, "layer_range is missing: [first, one after the last]")
        wrong = "layer_range is [first, one after the last], two whole numbers"
        if span is not None:
            numbers = cast("list[Any]", span) if isinstance(span, list) else []
            if len(numbers) != 2 or not all(type(one) is int for one in numbers):
                self.fail((*place, "layer_range"), wrong)
            if not 0 <= numbers[0] < numbers[1]:
                self.fail((*place, "layer_range"), f"layer_range {numbers} holds no layer; {wrong}")
            span = (numbers[0], numbers[1])
        model = self._model(content["model"], (*place, "model"))
        return Source(model, span, self._parameters(content, place), place)

    def _model(self, item: Any, place: Place) -> str:
        """A model as `path[@revision][+lora[@revision]]`."""
        if isinstance(item, str) and item.strip():
            return item.strip()
        if not isinstance(item, dict):
            self.fail(place, "a model is a folder, or org/name[@revision] on the Hub")
        content = cast("Json", item)
        self._keys(content, {"model", "lora", "override_architecture"}, place)
        if content.get("override_architecture"):
            self.fail(place, "override_architecture has no meaning here: tensors are matched by name")
        parts = [self._path(content[key], (*place, key)) for key in ("model", "lora") if content.get(key)]
        return "+".join(parts)

    def _path(self, item: Any, place: Place) -> str:
        if isinstance(item, str):
            return item
        content = self._mapping(item, place)
        self._keys(content, {"path", "revision"}, place)
        revision = content.get("revision")
        return f"{content.get('path')}" + (f"@{revision}" if revision else "")

    def _parameters(self, content: Json, place: Place) -> Level:
        where = (*place, "parameters")
        given = content.get("parameters")
        return Level({} if given is None else self._mapping(given, where), where)

    def _dtype(self, content: Json, key: str) -> str | None:
        given = self._text(content, key, self._place)
        if given is None:
            return None
        name = given.removeprefix("torch.")
        if name not in _DTYPES:
            self.fail((*self._place, key), f"{key} {given!r} is not one of {', '.join(sorted(_DTYPES))}")
        return name

    def _tokenizer(self, content: Json) -> list[str]:
        """Notes on the tokenizer; an error if one would have to be built."""
        source, place = content.get("tokenizer_source"), (*self._place, "tokenizer_source")
        if content.get("tokenizer") is not None:
            place = (*self._place, "tokenizer")
            if source is not None:
                self.fail(place, "tokenizer and tokenizer_source exclude each other; keep one")
            given = self._mapping(content["tokenizer"], place)
            source = given.get("source", "union") if set(given) <= {"source"} else given
        notes: list[str] = []
        if source is not None and source != "base":
            self.fail(
                place,
                "a tokenizer would have to be built from several, and rows of embeddings with it, which is"
                " not supported; only 'base' is (the base's tokenizer and rows), and models with another"
                " vocabulary do not fit",
            )
        if source == "base":
            notes.append("tokenizer_source: base copies the tokenizer; unlike in mergekit, padding rows stay")
        template = content.get("chat_template")
        if template == "auto":
            notes.append(
                "chat_template: auto copies the template of the base, whatever most of the models have"
            )
        elif template is not None:
            self.fail(
                (*self._place, "chat_template"),
                "the chat template is copied from the base and not replaced; leave chat_template out, and"
                " write another template into the output afterwards",
            )
        return notes

    def _keys(self, content: Json, known: set[str], place: Place) -> None:
        for key in content:
            if key in known:
                continue
            if key in EVERY_PARAMETER and "parameters" in known:
                self.fail((*place, key), f"{key!r} has no effect here; put it under 'parameters:'")
            self.fail((*place, key), f"there is no key {key!r} here; {nearest(key, known)}")

    def _text(self, content: Json, key: str, place: Place) -> str | None:
        given = content.get(key)
        if given is not None and not isinstance(given, str):
            self.fail((*place, key), f"{key} is not a text")
        return given

    def _mapping(self, item: Any, place: Place) -> Json:
        if not isinstance(item, dict):
            self.fail(place, f"{place[-1] if place else 'a merge'} is not a mapping of keys to values")
        return cast("Json", item)

    def _list(self, item: Any, place: Place) -> list[tuple[Any, Place]]:
        if not isinstance(item, list) or not item:
            self.fail(place, f"{place[-1]} is not a list with at least one entry")
        return [(one, (*place, at)) for at, one in enumerate(cast("list[Any]", item))]


def _no(place: Place) -> Level:
    return Level({}, place)
