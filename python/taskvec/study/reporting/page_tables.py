"""The report's tables: every number of the results, and how they came about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..analysis.case import verdict
from ..analysis.phrases import interval, p_figure, points, share
from .html import Row, element, table, terms
from .terminal import AGAINST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.results import ArmResult, Benchmark, Comparison, Results

_METHODS = (
    "Arms are compared document by document. p is the exact McNemar test (McNemar 1947, as a two-sided"
    " binomial test on the documents that one of the two arms answers rightly and the other wrongly),"
    " corrected"
    " for all tests of the study together by Holm's step-down method (Holm 1979). Intervals are 95%"
    " intervals:"
    " Wilson's (1927) for the share of right answers; for differences, and for scores that are not just"
    " right or"
    " wrong, the percentile bootstrap over documents (10,000 draws). Where fewer than ten documents differ"
    " from the commonest value, as where hardly any answer changed, the bootstrap is too narrow, and each end"
    " is the farther one of its own and of Tango's score interval (1998) for a difference, Wilson's for a"
    " score. An interval of a difference is not corrected."
)


def numbers(results: Results) -> Iterator[str]:
    """Scores and changes by benchmark, the other comparisons, and what each arm's weights are."""
    yield "<section>" + element("h2", "All numbers")
    yield element("p", f"{AGAINST} {_METHODS}", "faint")
    columns = (
        "arm", "score", "interval", "change", "interval", "gained", "lost", "p", "p, Holm",
        "unreadable", "cut off", "tokens", "samples",
    )  # fmt: skip
    for one in results.benchmarks:
        yield table(
            one.title,
            f"n = {one.n}, {one.metric}; scores and rates in percent, changes in points",
            columns,
            (_arm_row(results, arm, one) for arm in results.arms if one.id in arm.cells),
        )
    yield table(
        "v against asking for steps, and against each random vector",
        "",
        ("benchmark and pair", "difference", "interval", "gained", "lost", "p", "p, Holm"),
        (
            _compared(Row(_pair(results, one), _shown(one)), one)
            for one in results.comparisons
            if one.arm == "plus" and one.against != "baseline"
        ),
    )
    yield table(
        "What each arm's weights are",
        "what rounding left of the request α·v, over all elements",
        (
            "arm", "prompt", "α", "seed", "norm of α·v", "norm left", "effective gain", "cosine", "changed",
            "survival", "seconds",
        ),
        (_weights(arm) for arm in results.arms),
    )  # fmt: skip
    yield "</section>"


def _arm_row(results: Results, arm: ArmResult, benchmark: Benchmark) -> Row:
    cell = arm.cells[benchmark.id]
    against = "baseline-think" if arm.id == "plus-think" else "baseline"
    found = results.compared(arm.id, against, benchmark.id)
    row = Row(arm.label, _shown(found)).add(_percent(cell.score)).add(_percents(cell.interval))
    if found is None:
        for _ in range(6):
            row.add(None)
    else:
        _compared(row, found)
    row.add(_percent(cell.extraction_failures)).add(_percent(cell.truncated))
    row.add(None if cell.mean_tokens is None else f"{cell.mean_tokens:.1f}")
    return row.link("open", quote(cell.samples))


def _compared(row: Row, found: Comparison) -> Row:
    row.add(points(found.difference), "change").add(interval(found.interval))
    row.add(found.wrong_to_right).add(found.right_to_wrong)
    for p in (found.p, found.p_holm):
        row.add("–" if p is None else p_figure(p))
    return row


def _pair(results: Results, found: Comparison) -> str:
    against = results.arm(found.against)
    title = next(one.title for one in results.benchmarks if one.id == found.benchmark)
    return f"{title}: +v against {against.label if against else found.against}"


def _shown(found: Comparison | None) -> str:
    return "shown" if verdict(found) else ""


def _weights(arm: ArmResult) -> Row:
    row = (
        Row(arm.label)
        .add(arm.prompt, "text")
        .add(None if arm.alpha is None else f"{arm.alpha:g}".replace("-", "−"))
    )
    row.add(arm.seed)
    effect = arm.effect
    norms = (None,) * 2 if effect is None else (effect.norm_requested, effect.norm_effective)
    figures = (None,) * 2 if effect is None else (effect.gain, effect.cosine)
    shares = (None,) * 2 if effect is None else (effect.changed, effect.survival)
    for value in (*norms, *figures):
        row.add(None if value is None else f"{value:.4g}")
    for value in shares:
        row.add(None if value is None else share(value))
    return row.add(None if arm.seconds is None else f"{arm.seconds:.1f}")


def how_it_was_run(results: Results) -> Iterator[str]:
    """Inputs, settings and versions, the benchmarks as they were set, and the study itself."""
    study = results.study
    backend = study.get("backend", "hf")
    yield "<section>" + element("h2", "How it was run")
    yield terms(
        [
            *((one.role, f"{one.name} ({one.digest})") for one in results.inputs),
            ("think line", study.get("think")),
            ("rounding", study.get("rounding")),
            ("backend", backend if isinstance(backend, str) else ", ".join(backend)),
            ("device", results.device),
            ("dtype", results.dtype),
            ("batch size", study.get("batch_size")),
            *results.versions.items(),
        ]
    )
    yield table(
        "Benchmarks",
        "as lm-eval was told to run them",
        (
            "benchmark", "task", "version", "kind", "metric", "filter", "shots", "token cap", "limit", "n",
            "note",
        ),
        (_asked(one) for one in results.benchmarks),
    )  # fmt: skip
    text = json.dumps(results.to_json()["study"], ensure_ascii=False, indent=2)
    yield "<details><summary>The study, defaults filled in</summary>" + element("pre", text)
    yield "</details></section>"


def _asked(one: Benchmark) -> Row:
    row = Row(one.title).add(one.task, "text").add(one.version).add(one.kind, "text")
    row.add(one.metric, "text").add(one.filter, "text")
    for number in (one.shots, one.max_new_tokens, one.limit, one.n):
        row.add(number)
    return row.add(one.note, "prose")


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f}"


def _percents(ends: tuple[float, float]) -> str:
    return f"{_percent(ends[0])} to {_percent(ends[1])}"
