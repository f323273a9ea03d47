"""The sections of a study file: every key with its type, its limits and its default."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from ..environment import DEVICE
from .catalogue import CATALOGUE, Known, Perturbation

if TYPE_CHECKING:
    from ...records import Json

ID = r"[a-z0-9]+(-[a-z0-9]+)*"
NAME = r"[a-z0-9]+([.-][a-z0-9]+)*"
"""The form of a study's name; dots are allowed since model names contain versions."""


def _factor(alpha: float) -> float:
    if not math.isfinite(alpha) or alpha == 0:
        raise ValueError("α must be a finite number other than 0, which is the baseline")
    return alpha


def _one_line(text: str) -> str:
    # The last are surrogates, which a YAML escape can spell but no UTF-8 file can hold.
    if not text.strip() or any(one in "\n\r\0" or "\ud800" <= one <= "\udfff" for one in text):
        raise ValueError("give one line of text")
    return text


Factor = Annotated[float, AfterValidator(_factor)]
Line = Annotated[str, AfterValidator(_one_line)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]


class _Section(BaseModel):
    """A section without unknown keys, without conversion between types, and immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Donors(_Section):
    """The pair whose difference is v."""

    minuend: Line
    subtrahend: Line


class ArmChoice(_Section):
    """The arms to run besides the baseline and +v."""

    think: bool = True
    """Whether both also run with the think line."""
    minus: bool = True
    """Whether −v runs."""
    random: list[Seed] = Field(default=[1, 2, 3])
    """Seeds of norm-matched random vectors: none or at least 3, as fewer cannot tell chance from effect."""
    donors: bool | None = None
    """Whether the donors themselves run; by default they do if the study names them."""
    sweep: list[Factor] = Field(default=[])
    """Further α for +v, with the plain prompt."""

    @model_validator(mode="after")
    def _sound(self) -> ArmChoice:
        if len(self.random) in (1, 2):
            raise ValueError("random needs at least 3 seeds, or none at all: []")
        # Compared with the digits that the arms of a sweep have in their names.
        for name, values in (("random", self.random), ("sweep", [f"{one:.12g}" for one in self.sweep])):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds a value twice")
        return self


class Vllm(_Section):
    """The vLLM backend, which runs in the environment of another Python."""

    python: Line
    args: dict[str, JsonValue] = {}
    """Arguments of lm-eval's `vllm` model."""

    @model_validator(mode="after")
    def _sound(self) -> Vllm:
        if ours := sorted({"pretrained", "tokenizer", "dtype", "batch_size"} & {*self.args}):
            raise ValueError(f"args must not hold {ours[0]}, which the study sets itself")
        return self


class VllmBackend(_Section):
    """`backend: {vllm: {python: …}}`."""

    vllm: Vllm


class Benchmark(_Section):
    """One benchmark and how it is run; `task` is a name in the catalogue, or a task or group of lm-eval."""

    id: Annotated[str, Field(pattern=f"^{ID}$")]
    task: Line
    title: Line | None = None
    max_new_tokens: Count | None = None
    """The most tokens to generate; required for every task that generates text."""
    shots: Annotated[int, Field(ge=0)] | None = None
    limit: Count | None = None
    """The number of documents to run, from the first (of each task, for a group)."""
    metric: Line | None = None
    filter: Line | None = None
    also: list[Line] | None = None
    """Further readings of the same answers: names of filters or metrics of the task."""
    sweep: bool = True
    """Whether the arms of the sweep run on it."""
    data: Line | dict[str, Line] | None = None
    """Local files instead of the download: one for each split, or a folder that holds them."""
    data_revision: Line | None = None
    """The commit, branch or tag of the data's repository; by default the newest, which is recorded."""
    perturb: list[Perturbation] = []
    """Perturbed copies to run as well, with the baseline and +v."""

    @model_validator(mode="after")
    def _sound(self) -> Benchmark:
        if twice := [one for one in self.perturb if self.perturb.count(one) > 1]:
            raise ValueError(f"perturb lists {twice[0]} twice")
        if self.data is not None and self.data_revision is not None:
            raise ValueError("data names local files, which have no data_revision; give one of the two")
        return self

    @property
    def known(self) -> Known | None:
        """The entry of the catalogue; None if the task is not in it."""
        return CATALOGUE.get(self.task)

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.title or (self.known.title if self.known else self.id)

    @property
    def cap(self) -> int | None:
        """The most tokens to generate; None if not set."""
        return self.max_new_tokens or (self.known.cap if self.known else None)


class Primary(_Section):
    """A comparison of the primary family, over which Holm's correction is made."""

    arm: Line
    against: Line = "baseline"
    benchmark: Line


class Published(_Section):
    """What others reported of the same arithmetic, to be shown beside the results."""

    source: Line
    changes: dict[str, dict[str, Annotated[float, Field(allow_inf_nan=False)]]]
    """By benchmark and arm: the change against the baseline with the plain prompt, in percentage points."""


class Study(_Section):
    """A study file as read, with defaults filled in and absolute paths."""

    form: Literal["taskvec/study/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    about: Line
    target: Line
    donors: Donors | None = None
    vector: Line | None = None
    alpha: Factor = 1.0
    arms: ArmChoice = ArmChoice()
    think: Line = "Think step by step."
    offline: bool = False
    tasks: Line | None = None
    backend: Literal["hf"] | VllmBackend = "hf"
    device: Annotated[str, Field(pattern=f"^({DEVICE})$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: Count | Literal["auto"] = "auto"
    """`"auto"` is 16 on a CPU; on a GPU it is found by trial."""
    rounding: Literal["nearest", "stochastic"] = "nearest"
    benchmarks: Annotated[list[Benchmark], Field(min_length=1)]
    published: Published | None = None
    primary: Annotated[list[Primary], Field(min_length=1)] | None = None
    """The comparisons that the study is made for; by default +v against the baseline on each benchmark."""

    @model_validator(mode="after")
    def _sound(self) -> Study:
        if (self.donors is None) == (self.vector is None):
            raise ValueError("give either donors, with minuend and subtrahend, or vector")
        if self.vector is not None and self.arms.donors:
            raise ValueError("arms.donors needs donors, but this study names a vector")
        taken = {"+v": self.alpha} | ({"−v": -self.alpha} if self.arms.minus else {})
        for arm, alpha in taken.items():
            if alpha in self.arms.sweep:
                raise ValueError(f"arms.sweep holds {alpha:.12g}, which is already the α of {arm}")
        ids = [one.id for one in self.benchmarks]
        if twice := [one for one in ids if ids.count(one) > 1]:
            raise ValueError(f"two benchmarks have the id {twice[0]!r}")
        if odd := [one for one in (self.published.changes if self.published else ()) if one not in ids]:
            raise ValueError(f"published names the benchmark {odd[0]!r}, which the study does not have")
        return self

    def to_json(self) -> Json:
        """The study as a JSON object, with defaults filled in."""
        return self.model_dump(mode="json", by_alias=True)
