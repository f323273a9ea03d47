"""Scores one cell: asks a model all documents of a benchmark, and makes a row for each."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...errors import MismatchError, TaskvecError, UsageError
from ..environment import library, quiet
from .known import place
from .readings import as_number
from .tasks import seed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ...records import Json
    from .readings import Reading
    from .tasks import Loaded


def score(
    model: Any, loaded: Loaded, *, line: str | None, progress: Callable[[int, int], None] | None = None
) -> list[Json]:
    """Asks a model every document of a benchmark.

    Args:
        model: a `StudyLM`, with the weights of the arm.
        loaded: the benchmark.
        line: the think line, or None.
        progress: called as `progress(documents_done, documents_total)`.

    Returns:
        A row for each document, in order, with the fields of a sample file.

    Raises:
        UsageError: the metric is not one number from 0 to 1 for each document.
    """
    seed(loaded.tasks)
    model.line = line
    model.records = dict[Any, Any]()
    model.progress = None if progress is None else _in_documents(progress, loaded.n)
    if loaded.judge is not None:
        loaded.judge.open()
        loaded.judge.verdicts = {}
    with _templates_kept():
        with quiet():
            samples = _evaluate(model, loaded)
        return _rows(samples, loaded, model.records)


@contextmanager
def _templates_kept() -> Generator[None]:
    """Inside the block, lm-eval compiles each template once instead of once for each document.

    For a small model the compiling would take longer than the answers.
    """
    environment = library("lm_eval.utils").env
    # Set on the instance, where it takes precedence over the method of the class.
    environment.from_string = lru_cache(maxsize=256)(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string


def _rows(samples: Any, loaded: Loaded, records: Any) -> list[Json]:
    rows: list[Json] = []
    for task in loaded.tasks:
        by_filter: dict[str, dict[int, Any]] = {}
        for sample in samples[task.task_name]:
            by_filter.setdefault(sample["filter"], {})[sample["doc_id"]] = sample
        for number in sorted(by_filter[loaded.filter]):
            # The documents of a group are numbered across its tasks.
            read = {name: some[number] for name, some in by_filter.items()}
            rows.append(_row(len(rows), read, task, loaded, records))
    return rows


def _evaluate(model: Any, loaded: Loaded) -> Any:
    # Not `simple_evaluate`: it would set the tasks up again and inspect the machine (pip, compilers,
    # drivers), which takes seconds for every cell.
    try:
        results = library("lm_eval.evaluator").evaluate(
            lm=model,
            task_dict={"tasks": {task.task_name: task for task in loaded.tasks}},
            limit=loaded.benchmark.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
        )
    except TaskvecError:
        # Raised by the model: memory ran out, or answers cannot be read or written.
        raise
    except Exception as error:
        # Raised by the task's own code, so the run ends: the next arm would have the same error.
        said = (str(error).strip().splitlines() or [""])[0]
        raise MismatchError(
            f"benchmark {loaded.benchmark.id!r} cannot be scored ({type(error).__name__}: {said}); correct"
            " the task and run again; finished cells are kept"
        ) from error
    return results["samples"]


def _in_documents(progress: Callable[[int, int], None], documents: int) -> Callable[[int, int], None]:
    """Converts progress in requests, of which a choice has several, to progress in documents."""
    return lambda done, total: progress(documents * done // total, documents)


def _row(number: int, read: dict[str, Any], task: Any, loaded: Loaded, records: Any) -> Json:
    """The row of one document; `read` has its lm-eval sample by filter."""
    sample = read[loaded.filter]
    name, document = task.task_name, sample["doc"]
    subtask, cluster = place(loaded.benchmark, name, document)
    key = name, sample["doc_id"]
    touched, made = loaded.touched, records[key]
    row: Json = {
        "doc_id": number,
        "doc_hash": sample["doc_hash"] if touched is None else touched.doc_hashes[key],
        "prompt_hash": sample["prompt_hash"],
        "task": subtask,
        "cluster": cluster,
        "question": _text(task.doc_to_text(document)),
        "target": _text(sample["target"]),
        "response": None,
        "answer": None,
        "correct": _score(sample, loaded.score, loaded),
        "readings": {one.name: _score(read[one.filter], one, loaded) for one in loaded.further},
        "extracted": None,
        "empty": None,
        "touched": None if touched is None else touched.documents[key],
        "verdict": None,
        "tokens": None,
        "truncated": None,
        "prompt_tokens": None,
        "seconds": made.seconds,
    }
    answered = sample["filtered_resps"]
    if loaded.kind == "choice":
        row["answer"] = _chosen(answered, task.doc_to_choice(document), loaded.metric)
        return row
    invalid, response = loaded.invalid[name], sample["resps"][0][0]
    row |= {
        "response": response,
        "answer": _text(answered[0]),
        "extracted": None if invalid is None else answered[0] != invalid,
        "empty": not response.strip(),
        "tokens": made.tokens,
        "truncated": made.truncated,
        "prompt_tokens": made.prompt_tokens,
    }
    if loaded.judge is not None:
        row["empty"] = not str(answered[0]).strip()
        row["verdict"] = loaded.judge.verdicts[document["task_id"]].reason
    return row


def _score(sample: Any, reading: Reading, loaded: Loaded) -> float:
    has = ", ".join(sample["metrics"])
    found = as_number(sample.get(reading.metric))
    if found is None:
        raise UsageError(
            f"benchmark {loaded.benchmark.id!r}: {reading.metric} is not one number for each document; set"
            f" metric to one of {has}"
        )
    if not 0 <= found <= 1:
        raise UsageError(
            f"benchmark {loaded.benchmark.id!r}: {reading.metric} is {found:g} for a document, but scores"
            f" must be between 0 and 1; set metric to another of {has}"
        )
    return found


def _chosen(likelihoods: Any, choices: list[str], metric: str) -> str:
    """The choice that counts as the answer under this metric."""
    lengths = {"acc_norm": [len(one) for one in choices], "acc_bytes": [len(one.encode()) for one in choices]}
    by = lengths.get(metric, [1] * len(choices))
    scores = [float(one[0]) / length for one, length in zip(likelihoods, by, strict=False)]
    return str(choices[scores.index(max(scores))])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
