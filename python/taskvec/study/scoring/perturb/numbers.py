"""Writes out whole numbers: "There are 1,200 of them" becomes "There are twelve hundred of them"."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .text import Around, listed, prose, quoted, within

if TYPE_CHECKING:
    from random import Random

LIMIT = 10**6
"""Numbers from this one up keep their digits."""

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = {*_ONES, *_TENS} | listed("hundred thousand million billion trillion dozen half")
"""Words for numbers; beside digits they would be read as one number with them."""

# Digits, with or without commas for thousands, after a space or a bracket, and with nothing attached: no
# sign, unit, fraction, range, decimal, time or ordinal.
_NUMBER = re.compile(r"(?:(?<!\S)|(?<=\s\())(?:[1-9]\d{0,2}(?:,\d{3})+|0|[1-9]\d*)(?=[.,;:!?)]*(?:\s|$))")
_OPERATORS = listed("+ - : ! − – * × x / ÷ = < > ≤ ≥ ^ % $ € £ # & |")
# Words that make a number an amount of money (before it), or a measure, a time or an ordinal (after it).
_CURRENCIES = listed("rs re usd eur gbp inr")
_UNITS = listed(
    """
    percent pm am p.m a.m o'clock bc ad bce ce st nd rd th mod
    mm cm cms dm m mts km kms mg g kg kgs ml cl dl l oz lb lbs ft in yd mi mph mps kmph kph hz khz mhz kb
    mb gb tb w kw kwh v hr hrs min mins sec secs s ms sq sqm cu cc c f k deg
    """
)
_MARKS = tuple(".,;!?)")
# Questions about how a number is written.
_DIGITS_MATTER = re.compile(
    r"\b(?:digits?|numerals?|place value|face value|palindromes?|decimals?)\b", re.IGNORECASE
)
_YEARS = range(1500, 2101)
# Words that are capitalised because they begin a sentence.
_OPENERS = listed(
    """
    If In For At On The When After Every And But Of From With By About Only These Those All Suppose Since Over
    Then There Each Exactly Another Nearly Almost Around Within
    """
)


def number_words(text: str, rng: Random, around: Around) -> str | None:
    """Writes out every whole number in a text that is a count.

    Returns None if there is no such number, or if the question is about digits.

    Args:
        text: the question or its context; options and quotations in it are not changed.
        rng: not used, since all such numbers are written out.
        around: not used.
    """
    del rng, around
    if _DIGITS_MATTER.search(text):
        return None
    end, inside = prose(text), quoted(text)
    found = [
        match
        for match in _NUMBER.finditer(text, 0, end)
        if not within(match.start(), inside) and _is_count(text, match)
    ]
    for match in reversed(found):
        words = in_words(int(match[0].replace(",", "")))
        if _begins(text, match.start()):
            words = words[0].upper() + words[1:]
        text = text[: match.start()] + words + text[match.end() :]
    return text if found else None


def in_words(number: int) -> str:
    """A number from 0 to 999,999 in English words, without "and".

    Multiples of 100 up to 9,900 are read as people say them: "twelve hundred", but "two thousand".
    """
    if not 0 <= number < LIMIT:
        raise ValueError(f"{number} is not from 0 to {LIMIT - 1}")
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10 - 2] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    spoken_in_hundreds = 1000 < number < 10000 and number % 100 == 0 and number % 1000
    unit, name = (100, "hundred") if number < 1000 or spoken_in_hundreds else (1000, "thousand")
    rest = f" {in_words(number % unit)}" if number % unit else ""
    return f"{in_words(number // unit)} {name}{rest}"


def _is_count(text: str, match: re.Match[str]) -> bool:
    number = int(match[0].replace(",", ""))
    if number >= LIMIT or ("," not in match[0] and number in _YEARS):
        return False
    before, after = _tokens(text[: match.start()])[-2:], _tokens(text[match.end() :])[:1]
    # "rs . 500": some data sets have spaces around punctuation.
    if before[-1:] == ["."] and before[0] in _CURRENCIES:
        return False
    # Punctuation separates a number from the word beside it.
    if before and before[-1][-1] not in _MARKS and (before[-1] in _CURRENCIES or _joins(before[-1])):
        return False
    if not after or text[match.end()] in _MARKS:
        return True
    return not (_joins(after[0]) or after[0].strip("().,;:!?").casefold() in _UNITS)


def _tokens(text: str) -> list[str]:
    """The parts between spaces, without single brackets."""
    return [token for token in text.split() if token not in ("(", ")")]


def _joins(token: str) -> bool:
    """Whether a token beside a number makes it part of a name, a formula or another number."""
    if token[0].isupper() and token not in _OPENERS:
        return True
    word = token.strip("().,;:!?").casefold()
    digits = any(character.isdigit() for character in word)
    # "209 y 913": a letter stands for a digit.
    unknown = len(word) == 1 and word.isalpha() and word not in "ai"
    return digits or unknown or token in _OPERATORS or bool({word, *word.split("-")} & NUMBER_WORDS)


def _begins(text: str, at: int) -> bool:
    """Whether a sentence begins at this position, in a text that has capitals."""
    before = text[:at].rstrip()
    return text != text.lower() and (not before or before[-1] in ".!?")
