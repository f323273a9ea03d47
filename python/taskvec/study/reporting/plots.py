"""The plots with two axes; each is drawn twice, as `NARROW` for phones and wider for other screens.

Plots side by side get their scales from the caller, so that their axes can be compared.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from .common import curve
from .svg import DONOR, FAINT, INK, MINUS, PAPER, PLUS, RANDOM, axes_within, draw_svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..rundir.results import ArmResult, Benchmark, Cell, Results
    from .scales import Scale

NARROW, HALF, FULL = 350, 540, 1060
"""Widths of a phone, of half a page and of a page, in pixels."""
_LOOKS = {
    # The kinds differ in shape as well as colour.
    "baseline": (INK, "s"),
    "plus": (PLUS, "o"),
    "sweep": (PLUS, "o"),
    "minus": (MINUS, "v"),
    "random": (RANDOM, "X"),
    "donor": (DONOR, "D"),
}
_LABEL = 17
"""Height of a label with its gap, in pixels."""


def sweep(results: Results, benchmark: Benchmark, scale: Scale, width: int) -> str:
    """Score over α with intervals: −v, the baseline at 0, the sweep and +v; random vectors at their α."""
    along = [(arm, arm.cells[benchmark.id]) for arm in curve(results) if benchmark.id in arm.cells]
    random = [
        (arm, arm.cells[benchmark.id]) for arm in results.of_kind("random") if benchmark.id in arm.cells
    ]

    def draw(figure: Any) -> None:
        axes = axes_within(figure, left=46, right=10, bottom=38)
        _mark_baseline(axes, results, benchmark)
        alphas, scores = [arm.alpha or 0 for arm, _ in along], [cell.score for _, cell in along]
        axes.plot(alphas, scores, color=PLUS, lw=1.2)
        for arm, cell in [*random, *along]:
            _point(axes, arm, cell, arm.alpha or 0)
        _alpha_axis(axes, results)
        _score_axis(axes, scale)

    return draw_svg(f"sweep-{benchmark.id}-{width}", width, 230, draw)


def gains(results: Results, width: int) -> str:
    """Effective gain over α: how much of the requested change is left after rounding; 1 is ideal."""
    known = [(arm.alpha or 0, arm.effect.gain) for arm in curve(results) if arm.effect]
    along = [(alpha, gain) for alpha, gain in known if gain is not None]

    def draw(figure: Any) -> None:
        axes = axes_within(figure, left=46, right=10, bottom=38)
        axes.axhline(1, color=INK, lw=1, dashes=(4, 3))
        for alpha, gain in along:
            axes.plot([alpha, alpha], [1, gain], color=PLUS, lw=1.8)
            axes.plot([alpha], [gain], marker="o", ms=7, color=PLUS)
        _alpha_axis(axes, results)
        axes.set_ylim(0, max(1.25, *(1.1 * gain for _, gain in along)))
        axes.grid(axis="y")

    return draw_svg(f"gain-{width}", width, 230, draw) if along else ""


def tokens(results: Results, benchmark: Benchmark, scale: Scale, width: int) -> str:
    """Score over mean length of the answers, with intervals; the α curve is a line, and arms are named."""
    arms = [
        (arm, cell)
        for arm in results.arms
        if (cell := arm.cells.get(benchmark.id)) and cell.mean_tokens is not None
    ]
    joined = [arm.cells[benchmark.id] for arm in curve(results) if benchmark.id in arm.cells]
    longest = max(end for _, cell in arms for end in (cell.mean_tokens or 1, *(cell.tokens_interval or ())))

    def draw(figure: Any) -> None:
        axes = axes_within(figure, left=46, right=140 if width > NARROW else 124, bottom=38)
        axes.plot([cell.mean_tokens for cell in joined], [cell.score for cell in joined], color=PLUS, lw=1.2)
        for arm, cell in arms:
            _point(axes, arm, cell, cell.mean_tokens or 0, cell.tokens_interval)
        axes.set_xlim(0, 1.06 * longest)
        axes.set_xlabel("tokens an answer")
        _score_axis(axes, scale)
        named = [(arm.label, cell) for arm, cell in arms if arm.kind not in ("sweep", "random")]
        # Random vectors are close together, so one name is enough for all.
        named += [("random", cell) for arm, cell in arms if arm.kind == "random"][:1]
        _name_points(axes, named, 17 if width > NARROW else 15)

    return draw_svg(f"tokens-{benchmark.id}-{width}", width, 270, draw)


def layers(results: Results, width: int) -> str:
    """Norm of v by layer, divided by that of the target's tensors if they are known; below it the cosine."""
    shape = results.vector
    if shape is None or not shape.layers:
        return ""
    names = [layer.layer for layer in shape.layers]
    is_relative = by_share(results)
    norms = [(layer.relative or 0.0) if is_relative else layer.norm for layer in shape.layers]
    cosines = [(at, layer.cosine) for at, layer in enumerate(shape.layers) if layer.cosine is not None]
    shown = _apart(names, (len(names) + 0.6) * _LABEL / (width - 74))

    def draw(figure: Any) -> None:
        below = 82 + (110 if cosines else 0)
        axes = axes_within(figure, left=64, right=10, bottom=below, top=22)
        axes.bar(range(len(norms)), norms, width=0.6, color=PLUS)
        axes.set_ylim(0, 1.08 * max(*norms, 1e-12))
        axes.set_title("norm over the target's" if is_relative else "norm", **_TITLE)
        if is_relative:
            axes.yaxis.set_major_formatter(_fine_percent)
        panels = [axes]
        if cosines:
            panels.append(_cosines(figure, cosines, height=figure.get_size_inches()[1] * 72))
        for panel in panels:
            panel.set_xlim(-0.8, len(norms) - 0.2)
            panel.grid(axis="y")
            panel.set_xticks([])
        _name_layers(panels[-1], names, shown)

    return draw_svg(f"layers-{width}", width, 380 if cosines else 270, draw)


_TITLE: dict[str, Any] = {"loc": "left", "color": FAINT, "fontsize": 12, "pad": 6}


def _cosines(figure: Any, cosines: Sequence[tuple[int, float]], height: float) -> Any:
    axes = axes_within(figure, left=64, right=10, bottom=82, top=height - 82 - 78)
    lowest = min(cosine for _, cosine in cosines)
    axes.axhline(1, color=INK, lw=1, dashes=(4, 3))
    for at, cosine in cosines:
        axes.plot([at], [cosine], marker="o", ms=4.5, color=PLUS)
    # The axis begins at 0.9 unless a value is lower, so that a small deviation from 1 looks small.
    axes.set_ylim(min(0.9, lowest - 0.05), 1.04)
    axes.set_title("cosine of v and of what was added", **_TITLE)
    return axes


def by_share(results: Results) -> bool:
    """Whether `layers` shows ratios to the target's norm, which it does if all of them are known."""
    return results.vector is not None and all(one.relative is not None for one in results.vector.layers)


def _apart(names: Sequence[str], gap: float) -> list[int]:
    """Indexes of the names to show, no two nearer than the gap; names other than layer numbers come first."""
    numbers = [at for at, name in enumerate(names) if name.isdigit()]
    step = max(1, ceil(gap))
    shown: list[int] = []
    for at in [*(at for at in range(len(names)) if at not in numbers), *numbers[::step]]:
        if all(abs(at - other) >= gap for other in shown):
            shown.append(at)
    return sorted(shown)


def _name_layers(axes: Any, names: Sequence[str], shown: Sequence[int]) -> None:
    axes.set_xticks(shown, [_short(names[at], 12) for at in shown])
    for text, at in zip(axes.get_xticklabels(), shown, strict=True):
        if not names[at].isdigit():
            text.set(rotation=40, ha="right", rotation_mode="anchor")


def _name_points(axes: Any, named: Sequence[tuple[str, Cell]], longest: int) -> None:
    """Writes names beside the plot in the order of the scores, each as near to its point as possible."""
    figure = axes.figure
    ordered = sorted(named, key=lambda one: one[1].score)
    bottom, top = axes.get_ylim()
    height = axes.get_position().height * figure.get_size_inches()[1] * 72
    unit = (top - bottom) / height
    places = _spread([cell.score for _, cell in ordered], _LABEL * unit, bottom, top)
    right = axes.get_xlim()[1]
    for (label, cell), place in zip(ordered, places, strict=True):
        axes.annotate(
            _short(label, longest), (cell.mean_tokens, cell.score), (right, place), va="center",
            color=INK, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkA": 2, "shrinkB": 5, "relpos": (0, 0.5),
            },
        )  # fmt: skip


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions in the same order, no two nearer than the gap, and within the ends if there is room."""
    places: list[float] = []
    for value in wanted:
        places.append(max(value, places[-1] + gap if places else low + gap / 2))
    ceiling = high - gap / 2
    for at in reversed(range(len(places))):
        places[at] = min(places[at], ceiling)
        ceiling = places[at] - gap
    return places


def _mark_baseline(axes: Any, results: Results, benchmark: Benchmark) -> None:
    baseline = results.arm("baseline")
    cell = baseline.cells.get(benchmark.id) if baseline else None
    if cell:
        axes.axhspan(*cell.interval, color=INK, alpha=0.07, lw=0)
        axes.axhline(cell.score, color=INK, lw=1, dashes=(4, 3))


def _point(
    axes: Any, arm: ArmResult, cell: Cell, x: float, across: tuple[float, float] | None = None
) -> None:
    """Draws a score with its interval, and x with its own; arms that are asked for steps are hollow."""
    colour, marker = _LOOKS[arm.kind]
    axes.errorbar(
        [x], [cell.score], yerr=_ends(cell.score, cell.interval), xerr=across and _ends(x, across),
        ls="", marker=marker, ms=5 if arm.kind == "sweep" else 7, color=colour, elinewidth=1.6, mew=1.5,
        mfc=PAPER if arm.prompt == "think" else colour,
    )  # fmt: skip


def _ends(value: float, interval: tuple[float, float]) -> list[list[float]]:
    """Distances to the ends of an interval, at least 0: rounding may put a value just outside it."""
    return [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]


def _alpha_axis(axes: Any, results: Results) -> None:
    alphas = sorted({arm.alpha or 0 for arm in curve(results)})
    room = (alphas[-1] - alphas[0]) / 12
    axes.set_xlim(alphas[0] - room, alphas[-1] + room)
    axes.xaxis.set_major_formatter(_plain)
    axes.set_xlabel("α")


def _score_axis(axes: Any, scale: Scale) -> None:
    axes.set_ylim(scale.low, scale.high)
    ticks = scale.ticks()
    axes.set_yticks(ticks, [f"{100 * tick:.0f}%" for tick in ticks])
    axes.grid(axis="y")


def _fine_percent(value: float, _: object) -> str:
    return f"{100 * value:.3g}%"


def _plain(value: float, _: object) -> str:
    return f"{value:g}".replace("-", "−")


def _short(label: str, longest: int) -> str:
    return label if len(label) <= longest else label[: longest - 1] + "…"
