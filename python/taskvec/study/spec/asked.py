"""What is asked in the end: the benchmarks of a study file, and those that follow from them.

`perturb` asks a benchmark once more for each perturbation. `gsm_plus` consists of variations of seed
questions, so it brings these along, and the variations that cannot be answered stand apart, since no number
is right there.
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
    "this study runs code that the model wrote; allow that with --allow-code-execution (it is confined, see"
    " docs/code-execution.md), or leave out the benchmarks that do"
)
# Variations of each seed question that have a number for an answer.
_VARIATIONS = 7


class Asked(Benchmark):
    """A benchmark as it is asked."""

    of: str | None = None
    """The benchmark whose questions these are harder variants of."""
    perturbation: str | None = None
    """What was done to the questions; None where the documents are as the data set has them."""
    parent: str | None = None
    """The benchmark of the study file that it follows from; then only baseline and +v are asked, plainly."""

    @property
    def derived(self) -> bool:
        """Whether it follows from another."""
        return self.parent is not None


def asked(study: Study) -> tuple[Asked, ...]:
    """The benchmarks in order, each followed by those that follow from it.

    Raises:
        UsageError: two of them have one id, or `primary` names an arm or a benchmark that is not there.
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
        # As many as the variations within the limit were made from.
        fewer = None if benchmark.limit is None else -(-benchmark.limit // _VARIATIONS)
        for task, id in ((SEEDS, seeds), (CRITICAL, f"{benchmark.id}-unanswerable")):
            own = {} if task == SEEDS else {"filter": None, "metric": None, "also": None}
            yield _derived(named, id, CATALOGUE[task].title, task=task, limit=fewer, of=None,
                           perturbation=None, **own)  # fmt: skip


def _derived(named: Asked, id: str, title: str, **changes: object) -> Asked:
    return named.model_copy(
        update={"id": id, "title": title, "perturb": [], "sweep": False, "parent": named.id, **changes}
    )
