"""Frozen dataclasses that are read from decoded JSON: the base of all results."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from collections.abc import Generator

Json = dict[str, Any]
"""A decoded JSON object."""


BRIEF: ContextVar[bool] = ContextVar("brief", default=False)
"""Whether results leave out what concerns each of many tensors: see `briefly`."""


@contextmanager
def briefly(*, wanted: bool = True) -> Generator[None]:
    """Within it, plans count problems by kind, and `inspect` lists no tensors.

    The terminal shows no more, and there may be hundreds of thousands of tensors.
    """
    before = BRIEF.set(wanted)
    try:
        yield
    finally:
        BRIEF.reset(before)


def freeze(value: Any) -> Any:
    """Returns the same JSON value with lists as tuples and objects as read-only mappings."""
    if isinstance(value, dict):
        return MappingProxyType({key: freeze(item) for key, item in cast("Json", value).items()})
    if isinstance(value, list):
        return tuple(freeze(item) for item in cast("list[Any]", value))
    return value


class Record:
    """A dataclass whose fields are the JSON object's members of the same names; other members are ignored."""

    __slots__ = ()

    @classmethod
    def of(cls, json: Json, **given: Any) -> Self:
        """Makes a record; each field is taken from `given` if it is there, else from `json`, frozen."""
        names = (item.name for item in fields(cast("Any", cls)))
        return cls(**{name: given[name] if name in given else freeze(json[name]) for name in names})

    @classmethod
    def of_all(cls, items: list[Json]) -> tuple[Self, ...]:
        """Makes one record for each object."""
        return tuple(cls.of(item) for item in items)


@dataclass(frozen=True, slots=True)
class Result(Record):
    """What a verb returns: a record that keeps the whole JSON object it was made from."""

    _json: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Makes the result from the decoded JSON that `--json` prints."""
        return cls.of(json, _json=json)

    def to_json(self) -> Json:
        """The JSON object that this result was made from, its `schema` field included."""
        return self._json

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the JSON object instead, since read-only mappings cannot be pickled."""
        return type(self).from_json, (self._json,)


@dataclass(frozen=True, slots=True)
class TensorCounts(Record):
    """How many tensors of the output are made in each way."""

    combined: int
    """Tensors that the arithmetic computes."""
    copied: int
    """Tensors copied byte for byte from the target."""
    converted: int
    """Tensors of the target that are only converted to another dtype."""
    grafted: int
    """Tensors copied byte for byte from a donor."""


@dataclass(frozen=True, slots=True)
class Effect(Record):
    """How much of the requested change α·v is left after rounding, over the finite elements.

    e = out − target is the change that was written. A figure is None if there was nothing to measure.
    """

    norm_v: float | None
    """‖v‖."""
    norm_requested: float | None
    """‖α·v‖."""
    norm_effective: float | None
    """‖e‖."""
    gain: float | None
    """⟨e, α·v⟩ / ‖α·v‖²; 1 is ideal."""
    cosine: float | None
    """Cosine of e and α·v."""
    changed: float | None
    """Share of elements whose value differs from the target's, 0 to 1."""
    survival: float | None
    """Share of the elements with α·v ≠ 0 that changed, 0 to 1."""
    grid_noise: float | None
    """Share of ‖v‖² that is, at most, noise of quantised donors' grids, 0 to 1; None without such."""
    nonfinite_inputs: int | None
    """Number of elements with an infinity or NaN in an input."""
    overflowed: int | None
    """Number of elements whose result is infinite though every input is finite."""


@dataclass(frozen=True, slots=True)
class Requantised(Record):
    """What quantising the output again did, and what bfloat16 output of the same request would have kept."""

    codes_changed: float | None
    """Share of the codes that differ from the target's, 0 to 1."""
    blocks_copied: int
    """Blocks in which nothing changed: their codes and scales are the target's."""
    blocks_kept: int
    """Blocks with changes that kept their scale."""
    blocks_rescaled: int
    """Blocks with another scale."""
    saturated: int
    """Elements whose value was too large for the largest code."""
    bf16: Effect

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads the member `requantised` of a result."""
        return cls.of(json, bf16=Effect.of(json["bf16"]))
