"""What a parameter is for one tensor: by level, filter and layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .methods import EVERY_PARAMETER, METHODS, WITHOUT_EFFECT, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..inputs.yaml_lines import Place
    from .methods import Kind, Parameter
    from .recipe import Document, Level

Value = float | bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A value, or a gradient of values over the layers, for tensors with a text in their names."""

    filter: str | None
    """None for all tensors."""
    values: tuple[Value, ...]
    place: Place

    def at(self, t: float) -> Value:
        """The value at `t`, from 0 at the first layer to 1 at the last: between two numbers in proportion."""
        if isinstance(self.values[0], bool):
            return self.values[math.floor(t * (len(self.values) - 1))]
        spot = t * (len(self.values) - 1)
        first = math.floor(spot)
        part = spot - first
        second = min(len(self.values) - 1, first + 1)
        return (1 - part) * self.values[first] + part * self.values[second]


class Setting:
    """One parameter of one level."""

    def __init__(self, document: Document, name: str, parameter: Parameter, raw: Any, place: Place) -> None:
        """Reads what is written for it; `UsageError` with the line if that makes no sense."""
        self._document, self._name, self._parameter = document, name, parameter
        listed = cast("list[Any]", raw) if isinstance(raw, list) else None
        if isinstance(raw, dict):
            self._entries = [self._conditional(raw, place)]
        elif listed and any(isinstance(one, dict) for one in listed):
            self._entries = [self._conditional(one, (*place, at)) for at, one in enumerate(listed)]
        elif listed == []:
            self._entries = []
        else:
            self._entries = [self._entry(None, raw, place)]

    def find(self, tensor: str) -> Entry | None:
        """The first entry whose filter a tensor's name holds."""
        return next((one for one in self._entries if one.filter is None or one.filter in tensor), None)

    def _conditional(self, item: Any, place: Place) -> Entry:
        if not isinstance(item, dict):
            self._document.fail(
                place, f"{self._name}: write {{filter: …, value: …}} for every entry, or for none"
            )
        content = cast("dict[str, Any]", item)
        for key in content:
            if key not in ("filter", "value"):
                self._document.fail((*place, key), f"there is no key {key!r} here; only filter and value are")
        if "value" not in content:
            self._document.fail(place, f"{self._name}: value is missing")
        mark = content.get("filter")
        if mark is not None and not isinstance(mark, str):
            self._document.fail((*place, "filter"), "a filter is a part of tensor names, such as mlp")
        return self._entry(None if mark in (None, "*") else mark, content["value"], (*place, "value"))

    def _entry(self, mark: str | None, raw: Any, place: Place) -> Entry:
        items = cast("list[Any]", raw) if isinstance(raw, list) else [raw]
        if not items:
            self._document.fail(place, f"{self._name}: the list of values is empty")
        return Entry(mark, tuple(self._scalar(one, place) for one in items), place)

    def _scalar(self, raw: Any, place: Place) -> Value:
        kind: Kind = self._parameter.kind
        value = _flag(raw) if kind == "flag" else _number(raw)
        if value is None:
            what = "true or false" if kind == "flag" else "a number"
            self._document.fail(place, f"{self._name} is {raw!r}, which is not {what}")
        if kind == "number":
            least, most = self._parameter.least, self._parameter.most
            if (least is not None and value < least) or (most is not None and value > most):
                above = "at least 0" if most is None else f"from {least:g} to {most:g}"
                self._document.fail(place, f"{self._name} is {raw!r}, but has to be {above}")
        return value


class Settings:
    """The parameters of one level, by name; what the method does not know is an error or a warning."""

    def __init__(self, document: Document, level: Level, warnings: list[str], *, shared: bool) -> None:
        """`shared` levels hold parameters of both kinds; those of a single model only values for models."""
        method = METHODS[document.method]
        self._found: dict[str, Setting] = {}
        for name, raw in level.values.items():
            place = (*level.place, name)
            parameter = method.each.get(name) or method.shared.get(name)
            if parameter is None:
                if name not in EVERY_PARAMETER:
                    known = {*method.each, *(method.shared if shared else ())}
                    document.fail(place, f"there is no parameter {name!r}; {nearest(name, known)}")
                line = f"{document.lines.file}:{document.lines.at(place)}"
                warnings.append(f"{line}: {name} has no effect with {document.method}")
                continue
            if raw is None:
                continue
            setting = Setting(document, name, parameter, raw, place)
            if name in method.shared and not shared:
                if name in WITHOUT_EFFECT:
                    continue
                document.fail(
                    place,
                    f"{name} is one value for all models; move it to the parameters of the whole merge",
                )
            self._found[name] = setting

    def get(self, name: str) -> Setting | None:
        """The setting of a parameter, if the level has one."""
        return self._found.get(name)


def look_up(levels: Iterable[Settings], name: str, tensor: str, t: float) -> tuple[Value, Place] | None:
    """The value of a parameter for a tensor: that of the first level that has one for its name."""
    for level in levels:
        setting = level.get(name)
        entry = setting.find(tensor) if setting else None
        if entry is not None:
            return entry.at(t), entry.place
    return None


def _number(raw: Any) -> float | None:
    if isinstance(raw, bool):
        return None
    try:
        value = float(raw)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _flag(raw: Any) -> bool | None:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, int | float) and raw in (0, 1):
        return bool(raw)
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    return words.get(raw.strip().lower()) if isinstance(raw, str) else None
