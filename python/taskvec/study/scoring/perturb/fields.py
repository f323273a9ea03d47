"""Finds which fields of a task's documents are its question, by changing fields and comparing the results.

A field belongs to the question if the prompt shows it, and neither the answer, nor the choices, nor the
task's description depend on it. This is found by trial, because lm-eval's tasks define these as field names,
templates or functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ....errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ....records import Json

_MARK = " (this is a mark)"
_TRIED = 16
# If the prompt shows several fields, these names tell the question and its context.
_QUESTIONS = ("question", "problem", "input", "prompt", "query", "question_stem")
_CONTEXTS = (
    "support",
    "passage",
    "context",
    "paragraph",
    "article",
    "background",
    "story",
    "premise",
    "body",
)


def question_fields(task: Any, documents: Sequence[Json], benchmark: str) -> tuple[str, ...]:
    """The fields that hold the question and its context, in the order of the prompt; the question is last.

    Args:
        task: an lm-eval task.
        documents: its documents.
        benchmark: the benchmark's id, for error messages.

    Raises:
        UsageError: the question cannot be determined.
    """
    metadata: Any = task.get_config("metadata")
    named: Any = cast("Json", metadata).get("question") if isinstance(metadata, dict) else None
    shown = _shown(task, documents)
    if named is not None:
        fields = [named] if isinstance(named, str) else [str(one) for one in named]
        if wrong := [one for one in fields if one not in shown]:
            raise UsageError(
                f"benchmark {benchmark!r}: task {task.task_name} names {', '.join(wrong)} as its question,"
                " but the prompt does not show it, or the answer depends on it; correct metadata.question in"
                " its file"
            )
        return tuple(fields)
    questions = [one for one in _QUESTIONS if one in shown]
    if len(shown) > 1 and len(questions) == 1:
        return (*(one for one in shown if one in _CONTEXTS), questions[0])
    if len(shown) == 1:
        return tuple(shown)
    has = f"it shows {', '.join(shown)}" if shown else "none that it shows is a text of its own"
    raise UsageError(
        f"benchmark {benchmark!r}: the prompt of {task.task_name} does not tell which field is the question"
        f" ({has}); write a task file that includes this one, and name the field there with metadata:"
        " {question: FIELD}"
    )


def answer(task: Any, document: Json) -> Any:
    """The gold answer of lm-eval; if it is the number of a choice, the text of that choice."""
    gold = task.doc_to_target(document)
    offered = choices(task, document)
    return offered[gold] if isinstance(gold, int) and offered is not None and gold < len(offered) else gold


def choices(task: Any, document: Json) -> list[str] | None:
    """The choices; None if text is generated."""
    return None if task.get_config("doc_to_choice") is None else task.doc_to_choice(document)


def fixed(task: Any, document: Json) -> tuple[Any, ...]:
    """What a change of the question must not change: gold answer, choices and description."""
    return (
        task.doc_to_target(document),
        choices(task, document),
        task.resolve_field(document, task.get_config("description")),
    )


def prompt(task: Any, document: Json) -> Any:
    """The document's part of the prompt; a number for tasks with a prompt for each choice."""
    return task.doc_to_text(document)


def _shown(task: Any, documents: Sequence[Json]) -> list[str]:
    """The fields that may be the question, in the order of the prompt, for each of a sample of documents."""
    tried = documents[:: max(1, len(documents) // _TRIED)]
    places: dict[str, int] = {}
    for name in [one for one, value in documents[0].items() if isinstance(value, str)]:
        found = [_place(task, one, name) for one in tried if one[name].strip()]
        if found and None not in found:
            places[name] = max(one for one in found if one is not None)
    return sorted(places, key=lambda name: places[name])


def _place(task: Any, document: Json, name: str) -> int | None:
    """The field's position in the prompt; None if it is not shown, or the answer or choices depend on it."""
    value: str = document[name]
    changed = {**document, name: value + _MARK}
    try:
        before, after = prompt(task, document), prompt(task, changed)
        if not isinstance(before, str) or not isinstance(after, str) or _MARK not in after:
            return None
        independent = fixed(task, document) == fixed(task, changed)
    except Exception:
        # Functions and templates of the task may fail on an unexpected value.
        return None
    return before.find(value.strip()) if independent and value.strip() in before else None


def texts(value: Any) -> Iterator[str]:
    """Every text in a document, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts(list(cast("Json", value).values()))
    elif isinstance(value, list):
        for one in cast("list[Any]", value):
            yield from texts(one)
