"""One cell: an arm's answers to one benchmark, scored by lm-eval, one row for each document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...errors import MismatchError, TaskvecError, UsageError
from ..environment import library, quiet
from .tasks import seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...records import Json
    from .tasks import Loaded


def score(
    model: Any, loaded: Loaded, *, line: str | None, progress: Callable[[int, int], None] | None = None
) -> list[Json]:
    """Asks `model`, a `StudyLM`, every document of a benchmark.

    Args:
        model: the model as it is now.
        loaded: the benchmark.
        line: the think line, or None.
        progress: called with (documents done, documents in all).

    Returns:
        A row for each document, in order, with the fields of a sample file.

    Raises:
        UsageError: the metric is not one number from 0 to 1 for each document.
    """
    seed(loaded.tasks)
    model.line = line
    model.records = dict[Any, Any]()
    model.progress = None if progress is None else _in_documents(progress, loaded.n)
    with quiet():
        samples = _evaluate(model, loaded)
    rows: list[Json] = []
    for task in loaded.tasks:
        mine = [one for one in samples[task.task_name] if one["filter"] == loaded.filter]
        for sample in sorted(mine, key=lambda one: one["doc_id"]):
            # Tasks of a group are counted through.
            rows.append(_row(len(rows), sample, task, loaded, model.records))
    return rows


def _evaluate(model: Any, loaded: Loaded) -> Any:
    # Not `simple_evaluate`: beyond this call it sets the tasks up, which is done, and looks over the machine
    # (pip, compilers, drivers), which takes seconds for every cell.
    try:
        results = library("lm_eval.evaluator").evaluate(
            lm=model,
            task_dict={"tasks": {task.task_name: task for task in loaded.tasks}},
            limit=loaded.benchmark.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            confirm_run_unsafe_code=loaded.benchmark.confirm_unsafe,
        )
    except TaskvecError:
        # From the model: no memory, or answers that cannot be read or written.
        raise
    except Exception as error:
        # The task's own code: nothing that the next arm would be spared.
        said = (str(error).strip().splitlines() or [""])[0]
        raise MismatchError(
            f"benchmark {loaded.benchmark.id!r} cannot be scored ({type(error).__name__}: {said}); mend the"
            " task; what is finished is kept"
        ) from error
    return results["samples"]


def _in_documents(progress: Callable[[int, int], None], documents: int) -> Callable[[int, int], None]:
    """A choice task has several requests for each document; people count documents."""
    return lambda done, total: progress(documents * done // total, documents)


def _row(number: int, sample: Any, task: Any, loaded: Loaded, records: Any) -> Json:
    value = sample.get(loaded.metric)
    has = ", ".join(sample["metrics"])
    try:
        # One that numpy or torch holds, too.
        correct = float(value) if isinstance(value, bool | int | float) else float(value.item())
    except (AttributeError, TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"benchmark {loaded.benchmark.id!r}: {loaded.metric} is not one number for each document; set"
            f" metric to one of {has}"
        ) from None
    if not 0 <= correct <= 1:
        raise UsageError(
            f"benchmark {loaded.benchmark.id!r}: {loaded.metric} is {correct:g} for a document, and scores"
            f" must lie between 0 and 1; set metric to one of {has} that does"
        )
    row: Json = {
        "doc_id": number,
        "doc_hash": sample["doc_hash"],
        "prompt_hash": sample["prompt_hash"],
        "target": _text(sample["target"]),
        "response": None,
        "answer": None,
        "correct": correct,
        "extracted": None,
        "tokens": None,
        "truncated": None,
        "prompt_tokens": None,
    }
    answered = sample["filtered_resps"]
    if loaded.kind == "choice":
        row["answer"] = _chosen(answered, task.doc_to_choice(sample["doc"]), loaded.metric)
        return row
    made, invalid = records[task.task_name, sample["doc_id"]], loaded.invalid[task.task_name]
    return {
        **row,
        "response": sample["resps"][0][0],
        "answer": _text(answered[0]),
        "extracted": None if invalid is None else answered[0] != invalid,
        "tokens": made.tokens,
        "truncated": made.truncated,
        "prompt_tokens": made.prompt_tokens,
    }


def _chosen(likelihoods: Any, choices: list[str], metric: str) -> str:
    """The choice that the metric takes for the answer."""
    lengths = {"acc_norm": [len(one) for one in choices], "acc_bytes": [len(one.encode()) for one in choices]}
    by = lengths.get(metric, [1] * len(choices))
    scores = [float(one[0]) / length for one, length in zip(likelihoods, by, strict=False)]
    return str(choices[scores.index(max(scores))])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
