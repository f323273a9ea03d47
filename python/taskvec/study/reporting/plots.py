"""Figures as SVG text, to stand inside a page: its fonts and colours are theirs, in light and in dark.

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
from ..analysis.case import verdict
from ..analysis.phrases import points
from .terminal import curve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..rundir.results import ArmResult, Benchmark, Cell, Results

_INK, _FAINT, _LINE, _PAPER = "#010001", "#010002", "#010003", "#010004"
_PLUS, _MINUS, _RANDOM, _DONOR = "#010005", "#010006", "#010007", "#010008"
_VARIABLES = {
    _INK: "ink", _FAINT: "faint", _LINE: "line", _PAPER: "paper",
    _PLUS: "plus", _MINUS: "minus", _RANDOM: "random", _DONOR: "donor",
}  # fmt: skip
_LOOKS = {
    # Shape as well as colour tells the kinds apart.
    "baseline": (_INK, "s"),
    "plus": (_PLUS, "o"),
    "minus": (_MINUS, "v"),
    "random": (_RANDOM, "X"),
    "donor": (_DONOR, "D"),
}
_ROW, _GAP, _SIZE = 21, 9, 12
_LONGEST = 22


def arms(results: Results, benchmark: Benchmark) -> str:
    """Scores of all arms but the sweep with intervals, the baseline as a line, changes beside."""
    shown = [arm for arm in results.arms if arm.kind in _LOOKS and benchmark.id in arm.cells]
    rows: list[tuple[float, ArmResult]] = []
    for arm in shown:
        gap = _GAP if rows and _group(arm) != _group(rows[-1][1]) else 0
        rows.append((rows[-1][0] + _ROW + gap if rows else 0.0, arm))
    cells = [arm.cells[benchmark.id] for arm in shown]
    last = rows[-1][0] if rows else 0.0

    def draw(figure: Any) -> None:
        axes = _axes(figure, left=150, right=104, bottom=24)
        _mark_baseline(axes.axvline, axes.axvspan, results, benchmark)
        for (height, arm), cell in zip(rows, cells, strict=True):
            _point(axes, arm, cell, cell.score, height, across=True)
            for right, text in ((44, f"{100 * cell.score:.1f}"), (98, _change(results, arm, benchmark))):
                axes.annotate(
                    text, (1, height), (right, 0), va="center", ha="right", color=_INK, annotation_clip=False,
                    xycoords=("axes fraction", "data"), textcoords="offset points",
                )  # fmt: skip
        axes.set_yticks([height for height, _ in rows], [_short(arm.label) for arm in shown])
        axes.set_ylim(last + _ROW * 0.7, -_ROW * 0.7)
        axes.set_xlim(_range(cells))
        axes.xaxis.set_major_formatter(_percent)
        axes.grid(axis="x")

    return _svg(f"arms-{benchmark.id}", 460, last + 1.4 * _ROW + 30, draw)


def sweep(results: Results, benchmark: Benchmark) -> str:
    """Score over α with intervals: −v, the baseline at 0, the sweep and +v; random vectors at their α."""
    along = [(arm, arm.cells[benchmark.id]) for arm in curve(results) if benchmark.id in arm.cells]
    random = [
        (arm, arm.cells[benchmark.id]) for arm in results.of_kind("random") if benchmark.id in arm.cells
    ]

    def draw(figure: Any) -> None:
        axes = _axes(figure, left=46, right=10, bottom=38)
        _mark_baseline(axes.axhline, axes.axhspan, results, benchmark)
        axes.plot(
            [arm.alpha or 0 for arm, _ in along], [cell.score for _, cell in along], color=_PLUS, lw=1.2
        )
        for arm, cell in [*random, *along]:
            _point(axes, arm, cell, arm.alpha or 0, cell.score, across=False)
        _alpha_axis(axes, results)
        axes.set_ylim(_range([cell for _, cell in [*along, *random]]))
        axes.yaxis.set_major_formatter(_percent)
        axes.grid(axis="y")

    return _svg(f"sweep-{benchmark.id}", 320, 220, draw)


def gains(results: Results) -> str:
    """Effective gain over α: how much of the request was left after rounding; 1 is ideal."""
    known = [(arm.alpha or 0, arm.effect.gain) for arm in curve(results) if arm.effect]
    along = [(alpha, gain) for alpha, gain in known if gain is not None]

    def draw(figure: Any) -> None:
        axes = _axes(figure, left=46, right=10, bottom=38)
        axes.axhline(1, color=_INK, lw=1, dashes=(4, 3))
        for alpha, gain in along:
            axes.plot([alpha, alpha], [1, gain], color=_PLUS, lw=1.8)
            axes.plot([alpha], [gain], marker="o", ms=7, color=_PLUS)
        _alpha_axis(axes, results)
        axes.set_ylim(0, max(1.25, *(1.1 * gain for _, gain in along)))
        axes.grid(axis="y")

    return _svg("gain", 320, 220, draw) if along else ""


def layers(results: Results) -> str:
    """Norm of v by layer, over that of the target's same tensors where it is known."""
    shape = results.vector
    if shape is None or not shape.layers:
        return ""
    names = [layer.layer for layer in shape.layers]
    relative = by_share(results)
    values = [(layer.relative or 0.0) if relative else layer.norm for layer in shape.layers]
    # Every layer's number as long as there is room; what is no layer by name.
    step = -(-len(names) // 40)
    shown = [at for at, name in enumerate(names) if not name.isdigit() or int(name) % step == 0]

    def draw(figure: Any) -> None:
        axes = _axes(figure, left=56, right=10, bottom=92)
        axes.bar(range(len(values)), values, width=0.6, color=_PLUS)
        axes.set_xticks(shown, [_short(names[at]) for at in shown])
        for text, at in zip(axes.get_xticklabels(), shown, strict=True):
            if not names[at].isdigit():
                text.set(rotation=40, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.8, len(values) - 0.2)
        axes.set_ylim(0, 1.08 * max(*values, 1e-12))
        if relative:
            axes.yaxis.set_major_formatter(_fine_percent)
        axes.grid(axis="y")

    return _svg("layers", min(940, 120 + 60 * len(names)), 260, draw)


def by_share(results: Results) -> bool:
    """Whether `layers` shows shares of the target's norm, which it does where all of them are known."""
    return results.vector is not None and all(one.relative is not None for one in results.vector.layers)


def _svg(name: str, width: float, height: float, draw: Callable[[Any], None]) -> str:
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
        "text.color": _INK, "axes.labelcolor": _FAINT, "xtick.color": _FAINT, "ytick.color": _INK,
        "grid.color": _LINE, "grid.linewidth": 0.8, "axes.axisbelow": True, "font.family": "DejaVu Sans",
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


def _axes(figure: Any, *, left: float, right: float, bottom: float, top: float = 6) -> Any:
    """Axes with margins in pixels and without a frame."""
    width, height = (72 * size for size in figure.get_size_inches())
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )
    axes.set_facecolor("none")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=7)
    return axes


def _mark_baseline(line: Any, band: Any, results: Results, benchmark: Benchmark) -> None:
    baseline = results.arm("baseline")
    cell = baseline.cells.get(benchmark.id) if baseline else None
    if cell:
        band(*cell.interval, color=_INK, alpha=0.07, lw=0)
        line(cell.score, color=_INK, lw=1, dashes=(4, 3))


def _point(axes: Any, arm: ArmResult, cell: Cell, x: float, y: float, *, across: bool) -> None:
    """A score with its interval; arms that are asked for steps are hollow, sweep points as +v."""
    colour, marker = _LOOKS.get(arm.kind, _LOOKS["plus"])
    # A score next to 0 or 1 can lie a hair outside an interval that was computed otherwise.
    ends = [[max(0.0, cell.score - cell.interval[0])], [max(0.0, cell.interval[1] - cell.score)]]
    axes.errorbar(
        [x], [y], ls="", marker=marker, ms=7, color=colour, elinewidth=1.8, mew=1.5,
        mfc=_PAPER if arm.prompt == "think" else colour, **{"xerr" if across else "yerr": ends},
    )  # fmt: skip


def _change(results: Results, arm: ArmResult, benchmark: Benchmark) -> str:
    """The change against the baseline of the same prompt, in brackets where none is shown."""
    found = results.compared(arm.id, "baseline-think" if arm.id == "plus-think" else "baseline", benchmark.id)
    if found is None:
        return ""
    return points(found.difference) if verdict(found) else f"({points(found.difference)})"


def _group(arm: ArmResult) -> str:
    """Arms that stand together: the pair of each prompt, and each kind of the others."""
    return arm.prompt if arm.kind in ("baseline", "plus") else arm.kind


def _alpha_axis(axes: Any, results: Results) -> None:
    alphas = sorted({arm.alpha or 0 for arm in curve(results)})
    room = (alphas[-1] - alphas[0]) / 12
    axes.set_xlim(alphas[0] - room, alphas[-1] + room)
    axes.xaxis.set_major_formatter(_plain)
    axes.set_xlabel("α")


def _range(cells: Sequence[Cell]) -> tuple[float, float]:
    """What holds all intervals, and no less than a fifth of the scale: noise must not look like an effect."""
    low = min((cell.interval[0] for cell in cells), default=0.0)
    high = max((cell.interval[1] for cell in cells), default=1.0)
    half = max((high - low) * 0.56, 0.1)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _percent(value: float, _: object) -> str:
    return f"{100 * value:.0f}%"


def _fine_percent(value: float, _: object) -> str:
    return f"{100 * value:.3g}%"


def _plain(value: float, _: object) -> str:
    return f"{value:g}".replace("-", "−")


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
