"""The sections of a study file: every key, what it may hold, and what it is by default."""

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
"""Of a study; models are called so, versions included."""


def _factor(alpha: float) -> float:
    if not math.isfinite(alpha) or alpha == 0:
        raise ValueError("α must be a finite number other than 0, which is the baseline")
    return alpha


def _one_line(text: str) -> str:
    # The last are halves of characters, which an escape can spell and no file can hold.
    if not text.strip() or any(one in "\n\r\0" or "\ud800" <= one <= "\udfff" for one in text):
        raise ValueError("give one line of text")
    return text


Factor = Annotated[float, AfterValidator(_factor)]
Line = Annotated[str, AfterValidator(_one_line)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]


class _Section(BaseModel):
    """No unknown keys, no types guessed from others, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Donors(_Section):
    """The pair whose difference is v."""

    minuend: Line
    subtrahend: Line


class ArmChoice(_Section):
    """Which arms there are beside the baseline and +v."""

    think: bool = True
    """Both of them also with the think line."""
    minus: bool = True
    random: list[Seed] = Field(default=[1, 2, 3])
    """A norm-matched random vector for each seed; one or two could not tell luck from effect."""
    donors: bool | None = None
    """The donors themselves; by default wherever the study names them."""
    sweep: list[Factor] = Field(default=[])
    """Further α of +v, with the plain prompt."""

    @model_validator(mode="after")
    def _sound(self) -> ArmChoice:
        if len(self.random) in (1, 2):
            raise ValueError("random needs at least 3 seeds, or none at all: []")
        # As many digits as tell the arms of a sweep apart.
        for name, values in (("random", self.random), ("sweep", [f"{one:.12g}" for one in self.sweep])):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names a value twice")
        return self


class Vllm(_Section):
    """vLLM, in the environment of another Python."""

    python: Line
    args: dict[str, JsonValue] = {}
    """Arguments of lm-eval's `vllm` model."""

    @model_validator(mode="after")
    def _sound(self) -> Vllm:
        if ours := sorted({"pretrained", "tokenizer", "dtype", "batch_size"} & {*self.args}):
            raise ValueError(f"args must not hold {ours[0]}, which the study itself says")
        return self


class VllmBackend(_Section):
    """`backend: {vllm: {python: …}}`."""

    vllm: Vllm


class Benchmark(_Section):
    """One benchmark: one that is known by name, or a task or group of lm-eval, and how it is run."""

    id: Annotated[str, Field(pattern=f"^{ID}$")]
    task: Line
    title: Line | None = None
    max_new_tokens: Count | None = None
    """The cap on generated tokens, which every task that generates text must be given."""
    shots: Annotated[int, Field(ge=0)] | None = None
    limit: Count | None = None
    """The first so many documents (of each task, for a group)."""
    metric: Line | None = None
    filter: Line | None = None
    also: list[Line] | None = None
    """Further readings of the same answers: names of filters or metrics of the task."""
    sweep: bool = True
    data: Line | dict[str, Line] | None = None
    """Files in place of the download: one for each split, or a folder that holds them."""
    data_revision: Line | None = None
    """The commit, branch or tag of the data's repository; by default the newest, which is written down."""
    perturb: list[Perturbation] = []
    """Perturbed copies to ask as well, of baseline and +v."""

    @model_validator(mode="after")
    def _sound(self) -> Benchmark:
        if twice := [one for one in self.perturb if self.perturb.count(one) > 1]:
            raise ValueError(f"perturb names {twice[0]} twice")
        if self.data is not None and self.data_revision is not None:
            raise ValueError("data_revision is of a download, and data puts files in its place; give one")
        return self

    @property
    def known(self) -> Known | None:
        """The entry of the catalogue, where it is known by name."""
        return CATALOGUE.get(self.task)

    @property
    def name(self) -> str:
        """What to call it in tables."""
        return self.title or (self.known.title if self.known else self.id)

    @property
    def cap(self) -> int | None:
        """Tokens to generate at most."""
        return self.max_new_tokens or (self.known.cap if self.known else None)


class Primary(_Section):
    """A comparison of the primary family, which Holm's correction is over."""

    arm: Line
    against: Line = "baseline"
    benchmark: Line


class Published(_Section):
    """What others reported of a sum like this one, to stand beside what is found."""

    source: Line
    changes: dict[str, dict[str, Annotated[float, Field(allow_inf_nan=False)]]]
    """By benchmark and arm: the change against the baseline with the plain prompt, in points."""


class Study(_Section):
    """A study file as read: defaults filled in, folders absolute."""

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
    """auto: 16 on a CPU, found by trial on a GPU."""
    rounding: Literal["nearest", "stochastic"] = "nearest"
    benchmarks: Annotated[list[Benchmark], Field(min_length=1)]
    published: Published | None = None
    primary: Annotated[list[Primary], Field(min_length=1)] | None = None
    """The comparisons that the study is for; by default +v against the baseline on each benchmark."""

    @model_validator(mode="after")
    def _sound(self) -> Study:
        if (self.donors is None) == (self.vector is None):
            raise ValueError("give either donors, with minuend and subtrahend, or vector")
        if self.vector is not None and self.arms.donors:
            raise ValueError("arms.donors needs donors, and this study names a vector")
        taken = {"+v": self.alpha} | ({"−v": -self.alpha} if self.arms.minus else {})
        for arm, alpha in taken.items():
            if alpha in self.arms.sweep:
                raise ValueError(f"arms.sweep holds {alpha:.12g}, which is the α of {arm} already")
        ids = [one.id for one in self.benchmarks]
        if twice := [one for one in ids if ids.count(one) > 1]:
            raise ValueError(f"two benchmarks have the id {twice[0]!r}")
        if odd := [one for one in (self.published.changes if self.published else ()) if one not in ids]:
            raise ValueError(f"published names the benchmark {odd[0]!r}, which the study does not have")
        return self

    def to_json(self) -> Json:
        """The study as JSON, defaults filled in."""
        return self.model_dump(mode="json", by_alias=True)
