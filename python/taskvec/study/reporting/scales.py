"""Scales of axes; plots side by side get the same span, so that they can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEAST = 0.2
"""The least span of an axis, a fifth of the range of scores, so that noise does not look like an effect."""
_ROOM = 0.06
_STEPS = (0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """The range of an axis, in shares."""

    low: float
    high: float

    def percent(self, value: float) -> str:
        """The position of a value along the axis, as a percentage for SVG and CSS."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"

    def ticks(self, most: int = 5) -> list[float]:
        """Round values to mark: at most `most` of them, if a step allows it."""
        step = next((one for one in _STEPS if len(self._marked(one)) <= most), _STEPS[-1])
        return [round(at * step, 6) for at in self._marked(step)]

    def _marked(self, step: float) -> range:
        return range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)


def same_span(groups: Sequence[Iterable[float]]) -> list[Scale]:
    """Scales for scores, one for each plot: each contains the values of its plot, and all have the same span.

    So a percentage point has the same length in every plot, even if their scores are far apart.

    Args:
        groups: The values of each plot: scores and ends of intervals, from 0 to 1.
    """
    ends = [(min(values), max(values)) if (values := list(group)) else (0.0, 1.0) for group in groups]
    span = max((LEAST, *((high - low) * (1 + 2 * _ROOM) for low, high in ends)))
    return [_around((low + high) / 2, span) for low, high in ends]


def shared(values: Iterable[float]) -> Scale:
    """One scale for changes, which includes zero."""
    ends = [0.0, *values]
    low, high = min(ends), max(ends)
    room = max(LEAST - (high - low), 2 * _ROOM * (high - low)) / 2
    return Scale(low - room, high + room)


def _around(centre: float, span: float) -> Scale:
    """A scale around a centre, moved to stay within the possible scores, with some room for marks."""
    room = _ROOM * span / 2
    low = min(max(centre - span / 2, -room), max(1 + room - span, -room))
    return Scale(low, low + span)
