"""Sizes, durations and the values of options as people write them; the whole package uses it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, cast, get_args

from .errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgt]?)(i?b)?", re.IGNORECASE | re.ASCII)
_LARGEST = 2**63 - 1


def readable(size: float) -> str:
    """`size` bytes with a decimal unit, such as `"1.234 GB"`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def time_left(seconds: float) -> str:
    """The estimated seconds left as text, such as `"about 5 min left"`."""
    return f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """An estimated number of seconds as text, such as `"about 5 min"`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute"
    if minutes < 60:
        return f"about {minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"about {hours} h {minutes} min" if hours < 10 and minutes else f"about {hours} h"
    return f"about {round(hours / 24)} days"


def parse_size(size: int | str | None) -> int | None:
    """Bytes from `"256MiB"`, `"0.5GiB"`, `"64M"`, `"1GB"` or a plain number; None stays None.

    MB is 10⁶ bytes; MiB, and M alone as in `dd` and `ulimit`, is 2²⁰.
    """
    if size is None:
        return None
    count: int | None = None
    if isinstance(size, str):
        if match := _SIZE.fullmatch(size.strip()):
            number, letter, suffix = match.groups()
            base = 1000 if suffix is not None and suffix.lower() == "b" else 1024
            power = " kmgt".index(letter.lower() or " ")
            if power > 0 or base == 1000 or suffix is None:
                count = int(Fraction(number) * base**power)
    elif not isinstance(size, bool):
        count = size
    if count is None or not 0 < count <= _LARGEST:
        raise UsageError(f"memory {size!r} is not a size; write it as 256MiB, 0.5GiB or a number of bytes")
    return count


def one_of(name: str, value: object, choices: object, *, optional: bool = False) -> Any:
    """The value, if it is one of a literal type's; None too if it may be left out."""
    if (optional and value is None) or value in get_args(choices):
        return value
    raise UsageError(f"{name} {value!r} is not one of {', '.join(get_args(choices))}")


def whole_number(name: str, value: object, *, least: int, most: int) -> int | None:
    """The value, if it is None or a number within these bounds."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= most):
        return value
    raise UsageError(f"{name} {value!r} is not a whole number from {least} to {most}")


def several(name: str, value: object) -> list[Any]:
    """The values of a list of any kind."""
    # A single string is also an iterable, of characters, and these would match nearly every tensor.
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise UsageError(f"{name} {value!r} is not a list; write it as [{value!r}]")
    return list(cast("Iterable[Any]", value))


def one_text(name: str, value: object) -> str | None:
    """The value, if it is None or text."""
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"{name} {value!r} is not text; give a string")


def texts(name: str, value: object) -> tuple[str, ...]:
    """The values of a list of texts."""
    given = several(name, value)
    if wrong := [text for text in given if not isinstance(text, str)]:
        raise UsageError(f"{name} {wrong[0]!r} is not text; give strings")
    return tuple(given)
