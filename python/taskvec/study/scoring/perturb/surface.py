"""Untidy typing: doubled spaces, spaces before commas, the first letter in lower case; no word changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .text import Around, prose, quoted, within

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

DOUBLED = 0.15
"""The share of spaces between words that are doubled (at least one is)."""

# A space between two words of letters only, so nothing in a table, a formula or code.
_SPACE = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])|(?<=[^\W\d_][,.;:]) (?=[^\W\d_])")
_COMMA = re.compile(r"(?<=[^\W\d_])(?=, [^\W\d_])")
# Matches "A train" and "Natalia", but not "DNA" or the letter in "X is larger than Y".
_FIRST = re.compile(r"\s*((?:[A-Z](?=[a-z])|[AI](?= [a-z])))")


# Words that become another word in lower case.
_OTHER_WORD = re.compile(
    r"\s*(?:March|April|May|June|August|Will|Bill|Mark|Rose|Jack|Grace|Hope|Art|Frank|Sue|Pat|Rob|Drew|Nick"
    r"|Chase|Dawn|Faith|Joy|Polish|Turkey|China)\b"
)


def surface(text: str, rng: Random, around: Around) -> str | None:
    """Types a text untidily.

    Args:
        text: the question or its context; options and quotations in it are not changed.
        rng: draws the places.
        around: not used.

    Returns:
        The changed text; None if nothing can be changed.
    """
    del around
    end, inside = prose(text), quoted(text)
    return untidy(text, rng, lambda at: at < end and not within(at, inside))


def untidy(text: str, rng: Random, may: Callable[[int], bool]) -> str | None:
    """As `surface`, but only at positions that `may` allows."""
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
