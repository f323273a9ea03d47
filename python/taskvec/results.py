"""What the verbs return, typed field by field; `to_json()` gives back what `--json` prints.

Bytes are bytes, `seconds` are wall time, norms are Euclidean over the finite elements, in f64.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from .records import Json, Record, Result, TensorCounts

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Traffic(Record):
    """Bytes moved."""

    read: int
    written: int


@dataclass(frozen=True, slots=True)
class Engine(Record):
    """How the work was done; never what was written."""

    threads: int
    windows: int
    """Windows in flight at most."""
    window_bytes: int
    io: str
    simd: str
    direct_writes: bool
    resumed_bytes: int
    """Bytes of output found finished from an interrupted run."""


@dataclass(frozen=True, slots=True)
class Effect(Record):
    """What rounding did to the request α·v, over finite elements; e = out − target.

    None where there is nothing to measure.
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
    """Share of elements whose value differs from the target's."""
    survival: float | None
    """Share of the elements asked to change that did."""
    nonfinite_inputs: int | None
    """Elements with an infinity or NaN in an input."""
    overflowed: int | None
    """Elements whose result is infinite though every input was finite."""


@dataclass(frozen=True, slots=True)
class TensorEffect(Effect):
    """What rounding did to the request on one tensor."""

    name: str
    dtype: str
    """Its element type in the target's files."""
    alpha: tuple[float, ...]
    """α, for each vector that is applied."""


@dataclass(frozen=True, slots=True)
class Applied(Result):
    """What is in a live model while a vector is applied to it."""

    effect: Effect
    """Over all tensors: what it is with the files' dtype, whatever the model's."""
    tensors: tuple[TensorEffect, ...]
    """The tensors that the vector changes, in the order of the target's files."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a `taskvec/applied/1`."""
        return cls.of(
            json,
            _json=json,
            effect=Effect.of(json["effect"]),
            tensors=TensorEffect.of_all(json["tensors"]),
        )


@dataclass(frozen=True, slots=True)
class WriteResult(Result):
    """What `extract`, `apply` or `transfer` wrote."""

    verb: str
    out: str
    """The folder written."""
    files: int
    tensors: TensorCounts
    elements: int
    bytes: Traffic
    seconds: float
    engine: Engine
    effect: Effect
    exceptions: int | None
    """`extract` only: elements of v that its dtype cannot hold, kept in the exceptions file."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a `taskvec/result/1`."""
        return cls.of(
            json,
            _json=json,
            tensors=TensorCounts.of(json["tensors"]),
            bytes=Traffic.of(json["bytes"]),
            engine=Engine.of(json["engine"]),
            effect=Effect.of(json["effect"]),
            exceptions=json.get("exceptions"),
        )


@dataclass(frozen=True, slots=True)
class WeightFile(Record):
    """One safetensors file."""

    name: str
    size: int
    tensors: int


@dataclass(frozen=True, slots=True)
class DtypeCount(Record):
    """How much of a checkpoint is of one dtype."""

    tensors: int
    elements: int


@dataclass(frozen=True, slots=True)
class TensorInfo(Record):
    """One tensor as its header states it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str


@dataclass(frozen=True, slots=True)
class InspectResult(Result):
    """What is in a checkpoint, vector or adapter folder."""

    kind: str
    """`"checkpoint"`, `"vector"` or `"adapter"`."""
    name: str
    files: tuple[WeightFile, ...]
    parameters: int
    """Elements of all tensors."""
    bytes: int
    """Bytes of all tensors."""
    dtypes: Mapping[str, DtypeCount]
    tied: bool | None
    """Whether the config ties the head to the embedding; None where it does not say."""
    quantized: str | None
    """The quantisation method that the config names."""
    sidecars: tuple[str, ...]
    """Other files of the folder, which go along with the weights."""
    left_out: tuple[str, ...]
    """Files that would ship stale weights, and so do not go along."""
    tensors: tuple[TensorInfo, ...]
    vector: Mapping[str, Any] | None
    """`vector.json`, for a vector."""
    adapter: Mapping[str, Any] | None
    """Base model, rank and alpha, for an adapter; `tensors` are its factors."""
    manifest: Mapping[str, Any] | None
    """`taskvec.json`, where there is one."""
    warnings: tuple[str, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a `taskvec/inspect/1`."""
        dtypes = {name: DtypeCount.of(count) for name, count in json["dtypes"].items()}
        return cls.of(
            json,
            _json=json,
            files=WeightFile.of_all(json["files"]),
            dtypes=MappingProxyType(dtypes),
            tensors=TensorInfo.of_all(json["tensors"]),
        )


@dataclass(frozen=True, slots=True)
class Difference(Record):
    """How elements differ, b against a."""

    elements: int
    changed: float
    norm: float | None
    """‖b − a‖."""
    cosine: float | None
    """Cosine of a and b."""
    nonfinite: int
    ulps: Mapping[str, int]
    """Elements by distance in units in the last place: "0", "1", "2-3", "4-7" and so on."""


@dataclass(frozen=True, slots=True)
class TensorDifference(Difference):
    """How one tensor differs."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class NotCompared(Record):
    """A tensor that both have and that cannot be compared."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiffResult(Result):
    """How two checkpoints differ."""

    a: str
    b: str
    identical: bool
    total: Difference
    tensors: tuple[TensorDifference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    not_compared: tuple[NotCompared, ...]
    warnings: tuple[str, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a `taskvec/diff/1`."""
        return cls.of(
            json,
            _json=json,
            total=Difference.of(json["total"]),
            tensors=TensorDifference.of_all(json["tensors"]),
            not_compared=NotCompared.of_all(json["not_compared"]),
        )


@dataclass(frozen=True, slots=True)
class Damage(Record):
    """One way in which a folder is not what its manifest says."""

    file: str
    message: str


@dataclass(frozen=True, slots=True)
class VerifyResult(Result):
    """Whether a written folder still is what its manifest says."""

    ok: bool
    files: int
    tensors: int
    bytes: int
    problems: tuple[Damage, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a `taskvec/verify/1`."""
        return cls.of(json, _json=json, problems=Damage.of_all(json["problems"]))
