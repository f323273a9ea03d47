"""Loads a study's benchmarks as lm-eval task objects and sets them up."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..environment import library, quiet
from ..spec.asked import asked
from . import building, known
from .code import Judge
from .perturb.kinds import KINDS
from .perturb.tasks import Touched
from .perturb.tasks import apply as perturb
from .readings import Reading, invalid, readings, refused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ...records import Json
    from ..spec.asked import Asked
    from ..spec.sections import Study

# lm-eval's default seeds.
_SEED, _OTHER_SEED = 0, 1234
_CHOICE = "the answer is chosen among given ones by likelihood, so a chain of thought has no effect"
_PREFILLED = "the beginning of the answer is given, which leaves no room for a chain of thought"


@dataclass(frozen=True, slots=True)
class Loaded:
    """One benchmark, ready to be scored."""

    benchmark: Asked
    tasks: tuple[Any, ...]
    """lm-eval's `Task` objects: one, or those of a group."""
    kind: Literal["generate", "choice"]
    score: Reading
    """The reading that gives the score."""
    further: tuple[Reading, ...]
    """Further readings of the same answers."""
    invalid: dict[str, Any]
    """By task: the filter's result if it finds no answer; None if it always finds one."""
    shots: int
    version: str
    n: int
    """Number of documents."""
    note: str | None
    """Why a chain of thought cannot have an effect; None if it can."""
    data: tuple[Json, ...]
    """What was loaded: repository, configuration, revision, files, fingerprint."""
    touched: Touched | None
    """For a perturbed benchmark: which documents were changed, and the hash of each before; else None."""
    judge: Judge | None
    """Runs the answers, if they are programs; else None."""

    @property
    def metric(self) -> str:
        """The metric that gives the score."""
        return self.score.metric

    @property
    def filter(self) -> str:
        """The filter that gives the score."""
        return self.score.filter

    def to_json(self) -> Json:
        """The entry of this benchmark in `run.json` and `results.json`."""
        one = self.benchmark
        return {
            "id": one.id, "title": one.name, "task": one.task, "version": self.version, "kind": self.kind,
            "metric": self.metric, "filter": self.filter, "readings": [each.name for each in self.further],
            "shots": self.shots, "max_new_tokens": one.cap, "limit": one.limit, "n": self.n,
            "note": self.note, "of": one.of, "perturbation": one.perturbation, "parent": one.parent,
            "sweep": one.sweep, "subtasks": self.subtasks(), "data": list(self.data),
        }  # fmt: skip

    def subtasks(self) -> list[str]:
        """The names of the subtasks; empty if there is only one."""
        found = {
            known.place(self.benchmark, task.task_name, document)[0]: None
            for task in self.tasks
            for _, document in task.doc_iterator(limit=self.benchmark.limit)
        }
        return list(found) if len(found) > 1 else []


def seed(tasks: Iterable[Any] = ()) -> None:
    """Seeds every random generator that tasks use, so that each arm gets the same documents and examples."""
    import numpy as np

    random.seed(_SEED)
    np.random.seed(_OTHER_SEED)
    library("torch").manual_seed(_OTHER_SEED)
    for task in tasks:
        # Few-shot examples are drawn again for each arm.
        task.set_fewshot_seed(seed=_OTHER_SEED)


def load(study: Study, judge: Judge | None = None, only: Collection[str] | None = None) -> tuple[Loaded, ...]:
    """Builds the tasks of a study's benchmarks and loads their data.

    Args:
        study: the study.
        judge: runs programs that the model wrote; None if none may run.
        only: ids of the benchmarks to load; None for all.

    Raises:
        UsageError: there is no such task, or it cannot be run as the study says.
        StorageError: the data of a task are not available.
    """
    wanted = [one for one in asked(study) if only is None or one.id in only]
    runs = judge or Judge(allowed=False)
    with quiet():
        return tuple(_load(one, study.tasks, runs) for one in wanted)


def _load(benchmark: Asked, own: str | None, judge: Judge) -> Loaded:
    # Some tasks draw their documents, or the order of their choices, at random.
    seed()
    source = known.source(benchmark)
    tasks = building.build(benchmark, own, judge, source)
    kinds = {task.OUTPUT_TYPE for task in tasks}
    if len(kinds) > 1 or not kinds <= {"generate_until", "multiple_choice"}:
        raise refused(benchmark, f"it is of the kind {', '.join(sorted(map(str, kinds)))}", "another task")
    kind = "generate" if kinds == {"generate_until"} else "choice"
    for task in tasks:
        if getattr(task, "UNSAFE_CODE", False):
            raise refused(benchmark, "it runs code that the model wrote", "humaneval or humaneval_plus")
        if getattr(task, "MULTIMODAL", False):
            raise refused(benchmark, "it has images or sound", "a task with text only")
        if (task.get_config("repeats") or 1) > 1:
            raise refused(
                benchmark,
                "it samples several answers to each document, but arms decode greedily",
                "another task",
            )
        _set_up(task, benchmark, kind)
    if (benchmark.data or benchmark.data_revision) and not source.found:
        raise refused(
            benchmark, "it loads its data in its own way, which data cannot replace", "another task"
        )
    score, further = readings(benchmark, tasks)
    touched = None
    if benchmark.perturbation in KINDS:
        touched = perturb(tasks, benchmark.perturbation, benchmark=benchmark.id, limit=benchmark.limit)
    prefilled = any(task.get_config("gen_prefix") for task in tasks)
    sizes = [min(len(task.eval_docs), benchmark.limit or len(task.eval_docs)) for task in tasks]
    code = benchmark.known is not None and benchmark.known.code
    return Loaded(
        benchmark=benchmark,
        tasks=tasks,
        kind=kind,
        score=score,
        further=further,
        invalid={task.task_name: invalid(benchmark, task, score.filter) for task in tasks},
        shots=tasks[0].get_config("num_fewshot"),
        version=", ".join(sorted({str(task.VERSION) for task in tasks})),
        n=sum(sizes),
        note=_CHOICE if kind == "choice" else _PREFILLED if prefilled else None,
        data=tuple({"task": one["configuration"] or benchmark.task, **one} for one in source.found),
        touched=touched,
        judge=judge if code else None,
    )


def _set_up(task: Any, benchmark: Asked, kind: str) -> None:
    pinned = task.get_config("num_fewshot")
    shots = (pinned or 0) if benchmark.shots is None else benchmark.shots
    if pinned == 0 and shots:
        raise refused(benchmark, f"it supports only 0 shots, not {shots}", "shots: 0, or another task")
    if shots and not len(task.fewshot_docs() or ()):
        raise refused(
            benchmark,
            f"its data have no documents to draw {shots} shots from",
            "shots: 0, or name a file with such documents under data",
        )
    task.set_config("num_fewshot", shots)
    if kind == "choice":
        return
    if benchmark.cap is None:
        raise refused(benchmark, "it generates text without a token limit", "a max_new_tokens")
    given: Json = task.get_config("generation_kwargs") or {}
    # Everything is set, so that no default applies: lm-eval would cut answers off at 256 tokens.
    how = {"max_gen_toks": benchmark.cap, "do_sample": False, "temperature": 0.0}
    task.set_config("generation_kwargs", {"until": given.get("until") or [], **how})
