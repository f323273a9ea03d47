"""Perturbations of a Python function that is to be completed; they change only the prose of its docstring."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from .sentences import DISTRACTORS, sentence_about
from .surface import untidy
from .text import Around, quoted, within

if TYPE_CHECKING:
    from random import Random

_OPENING = re.compile(r"[rRuU]?(\"\"\"|'''|\"|')")
# The beginning of the examples in a docstring.
_EXAMPLES = re.compile(r">>>|^[ \t]*(?:(?:for )?examples?\b|e\.g\.)", re.IGNORECASE | re.MULTILINE)
# A line that matches holds code, a formula or a list.
_CODE = re.compile(r"[=<>\[\]{}|^*@➞_\d]|->|\w\(|^\s*assert\b|^\s*[-•]\s")


def docstring(prompt: str) -> tuple[int, int] | None:
    """The span (start, end) of the docstring of the last function, without its quotation marks.

    None if the prompt is not Python to which a body can be added, or its last function has no docstring.
    """
    try:
        body = ast.parse(f"{prompt}\n    pass\n").body
    except (SyntaxError, ValueError):
        return None
    functions = [one for one in body if isinstance(one, ast.FunctionDef)]
    if not functions or ast.get_docstring(functions[-1], clean=False) is None:
        return None
    node = functions[-1].body[0]
    begin = sum(len(line) + 1 for line in prompt.split("\n")[: node.lineno - 1]) + node.col_offset
    opening = _OPENING.match(prompt, begin)
    end = -1 if opening is None else prompt.find(opening[1], opening.end())
    return None if opening is None or end < 0 else (opening.end(), end)


def distractor_in_code(prompt: str, rng: Random, around: Around) -> str | None:
    """Adds a sentence about somebody else, on its own line, before the first line of the docstring."""
    span = docstring(prompt)
    if span is None:
        return None
    start, end = span
    text = prompt[start:end]
    sentence = sentence_about(f"{prompt}\n{around.document}", "", rng, DISTRACTORS)
    if sentence is None or not text.strip() or "\n" not in text:
        return None
    blank = len(text) - len(text.lstrip())
    return f"{prompt[: start + blank]}{sentence}\n{_indent(text)}{prompt[start + blank :]}"


def surface_in_code(prompt: str, rng: Random, around: Around) -> str | None:
    """Types the prose of the docstring untidily; examples and lines with code are not changed."""
    del around
    span = docstring(prompt)
    if span is None:
        return None
    start, end = span
    text = prompt[start:end]
    shown = _EXAMPLES.search(text)
    lines, at = list[tuple[int, int]](), 0
    for line in text[: None if shown is None else shown.start()].splitlines(keepends=True):
        if not _CODE.search(line):
            lines.append((at, at + len(line)))
        at += len(line)
    inside = quoted(text)
    changed = untidy(text, rng, lambda at: within(at, lines) and not within(at, inside))
    return None if changed is None else prompt[:start] + changed + prompt[end:]


def _indent(text: str) -> str:
    """The indentation of the lines after the first."""
    lines = [line for line in text.split("\n")[1:] if line.strip()]
    found = lines[0] if lines else text.split("\n")[-1]
    return found[: len(found) - len(found.lstrip())]
