"""Formats figures for sentences and tables: scores, differences, intervals and p values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .exact_tests import LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HARD = "\N{NO-BREAK SPACE}"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def share(value: float) -> str:
    """A score or rate: 0.2925 is 29.2%."""
    return f"{100 * value:.1f}%"


def points(difference: float) -> str:
    """A difference of scores in percentage points, with its sign: 0.512 is +51.2; what rounds to 0 is 0.0."""
    return signed(100 * difference)


def signed(difference: float) -> str:
    """A difference with its sign: 1.26 is +1.3; what rounds to 0 is 0.0."""
    text = f"{difference:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def interval(ends: tuple[float, float]) -> str:
    """An interval of a difference, in points."""
    return f"{points(ends[0])} to {points(ends[1])}"


def p_value(p: float) -> str:
    """A p value with its letter, without line breaks: "p = 0.031", "p = 4·10⁻⁷", "p < 10⁻²⁰"."""
    figure = p_figure(p)
    return f"p{_HARD}{figure}" if figure[0] == "<" else f"p{_HARD}={_HARD}{figure}"


def p_figure(p: float) -> str:
    """A p value alone: "0.031", "4·10⁻⁷", "< 10⁻²⁰"."""
    if p < 1e-20:
        return f"<{_HARD}10⁻²⁰"
    if p < 1e-3:
        mantissa, exponent = f"{p:.0e}".split("e")
        return f"{mantissa}·10{str(int(exponent)).translate(_RAISED)}"
    figures = (f"{p:.{digits}g}" for digits in range(2, 18))
    # A value below the level must not be rounded up to the level.
    return next(one for one in figures if p >= LEVEL or float(one) < LEVEL) if p < 0.995 else "1"


def percent(ratio: float) -> str:
    """A ratio of two differences, which can be negative or above 1: 0.024 is 2%."""
    text = f"{100 * ratio:.0f}"
    return "0%" if text == "-0" else f"{text.replace('-', '−')}%"


def listed(items: Sequence[str]) -> str:
    """Items as a list in a sentence: "one, two and three"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def settings(of: Mapping[str, Any]) -> str:
    """Keys with their values: "repetition_penalty 1.1, num_beams 4"."""
    return ", ".join(f"{key} {json.dumps(value, ensure_ascii=False)}" for key, value in of.items())
