"""The kinds of perturbation: seeded changes of a question that leave its answer as it is.

Each is a function (text, random numbers, what is around the text) -> changed text, or None where it does not
apply. `perturbed` puts them on tasks; docs/perturbations.md says for each why the gold answer stands.
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
    """What it does, for a list or a table."""
    default: bool
    """Whether it is among those that fit most tasks."""
    prose: Change | None
    """For questions in English; None for `options`, which changes the document as a whole."""
    code: Change | None = None
    """For functions to complete; None where it does not fit code."""
    where: Literal["all", "first", "context"] = "all"
    """Which text of a document: all of it, what comes first, or the question's context where it has one."""


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
    """Random numbers for one document, which no other document and no order of documents can change.

    Args:
        seed: of the study.
        kind: a key of `KINDS`.
        document: a digest of the document.
    """
    digest = hashlib.sha256(f"{seed}\n{kind}\n{document}".encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))
