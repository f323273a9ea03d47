"""Which α to choose: what each of a list would do after rounding, from one read of the inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, Unpack

import taskvec._core as _core

from .fit.merge import not_donors, opened
from .options import TRIED, Alpha, Keywords, alpha_list, make_options, refuse_options
from .records import Effect, Json, Record, Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .inputs.refs import Folder

# The core warns of a written checkpoint by the same bound.
_TOLERANCE = 0.05
_WRITING = ("rounding", "alpha_rules", "schedule", "sync", "sha256", "overwrite", "resume")


@dataclass(frozen=True, slots=True)
class GroupEffect(Record):
    """The figures of one part of the model."""

    name: str
    """`embedding`, `attention`, `mlp`, `norm`, `head` or `other`, by the names of the tensors."""
    tensors: int
    effect: Effect

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a member of `groups`."""
        return cls.of(json, effect=Effect.of(json["effect"]))


@dataclass(frozen=True, slots=True)
class Variant(Record):
    """What one α does with one rounding."""

    alpha: str
    """As it was written."""
    rounding: str
    """`nearest` or `stochastic`."""
    effect: Effect
    """The figures that the manifest of such a run would have."""
    groups: tuple[GroupEffect, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a member of `variants`."""
        groups = tuple(map(GroupEffect.from_json, json["groups"]))
        return cls.of(json, effect=Effect.of(json["effect"]), groups=groups)


@dataclass(frozen=True, slots=True)
class AdvisedInput(Record):
    """A folder that was read."""

    role: str
    name: str


@dataclass(frozen=True, slots=True)
class AdviceResult(Result):
    """What `advise` found, for every α with each rounding."""

    inputs: tuple[AdvisedInput, ...]
    dtype: str | None
    """The dtype of the output that was asked for; None if every tensor keeps the target's."""
    seed: int
    """Of the stochastic rounding."""
    variants: tuple[Variant, ...]
    """Stochastic rounding is left out where nothing would be rounded, because all outputs are float32."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Reads a JSON object of schema `taskvec/advice/1`."""
        variants = tuple(map(Variant.from_json, json["variants"]))
        return cls.of(json, _json=json, inputs=AdvisedInput.of_all(json["inputs"]), variants=variants)

    @property
    def sentences(self) -> tuple[str, ...]:
        """In words: at which α rounding eats the request, and which option cures it."""
        return tuple(_sentences(self.variants))


def _sentences(variants: tuple[Variant, ...]) -> Iterator[str]:
    nearest = {one.alpha: one.effect.gain for one in variants if one.rounding == "nearest"}
    if all(gain is None for gain in nearest.values()):
        return
    if unknown := [alpha for alpha, gain in nearest.items() if gain is None]:
        yield f"There is no finite change to measure at α = {', '.join(unknown)}."
    known = {alpha: gain for alpha, gain in nearest.items() if gain is not None}
    off = {alpha: gain for alpha, gain in known.items() if not _is_kept(gain)}
    if not off:
        span = _range(known.values())
        yield f"Rounded to nearest, the effective gain is within 5 % of 1 at each of these α ({span})."
        return
    shown = ", ".join(f"{gain:.3f} at α = {alpha}" for alpha, gain in off.items())
    count = f"{len(off)} of {len(nearest)} α"
    yield f"Rounded to nearest, the effective gain is more than 5 % off at {count}: {shown}."
    largest = max(abs(float(alpha)) for alpha in off)
    if above := [abs(float(alpha)) for alpha in known if abs(float(alpha)) > largest]:
        least = f"{min(above):g}"
        yield f"Of the α tried, those from |α| = {least} on are within 5 %; others between them may not be."
    cured = [one for one in variants if one.rounding == "stochastic" and one.alpha in off]
    kept = [one.effect.gain for one in cured if one.effect.gain is not None and _is_kept(one.effect.gain)]
    if kept and len(kept) == len(off):
        cosines = [one.effect.cosine for one in cured if one.effect.cosine is not None]
        yield (
            f"--rounding stochastic brings the gain to {_range(kept)} there: on average every change is made,"
            f" but single weights move more than asked or not at all (cosine {_range(cosines, digits=2)})."
        )
    # Both roundings were tried only where the output is narrower than float32.
    if cured:
        yield "--dtype f32 loses far less, at twice the size."


def _warnings(variants: list[Json]) -> Iterator[str]:
    """What the runs would warn of, besides their gain."""
    if inputs := max((one["effect"]["nonfinite_inputs"] for one in variants), default=0):
        yield f"{inputs} element(s) are Inf or NaN in an input; the figures are of the others"
    over = {one["alpha"]: one["effect"]["overflowed"] for one in variants if one["effect"]["overflowed"]}
    if over:
        shown = ", ".join(f"{count} at α = {alpha}" for alpha, count in over.items())
        yield f"element(s) would overflow to Inf or NaN: {shown}; the figures are of the others"


def _is_kept(gain: float) -> bool:
    return abs(gain - 1) <= _TOLERANCE


def _range(values: Iterable[float], *, digits: int = 3) -> str:
    shown = [f"{value:.{digits}f}" for value in sorted(values)]
    return shown[0] if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}"


def advise(
    target: Folder,
    *donors: Folder,
    alphas: Alpha | Iterable[Alpha] = TRIED,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> AdviceResult:
    """What each of `alphas` would do to the target after rounding; reads the inputs once and writes nothing.

    Args:
        target: the checkpoint that would receive the change.
        donors: a minuend and a subtrahend, or one vector.
        alphas: the factors to try, as a list or as text with commas; none of them 0.
        progress: called as by the other verbs.
        options: as `transfer`; `rounding` is not one of them, since both are tried, and neither are those
            that give tensors another α or that concern the output folder.

    Raises:
        UsageError: there is another number of donors, or an option has no meaning here.
        MismatchError, CorruptError, StorageError: as `transfer`.
    """
    refuse_options(options, _WRITING, "advice")
    opts, wanted = make_options(options), list(dict.fromkeys(alpha_list(alphas)))
    with opened(target, donors, opts, progress) as inputs:
        vectors = [donor.is_vector for donor in inputs.donors]
        if vectors not in ([True], [False, False]):
            raise not_donors(inputs, vectors="a vector")
        found: Json = json.loads(_core.advise(inputs.target, inputs.donors, wanted, inputs.options, progress))
        found["warnings"] += _warnings(found["variants"])
        found["warnings"] += inputs.found.warnings + inputs.session.unchecked()
        found["notes"] += inputs.found.notes
    return AdviceResult.from_json(found)
