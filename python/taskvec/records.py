"""Frozen, typed values over decoded JSON: the ground that the results stand on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self, cast

Json = dict[str, Any]
"""A decoded JSON object."""


def freeze(value: Any) -> Any:
    """The same JSON value with lists as tuples and objects as read-only mappings."""
    if isinstance(value, dict):
        return MappingProxyType({key: freeze(item) for key, item in cast("Json", value).items()})
    if isinstance(value, list):
        return tuple(freeze(item) for item in cast("list[Any]", value))
    return value


class Record:
    """Its fields are the JSON object's members of the same names; members without a field are passed over."""

    __slots__ = ()

    @classmethod
    def of(cls, json: Json, **given: Any) -> Self:
        """Takes each field from `given`, else frozen from `json`."""
        names = (item.name for item in fields(cast("Any", cls)))
        return cls(**{name: given[name] if name in given else freeze(json[name]) for name in names})

    @classmethod
    def of_all(cls, items: list[Json]) -> tuple[Self, ...]:
        """One record for each object."""
        return tuple(cls.of(item) for item in items)


@dataclass(frozen=True, slots=True)
class Result(Record):
    """What a verb returns: a record that keeps the whole JSON object it was made from."""

    _json: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads the decoded JSON that `--json` prints."""
        return cls.of(json, _json=json)

    def to_json(self) -> Json:
        """The JSON object that this result was made from, its `schema` field included."""
        return self._json

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as the JSON: read-only mappings do not pickle by themselves."""
        return type(self).from_json, (self._json,)


@dataclass(frozen=True, slots=True)
class TensorCounts(Record):
    """How many tensors are dealt with in each way."""

    combined: int
    """Went through the arithmetic."""
    copied: int
    """Written byte for byte as the target has them."""
    converted: int
    """The target's values in another dtype."""
