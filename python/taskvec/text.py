"""Formats byte sizes and estimated durations for people; the whole package uses it."""

from __future__ import annotations


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
