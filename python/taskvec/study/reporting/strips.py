"""Charts that are tables: each row is an arm, and one of its cells shows its point and interval on a scale.

Positions are in percent of the cell's width, so that one drawing fits both a phone and a wide screen. Text
and marks keep their size.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .html import element

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .html import Row
    from .scales import Scale

MARKS = {
    # The kinds differ in shape as well as colour; the shapes are those of the plots.
    "baseline": "M-4-4h8v8h-8z",
    "plus": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "minus": "M-5-4h10l-5 8.5z",
    "random": "M-4.5-2.5l2-2 2.5 2.5 2.5-2.5 2 2-2.5 2.5 2.5 2.5-2 2-2.5-2.5-2.5 2.5-2-2 2.5-2.5z",
    "donor": "M0-5.5l5.5 5.5-5.5 5.5-5.5-5.5z",
}


class Strip:
    """The drawing in one cell; later parts are drawn over earlier ones."""

    def __init__(self, scale: Scale) -> None:
        """Draws the lines of the scale."""
        self._scale = scale
        self._parts: list[str] = []
        for tick in scale.ticks():
            self.line(tick, "tick")

    def band(self, ends: tuple[float, float]) -> Strip:
        """Draws a band over the full height."""
        low, high = ends
        width = self._scale.percent(self._scale.low + high - low)
        self._parts.append(
            f'<rect class="band" x="{self._scale.percent(low)}" width="{width}" height="100%"/>'
        )
        return self

    def line(self, value: float, kind: str) -> Strip:
        """Draws a line over the full height."""
        at = self._scale.percent(value)
        self._parts.append(f'<line class="{kind}" x1="{at}" x2="{at}" y1="0" y2="100%"/>')
        return self

    def bar(self, ends: tuple[float, float], kind: str) -> Strip:
        """Draws an interval."""
        low, high = map(self._scale.percent, ends)
        self._parts.append(f'<line class="bar {kind}" x1="{low}" x2="{high}" y1="50%" y2="50%"/>')
        return self

    def mark(self, value: float, kind: str, *, hollow: bool = False) -> Strip:
        """Draws a point, in the shape and colour of its kind of arm."""
        look = f"mark {kind}{' hollow' if hollow else ''}"
        self._parts.append(
            f'<svg class="at" x="{self._scale.percent(value)}" y="50%">'
            f'<path class="{look}" d="{MARKS[kind]}"/></svg>'
        )
        return self

    def markup(self) -> str:
        """The drawing as SVG, hidden from screen readers, since the numbers are in the cells beside it."""
        return f'<svg class="strip" aria-hidden="true">{"".join(self._parts)}</svg>'


def chart(
    caption: str,
    note: str,
    columns: Sequence[tuple[str, str]],
    rows: Iterable[Row],
    axis: tuple[Scale, Callable[[float], str]],
) -> str:
    """A table with drawings in its second column, and their axis below.

    Args:
        caption: The caption.
        note: A note in smaller letters after the caption.
        columns: The headings of the columns after the drawing, each with its width: `"short"`, `"beside"` for
            a figure with a note beside it, or `"below"` for a figure with a note below it.
        rows: Rows with a heading, a drawing, and a cell for each further column.
        axis: The scale of the drawings, and a function that formats its values.
    """
    scale, written = axis
    headings = ["arm", "drawn", *(heading for heading, _ in columns)]
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in headings)
    widths = "".join(f'<col class="{kind}">' for kind in ("name", "plot", *(kind for _, kind in columns)))
    ticks = "".join(
        f'<text x="{scale.percent(tick)}" y="1.1em">{escape(written(tick))}</text>' for tick in scale.ticks()
    )
    below = f'<td></td><td class="plot"><svg class="strip">{ticks}</svg></td>{"<td></td>" * len(columns)}'
    return (
        f'<table class="chart"><caption>{escape(caption)} {element("small", note)}</caption>'
        f"<colgroup>{widths}</colgroup><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(row.markup() for row in rows)}</tbody>"
        f'<tfoot aria-hidden="true"><tr>{below}</tr></tfoot></table>'
    )
