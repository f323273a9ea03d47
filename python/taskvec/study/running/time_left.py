"""Estimates the time that a study still takes, from the times of its finished batches."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from .batch_size import cap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..scoring.tasks import Loaded

# A choice is one pass over its prompts, which takes about as long as generating this many tokens. This is
# used only until the first choices of a study have been timed.
_TOKENS_OF_A_CHOICE = 10


class TimeLeft:
    """Estimates the time as measured seconds per document of each benchmark, times the documents left.

    For a benchmark that has not been measured yet, the time per token of its limit is taken from the others.
    """

    def __init__(self, todo: Iterable[Loaded], clock: Callable[[], float] = time.perf_counter) -> None:
        """`todo` holds the benchmark of each cell to score, as often as there are such cells."""
        self._clock = clock
        self._left: Counter[str] = Counter()
        self._work: dict[str, int] = {}
        self._kind: dict[str, str] = {}
        for loaded in todo:
            name = loaded.benchmark.id
            self._left[name] += loaded.n
            self._work[name], self._kind[name] = cap(loaded) or _TOKENS_OF_A_CHOICE, loaded.kind
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._measured: Counter[str] = Counter()
        self._cell = ("", "")
        self._done, self._since = 0, 0.0

    def report(self, arm: str, benchmark: str, done: int) -> None:
        """Takes the documents done in a cell; its first report is of an earlier run, and is not timed."""
        now = self._clock()
        if self._cell != (arm, benchmark):
            self._cell, self._done, self._since = (arm, benchmark), 0, now
        else:
            self._measured[benchmark] += done - self._done
            self._seconds[benchmark] += now - self._since
        self._left[benchmark] -= done - self._done
        self._done, self._since = done, now

    def seconds(self) -> float | None:
        """The seconds left; None if nothing has been measured yet."""
        total = 0.0
        for name, documents in self._left.items():
            if documents <= 0:
                continue
            each = self._each(name)
            if each is None:
                return None
            total += documents * each
        return total

    def _each(self, benchmark: str) -> float | None:
        if self._measured[benchmark]:
            return self._seconds[benchmark] / self._measured[benchmark]
        alike = [
            name
            for name, count in self._measured.items()
            if count and self._kind[name] == self._kind[benchmark]
        ]
        if not alike and self._kind[benchmark] == "choice":
            alike = [name for name, count in self._measured.items() if count]
        if not alike:
            return None
        tokens = sum(self._measured[name] * self._work[name] for name in alike)
        return self._work[benchmark] * sum(self._seconds[name] for name in alike) / tokens
