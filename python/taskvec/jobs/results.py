"""What planning, running and looking at a job in parts returns. Sizes are in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ..records import Record, Result, TensorCounts
from ..results import WriteResult

if TYPE_CHECKING:
    from ..records import Json


@dataclass(frozen=True, slots=True)
class JobPlan(Result):
    """A job that is planned."""

    verb: str
    job: str
    """The folder of the job."""
    out: str
    """The folder that the commit writes."""
    id: str
    """Stands for all that decides the output's bytes: equal on every machine."""
    parts: int
    files: int
    """Weight files of the output."""
    bytes: int
    """Of these files; of a vector, those of its values before they are packed."""
    largest_part: int
    """Bytes of the part with the most."""
    tensors: TensorCounts
    already: bool
    """Whether the folder held this very plan before."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/job-plan/1`."""
        return cls.of(json, _json=json, tensors=TensorCounts.of(json["tensors"]))


@dataclass(frozen=True, slots=True)
class PartResult(Result):
    """What running a part did: a JSON object of schema `taskvec/part-result/1`."""

    job: str
    part: int
    parts: int
    files: int
    """Weight files of the part."""
    bytes: int
    """Of these files."""
    already: bool
    """Whether the part, or the whole job, had been done before; then nothing was computed."""
    resumed_bytes: int
    """Bytes that interrupted attempts had finished."""
    seconds: float
    threads: int
    window_bytes: int
    io: str
    simd: str
    direct_writes: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MissingPart(Record):
    """A part that has to be run."""

    part: int
    why: str | None
    """If there is more to say than that it was not run."""


@dataclass(frozen=True, slots=True)
class JobStatus(Result):
    """What is done of a job."""

    verb: str
    job: str
    out: str
    parts: int
    done: int
    """How many parts are done."""
    missing: str
    """The others, as the array of a job scheduler: `"3,17-19"`."""
    problems: tuple[MissingPart, ...]
    """Of the missing parts, those that were done and are not sound any more."""
    bytes: int
    """As planned, of all weight files."""
    bytes_done: int
    """As planned, of the parts that are done."""
    committed: bool
    """Whether the output is complete."""
    result: WriteResult | None
    """What the commit returned."""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/job-status/1`."""
        result = None if json["result"] is None else WriteResult.from_json(json["result"])
        return cls.of(json, _json=json, problems=MissingPart.of_all(json["problems"]), result=result)

    @property
    def missing_parts(self) -> list[int]:
        """The numbers of the parts that are missing."""
        runs = (run.partition("-") for run in self.missing.split(",") if run)
        return [part for first, _, last in runs for part in range(int(first), int(last or first) + 1)]
