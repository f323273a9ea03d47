"""Finds the parts of a text that perturbations need: its options, quotations, sentences, and the question.

All of it works by rules for English prose. A text that no rule matches is left unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
"""A word, with its apostrophes: "don't", "Kylar's"."""

# "Options:", or the first of two labelled lines, or "(A) … (B)" on one line.
_OPTIONS = re.compile(
    r"^[ \t]*(?:(?:answer )?(?:options|choices)|choice)[ \t]*:"
    r"|^[ \t]*(?:\(A\)|A[.):])[ \t]+\S[^\n]*\n+[ \t]*(?:\(B\)|B[.):])[ \t]"
    r"|\(A\)(?=.*\(B\))",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
# Spans that must not change: strings, titles, code, markup, and the text after a label.
_QUOTED = re.compile(
    r'"[^"]*"|\u201c[^\u201d]*\u201d|`[^`]*`|<[^<>\n]+>'
    r"|\b(?:Source|Translation|Input|List|Sentences?|Statements?):[^\n]*"
    # Single quotes that cannot be apostrophes: no letter before the first, and none after the second.
    r"|(?<![\w'\u2019])'(?:[^'\n]|'(?=\w))+'(?!\w)|(?<!\w)\u2018[^\u2019\n]+\u2019(?!\w)"
)
_ENDS = re.compile(r"([.!?]+)[\"'\u201d\u2019)\]]*(\s+)(?=\S)|(\s*\n\s*)(?=\S)")


@dataclass(frozen=True, slots=True)
class Around:
    """The surroundings of a text, which a perturbation takes into account."""

    document: str = ""
    """All text of the document, with options and target: an invented name must not occur in it."""
    after: str = ""
    """The text that follows in the prompt, such as the question after its context."""
    spared: frozenset[str] = frozenset()
    """Words of the answers, in lower case; they are not changed."""
    vocabulary: frozenset[str] = frozenset()
    """Words of all documents of the task, in lower case; a misspelling must not be one of them."""


def listed(words: str) -> frozenset[str]:
    """The set of words in a text."""
    return frozenset(words.split())


_ABBREVIATIONS = listed(
    """
    mr mrs ms dr st vs e.g i.e etc no jr sr prof inc ltd co approx fig a.m p.m u.s u.k
    lb lbs oz ft hr min sec mt gen sq cu rs
    """
)


def words_of(text: str) -> set[str]:
    """The words of a text in lower case, and the parts of those with an apostrophe."""
    found = {word.casefold() for word in WORD.findall(text)}
    return found | {part for word in found for part in re.split("['\u2019]", word)}


def prose(text: str) -> int:
    """The position at which the options begin; the length of the text if there are none."""
    options = _OPTIONS.search(text)
    return len(text) if options is None else options.start()


def quoted(text: str) -> list[tuple[int, int]]:
    """Spans (start, end) in quotation marks, in backticks, in markup, or after a label like "Sentence:"."""
    return [match.span() for match in _QUOTED.finditer(text)]


def within(at: int, spans: list[tuple[int, int]]) -> bool:
    """Whether a position is inside one of the spans (start, end)."""
    return any(start <= at < end for start, end in spans)


def sentences(text: str) -> list[int]:
    """The positions at which sentences begin.

    A line break ends a sentence after a punctuation mark, at a blank line, and before the last line.
    """
    first = len(text) - len(text.lstrip())
    if first == len(text):
        return []
    starts = [first]
    # A quotation may begin a sentence, but no sentence begins inside one.
    inside = [(start + 1, end) for start, end in quoted(text)]
    cased = text != text.lower()
    for match in _ENDS.finditer(text, first):
        if not within(match.end(), inside) and _ends(text, match, cased):
            starts.append(match.end())
    return starts


def _ends(text: str, match: re.Match[str], cased: bool) -> bool:
    follows, marks = text[match.end()], match[1]
    if marks is None:
        last_line = "\n" not in text[match.end() :].strip()
        return match[3].count("\n") > 1 or text[: match.start()].endswith((":", ";")) or last_line
    if "\n" in match[2]:
        return True
    if cased and follows.islower():
        return False
    before = text[: match.start()].rsplit(None, 1)
    token = before[-1].lstrip("(\"'\u201c\u2018") if before else ""
    # Initials, as in "John F. Kennedy", or "c . p ." in a text without capitals.
    is_initial = len(token) == 1 and token.isalpha() and token != "I"
    return marks != "." or not (is_initial or token.casefold() in _ABBREVIATIONS)


def asking(text: str) -> int | None:
    """The position at which the question begins: the last sentence with a question mark, else the last one.

    None for a blank text.
    """
    starts, inside = sentences(text), quoted(text)
    ends = [*starts[1:], len(text)]
    for start, end in reversed(list(zip(starts, ends, strict=False))):
        if any(text[at] == "?" and not within(at, inside) for at in range(start, end)):
            return start
    return starts[-1] if starts else None
