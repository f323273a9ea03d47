"""How a benchmark's documents hang together: which are one unit of chance, and which units form a subtask."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...records import Json

VARIATION = "variation"
"""The perturbation of documents that the data set itself made from seed questions."""
STRATUM = 30
"""Units that every subtask must have for resampling to stay within subtasks."""


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

        There is one stratum for all where a cluster spans subtasks, as its documents must stay together, and
        where a subtask has fewer than 30 units: resampling within a stratum of m units makes the spread too
        small by the factor √((m − 1)/m). One stratum makes intervals rather too wide than too narrow.
        """
        numbers: dict[object, int] = {}
        units: list[int] = []
        tasks: list[set[str]] = []
        for at, row in enumerate(rows):
            # A cluster is named by a text; a number cannot be confused with one.
            name = at if row["cluster"] is None else row["cluster"]
            unit = numbers.setdefault(name, len(numbers))
            if unit == len(tasks):
                tasks.append(set())
            tasks[unit].add(row["task"])
            units.append(unit)
        return cls(tuple(units), _strata(tasks))

    @classmethod
    def independent(cls, documents: int) -> Self:
        """Documents that have nothing to do with each other."""
        return cls(tuple(range(documents)), (0,) * documents)

    def within(self, documents: Sequence[int]) -> Design:
        """The design of some of the documents, given by their places; all of them become one stratum."""
        numbers: dict[int, int] = {}
        units = tuple(numbers.setdefault(self.units[at], len(numbers)) for at in documents)
        return Design(units, (0,) * len(numbers))

    @property
    def clustered(self) -> bool:
        """Whether any two documents share a unit."""
        return len(self.strata) < len(self.units)

    @property
    def sizes(self) -> list[int]:
        """Documents of each unit."""
        sizes = [0] * len(self.strata)
        for unit in self.units:
            sizes[unit] += 1
        return sizes

    @property
    def effective(self) -> float:
        """Kish's effective number of units, (Σm)² / Σm² for units of m documents.

        It is the number of units where all have the same size, and the number of documents where none are
        clustered. Kish (Survey Sampling, 1965) has it for the case that documents of a cluster are perfectly
        alike, so it errs on the side of too few.
        """
        return len(self.units) ** 2 / sum(size * size for size in self.sizes)

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of the documents' values by unit."""
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
