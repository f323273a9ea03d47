"""The comparisons of one benchmark, by their role in the conclusions, and what each of them shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .exact_tests import LEVEL
from .phrases import interval, p_value, points

if TYPE_CHECKING:
    from ..rundir.compared import Comparison
    from ..rundir.results import Benchmark, Results


def verdict(found: Comparison | None) -> int:
    """1 if the arm is shown to be higher, −1 if it is shown to be lower, 0 if neither is shown.

    A difference is shown if its test rejects after correction within its family. A comparison without a test,
    such as those of the α sweep, shows nothing.
    """
    if found is None or found.p_holm is None or found.p_holm >= LEVEL:
        return 0
    return 1 if found.difference > 0 else -1


def figures(found: Comparison) -> str:
    """A difference in short form, with its 95 % interval and corrected p."""
    p = "" if found.p_holm is None else f", {p_value(found.p_holm)}"
    return f"{points(found.difference)} points, {interval(found.interval)}{p}"


class Case:
    """The comparisons of one benchmark, by their role in the conclusions."""

    def __init__(self, results: Results, benchmark: Benchmark) -> None:
        """Looks the comparisons up; one whose cells are not both scored is None, or left out of a list."""
        self.results, self.benchmark = results, benchmark
        self.main = self._of("plus", "baseline")
        self.minus = self._of("minus", "baseline")
        self.think = self._of("baseline-think", "baseline")
        self.beyond = self._of("plus", "baseline-think")
        self.both = self._of("plus-think", "baseline-think")
        seeds = results.of_kind("random")
        self.random = [one for arm in seeds if (one := self._of(arm.id, "baseline"))]
        self.than_random = [one for arm in seeds if (one := self._of("plus", arm.id))]
        name = benchmark.id
        self.random_mean = next((one for one in results.random_means if one.benchmark == name), None)
        self.robust = next((one for one in results.robustness if one.benchmark == name), None)
        pair = ("plus", "baseline", name)
        lengths = results.token_changes
        self.lengths = next((one for one in lengths if (one.arm, one.against, one.benchmark) == pair), None)
        self.cells = {arm.id: arm.cells[benchmark.id] for arm in results.arms if benchmark.id in arm.cells}
        self.target = self.label("baseline")
        self.way = verdict(self.main)

    def _of(self, arm: str, against: str) -> Comparison | None:
        return self.results.compared(arm, against, self.benchmark.id)

    def label(self, arm: str) -> str:
        """The label of an arm."""
        found = self.results.arm(arm)
        return found.label if found else arm

    def tests(self, found: Comparison) -> int:
        """The number of tests in the family of a comparison."""
        sizes = self.results.families
        return sizes.primary if found.family == "primary" else sizes.secondary

    @property
    def unread(self) -> bool:
        """Whether no answer of the target or of +v could be read."""
        cells = [self.cells.get(arm) for arm in ("baseline", "plus")]
        return all(one is not None and one.extraction_failures == 1 for one in cells)
