"""Chooses how answers are scored: the metric and filter that give the score, and further readings.

Each is tried on made-up answers before a model is loaded. So a metric that is not one number from 0 to 1 for
each document is found before anything is generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ..environment import library
from .code import METRIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..spec.asked import Asked


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read and score an answer."""

    metric: str
    filter: str
    name: str = ""
    """Its name in the study's `also`; empty for the score."""


def refused(benchmark: Asked, why: str, instead: str) -> UsageError:
    """The error for a task that cannot be used as it is."""
    return UsageError(
        f"benchmark {benchmark.id!r}: task {benchmark.task} cannot be used as it is: {why}; choose {instead}"
    )


def readings(benchmark: Asked, tasks: tuple[Any, ...]) -> tuple[Reading, tuple[Reading, ...]]:
    """The reading that gives the score, and the further ones.

    The score is the reading that the study sets, else that of the catalogue, else the task's first.

    Raises:
        UsageError: a task has no such metric or filter, or it gives no number from 0 to 1 for a document.
    """
    known = benchmark.known
    kind = str(tasks[0].OUTPUT_TYPE)
    tried = [_tried(benchmark, task) for task in tasks]
    metrics = [_metrics(task, given) for task, given in zip(tasks, tried, strict=True)]
    filters = [_filters(task) for task in tasks]
    wanted = benchmark.filter or (known.filter if known else None) or filters[0][0]
    score = Reading(benchmark.metric or metrics[0][0], wanted)
    further: list[Reading] = []
    usual = [one for one in (known.filter, *known.also) if one] if known else []
    also = usual if benchmark.also is None else benchmark.also
    for name in also:
        if kind == "generate_until" and all(name in some for some in filters):
            one = Reading(score.metric, name, name)
        elif all(name in some for some in metrics):
            one = Reading(name, score.filter, name)
        else:
            has = ", ".join(dict.fromkeys([*filters[0], *metrics[0]]))
            raise refused(benchmark, f"it has no filter or metric {name!r}", f"one of {has}")
        if (one.metric, one.filter) != (score.metric, score.filter):
            further.append(one)
    for one in (score, *further):
        for task, given, has, passes in zip(tasks, tried, metrics, filters, strict=True):
            _must_fit(benchmark, task, one, given, has, passes)
    return score, tuple(further)


def _must_fit(
    benchmark: Asked, task: Any, one: Reading, given: dict[str, list[Any]], has: list[str], passes: list[str]
) -> None:
    if one.metric not in has:
        raise refused(benchmark, f"it has no metric {one.metric!r}", f"one of {', '.join(has)}")
    if one.filter not in passes:
        raise refused(benchmark, f"it has no filter {one.filter!r}", f"one of {', '.join(passes)}")
    if task.higher_is_better().get(one.metric) is False:
        raise refused(
            benchmark, f"lower is better for {one.metric}, but a study needs higher", "another metric"
        )
    for value in given[one.metric]:
        if (number := as_number(value)) is None:
            raise refused(benchmark, f"{one.metric} is not one number for each document", "another metric")
        if not 0 <= number <= 1:
            raise refused(
                benchmark,
                f"{one.metric} is {number:g} for an answer, but scores must be between 0 and 1",
                "another metric",
            )


def as_number(value: Any) -> float | None:
    """The value as a float, if it is a number, also one of numpy or torch; None for anything else."""
    try:
        return float(value) if isinstance(value, bool | int | float) else float(value.item())
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None


def _metrics(task: Any, given: dict[str, list[Any]]) -> list[str]:
    """The metrics that documents get, in the order in which the task lists them."""
    named = [one for one in task.aggregation() if one in given]
    return named + [one for one in given if one not in named]


def _filters(task: Any) -> list[str]:
    return [one["name"] for one in task.get_config("filter_list") or ()] or ["none"]


def _tried(benchmark: Asked, task: Any) -> dict[str, list[Any]]:
    """The values of each metric for made-up answers to the first document."""
    if benchmark.known is not None and benchmark.known.code:
        # No code is run for a trial.
        return {METRIC: [0.0, 1.0]}
    # lm-eval builds a task with an unknown metric, and fails only when it scores an answer.
    for name, function in getattr(task, "_metric_fn_list", {}).items():
        if function is None and not callable(task.get_config("process_results")):
            raise refused(benchmark, f"lm-eval does not know its metric {name!r}", "another metric")
    for name in _filters(task):
        invalid(benchmark, task, name)
    found: dict[str, list[Any]] = {}
    try:
        document = task.eval_docs[0]
        for answers in _made_up(task, document):
            for name, value in task.process_results(document, answers).items():
                found.setdefault(name, []).append(value)
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        why = f"its scoring fails on an answer ({type(error).__name__}: {said})"
        raise refused(benchmark, why, "another task, or correct it") from error
    return found


def _made_up(task: Any, document: Any) -> Iterator[list[Any]]:
    """Made-up answers to one document, after the filters."""
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = getattr(task, "multiple_input", 0) or len(task.doc_to_choice(document))
        twice = "acc_mutual_info" in getattr(task, "_metric_fn_list", {})
        yield [(-1.0 - at, False) for at in range(choices * (2 if twice else 1))]
        return
    instance: Any = library("lm_eval.api.instance").Instance
    gold = task.doc_to_target(document)
    for text in (gold if isinstance(gold, str) else "1", "no answer"):
        one = instance(request_type="generate_until", doc=document, arguments=("", {}), idx=0)
        one.resps = [text]
        for passed in getattr(task, "_filters", ()):
            passed.apply([one])
            yield [one.filtered_resps[passed.name]]


def invalid(benchmark: Asked, task: Any, filter: str) -> Any:
    """The result of a filter that finds no answer in a text; None if it always finds one.

    Raises:
        UsageError: the filter cannot be built.
    """
    # The filters are built to ask them, since some are classes of the task itself, with their own default.
    for one in getattr(task, "_filters", ()):
        for step in one.filters if one.name == filter else ():
            try:
                made = step()
            except Exception as error:
                why = f"its filter {filter!r} cannot be built ({type(error).__name__}: {error})"
                raise refused(benchmark, why, "another filter, or correct it") from error
            if (fallback := getattr(made, "fallback", None)) is not None:
                return fallback
    return None
