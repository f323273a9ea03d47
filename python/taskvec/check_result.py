"""The plan of a job, as `check` and a dry run return it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from .records import Json, Record, Result, TensorCounts


@dataclass(frozen=True, slots=True)
class Problem(Record):
    """One reason why inputs do not fit together."""

    file: str | None
    tensor: str | None
    message: str
    """One sentence that names the file, the tensor and what to do."""


@dataclass(frozen=True, slots=True)
class Input(Record):
    """One input of a plan."""

    role: str
    name: str
    files: int
    tensors: int
    bytes: int
    remote: bool
    """Whether it was given as a ref on the Hub, not as a local folder."""


@dataclass(frozen=True, slots=True)
class PlannedTraffic(Record):
    """Bytes to read and to write."""

    read: int
    write: int


@dataclass(frozen=True, slots=True)
class Memory(Record):
    """How the budget would be spent, in bytes."""

    budget: int
    planned: int
    least: int
    """The smallest budget that is enough."""
    threads: int
    windows: int
    window_bytes: int
    streaming: int
    """The part of `planned` for streamed inputs: what is read ahead of the windows, and the HTTP client."""


@dataclass(frozen=True, slots=True)
class Disk(Record):
    """Disk space for the output, in bytes."""

    needed: int
    free: int | None
    """None if no output folder was given."""


@dataclass(frozen=True, slots=True)
class Download(Record):
    """Bytes that a run still has to download from the Hub."""

    bytes: int
    """Downloaded to the cache."""
    streamed: int
    """Read by range requests and not stored."""
    free: int | None
    """Free space on the disk of the cache; None if no input is on the Hub."""


@dataclass(frozen=True, slots=True)
class RuleMatch(Record):
    """How many tensors take their α from a rule."""

    pattern: str
    alpha: str
    tensors: int


@dataclass(frozen=True, slots=True)
class LayerFactor(Record):
    """What a schedule makes of α at one layer."""

    stack: str
    """What is before the layer's number in the names of its tensors, such as `model.layers`."""
    layer: int
    factor: float


@dataclass(frozen=True, slots=True)
class CheckResult(Result):
    """The plan of a job, and whether its inputs fit together; made from headers and configs, not weights."""

    verb: str
    compatible: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    """What the user should look at, though it does not prevent the job."""
    inputs: tuple[Input, ...]
    tensors: TensorCounts
    bytes: PlannedTraffic
    memory: Memory
    disk: Disk
    download: Download
    io: str
    io_reason: str
    alpha_rules: tuple[RuleMatch, ...]
    layers: tuple[LayerFactor, ...]
    """The factor of α at every layer, with `schedule`; else empty."""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/plan/1`."""
        return cls.of(
            json,
            _json=json,
            problems=Problem.of_all(json["problems"]),
            inputs=Input.of_all(json["inputs"]),
            tensors=TensorCounts.of(json["tensors"]),
            bytes=PlannedTraffic.of(json["bytes"]),
            memory=Memory.of(json["memory"]),
            disk=Disk.of(json["disk"]),
            download=Download.of(json["download"]),
            alpha_rules=RuleMatch.of_all(json["alpha_rules"]),
            layers=LayerFactor.of_all(json["layers"]),
        )
