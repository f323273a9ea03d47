"""The parts of `results.json` that compare arms.

Scores, rates and differences are shares from 0 to 1 (0.01 is one percentage point); intervals are 95 %
intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ...records import Json, Record


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """One arm compared with another on one benchmark, paired by document."""

    arm: str
    against: str
    benchmark: str
    n: int
    difference: float
    interval: tuple[float, float]
    wrong_to_right: int
    right_to_wrong: int
    test: str | None
    """`"mcnemar"` or `"sign-flip"`; None, like both p values, if the comparison is not tested."""
    family: str
    """`"primary"` or `"secondary"`; `"described"` if it is not tested, as for the α sweep."""
    p: float | None
    p_holm: float | None
    """p corrected by Holm's method within the family."""


@dataclass(frozen=True, slots=True)
class Families(Record):
    """The number of tests in each family, over which Holm's correction is made."""

    primary: int
    """The number fixed at the first run: tests whose cells are not yet scored count too."""
    secondary: int


@dataclass(frozen=True, slots=True)
class TokenChange(Record):
    """The mean length of one arm's answers compared with another's, paired by document, in tokens."""

    arm: str
    against: str
    benchmark: str
    mean: float
    other: float
    difference: float
    interval: tuple[float, float]
    """Interval of `difference`."""


@dataclass(frozen=True, slots=True)
class RandomMean(Record):
    """The mean of all random vectors compared with the baseline, and with v."""

    benchmark: str
    seeds: int
    """Number of random vectors that have been scored."""
    difference: float
    """Mean of (random vector − baseline) over the seeds."""
    interval: tuple[float, float]
    share: float | None
    """`difference` divided by that of v; None if that of v is not clearly different from zero."""
    share_interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Robustness(Record):
    """How much of v's gain is left under a perturbation, over the documents that the perturbation changed."""

    benchmark: str
    """The perturbed benchmark."""
    original: str
    """The clean benchmark; its key in JSON is `of`."""
    perturbation: str
    touched: float
    """Share of the benchmark's documents that the perturbation changed."""
    n: int
    """Number of documents that it changed; all figures here are over them."""
    clean: float
    """v's gain, +v − baseline, on the clean questions."""
    perturbed: float
    """v's gain on the perturbed questions."""
    change: float
    """perturbed − clean, a difference of differences; below zero, the perturbation reduces v's gain."""
    interval: tuple[float, float]
    """Interval of `change`."""
    p: float | None
    """p of the exact sign-flip test of `change`."""
    p_holm: float | None
    """p corrected within the secondary family."""
    left: float | None
    """perturbed / clean; None if the clean gain is not clearly different from zero."""
    left_interval: tuple[float, float] | None

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads an entry of `robustness`."""
        return cls.of(json, original=json["of"])


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """One arm's answer to one document; texts are cut to 400 characters."""

    answer: str | None
    response: str | None
    correct: float


@dataclass(frozen=True, slots=True)
class ChangedAnswer(Record):
    """A document on which the baseline and +v have different scores."""

    benchmark: str
    doc_id: int
    task: str
    target: str
    question: str
    """The task's prompt, without the chat template."""
    baseline: Answer
    plus: Answer

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads an entry of `changed_answers`."""
        return cls.of(json, baseline=Answer.of(json["baseline"]), plus=Answer.of(json["plus"]))
