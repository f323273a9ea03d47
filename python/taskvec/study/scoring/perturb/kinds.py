"""The kinds of perturbation: seeded changes of a question that do not change its answer.

Each is a function of the text, a random generator and the text's surroundings. It returns the changed text,
or None if it does not apply. `tasks` applies them; docs/perturbations.md says why each keeps the gold answer.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .code import distractor_in_code, surface_in_code
from .numbers import number_words
from .sentences import distractor, distractor_with_number, instruction
from .surface import surface
from .text import Around
from .typos import typos

Change = Callable[[str, random.Random, Around], str | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of perturbation."""

    about: str
    """A description, for a list or a table."""
    default: bool
    """Whether it fits most tasks."""
    prose: Change | None
    """The change of a question in English; None for `options`, which changes the document as a whole."""
    code: Change | None = None
    """The change of a function to complete; None if it does not fit code."""
    where: Literal["all", "first", "context"] = "all"
    """Which texts of a document to change: all, the first, or the question's context if it has one."""


KINDS: dict[str, Kind] = {
    "distractor": Kind(
        "a sentence about somebody else before the question", True, distractor, distractor_in_code, "context"
    ),
    "distractor-number": Kind(
        "a sentence about somebody else, with a number, before the question",
        True,
        distractor_with_number,
        where="context",
    ),
    "typos": Kind("6 % of the words misspelt", True, typos),
    "number-words": Kind("whole numbers written out", False, number_words),
    "instruction": Kind("a line before the text that asks for nothing", True, instruction, where="first"),
    "surface": Kind(
        "doubled spaces, spaces before commas, the first letter in lower case",
        False,
        surface,
        surface_in_code,
    ),
    "options": Kind("the options in another order", False, None),
}


def generator(seed: int, kind: str, document: str) -> random.Random:
    """A random generator for one document, independent of other documents and their order.

    Args:
        seed: the seed of the study.
        kind: a key of `KINDS`.
        document: a digest of the document.
    """
    digest = hashlib.sha256(f"{seed}\n{kind}\n{document}".encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))
