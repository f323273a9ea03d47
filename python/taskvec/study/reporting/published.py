"""Shows what others reported of the same arithmetic, beside the results of this study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.phrases import interval, points
from .common import title
from .html import Row, element, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.compared import Comparison
    from ..rundir.results import Results


def beside(results: Results) -> list[tuple[str, str, float, Comparison | None]]:
    """Benchmark, arm, reported change in points, and the comparison of this study (or None)."""
    published = results.study.get("published")
    if not published:
        return []
    return [
        (
            title(results, benchmark),
            _label(results, arm),
            change,
            results.compared(arm, "baseline", benchmark),
        )
        for benchmark, changes in published["changes"].items()
        for arm, change in changes.items()
    ]


def published(results: Results) -> Iterator[str]:
    """The table of the page."""
    rows = beside(results)
    if not rows:
        return
    yield element(
        "p",
        f"Reported in: {results.study['published']['source']}. Those figures may come from other donors,"
        " prompts and settings, so a difference is not a contradiction.",
        "faint",
    )
    yield table(
        "Reported elsewhere, and found here",
        "changes against the target as it is, in points",
        ("benchmark and arm", "reported", "found", "95% interval"),
        (_row(*one) for one in rows),
    )


def lines(results: Results) -> Iterator[str]:
    """The same as lines for the terminal."""
    rows = beside(results)
    if rows:
        yield f"  Reported elsewhere ({results.study['published']['source']}), and found here, in points"
    for benchmark, arm, change, found in rows:
        here = "not scored" if found is None else f"{points(found.difference)} ({interval(found.interval)})"
        yield f"  {benchmark}, {arm}: {points(change / 100)} reported, {here} here"


def _row(benchmark: str, arm: str, change: float, found: Comparison | None) -> Row:
    row = Row(f"{benchmark}, {arm}").add(points(change / 100), "change")
    if found is None:
        return row.add("not scored").add(None)
    return row.add(points(found.difference), "change").add(interval(found.interval))


def _label(results: Results, arm: str) -> str:
    found = results.arm(arm)
    return found.label if found else arm
