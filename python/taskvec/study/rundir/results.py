"""The results of a study: the content of `results.json` (schema `taskvec/results/1`) as dataclasses.

Scores, rates and differences are shares from 0 to 1 (0.01 is one percentage point); intervals are 95 %
intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from ...records import Effect, Json, Record, Result
from .compared import ChangedAnswer, Comparison, Families, RandomMean, Robustness, TokenChange

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "taskvec/results/1"
"""The schema of `results.json`."""


@dataclass(frozen=True, slots=True)
class Input(Record):
    """A checkpoint or vector that the study used."""

    role: str
    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class LayerNorm(Record):
    """The norm of v in one layer."""

    layer: str
    norm: float
    relative: float | None
    """The norm divided by that of the same tensors of the target."""
    cosine: float | None
    """Cosine of α·v and the change of the weights after rounding; None if one of them is zero."""


@dataclass(frozen=True, slots=True)
class VectorShape(Record):
    """The norm of v as a whole and by layer."""

    norm: float
    layers: tuple[LayerNorm, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads `vector`."""
        return cls.of(json, layers=LayerNorm.of_all(json["layers"]))


@dataclass(frozen=True, slots=True)
class Data(Record):
    """Where the documents of one task come from; a field is None if it is not known."""

    task: str
    repository: str | None
    configuration: str | None
    revision: str | None
    """The commit of the repository."""
    fingerprint: str | None
    """SHA-256 over all rows in order; it does not depend on where they were loaded from."""
    files: tuple[str, ...] | None
    """Local files that were used instead of the repository."""


@dataclass(frozen=True, slots=True)
class Benchmark(Record):
    """What was asked, and how small a difference its documents can show."""

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
    """Number of documents."""
    note: str | None
    """Why a chain of thought cannot have an effect on this benchmark; None if it can."""
    parent: str | None
    """The benchmark of the study file from which this one is derived; None for one of the file itself."""
    original: str | None
    """The benchmark of which these questions are harder variants, or None; its key in JSON is `of`."""
    perturbation: str | None
    """The kind of perturbation; None for a clean benchmark."""
    readings: tuple[str, ...]
    """Names of further readings of the same answers."""
    data: tuple[Data, ...]
    """One entry for each task."""
    subtasks: tuple[str, ...]
    """Names of the tasks of a group; empty if there is only one task."""
    power: Mapping[str, Any]
    """`level`, `power`, and `smallest`: the smallest detectable difference by share of changed answers."""
    power_note: str

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads an entry of `benchmarks`."""
        return cls.of(json, original=json["of"], data=Data.of_all(json["data"]))


@dataclass(frozen=True, slots=True)
class Reading(Record):
    """A further reading of a cell's answers, by another filter or metric; it is not tested."""

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
    """Share of outputs from which no answer could be extracted, including blank ones."""
    empty: float | None
    """Share of outputs that are blank."""
    truncated: float | None
    """Share of outputs cut off at the token limit."""
    mean_tokens: float | None
    tokens_interval: tuple[float, float] | None
    """Interval of the mean number of tokens."""
    seconds: float | None
    """Wall time of the cell's batches, without loading the model."""
    touched: float | None
    """Share of documents that the perturbation changed; None for a clean benchmark."""
    readings: Mapping[str, Reading]
    """By the reading's name."""
    subtasks: Mapping[str, SubtaskScore]
    """By task; empty if there is only one task."""
    samples: str
    """The path of the sample file in the run folder."""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads an entry of an arm's `cells`."""
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
    """How much of the requested change is left after rounding; None if no vector is added."""
    seconds: float | None
    """Seconds to make the arm's weights."""
    cells: Mapping[str, Cell]
    """By benchmark."""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads an entry of `arms`."""
        cells = {benchmark: Cell.from_json(cell) for benchmark, cell in json["cells"].items()}
        effect = json["effect"] and Effect.of(json["effect"])
        return cls.of(json, effect=effect, cells=MappingProxyType(cells))


@dataclass(frozen=True, slots=True)
class Results(Result):
    """All results of a study."""

    study: Mapping[str, Any]
    """The study file, with defaults filled in."""
    sandbox: str | None
    """The sandbox in which code that a model wrote was run; None if none was run."""
    batch_sizes: Mapping[str, int]
    """The batch size by benchmark, if `batch_size` is `"auto"`."""
    generation: Mapping[str, Mapping[str, Any]]
    """Settings of the target's generation config: those `used` for the greedy answers, and those `unused`."""
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
    """Number of tests in both families."""
    token_changes: tuple[TokenChange, ...]
    """For benchmarks with generated answers."""
    random_means: tuple[RandomMean, ...]
    robustness: tuple[Robustness, ...]
    changed_answers: tuple[ChangedAnswer, ...]
    """For each benchmark up to three gained and three lost answers, in the order of the documents."""
    conclusions: tuple[str, ...]
    """Sentences on what the data show and do not show."""
    complete: bool
    """Whether all cells are scored."""
    missing: tuple[str, ...]
    """Cells that are not scored yet, as ARM.BENCHMARK."""

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/results/1`."""
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
        """The arm with this id; None if the study does not have it."""
        return next((arm for arm in self.arms if arm.id == name), None)

    def of_kind(self, kind: str) -> tuple[ArmResult, ...]:
        """All arms of a kind."""
        return tuple(arm for arm in self.arms if arm.kind == kind)

    def compared(self, arm: str, against: str, benchmark: str) -> Comparison | None:
        """The comparison of two arms on a benchmark; None if it has not been made."""
        wanted = (arm, against, benchmark)
        return next(
            (one for one in self.comparisons if (one.arm, one.against, one.benchmark) == wanted), None
        )
