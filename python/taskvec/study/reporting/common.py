"""What the page and the terminal share: which arms and benchmarks are shown, and the changes to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.phrases import count, points

if TYPE_CHECKING:
    from ..rundir.compared import Comparison
    from ..rundir.results import ArmResult, Benchmark, Results

AGAINST = "Changes are against the target as it is; those of +v with think against the target with think."
"""A sentence that says what the changes in a table are compared with."""


def clean(results: Results) -> list[Benchmark]:
    """The benchmarks that are not derived from another."""
    return [one for one in results.benchmarks if one.parent is None]


def generated(results: Results) -> list[Benchmark]:
    """The clean benchmarks whose answers are generated."""
    return [one for one in clean(results) if one.kind == "generate"]


def title(results: Results, benchmark: str) -> str:
    """The title of a benchmark, by its id."""
    return next(one.title for one in results.benchmarks if one.id == benchmark)


def own_baseline(arm: ArmResult) -> str:
    """The id of the arm with which an arm is compared."""
    return "baseline-think" if arm.id == "plus-think" else "baseline"


def own_change(results: Results, arm: ArmResult, benchmark: Benchmark) -> Comparison | None:
    """The comparison of an arm with its baseline; None for a baseline, or if not both are scored."""
    return results.compared(arm.id, own_baseline(arm), benchmark.id)


def bracketed(difference: float, is_shown: bool) -> str:
    """A change in points, in brackets if no difference is shown."""
    return points(difference) if is_shown else f"({points(difference)})"


def families(results: Results) -> str:
    """A sentence on the number of tests in each family."""
    first, second = results.families.primary, results.families.secondary
    if not first + second:
        return "Nothing was tested."
    return (
        f"The primary family holds {count(first, 'test')}, chosen before the first run, the secondary one"
        f" {second:,}."
    )


def curve(results: Results) -> tuple[ArmResult, ...]:
    """The arms of the α curve in order: −v, the baseline as α = 0, the sweep and +v."""
    kinds = ("baseline", "plus", "minus", "sweep")
    arms = [arm for arm in results.arms if arm.kind in kinds and arm.prompt == "plain"]
    return tuple(sorted(arms, key=lambda arm: arm.alpha or 0.0))
