"""Which fields of a task's documents are its question: found by changing them and looking what changes.

A field is the question's own where the prompt shows it, and neither the answer, nor the choices, nor the
task's description depend on it. Whether they do is tried out, since lm-eval's tasks state them as field
names, templates or functions alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ....errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ....records import Json

_MARK = " (this is a mark)"
_TRIED = 16
# Where the prompt shows several fields, these names are taken for what they say.
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
    """The fields that hold the question, in the order of the prompt; the question itself is the last.

    Args:
        task: an lm-eval task.
        documents: its documents.
        benchmark: named in errors.

    Raises:
        UsageError: no rule decides which they are.
    """
    metadata: Any = task.get_config("metadata")
    named: Any = cast("Json", metadata).get("question") if isinstance(metadata, dict) else None
    shown = _shown(task, documents)
    if named is not None:
        fields = [named] if isinstance(named, str) else [str(one) for one in named]
        if wrong := [one for one in fields if one not in shown]:
            raise UsageError(
                f"benchmark {benchmark!r}: task {task.task_name} names {', '.join(wrong)} as its question,"
                " which the prompt does not show or its answer is made of; mend metadata.question in its file"
            )
        return tuple(fields)
    questions = [one for one in _QUESTIONS if one in shown]
    if len(shown) > 1 and len(questions) == 1:
        return (*(one for one in shown if one in _CONTEXTS), questions[0])
    if len(shown) == 1:
        return tuple(shown)
    has = f"it shows {', '.join(shown)}" if shown else "none that it shows is a text by itself"
    raise UsageError(
        f"benchmark {benchmark!r}: which field of {task.task_name} is the question cannot be told from its"
        f" prompt ({has}); name it in a task file of your own that includes this one, metadata: {{question:"
        " FIELD}"
    )


def answer(task: Any, document: Json) -> Any:
    """The gold answer as lm-eval takes it; the text of the choice where it is a choice's number."""
    gold = task.doc_to_target(document)
    offered = choices(task, document)
    return offered[gold] if isinstance(gold, int) and offered is not None and gold < len(offered) else gold


def choices(task: Any, document: Json) -> list[str] | None:
    """What can be chosen among; None where text is generated freely."""
    return None if task.get_config("doc_to_choice") is None else task.doc_to_choice(document)


def fixed(task: Any, document: Json) -> tuple[Any, ...]:
    """What a change of the question must leave as it is: gold answer, choices and description."""
    return (
        task.doc_to_target(document),
        choices(task, document),
        task.resolve_field(document, task.get_config("description")),
    )


def prompt(task: Any, document: Json) -> Any:
    """The document's part of the prompt; a number in tasks that have a prompt for each choice."""
    return task.doc_to_text(document)


def _shown(task: Any, documents: Sequence[Json]) -> list[str]:
    """The candidates, in the order of the prompt, by a sample of documents; one dissent rules a field out."""
    tried = documents[:: max(1, len(documents) // _TRIED)]
    places: dict[str, int] = {}
    for name in [one for one, value in documents[0].items() if isinstance(value, str)]:
        found = [_place(task, one, name) for one in tried if one[name].strip()]
        if found and None not in found:
            places[name] = max(one for one in found if one is not None)
    return sorted(places, key=lambda name: places[name])


def _place(task: Any, document: Json, name: str) -> int | None:
    """Where the prompt shows the field; None where it does not, or where something else depends on it."""
    value: str = document[name]
    changed = {**document, name: value + _MARK}
    try:
        before, after = prompt(task, document), prompt(task, changed)
        if not isinstance(before, str) or not isinstance(after, str) or _MARK not in after:
            return None
        independent = fixed(task, document) == fixed(task, changed)
    except Exception:
        # The task's own functions and templates may fail at a field that is not what they expect.
        return None
    return before.find(value.strip()) if independent and value.strip() in before else None


def texts(value: Any) -> Iterator[str]:
    """Every text in a document, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts(list(cast("Json", value).values()))
    elif isinstance(value, list):
        for one in cast("list[Any]", value):
            yield from texts(one)
