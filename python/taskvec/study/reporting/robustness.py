"""Shows how much of v's gain is left when questions are perturbed but their answers stay the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.exact_tests import LEVEL
from ..analysis.phrases import interval, p_figure, percent, points, share
from .common import bracketed, title
from .html import Row, element, table
from .scales import shared
from .strips import Strip, chart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.compared import Robustness
    from ..rundir.results import Results
    from .scales import Scale

_READ = (
    "v's gain on the clean questions (hollow) and on the perturbed ones (full), over the documents that"
    " the perturbation changed, all on one scale. Left is the share of the gain that is left, with its"
    " 95% interval. The change of the gain is a difference of differences, document by document; it is"
    " in brackets if none is shown."
)


def robustness(results: Results) -> Iterator[str]:
    """A chart for each benchmark that was perturbed, then all figures in one table."""
    if not results.robustness:
        return
    yield element("p", _READ, "faint") + '<div class="grid">'
    scale = shared(gain for one in results.robustness for gain in (one.clean, one.perturbed))
    for of in dict.fromkeys(one.original for one in results.robustness):
        rows = [_drawn(one, scale) for one in results.robustness if one.original == of]
        columns = (("change", "below"), ("left", "below"))
        yield chart(title(results, of), "gain of v in points", columns, rows, (scale, _signed))
    yield "</div>"
    yield table(
        "v's gain under perturbation",
        "gains and changes in points, over the documents that were changed",
        (
            "benchmark", "documents", "changed", "clean gain", "perturbed gain", "change", "interval", "p",
            "p in family", "left", "interval",
        ),
        (_row(results, one) for one in results.robustness),
    )  # fmt: skip


def is_shown(found: Robustness) -> bool:
    """Whether a change of v's gain is shown."""
    return found.p_holm is not None and found.p_holm < LEVEL


def left(found: Robustness) -> tuple[str, str]:
    """The share of the gain that is left and its interval; if the gain itself is not clear, a remark."""
    if found.left is None:
        return "–", "gain open"
    ends = "" if found.left_interval is None else " to ".join(map(percent, found.left_interval))
    return percent(found.left), ends


def _drawn(found: Robustness, scale: Scale) -> Row:
    drawn = Strip(scale).line(0, "base").bar((found.clean, found.perturbed), "plus")
    drawn.mark(found.clean, "plus", hollow=True).mark(found.perturbed, "plus")
    row = Row(found.perturbation, "shown" if is_shown(found) else "").drawn(drawn.markup())
    row.noted(bracketed(found.change, is_shown(found)), interval(found.interval), "change below")
    return row.noted(*left(found), "below")


def _row(results: Results, found: Robustness) -> Row:
    row = Row(f"{title(results, found.original)}: {found.perturbation}", "shown" if is_shown(found) else "")
    row.add(found.n).add(share(found.touched)).add(points(found.clean)).add(points(found.perturbed))
    row.add(points(found.change), "change").add(interval(found.interval))
    for p in (found.p, found.p_holm):
        row.add("–" if p is None else p_figure(p))
    stays, ends = left(found)
    return row.add(stays).add(ends)


def _signed(value: float) -> str:
    return f"{100 * value:+.0f}".replace("-", "−").replace("+0", "0")
