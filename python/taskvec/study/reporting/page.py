"""Makes the report: a single HTML file that loads nothing from elsewhere and runs no script.

Its sections follow a reader's questions: what was asked, what the data show, the plots, all numbers, how it
was run, and how small an effect the documents can show.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..analysis.analyse import load
from ..analysis.phrases import count, share
from ..rundir.reading import as_written
from ..rundir.run_folder import as_text
from ..rundir.run_folder import write as write_text
from . import plots
from .answers import answers
from .common import clean, curve
from .costs import costs
from .html import element, figure, listing, section
from .overview import arms, glance
from .page_tables import numbers
from .provenance import provenance
from .published import published
from .robustness import robustness
from .scales import same_span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.results import Results

_CURVE = (
    "Scores over α: −v to the left, the target itself at 0, random vectors of the same size as crosses."
    " The effective gain says how much of the requested change is left after rounding to the checkpoint's"
    " dtype: 1 is all of it, and if it is far from 1 the weights did not change by the α of that point."
)
_LAYERS = (
    "The norm of v in each layer, divided by that of the same tensors of the target if it is known, and the"
    " cosine of v and of what is left of it after rounding: 1 if the direction is kept."
)
_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z−]|n = )")
# Forbids the browser to load anything from elsewhere, whatever a name in the results contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def rebuild(run_or_results: str | Path) -> tuple[Results, Path]:
    """Makes the report of a run folder again, with its results.json, or that of a results.json alone.

    Returns:
        The results, and the path of report.html, which is beside results.json.

    Raises:
        UsageError: The path is neither of the two, or matplotlib is not installed.
        StorageError: A file cannot be read or written.
        CorruptError: A file is damaged, or files do not belong together.
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
    """Writes the report atomically.

    Raises:
        UsageError: matplotlib is not installed.
        StorageError: The file cannot be written.
    """
    write_text(path, render(results), "xmlcharrefreplace")


def render(results: Results) -> str:
    """The report as HTML.

    Raises:
        UsageError: matplotlib is not installed.
    """
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    name = str(results.study["name"])
    sections = list(_sections(results))
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            element("title", f"{name}: a taskvec study"),
            f"<style>\n{style}</style>\n</head>\n<body>\n<main>",
            *_head(results, name, [to for to, _ in sections]),
            *(markup for _, markup in sections),
            element("footer", f"Scored with taskvec {results.versions.get('taskvec', '?')}."),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _head(results: Results, name: str, links: list[str]) -> Iterator[str]:
    """The head of the page: what was asked, the formula, a line of facts, and links to the sections."""
    inputs = {one.role: one.name for one in results.inputs}
    skill = inputs.get("vector") or f"({inputs.get('minuend')} − {inputs.get('subtrahend')})"
    yield "<header><div>" + element("p", "A taskvec study", "kind") + element("h1", name)
    yield element("p", str(results.study["about"]), "asked") + "</div><div>"
    yield element(
        "p", f"{inputs.get('target')} + α · {skill}, α = {results.study.get('alpha', 1):g}", "formula"
    )
    facts = (
        count(len(results.arms), "arm"),
        count(len(clean(results)), "benchmark"),
        f"{count(results.tests, 'test')}, {results.families.primary:,} of them primary",
        results.device,
        results.dtype,
        (results.started or "")[:10],
        f"study {results.study_digest[:12]}",
    )
    yield element("p", " · ".join(fact for fact in facts if fact), "faint")
    yield "<nav>" + " ".join(f'<a href="#{to}">{to}</a>' for to in links)
    yield "</nav></div></header>"
    if not results.complete:
        cells = f"{count(len(results.missing), 'cell')} still to be scored: {', '.join(results.missing)}."
        yield f'<p class="warning" role="note"><strong>Not finished.</strong> {escape(cells)}</p>'


def _sections(results: Results) -> Iterator[tuple[str, str]]:
    """Id and markup of each section that is not empty."""
    for title, name, of in (
        ("At a glance", "glance", glance),
        ("What the data show", "conclusions", _conclusions),
        ("Reported elsewhere", "published", published),
        ("Arms", "arms", arms),
        ("How much of v: the α curve", "curve", _curve),
        ("What is left under perturbation", "robustness", robustness),
        ("Accuracy and tokens", "tokens", costs),
        ("Answers that changed", "answers", answers),
        ("Where v is", "layers", _layers),
        ("All numbers", "numbers", numbers),
        ("How it was run", "run", provenance),
        ("What the documents could show", "power", _power),
    ):
        if inner := "\n".join(of(results)):
            yield name, section(title, name, inner)


def _conclusions(results: Results) -> Iterator[str]:
    """The overall conclusion in large letters; for each benchmark the result, then a list of its limits."""
    titles = [f"{one.title}: " for one in results.benchmarks]
    beside: list[str] = []
    for text in results.conclusions:
        title = next((title for title in titles if text.startswith(title)), None)
        if title:
            beside.append(_conclusion(title, text))
        elif beside:
            beside.append(f"<div>{element('p', text)}</div>")
        else:
            yield element("p", text, "all" if text.startswith("In all: ") else "")
    yield f'<div class="grid">{"".join(beside)}</div>'


def _conclusion(title: str, text: str) -> str:
    first, stop, rest = text.removeprefix(title).partition(". ")
    heading = element("h3", title.removesuffix(": "))
    bounds = listing(_SENTENCE.split(rest)) if rest else ""
    return f"<div>{heading}{element('p', first + stop.rstrip(), 'found')}{bounds}</div>"


def _curve(results: Results) -> Iterator[str]:
    swept = results.of_kind("sweep")
    if not swept:
        return
    yield element("p", _CURVE, "faint") + '<div class="grid">'
    along = curve(results)
    shown = [one for one in clean(results) if any(one.id in arm.cells for arm in swept)]
    drawn = [*along, *results.of_kind("random")]
    cells = [[arm.cells[one.id] for arm in drawn if one.id in arm.cells] for one in shown]
    ends = [[end for cell in some for end in (cell.score, *cell.interval)] for some in cells]
    for one, scale in zip(shown, same_span(ends), strict=True):
        known = [arm for arm in along if one.id in arm.cells]
        scores = ", ".join(f"{share(arm.cells[one.id].score)} at {arm.alpha or 0:g}" for arm in known)
        wide, narrow = (plots.sweep(results, one, scale, width) for width in (plots.HALF, plots.NARROW))
        yield figure(one.title, "score", f"Scores over α: {scores}.", wide, narrow)
    wide, narrow = (plots.gains(results, width) for width in (plots.HALF, plots.NARROW))
    if wide:
        gains = [(arm.alpha, arm.effect.gain) for arm in along if arm.effect]
        described = ", ".join(f"{gain:.2f} at {alpha:g}" for alpha, gain in gains if gain is not None)
        yield figure("Effective gain", "1 is ideal", f"Effective gain over α: {described}.", wide, narrow)
    yield "</div>"


def _layers(results: Results) -> Iterator[str]:
    wide, narrow = (plots.layers(results, width) for width in (plots.FULL, plots.NARROW))
    if results.vector is None or not wide:
        return
    yield element("p", _LAYERS, "faint")
    norms = ", ".join(f"{one.layer} {one.norm:.3g}" for one in results.vector.layers)
    note = f"norm of all of v: {results.vector.norm:.4g}"
    drawn = figure("v by layer", note, f"Norm of v by layer: {norms}.", wide, narrow)
    yield f'<div class="full">{drawn}</div>'


def _power(results: Results) -> Iterator[str]:
    said = (element("h3", one.title) + element("p", one.power_note) for one in clean(results))
    yield '<div class="grid">' + "".join(f"<div>{one}</div>" for one in said) + "</div>"
