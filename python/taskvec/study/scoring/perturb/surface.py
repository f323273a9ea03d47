"""Untidy typing: spaces doubled, a space before a comma, the first letter in lower case; no word changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .text import Around, prose, quoted, within

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

DOUBLED = 0.15
"""Of the spaces between two words, at least one."""

# Between two words of letters alone: nothing that could be a table, a formula or code.
_SPACE = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])|(?<=[^\W\d_][,.;:]) (?=[^\W\d_])")
_COMMA = re.compile(r"(?<=[^\W\d_])(?=, [^\W\d_])")
# "A train", "Natalia", but not "DNA", and not the letter of "X is larger than Y".
_FIRST = re.compile(r"\s*((?:[A-Z](?=[a-z])|[AI](?= [a-z])))")


# First words that are another word with a small letter.
_OTHER_WORD = re.compile(
    r"\s*(?:March|April|May|June|August|Will|Bill|Mark|Rose|Jack|Grace|Hope|Art|Frank|Sue|Pat|Rob|Drew|Nick"
    r"|Chase|Dawn|Faith|Joy|Polish|Turkey|China)\b"
)


def surface(text: str, rng: Random, around: Around) -> str | None:
    """Types a text untidily.

    Args:
        text: the question, or its context; its options, and what it quotes, stay as they are.
        rng: draws the places.
        around: not used.

    Returns:
        The text, untidy; None where it has neither two words beside each other nor a capital to begin with.
    """
    del around
    end, inside = prose(text), quoted(text)
    return untidy(text, rng, lambda at: at < end and not within(at, inside))


def untidy(text: str, rng: Random, may: Callable[[int], bool]) -> str | None:
    """As `surface`, at those positions alone that `may` allows."""
    spaces = [match.start() for match in _SPACE.finditer(text) if may(match.start())]
    commas = [match.start() for match in _COMMA.finditer(text) if may(match.start())]
    chosen = set(rng.sample(spaces, min(len(spaces), max(1, round(DOUBLED * len(spaces))))))
    chosen |= set(rng.sample(commas, (len(commas) + 1) // 2))
    first = _FIRST.match(text)
    lower = first is not None and may(first.start(1)) and not _OTHER_WORD.match(text)
    if not chosen and not lower:
        return None
    parts = [(" " + letter if at in chosen else letter) for at, letter in enumerate(text)]
    if first is not None and lower:
        parts[first.start(1)] = first[1].lower()
    return "".join(parts)
