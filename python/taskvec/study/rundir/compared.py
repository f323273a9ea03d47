"""What came of comparing arms: the records of `results.json` that put answers side by side.

Scores, rates and differences are shares between 0 and 1 (0.01 is a point); intervals are 95 % intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ...records import Json, Record


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """One arm against another on one benchmark, paired by document."""

    arm: str
    against: str
    benchmark: str
    n: int
    difference: float
    interval: tuple[float, float]
    wrong_to_right: int
    right_to_wrong: int
    test: str | None
    """`"mcnemar"` or `"sign-flip"`; None, like both p values, where the comparison is only described."""
    family: str
    """`"primary"`, `"secondary"`, or `"described"`: outside every family of tests, as the α sweep is."""
    p: float | None
    p_holm: float | None
    """Corrected by Holm's method within the family; None where the comparison is only described."""


@dataclass(frozen=True, slots=True)
class Families(Record):
    """How many tests each family holds, that Holm's correction is within."""

    primary: int
    """As frozen at the first run: tests whose cells are still to be scored count too."""
    secondary: int


@dataclass(frozen=True, slots=True)
class TokenChange(Record):
    """Mean length of one arm's answers against another's, paired by document, in tokens."""

    arm: str
    against: str
    benchmark: str
    mean: float
    other: float
    difference: float
    interval: tuple[float, float]
    """Of the difference."""


@dataclass(frozen=True, slots=True)
class RandomMean(Record):
    """The mean of all random vectors against the baseline, and how it compares with v."""

    benchmark: str
    seeds: int
    """Random vectors that have been scored."""
    difference: float
    """Mean over the seeds of random vector − baseline."""
    interval: tuple[float, float]
    share: float | None
    """`difference` over v's own; None where v's is not clearly different from zero."""
    share_interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Robustness(Record):
    """What is left of v's gain under a perturbation, over the documents that the perturbation changed."""

    benchmark: str
    """The perturbed benchmark."""
    original: str
    """The clean one, `of` in JSON."""
    perturbation: str
    touched: float
    """Share of the benchmark's documents that the perturbation changed."""
    n: int
    """Documents that it changed; all figures here are over them."""
    clean: float
    """v's gain, +v − baseline, on the clean questions."""
    perturbed: float
    """v's gain on the perturbed questions."""
    change: float
    """perturbed − clean: a difference of differences. Below zero v loses under the perturbation."""
    interval: tuple[float, float]
    """Of `change`."""
    p: float | None
    """Exact sign-flip test of `change`."""
    p_holm: float | None
    """Corrected within the secondary family."""
    left: float | None
    """perturbed / clean; None where the clean gain is not clearly different from zero."""
    left_interval: tuple[float, float] | None

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads one of `robustness`."""
        return cls.of(json, original=json["of"])


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """One arm's answer to one document; texts are cut to 400 characters."""

    answer: str | None
    response: str | None
    correct: float


@dataclass(frozen=True, slots=True)
class ChangedAnswer(Record):
    """A document that the baseline and +v are scored differently on."""

    benchmark: str
    doc_id: int
    task: str
    target: str
    question: str
    """As the task asks it, without the chat template."""
    baseline: Answer
    plus: Answer

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads one of `changed_answers`."""
        return cls.of(json, baseline=Answer.of(json["baseline"]), plus=Answer.of(json["plus"]))
