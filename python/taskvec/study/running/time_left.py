"""How long a study will still take, from how long its batches have taken."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from .batch_size import cap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..scoring.tasks import Loaded

# A choice is a pass over its prompts; it costs about what this many generated tokens do. Of weight only until
# the first choices of a study are made.
_TOKENS_OF_A_CHOICE = 10


class TimeLeft:
    """Measured seconds a document of each benchmark, times the documents to come.

    A benchmark that was not measured yet is taken to cost what the others do for each token of their caps.
    """

    def __init__(self, todo: Iterable[Loaded], clock: Callable[[], float] = time.perf_counter) -> None:
        """For the cells that are to be scored, a benchmark once for each."""
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
        """Counts what a cell has done; its first report is of an earlier run, which took no time now."""
        now = self._clock()
        if self._cell != (arm, benchmark):
            self._cell, self._done, self._since = (arm, benchmark), 0, now
        else:
            self._measured[benchmark] += done - self._done
            self._seconds[benchmark] += now - self._since
        self._left[benchmark] -= done - self._done
        self._done, self._since = done, now

    def seconds(self) -> float | None:
        """Of all that is left; None where nothing tells yet."""
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
