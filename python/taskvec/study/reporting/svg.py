"""Draws figures as SVG to embed in the page; they use its fonts and its colours, light or dark.

matplotlib (extra `report`) draws them with placeholder colours, which are then replaced by CSS variables of
the page. Text stays text. Equal results give equal bytes, since there are no dates or random ids.
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
"""Font size in pixels of the drawing."""


def draw_svg(name: str, width: float, height: float, draw: Callable[[Any], None]) -> str:
    """Draws a figure.

    Args:
        name: Prefix of its ids, unique on the page.
        width: Width in pixels.
        height: Height in pixels.
        draw: Draws into matplotlib's figure.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        library: Any = import_module("matplotlib")
        canvas: Any = import_module("matplotlib.backends.backend_svg").FigureCanvasSVG
        blank: Any = import_module("matplotlib.figure").Figure
    except ImportError:
        raise UsageError(
            "the page needs matplotlib for its figures;"
            ' run pip install "taskvec[report]" and make the report again'
        ) from None
    look = {
        "svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "font.size": _SIZE,
        "text.color": INK, "axes.labelcolor": FAINT, "xtick.color": FAINT, "ytick.color": INK,
        "grid.color": LINE, "grid.linewidth": 0.8, "axes.axisbelow": True, "font.family": "DejaVu Sans",
    }  # fmt: skip
    out = io.StringIO()
    with library.rc_context(look), warnings.catch_warnings():
        # matplotlib warns if its font lacks a character; the reader's browser will have another font.
        warnings.filterwarnings("ignore", "Glyph")
        figure = blank(figsize=(width / 72, height / 72), facecolor="none")
        draw(figure)
        canvas(figure).print_svg(out, metadata={"Date": None})
    return _for_page(out.getvalue(), name, width)


def _for_page(svg: str, name: str, width: float) -> str:
    """Only the `svg` element, hidden from screen readers, with the page's font and colours."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    # matplotlib writes fonts as one property or as several.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    svg = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", svg)
    fitted = rf'<svg viewBox="\1" style="max-width: {width:g}px" aria-hidden="true">'
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', fitted, svg, count=1)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, f"var(--{variable})")
    return svg


def axes_within(figure: Any, *, left: float, right: float, bottom: float, top: float = 6) -> Any:
    """Axes without a frame, with margins in pixels."""
    width, height = (72 * size for size in figure.get_size_inches())
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )
    axes.set_facecolor("none")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=7)
    return axes
