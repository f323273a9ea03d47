"""Figures as SVG text, to stand inside a page: fonts and colours are the page's, in light and in dark.

Drawn by matplotlib (extra `report`). Colours are stand-ins that become the page's CSS variables, text stays
text, and equal results give equal bytes: no dates, no random ids.
"""

from __future__ import annotations

import io
import re
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

INK, FAINT, LINE, PAPER = "#010001", "#010002", "#010003", "#010004"
PLUS, MINUS, RANDOM, DONOR = "#010005", "#010006", "#010007", "#010008"
_VARIABLES = {
    INK: "ink", FAINT: "faint", LINE: "line", PAPER: "paper",
    PLUS: "plus", MINUS: "minus", RANDOM: "random", DONOR: "donor",
}  # fmt: skip
_SIZE = 12.5
"""Of text, in pixels of the drawing."""


def draw_svg(name: str, width: float, height: float, draw: Callable[[Any], None]) -> str:
    """Draws a figure.

    Args:
        name: What ids in it begin with; no two figures of a page share it.
        width: In pixels.
        height: In pixels.
        draw: Draws into matplotlib's figure.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        library: Any = import_module("matplotlib")
        canvas: Any = import_module("matplotlib.backends.backend_svg").FigureCanvasSVG
        blank: Any = import_module("matplotlib.figure").Figure
    except ImportError:
        raise UsageError(
            "the page needs matplotlib for its figures;"
            ' pip install "taskvec[report]" and make the report again'
        ) from None
    look = {
        "svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "font.size": _SIZE,
        "text.color": INK, "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": INK,
        "grid.color": LINE, "grid.linewidth": 0.8, "axes.axisbelow": True, "font.family": "DejaVu Sans",
    }  # fmt: skip
    out = io.StringIO()
    with library.rc_context(look), warnings.catch_warnings():
        # A label in a script that the measuring font lacks is shown by the reader's own.
        warnings.filterwarnings("ignore", "Glyph")
        figure = blank(figsize=(width / 72, height / 72), facecolor="none")
        draw(figure)
        canvas(figure).print_svg(out, metadata={"Date": None})
    return _for_page(out.getvalue(), name, width)


def _for_page(svg: str, name: str, width: float) -> str:
    """The `svg` element alone, hidden from screen readers, in the page's font and colours."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    # matplotlib writes a font as one property or as several.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    svg = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", svg)
    fitted = rf'<svg viewBox="\1" style="max-width: {width:g}px" aria-hidden="true">'
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', fitted, svg, count=1)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, f"var(--{variable})")
    return svg


def axes_within(figure: Any, *, left: float, right: float, bottom: float, top: float = 6) -> Any:
    """Axes with margins in pixels and without a frame."""
    width, height = (72 * size for size in figure.get_size_inches())
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )
    axes.set_facecolor("none")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=7)
    return axes
