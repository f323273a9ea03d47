"""A study's results (`taskvec/results/1`), typed field by field, as they are written and read.

Scores, rates and differences are shares between 0 and 1 (0.01 is a point); intervals are 95 % intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from ...records import Json, Record, Result
from ...results import Effect
from .compared import ChangedAnswer, Comparison, Families, RandomMean, Robustness, TokenChange

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "taskvec/results/1"
"""The schema of `results.json`."""


@dataclass(frozen=True, slots=True)
class Input(Record):
    """A checkpoint or vector that went in."""

    role: str
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class LayerNorm(Record):
    """How large v is in one layer."""

    layer: str
    norm: float
    relative: float | None
    """Norm over that of the target's same tensors."""
    cosine: float | None
    """Of α·v and the change of +v's weights after rounding; None where one of them is zero."""


@dataclass(frozen=True, slots=True)
class VectorShape(Record):
    """How large v is, and where."""

    norm: float
    layers: tuple[LayerNorm, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads `vector`."""
        return cls.of(json, layers=LayerNorm.of_all(json["layers"]))


@dataclass(frozen=True, slots=True)
class Data(Record):
    """Where the documents of one task come from; None is what is not known of them."""

    task: str
    repository: str | None
    configuration: str | None
    revision: str | None
    """The commit of the repository."""
    fingerprint: str | None
    """SHA-256 over all rows in order, the same wherever they were loaded from."""
    files: tuple[str, ...] | None
    """Local files in place of the repository."""


@dataclass(frozen=True, slots=True)
class Benchmark(Record):
    """What was asked, and what its documents can show."""

    id: str
    title: str
    task: str
    version: Any
    kind: str
    """`"generate"` or `"choice"`."""
    metric: str
    filter: str | None
    shots: int | None
    max_new_tokens: int | None
    limit: int | None
    n: int
    """Documents."""
    note: str | None
    """Why no chain of steps can show here."""
    parent: str | None
    """The benchmark of the study file that this one follows from; None for those that the file names."""
    original: str | None
    """The benchmark whose questions these are harder variants of, `of` in JSON; None where there is none."""
    perturbation: str | None
    """The kind of perturbation; None for a clean benchmark."""
    readings: tuple[str, ...]
    """Names of further readings of the same answers."""
    data: tuple[Data, ...]
    """One entry for each task."""
    subtasks: tuple[str, ...]
    """Names of the tasks of a group; empty where there is one task."""
    power: Mapping[str, Any]
    """`level`, `power`, and under `smallest` the difference within reach by share of changed answers."""
    power_note: str

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads one of `benchmarks`."""
        return cls.of(json, original=json["of"], data=Data.of_all(json["data"]))


@dataclass(frozen=True, slots=True)
class Reading(Record):
    """A further reading of a cell's answers: another filter or metric. It is described, not tested."""

    score: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SubtaskScore(Record):
    """One task of a group."""

    n: int
    score: float


@dataclass(frozen=True, slots=True)
class Cell(Record):
    """One arm on one benchmark."""

    n: int
    score: float
    interval: tuple[float, float]
    extraction_failures: float | None
    """Share of outputs from which no answer could be read, the empty ones included."""
    empty: float | None
    """Share of outputs that are blank."""
    truncated: float | None
    """Share of outputs cut off at the cap."""
    mean_tokens: float | None
    tokens_interval: tuple[float, float] | None
    """Interval of the mean number of tokens."""
    seconds: float | None
    """Wall time of the cell's batches, model loading left out."""
    touched: float | None
    """Share of documents that the perturbation changed; None for a clean benchmark."""
    readings: Mapping[str, Reading]
    """By the reading's name."""
    subtasks: Mapping[str, SubtaskScore]
    """By task; empty where there is one task."""
    samples: str
    """The sample file, below the RUN folder."""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads one of an arm's `cells`."""
        readings = {name: Reading.of(one) for name, one in json["readings"].items()}
        subtasks = {name: SubtaskScore.of(one) for name, one in json["subtasks"].items()}
        return cls.of(json, readings=MappingProxyType(readings), subtasks=MappingProxyType(subtasks))


@dataclass(frozen=True, slots=True)
class ArmResult(Record):
    """One arm."""

    id: str
    label: str
    kind: str
    """`"baseline"`, `"plus"`, `"minus"`, `"random"`, `"sweep"` or `"donor"`."""
    prompt: str
    """`"plain"` or `"think"`."""
    alpha: float | None
    seed: int | None
    effect: Effect | None
    """What rounding did to the request."""
    seconds: float | None
    """To make the arm's weights."""
    cells: Mapping[str, Cell]
    """By benchmark."""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads one of `arms`."""
        cells = {benchmark: Cell.from_json(cell) for benchmark, cell in json["cells"].items()}
        effect = json["effect"] and Effect.of(json["effect"])
        return cls.of(json, effect=effect, cells=MappingProxyType(cells))


@dataclass(frozen=True, slots=True)
class Results(Result):
    """Everything that a study found."""

    study: Mapping[str, Any]
    """The study file, defaults filled in."""
    sandbox: str | None
    """What code that a model wrote was confined by; None where none was run."""
    batch_sizes: Mapping[str, int]
    """By benchmark, where `batch_size` is auto: how many prompts were asked at a time."""
    generation: Mapping[str, Mapping[str, Any]]
    """What the target's generation config sets: `used` by greedy answers of every arm, and `unused`."""
    study_digest: str
    """First 32 hexadecimal digits of the SHA-256 of the study file's text, as it was at the first run."""
    command: str | None
    """The command line of the first run; None for a run from Python."""
    started: str | None
    """When the first run began, in UTC (ISO 8601)."""
    versions: Mapping[str, str]
    device: str
    dtype: str
    inputs: tuple[Input, ...]
    vector: VectorShape | None
    benchmarks: tuple[Benchmark, ...]
    arms: tuple[ArmResult, ...]
    """In the order in which they ran."""
    comparisons: tuple[Comparison, ...]
    families: Families
    tests: int
    """Tests of both families."""
    token_changes: tuple[TokenChange, ...]
    """Of benchmarks whose answers are generated."""
    random_means: tuple[RandomMean, ...]
    robustness: tuple[Robustness, ...]
    changed_answers: tuple[ChangedAnswer, ...]
    """Up to three gained and three lost of each benchmark, in order of their documents."""
    conclusions: tuple[str, ...]
    """What the data do and do not show, in words."""
    complete: bool
    missing: tuple[str, ...]
    """Cells still to be scored, as ARM.BENCHMARK."""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a `taskvec/results/1`."""
        return cls.of(
            json,
            _json=json,
            inputs=Input.of_all(json["inputs"]),
            vector=json["vector"] and VectorShape.from_json(json["vector"]),
            benchmarks=tuple(Benchmark.from_json(one) for one in json["benchmarks"]),
            arms=tuple(ArmResult.from_json(arm) for arm in json["arms"]),
            comparisons=Comparison.of_all(json["comparisons"]),
            families=Families.of(json["families"]),
            token_changes=TokenChange.of_all(json["token_changes"]),
            random_means=RandomMean.of_all(json["random_means"]),
            robustness=tuple(Robustness.from_json(one) for one in json["robustness"]),
            changed_answers=tuple(ChangedAnswer.from_json(one) for one in json["changed_answers"]),
        )

    def arm(self, name: str) -> ArmResult | None:
        """The arm of this id, if the study has it."""
        return next((arm for arm in self.arms if arm.id == name), None)

    def of_kind(self, kind: str) -> tuple[ArmResult, ...]:
        """All arms of a kind."""
        return tuple(arm for arm in self.arms if arm.kind == kind)

    def compared(self, arm: str, against: str, benchmark: str) -> Comparison | None:
        """A comparison, if both of its cells have been scored."""
        wanted = (arm, against, benchmark)
        return next(
            (one for one in self.comparisons if (one.arm, one.against, one.benchmark) == wanted), None
        )
