"""The report: one HTML file that holds everything, looks nothing up and runs no script.

In the order of a reader's questions: what was asked, what the data show, the figures, all numbers, how it was
run, what the documents could show at all.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..analysis.analyse import load
from ..analysis.phrases import count, share
from ..rundir.results import as_written
from ..rundir.run_folder import as_text
from ..rundir.run_folder import write as write_text
from . import plots
from .html import element, figure, listing
from .page_tables import how_it_was_run, numbers
from .terminal import AGAINST, curve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.results import Results

_ARMS = (
    "Scores with 95% intervals; the dashed line and the band are the target as it is, hollow points were"
    " asked for steps. Beside each: the score in percent and the change in points, in brackets where no"
    f" difference is shown. {AGAINST}"
)
_CURVE = (
    "Scores over α: −v to the left, the target itself at 0, random vectors of the same size as crosses. The"
    " effective gain says how much of the request is left after rounding to the checkpoint's dtype: 1 is all"
    " of it, and where it is far from 1 the weights did not get the α that the point is named for."
)
_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z−]|n = )")
# Nothing from elsewhere, whatever a name in the results may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def rebuild(run_or_results: str | Path) -> tuple[Results, Path]:
    """Makes the report of a RUN folder, and its results.json, or of a results.json alone, anew.

    Returns:
        The results, and the report's path: report.html beside results.json.

    Raises:
        UsageError: It is neither of the two, or matplotlib is missing.
        StorageError: A file cannot be read or written.
        CorruptError: What it holds is damaged, or does not belong together.
    """
    path = Path(run_or_results)
    results = load(path)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        write_text(path / "results.json", as_text(results.to_json()), "backslashreplace")
    report = folder / "report.html"
    with as_written(str(path), "make it again by running the study"):
        write(results, report)
    return results, report


def write(results: Results, path: Path) -> None:
    """Writes the report, aside and renamed into place.

    Raises:
        UsageError: matplotlib is missing.
        StorageError: It cannot be written.
    """
    write_text(path, render(results), "xmlcharrefreplace")


def render(results: Results) -> str:
    """The report as HTML.

    Raises:
        UsageError: matplotlib is missing.
    """
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    name = str(results.study["name"])
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            element("title", f"{name}: a taskvec study"),
            f"<style>\n{style}</style>\n</head>\n<body>\n<main>",
            *_head(results, name),
            *_conclusions(results),
            *_arms(results),
            *_curve(results),
            *_layers(results),
            *numbers(results),
            *how_it_was_run(results),
            *_power(results),
            element("footer", f"Scored with taskvec {results.versions.get('taskvec', '?')}."),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _head(results: Results, name: str) -> Iterator[str]:
    inputs = {one.role: one.name for one in results.inputs}
    skill = inputs.get("vector") or f"({inputs.get('minuend')} − {inputs.get('subtrahend')})"
    yield "<header>" + element("p", "A taskvec study", "kind") + element("h1", name)
    yield element("p", str(results.study["about"]), "asked")
    yield element(
        "p", f"{inputs.get('target')} + α · {skill}, α = {results.study.get('alpha', 1):g}", "formula"
    )
    facts = (
        count(len(results.arms), "arm"),
        count(len(results.benchmarks), "benchmark"),
        count(results.tests, "test"),
        results.device,
        results.dtype,
    )
    yield element("p", " · ".join(facts), "faint") + "</header>"
    if not results.complete:
        cells = f"{count(len(results.missing), 'cell')} still to be scored: {', '.join(results.missing)}."
        yield f'<p class="warning" role="note"><strong>Not finished.</strong> {escape(cells)}</p>'


def _conclusions(results: Results) -> Iterator[str]:
    """The whole in large letters; of each benchmark the answer first, then what bounds it, point by point."""
    yield "<section>" + element("h2", "What the data show")
    titles = [f"{one.title}: " for one in results.benchmarks]
    for text in results.conclusions:
        title = next((title for title in titles if text.startswith(title)), None)
        if title is None:
            yield element("p", text, "all" if text.startswith("In all: ") else "")
            continue
        first, stop, rest = text.removeprefix(title).partition(". ")
        yield element("h3", title.removesuffix(": ")) + element("p", first + stop.rstrip(), "found")
        if rest:
            yield listing(_SENTENCE.split(rest))
    yield "</section>"


def _arms(results: Results) -> Iterator[str]:
    yield "<section>" + element("h2", "Arms") + element("p", _ARMS, "faint") + '<div class="grid">'
    for one in results.benchmarks:
        known = [arm for arm in results.arms if one.id in arm.cells]
        scores = ", ".join(f"{arm.label} {share(arm.cells[one.id].score)}" for arm in known)
        yield figure(one.title, f"n = {one.n}", f"Scores: {scores}.", plots.arms(results, one))
    yield "</div></section>"


def _curve(results: Results) -> Iterator[str]:
    swept = results.of_kind("sweep")
    if not swept:
        return
    yield "<section>" + element("h2", "How much of v: the α curve") + element("p", _CURVE, "faint")
    yield '<div class="grid small">'
    along = curve(results)
    for one in results.benchmarks:
        if any(one.id in arm.cells for arm in swept):
            known = [arm for arm in along if one.id in arm.cells]
            scores = ", ".join(f"{share(arm.cells[one.id].score)} at {arm.alpha or 0:g}" for arm in known)
            yield figure(one.title, "score", f"Scores over α: {scores}.", plots.sweep(results, one))
    drawn = plots.gains(results)
    if drawn:
        gains = [(arm.alpha, arm.effect.gain) for arm in along if arm.effect]
        described = ", ".join(f"{gain:.2f} at {alpha:g}" for alpha, gain in gains if gain is not None)
        yield figure("Effective gain", "1 is ideal", f"Effective gain over α: {described}.", drawn)
    yield "</div></section>"


def _layers(results: Results) -> Iterator[str]:
    drawn = plots.layers(results)
    if results.vector is None or not drawn:
        return
    what = "Norm of v over the target's, by layer" if plots.by_share(results) else "Norm of v by layer"
    norms = ", ".join(f"{one.layer} {one.norm:.3g}" for one in results.vector.layers)
    yield "<section>" + element("h2", "Where v is")
    yield figure(what, f"norm of all of v: {results.vector.norm:.4g}", f"Norm of v by layer: {norms}.", drawn)
    yield "</section>"


def _power(results: Results) -> Iterator[str]:
    yield "<section>" + element("h2", "What the documents could show")
    for one in results.benchmarks:
        yield element("h3", one.title) + element("p", one.power_note)
    yield "</section>"
