"""The arms of a study: each is a variant of the target, or a donor, with one prompt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .asked import asked

if TYPE_CHECKING:
    from ...records import Json
    from .asked import Asked
    from .sections import Study

Kind = Literal["baseline", "plus", "minus", "random", "donor", "sweep"]
Prompt = Literal["plain", "think"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm."""

    id: str
    label: str
    """Its name in tables and plots."""
    kind: Kind
    prompt: Prompt = "plain"
    alpha: float | None = None
    """Factor of v, or of the random vector; None if no vector is added."""
    seed: int | None = None
    """Seed of the random vector; None for other arms."""

    def to_json(self) -> Json:
        """The fields as a JSON object."""
        return asdict(self)


def arms(study: Study) -> tuple[Arm, ...]:
    """The arms in the order in which they run, the most important first."""
    chosen, alpha = study.arms, study.alpha
    target = Path(study.target).name
    found = [Arm("baseline", target, "baseline"), Arm("plus", "+v", "plus", alpha=alpha)]
    if chosen.think:
        found += [
            Arm("baseline-think", f"{target}, think", "baseline", "think"),
            Arm("plus-think", "+v, think", "plus", "think", alpha),
        ]
    if chosen.minus:
        found.append(Arm("minus", "−v", "minus", alpha=-alpha))
    found += [
        Arm(f"random-{seed}", f"random {seed}", "random", alpha=alpha, seed=seed) for seed in chosen.random
    ]
    found += [Arm(f"alpha-{one:.12g}", f"{_signed(one)} v", "sweep", alpha=one) for one in chosen.sweep]
    # Last, since they are other models: the target must be unloaded for them.
    if study.donors is not None and chosen.donors is not False:
        found += [
            Arm(role, Path(ref).name, "donor")
            for role, ref in (("minuend", study.donors.minuend), ("subtrahend", study.donors.subtrahend))
        ]
    return tuple(found)


def cells(study: Study) -> tuple[tuple[Arm, Asked], ...]:
    """The pairs of arm and benchmark to score, in order.

    All arms run on all benchmarks, with two exceptions: arms of the sweep run only on benchmarks with
    `sweep`, and on benchmarks derived from others only the baseline and +v run, with the plain prompt.
    """
    return tuple(
        (arm, benchmark)
        for arm in arms(study)
        for benchmark in asked(study)
        if (arm.id in ("baseline", "plus") or not benchmark.derived)
        and (arm.kind != "sweep" or benchmark.sweep)
    )


def _signed(number: float) -> str:
    return f"{number:.12g}".replace("-", "−")
