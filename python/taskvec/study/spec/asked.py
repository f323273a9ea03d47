"""The benchmarks that a study runs: those of the study file, and those that are derived from them.

`perturb` derives a benchmark for each perturbation. `gsm_plus` consists of variations of seed questions, so
the seed questions are a derived benchmark. So are its questions that have no answer, since they cannot be
scored by a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import UsageError
from .catalogue import CATALOGUE, CRITICAL, SEEDS
from .sections import Benchmark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .sections import Study

NO_CONSENT = (
    "this study runs code that the model wrote; allow it with --allow-code-execution (it runs in a sandbox,"
    " see docs/code-execution.md), or remove these benchmarks from the study"
)
# Variations of each seed question whose answer is a number.
_VARIATIONS = 7


class Asked(Benchmark):
    """A benchmark that is run: one of the study file, or one that is derived from it."""

    of: str | None = None
    """The benchmark of which its questions are harder variants."""
    perturbation: str | None = None
    """The kind of change made to the questions; None if they are as in the data set."""
    parent: str | None = None
    """The benchmark of the study file from which it is derived; None for one of the file itself."""

    @property
    def derived(self) -> bool:
        """Whether it is derived; then only the baseline and +v run on it, with the plain prompt."""
        return self.parent is not None


def asked(study: Study) -> tuple[Asked, ...]:
    """The benchmarks in order, each followed by those derived from it.

    Raises:
        UsageError: two of them have the same id.
    """
    found = tuple(one for benchmark in study.benchmarks for one in _expanded(benchmark))
    ids = [one.id for one in found]
    if twice := [one for one in ids if ids.count(one) > 1]:
        raise UsageError(f"study {study.name}: two benchmarks have the id {twice[0]!r}; rename one of them")
    return found


def _expanded(benchmark: Benchmark) -> Iterator[Asked]:
    given = {name: getattr(benchmark, name) for name in Benchmark.model_fields}
    named = Asked.model_construct(**given)
    seeds = f"{benchmark.id}-seed"
    if benchmark.task == "gsm_plus":
        named = named.model_copy(update={"of": seeds, "perturbation": "variation"})
    yield named
    for kind in benchmark.perturb:
        yield _derived(named, f"{benchmark.id}-{kind}", f"{benchmark.name}, {kind}", of=benchmark.id,
                       perturbation=kind)  # fmt: skip
    if benchmark.task == "gsm_plus":
        # The number of seed questions from which the variations within the limit were made.
        fewer = None if benchmark.limit is None else -(-benchmark.limit // _VARIATIONS)
        for task, id in ((SEEDS, seeds), (CRITICAL, f"{benchmark.id}-unanswerable")):
            own = {} if task == SEEDS else {"filter": None, "metric": None, "also": None}
            yield _derived(named, id, CATALOGUE[task].title, task=task, limit=fewer, of=None,
                           perturbation=None, **own)  # fmt: skip


def _derived(named: Asked, id: str, title: str, **changes: object) -> Asked:
    return named.model_copy(
        update={"id": id, "title": title, "perturb": [], "sweep": False, "parent": named.id, **changes}
    )
