"""How a benchmark's documents depend on each other: clusters are units, and subtasks are strata of units."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...records import Json

VARIATION = "variation"
"""The perturbation of documents that the data set itself derived from seed questions."""
STRATUM = 30
"""The least number of units in every subtask for resampling within subtasks."""


@dataclass(frozen=True, slots=True)
class Design:
    """Documents, the units that they belong to, and the strata of units.

    A unit is what the statistics treat as independent: a cluster, which is all documents that were made from
    one seed question, or a document that belongs to no cluster. A stratum is a subtask.
    """

    units: tuple[int, ...]
    """The unit of each document, counted from 0."""
    strata: tuple[int, ...]
    """The stratum of each unit, counted from 0."""

    @classmethod
    def of(cls, rows: Iterable[Json]) -> Self:
        """The design of a benchmark from its sample rows (`task` and `cluster`), in their order.

        All units form one stratum if a cluster spans subtasks, since its documents must stay together, or if
        a subtask has fewer than 30 units: resampling within a stratum of m units makes the spread too small
        by the factor √((m − 1)/m). With one stratum, intervals tend to be too wide rather than too narrow.
        """
        numbers: dict[object, int] = {}
        units: list[int] = []
        tasks: list[set[str]] = []
        for at, row in enumerate(rows):
            # Clusters have text names, so the number of a document cannot be equal to one.
            name = at if row["cluster"] is None else row["cluster"]
            unit = numbers.setdefault(name, len(numbers))
            if unit == len(tasks):
                tasks.append(set())
            tasks[unit].add(row["task"])
            units.append(unit)
        return cls(tuple(units), _strata(tasks))

    @classmethod
    def independent(cls, documents: int) -> Self:
        """The design of independent documents."""
        return cls(tuple(range(documents)), (0,) * documents)

    def within(self, documents: Sequence[int]) -> Design:
        """The design of some of the documents, given by their indexes, as one stratum."""
        numbers: dict[int, int] = {}
        units = tuple(numbers.setdefault(self.units[at], len(numbers)) for at in documents)
        return Design(units, (0,) * len(numbers))

    @property
    def clustered(self) -> bool:
        """Whether two documents share a unit."""
        return len(self.strata) < len(self.units)

    @property
    def sizes(self) -> list[int]:
        """The number of documents of each unit."""
        sizes = [0] * len(self.strata)
        for unit in self.units:
            sizes[unit] += 1
        return sizes

    @property
    def effective(self) -> float:
        """Kish's effective number of units, (Σm)² / Σm² for units of m documents.

        It equals the number of units if all have the same size, and the number of documents if there are no
        clusters. Kish (Survey Sampling, 1965) derives it for clusters of identical documents, so it is rather
        too small than too large.
        """
        return len(self.units) ** 2 / sum(size * size for size in self.sizes)

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of the documents' values in each unit."""
        sums = [0.0] * len(self.strata)
        for unit, value in zip(self.units, values, strict=True):
            sums[unit] += value
        return sums


def _strata(tasks: list[set[str]]) -> tuple[int, ...]:
    counts = Counter(name for one in tasks for name in one)
    if any(len(one) > 1 for one in tasks) or min(counts.values(), default=0) < STRATUM:
        return (0,) * len(tasks)
    numbers = {name: at for at, name in enumerate(counts)}
    return tuple(numbers[name] for one in tasks for name in one)
