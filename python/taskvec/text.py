"""Figures in words that every wing uses: sizes, and lengths of time that are not known well."""

from __future__ import annotations


def readable(size: float) -> str:
    """Bytes in the largest unit that leaves a digit before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def time_left(seconds: float) -> str:
    """How much longer, as people say it."""
    return f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """A length of time that is not known well, as people say it."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute"
    if minutes < 60:
        return f"about {minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"about {hours} h {minutes} min" if hours < 10 and minutes else f"about {hours} h"
    return f"about {round(hours / 24)} days"
