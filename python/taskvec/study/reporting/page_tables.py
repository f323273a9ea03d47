"""The tables of the report, with every number of the results."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from ..analysis.case import verdict
from ..analysis.phrases import count, interval, p_figure, percent, points, share, signed
from .common import AGAINST, clean, families, own_baseline, own_change, title
from .costs import duration
from .html import Row, element, folded, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.compared import Comparison, RandomMean
    from ..rundir.results import ArmResult, Benchmark, Results

_METHODS = (
    "Arms are compared document by document. p is that of the exact McNemar test (McNemar 1947, as a"
    " two-sided binomial test on the documents that one of the two arms answers correctly and the other"
    " does not). If scores are not just right or wrong, or if documents share a seed question, p is that"
    " of the sign-flip test (Fisher 1935), which is exact if it can be computed. p is corrected within"
    " its family of tests by Holm's step-down method (Holm 1979); the α sweep is described without"
    " tests. Intervals are 95% intervals: Wilson's (1927) for the share of right answers; for"
    " differences, and for scores that are not just right or wrong, the percentile bootstrap over"
    " documents (10,000 draws; documents of one seed question are drawn together, and each task of a"
    " group keeps its share). If fewer than ten of them differ from the most common value, as when"
    " hardly any answer changed, the bootstrap is too narrow. Each end is then the outer one of the"
    " bootstrap's and of Tango's score interval (1998) for a difference, or Wilson's for a score. An"
    " interval of a difference is not corrected."
)
_MAIN = ("baseline", "plus", "baseline-think", "plus-think")


def numbers(results: Results) -> Iterator[str]:
    """Tables of scores and changes by benchmark, of the other comparisons, and of each arm's weights."""
    yield element("p", f"{families(results)} {AGAINST} {_METHODS}", "faint wide-text")
    for one in clean(results):
        yield from _benchmark(results, one)
        perturbed = [other for other in results.benchmarks if other.parent == one.id]
        if perturbed:
            tables = "".join(part for other in perturbed for part in _benchmark(results, other))
            yield folded(f"{one.title}: {count(len(perturbed), 'further table')}", tables)
    yield table(
        "v against asking for steps, and against each random vector",
        "differences in points",
        ("benchmark and pair", "difference", "interval", "gained", "lost", "p", "p in family", "family"),
        (
            _compared(Row(_pair(results, one), _shown(one)), one)
            for one in results.comparisons
            if one.arm == "plus" and one.against != "baseline"
        ),
    )
    if results.random_means:
        yield table(
            "The mean of the random vectors",
            "against the target as it is, in points, and as a share of v's change",
            ("benchmark", "seeds", "change", "interval", "share of v's", "interval"),
            (_random_mean(results, one) for one in results.random_means),
        )
    yield table(
        "What each arm's weights are",
        "what is left of the requested change α·v after rounding, over all elements",
        (
            "arm", "prompt", "α", "seed", "norm of α·v", "norm left", "effective gain", "cosine", "changed",
            "survival", "seconds",
        ),
        (_weights(arm) for arm in results.arms),
    )  # fmt: skip
    if results.vector:
        layers = table(
            "v by layer",
            "norm, its ratio to the target's, and the cosine of v and of what was added",
            ("layer", "norm", "over the target's", "cosine"),
            (
                Row(one.layer)
                .add(f"{one.norm:.4g}")
                .add(None if one.relative is None else f"{100 * one.relative:.3g}%")
                .add(None if one.cosine is None else f"{one.cosine:.4g}")
                for one in results.vector.layers
            ),
        )
        yield folded("v by layer, in numbers", layers)


def _benchmark(results: Results, benchmark: Benchmark) -> Iterator[str]:
    """Tables of a benchmark: scores and changes, then properties of the outputs, then tasks of a group."""
    arms = [arm for arm in results.arms if benchmark.id in arm.cells]
    yield table(
        benchmark.title,
        f"n = {benchmark.n:,}, {benchmark.metric}; scores in percent, changes in points",
        (
            "arm", "score", "interval", "change", "interval", "gained", "lost", "p", "p in family", "family",
            *(name for reading in benchmark.readings for name in (reading, "interval")),
        ),
        (_scored(results, arm, benchmark) for arm in arms),
    )  # fmt: skip
    yield table(
        f"{benchmark.title}: outputs",
        "rates in percent; tokens are means, and their change is against the same arm as that of the score",
        (
            "arm", "unreadable", "empty", "cut off", "tokens", "interval", "change", "interval", "time",
            "samples",
        ),
        (_outputs(results, arm, benchmark) for arm in arms),
    )  # fmt: skip
    if benchmark.subtasks:
        main = [arm for arm in arms if arm.id in _MAIN]
        rows = (_subtask(name, main, benchmark) for name in benchmark.subtasks)
        columns = ("task", "n", *(arm.label for arm in main))
        inner = table(f"{benchmark.title} by task", "scores in percent", columns, rows)
        yield folded(f"{benchmark.title}: {count(len(benchmark.subtasks), 'task')} one by one", inner)


def _scored(results: Results, arm: ArmResult, benchmark: Benchmark) -> Row:
    cell, found = arm.cells[benchmark.id], own_change(results, arm, benchmark)
    row = Row(arm.label, _shown(found)).add(_percent(cell.score)).add(_percents(cell.interval))
    if found is None:
        for _ in range(7):
            row.add(None)
    else:
        _compared(row, found)
    for name in benchmark.readings:
        reading = cell.readings[name]
        row.add(_percent(reading.score)).add(_percents(reading.interval))
    return row


def _outputs(results: Results, arm: ArmResult, benchmark: Benchmark) -> Row:
    cell = arm.cells[benchmark.id]
    row = Row(arm.label).add(_percent(cell.extraction_failures)).add(_percent(cell.empty))
    row.add(_percent(cell.truncated)).add(None if cell.mean_tokens is None else f"{cell.mean_tokens:.1f}")
    row.add(
        None if cell.tokens_interval is None else " to ".join(f"{end:.1f}" for end in cell.tokens_interval)
    )
    found = next(
        (
            one
            for one in results.token_changes
            if (one.arm, one.against, one.benchmark) == (arm.id, own_baseline(arm), benchmark.id)
        ),
        None,
    )
    row.add(None if found is None else signed(found.difference))
    row.add(None if found is None else " to ".join(map(signed, found.interval)))
    row.add(None if cell.seconds is None else duration(cell.seconds))
    return row.link("open", quote(cell.samples))


def _subtask(name: str, arms: list[ArmResult], benchmark: Benchmark) -> Row:
    scores = [arm.cells[benchmark.id].subtasks.get(name) for arm in arms]
    row = Row(name).add(next((one.n for one in scores if one), None))
    for one in scores:
        row.add(None if one is None else _percent(one.score))
    return row


def _random_mean(results: Results, found: RandomMean) -> Row:
    row = Row(title(results, found.benchmark)).add(found.seeds)
    row.add(points(found.difference), "change").add(interval(found.interval))
    row.add("–" if found.share is None else percent(found.share))
    ends = found.share_interval
    return row.add(None if ends is None else " to ".join(map(percent, ends)))


def _compared(row: Row, found: Comparison) -> Row:
    row.add(points(found.difference), "change").add(interval(found.interval))
    row.add(found.wrong_to_right).add(found.right_to_wrong)
    for p in (found.p, found.p_holm):
        row.add("–" if p is None else p_figure(p))
    return row.add(found.family)


def _pair(results: Results, found: Comparison) -> str:
    against = results.arm(found.against)
    return f"{title(results, found.benchmark)}: +v against {against.label if against else found.against}"


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


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f}"


def _percents(ends: tuple[float, float]) -> str:
    return f"{_percent(ends[0])} to {_percent(ends[1])}"
