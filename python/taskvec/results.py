"""The results that the verbs return; `to_json()` gives the JSON object that `--json` prints.

Sizes are in bytes and times in seconds of wall time. Norms are Euclidean, over the finite elements, in f64.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from .records import Effect, Json, Record, Requantised, Result, TensorCounts

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Traffic(Record):
    """Bytes read and written."""

    read: int
    written: int


@dataclass(frozen=True, slots=True)
class Engine(Record):
    """How the work was done; none of this changes the output."""

    threads: int
    windows: int
    """The largest number of windows (blocks of the output) in memory at once."""
    window_bytes: int
    io: str
    simd: str
    direct_writes: bool
    resumed_bytes: int
    """Bytes of output that an interrupted run had finished."""


@dataclass(frozen=True, slots=True)
class TensorEffect(Effect):
    """How much of the requested change is left after rounding, on one tensor."""

    name: str
    dtype: str
    """Its dtype in the target's files."""
    alpha: tuple[float, ...]
    """α of this tensor, one for each vector."""


@dataclass(frozen=True, slots=True)
class Applied(Result):
    """What `Vector.applied` put into a live model."""

    effect: Effect
    """Over all tensors, computed in the dtype of the files, not of the model."""
    tensors: tuple[TensorEffect, ...]
    """The tensors that the vector changes, in the order of the target's files."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/applied/1`."""
        effect, tensors = Effect.of(json["effect"]), TensorEffect.of_all(json["tensors"])
        return cls.of(json, _json=json, effect=effect, tensors=tensors)


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
    requantised: Requantised | None
    """With `requantise`; else None."""
    exceptions: int | None
    """Of a vector: elements that bfloat16 cannot hold (a dense one has a file for them); else None."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/result/1`."""
        return cls.of(
            json,
            _json=json,
            tensors=TensorCounts.of(json["tensors"]),
            bytes=Traffic.of(json["bytes"]),
            engine=Engine.of(json["engine"]),
            effect=Effect.of(json["effect"]),
            requantised=Requantised.from_json(json["requantised"]) if json.get("requantised") else None,
            exceptions=json.get("exceptions"),
        )


@dataclass(frozen=True, slots=True)
class SweepResult(Result):
    """What `sweep_apply` or `sweep_transfer` wrote: an output for each α, from one read of the inputs."""

    verb: str
    out: str
    """The folder that holds the outputs."""
    bytes: Traffic
    """Read for all of them, and written in all."""
    seconds: float
    results: tuple[WriteResult, ...]
    """In the order of the α. The bytes read are those that the output would take alone."""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/sweep/1`."""
        results = tuple(map(WriteResult.from_json, json["results"]))
        return cls.of(json, _json=json, bytes=Traffic.of(json["bytes"]), results=results)


@dataclass(frozen=True, slots=True)
class WeightFile(Record):
    """One safetensors file."""

    name: str
    size: int
    tensors: int


@dataclass(frozen=True, slots=True)
class DtypeCount(Record):
    """How many tensors and elements of a checkpoint have one dtype."""

    tensors: int
    elements: int


@dataclass(frozen=True, slots=True)
class TensorInfo(Record):
    """One tensor, as the header of its file describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    format: str | None
    """How it is quantised; None if it is not."""


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
    """Whether the config ties the output head to the embedding; None if it does not say."""
    quantized: str | None
    """The quantisation method that the config names; None if it names none."""
    formats: Mapping[str, int]
    """How the quantised weights are stored, and how many in each way."""
    sidecars: tuple[str, ...]
    """Other files of the folder (config, tokenizer, …), which are copied along with the weights."""
    left_out: tuple[str, ...]
    """Files that are not copied, since they would hold weights that are no longer right."""
    tensors: tuple[TensorInfo, ...]
    vector: Mapping[str, Any] | None
    """The content of `vector.json`, for a vector; else None."""
    adapter: Mapping[str, Any] | None
    """Base model, rank and alpha, for an adapter, whose `tensors` are its factors; else None."""
    manifest: Mapping[str, Any] | None
    """The content of `taskvec.json`; None if the folder has none."""
    warnings: tuple[str, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/inspect/1`."""
        dtypes = {name: DtypeCount.of(count) for name, count in json["dtypes"].items()}
        files, tensors = WeightFile.of_all(json["files"]), TensorInfo.of_all(json["tensors"])
        return cls.of(json, _json=json, files=files, dtypes=MappingProxyType(dtypes), tensors=tensors)


@dataclass(frozen=True, slots=True)
class Difference(Record):
    """How the elements of b differ from those of a."""

    elements: int
    changed: float
    """Share of elements whose value differs, 0 to 1."""
    norm: float | None
    """‖b − a‖."""
    cosine: float | None
    """Cosine of a and b."""
    nonfinite: int
    ulps: Mapping[str, int]
    """Number of elements by distance in units in the last place: "0", "1", "2-3", "4-7" and so on."""


@dataclass(frozen=True, slots=True)
class TensorDifference(Difference):
    """How one tensor differs."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class NotCompared(Record):
    """A tensor that both checkpoints have, but that cannot be compared."""

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
        """Reads a JSON object of schema `taskvec/diff/1`."""
        return cls.of(
            json,
            _json=json,
            total=Difference.of(json["total"]),
            tensors=TensorDifference.of_all(json["tensors"]),
            not_compared=NotCompared.of_all(json["not_compared"]),
        )


@dataclass(frozen=True, slots=True)
class Damage(Record):
    """One difference between a folder and its manifest."""

    file: str
    message: str


@dataclass(frozen=True, slots=True)
class VerifyResult(Result):
    """Whether a folder that taskvec wrote is still as its manifest says."""

    ok: bool
    files: int
    tensors: int
    bytes: int
    problems: tuple[Damage, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/verify/1`."""
        return cls.of(json, _json=json, problems=Damage.of_all(json["problems"]))
