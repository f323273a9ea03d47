"""Reorders options, in the text of the question or in a list of the document, with the gold answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .fields import answer, prompt
from .text import prose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from ....records import Json

# An option on a line of its own: "(A) text", "A. text", "A) text", "A: text", "- text", "choice: text".
_OPTION = re.compile(r"^([ \t]*)(\(([A-Z])\)|([A-Z])[.):]|-|choice:)([ \t]+)(\S[^\n]*)$", re.MULTILINE)
# Options that refer to others by place or letter would change their meaning in another order.
_REFERS = re.compile(
    r"\b(?:above|below|previous|preceding|following|former|latter)\b|\([A-H]\)"
    r"|\b(?:all|none|both|neither|either|any|two|three|most) of (?:these|them|those|the)\b"
    r"|\b[A-H],? (?:and|or|nor|&) [A-H]\b|\b(?:options?|choices?|answers?) (?:[A-H]|\d)\b",
    re.IGNORECASE,
)


class Reordered(NamedTuple):
    """A question with its options in another order."""

    text: str
    letters: dict[str, str]
    """The new letter by the old one; empty if the options have no letters."""


def reorder(text: str, rng: Random) -> Reordered | None:
    """Puts the options that a text lists in another order.

    Args:
        text: the question with its options, each on a line of its own.
        rng: draws the order.

    Returns:
        The same lines and letters with the options' texts in another order. None if there are fewer than two
        options, if the letters are not A, B, C …, or if an option refers to another by its place.
    """
    found = list(_OPTION.finditer(text, prose(text)))
    letters = [match[3] or match[4] or "" for match in found]
    expected = [""] * len(found) if not any(letters) else [chr(ord("A") + at) for at in range(len(found))]
    texts = [match[6] for match in found]
    order = another_order(texts, rng)
    if letters != expected or order is None:
        return None
    for match, at in reversed(list(zip(found, order, strict=True))):
        text = text[: match.start(6)] + texts[at] + text[match.end(6) :]
    return Reordered(text, {letters[at]: letters[new] for new, at in enumerate(order) if letters[at]})


def another_order(options: list[str], rng: Random) -> list[int] | None:
    """The old index for each new place, in a changed order; None if the options must not be moved."""
    if len(set(options)) < max(2, len(options)) or any(_REFERS.search(one) for one in options):
        return None
    order = list(range(len(options)))
    while order == sorted(order):
        rng.shuffle(order)
    return order


def relabel(answer: str, letters: dict[str, str]) -> str | None:
    """An answer that is only a letter, as "B" or "(B)", with its new letter; None for any other answer."""
    match = re.fullmatch(r"(\s*\(?)([A-Z])(\)?\.?\s*)", answer)
    return f"{match[1]}{letters[match[2]]}{match[3]}" if match and match[2] in letters else None


def reordered(task: Any, document: Json, field: str, rng: Random) -> Json | None:
    """A document with its options in another order, and its gold answer adapted.

    Args:
        task: an lm-eval task.
        document: one of its documents; its options are lines of the question, or a list of texts.
        field: the field that is the question.
        rng: draws the order.

    Returns:
        The changed document; None if the prompt shows no options, or if no single field holds the answer.
    """
    gold, question = str(answer(task, document)), str(document[field])
    text = reorder(question, rng)
    if text is not None:
        expected = relabel(gold, text.letters) or (
            gold if gold.strip() in question[prose(question) :] else None
        )
        return _with_answer(task, document, {**document, field: text.text}, text.letters, expected)
    for path, options in _lists(document):
        order = another_order(options, rng)
        if order is not None and all(one.strip() in str(prompt(task, document)) for one in options):
            letters = {chr(ord("A") + old): chr(ord("A") + new) for new, old in enumerate(order)}
            changed = _with(document, path, [options[at] for at in order])
            return _with_answer(task, document, changed, letters, relabel(gold, letters) or gold)
    return None


def _with_answer(
    task: Any, document: Json, changed: Json, letters: dict[str, str], expected: str | None
) -> Json | None:
    """`changed` with one field set so that `expected` becomes the gold answer; None if no one field does."""
    if expected is None or prompt(task, document) == prompt(task, changed):
        return None
    if str(answer(task, changed)) == expected:
        return changed
    found: list[Json] = []
    for name, value in document.items():
        for new in _other_answers(value, letters):
            one = {**changed, name: new}
            if str(answer(task, one)) == expected:
                found.append(one)
    return found[0] if len(found) == 1 else None


def _other_answers(value: Any, letters: dict[str, str]) -> list[Any]:
    """The values that a field with the answer may get: the new letter, or other numbers from 0 or 1."""
    numbers = list(range(len(letters) + 1))
    if isinstance(value, int) and not isinstance(value, bool):
        return list[Any](numbers)
    if isinstance(value, str) and value.strip().isdigit():
        return [str(at) for at in numbers]
    moved = relabel(value, letters) if isinstance(value, str) else None
    return [] if moved is None else [moved]


def _lists(document: Json) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Lists of texts in a document, with their paths; also in a dictionary such as {"text": […], …}."""
    for name, value in document.items():
        inner: Json = cast("Json", value) if isinstance(value, dict) else {"": value}
        for key, one in inner.items():
            options = cast("list[Any]", one) if isinstance(one, list) else []
            if len(options) > 1 and all(isinstance(each, str) for each in options):
                yield ((name, key) if key else (name,)), [str(each) for each in options]


def _with(document: Json, path: tuple[str, ...], value: list[str]) -> Json:
    name, *rest = path
    return {**document, name: {**document[name], rest[0]: value} if rest else value}
