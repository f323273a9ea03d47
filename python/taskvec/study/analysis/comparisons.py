"""Compares arms on benchmarks, and assigns each test to a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..rundir.samples import paired
from .cells import lengths
from .design import Design
from .exact_tests import holm
from .intervals import LENGTH_DRAWS, bootstrap, difference_interval, ratio_interval
from .statistics import compare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...records import Json
    from .cells import Cells

    _Triple = tuple[str, str, str]


def comparisons(run: Json, cells: Cells) -> Iterator[Json]:
    """All comparisons whose two cells are scored; `corrected` then corrects their p."""
    first = [(one["arm"], one["against"], one["benchmark"]) for one in run["primary"]]
    arms = {arm["id"]: arm for arm in run["arms"]}
    for arm, against, benchmark in _wanted(run, first):
        if (arm, benchmark) not in cells or (against, benchmark) not in cells:
            continue
        main = (arm, against, benchmark) in first
        family = "primary" if main else "described" if arms[arm]["kind"] == "sweep" else "secondary"
        pairs = _pairs(arms, cells, arm, against, benchmark)
        found = compare(*_scores(pairs), Design.of(mine for mine, _ in pairs))
        tested = family != "described"
        yield {
            "arm": arm,
            "against": against,
            "benchmark": benchmark,
            "n": found.n,
            "difference": found.difference,
            "interval": list(found.interval),
            "wrong_to_right": found.wrong_to_right,
            "right_to_wrong": found.right_to_wrong,
            "family": family,
            "test": found.test if tested else None,
            "p": found.p if tested else None,
        }


def corrected(run: Json, compared: list[Json], robustness: list[Json]) -> tuple[list[Json], list[Json], Json]:
    """Corrects all tests within their families.

    The primary family has its full size from the beginning, so a test that rejects while cells are still
    missing keeps rejecting. The robustness tests belong to the secondary family.

    Returns:
        The comparisons and the robustness entries, each with `p_holm`, and the sizes of the families.
    """
    ps = [one["p"] if one["family"] == "primary" else None for one in compared]
    sizes = {"primary": len(run["primary"])}
    main = holm(ps, sizes["primary"])
    others = [one["p"] if one["family"] == "secondary" else None for one in compared]
    others += [one["p"] for one in robustness]
    sizes["secondary"] = sum(p is not None for p in others)
    rest = holm(others)
    within = [one if two is None else two for one, two in zip(main, rest[: len(compared)], strict=True)]
    return (
        [{**one, "p_holm": p} for one, p in zip(compared, within, strict=True)],
        [{**one, "p_holm": p} for one, p in zip(robustness, rest[len(compared) :], strict=True)],
        sizes,
    )


def token_changes(run: Json, cells: Cells) -> Iterator[Json]:
    """How much longer each arm's generated answers are than those of the baseline with the same prompt."""
    arms = {arm["id"]: arm for arm in run["arms"]}
    generated = [one["id"] for one in run["benchmarks"] if one["kind"] == "generate"]
    for arm, against in _against_baseline(run["arms"]):
        for benchmark in generated:
            if (arm, benchmark) not in cells or (against, benchmark) not in cells:
                continue
            pairs = _pairs(arms, cells, arm, against, benchmark)
            mine, other = (lengths([pair[side] for pair in pairs]) for side in (0, 1))
            if mine is None or other is None:
                continue
            longer = [one - its for one, its in zip(mine, other, strict=True)]
            design = Design.of(row for row, _ in pairs)
            yield {
                "arm": arm,
                "against": against,
                "benchmark": benchmark,
                "mean": sum(mine) / len(mine),
                "other": sum(other) / len(other),
                "difference": sum(longer) / len(longer),
                "interval": list(bootstrap(longer, design, draws=LENGTH_DRAWS)),
            }


def random_means(run: Json, cells: Cells) -> Iterator[Json]:
    """The mean of all random vectors compared with the baseline, and as a share of v's gain.

    The intervals are over documents, for these random vectors; they do not cover other seeds.
    """
    arms = {arm["id"]: arm for arm in run["arms"]}
    for benchmark in (one["id"] for one in run["benchmarks"]):
        seeds = [arm for arm in arms if arms[arm]["kind"] == "random" and (arm, benchmark) in cells]
        if not seeds or ("baseline", benchmark) not in cells:
            continue
        gains = [_gains(arms, cells, seed, benchmark) for seed in seeds]
        mean = [sum(one) / len(seeds) for one in zip(*gains, strict=True)]
        design = Design.of(cells["baseline", benchmark].rows.values())
        found: Json = {
            "benchmark": benchmark,
            "seeds": len(seeds),
            "difference": sum(mean) / len(mean),
            "interval": list(difference_interval(mean, design)),
            "share": None,
            "share_interval": None,
        }
        if ("plus", benchmark) in cells:
            gain = _gains(arms, cells, "plus", benchmark)
            if ends := ratio_interval(mean, gain, design):
                found |= {"share": sum(mean) / sum(gain), "share_interval": list(ends)}
        yield found


def _wanted(run: Json, first: list[_Triple]) -> Iterator[_Triple]:
    """The comparisons of every study, and then those that only the primary family adds."""
    pairs = [*_against_baseline(run["arms"]), *_controls(run["arms"])]
    by_rule = [(*pair, one["id"]) for pair in pairs for one in run["benchmarks"]]
    yield from by_rule
    yield from (one for one in first if one not in by_rule)


def _against_baseline(arms: list[Json]) -> Iterator[tuple[str, str]]:
    """Each arm with its baseline, and the think baseline with the plain one."""
    by_id = {arm["id"]: arm for arm in arms}
    for arm in arms:
        # Every run has the baseline of each arm, so a missing one means damage (KeyError).
        against = by_id["baseline-think" if arm["id"] == "plus-think" else "baseline"]
        if arm is not against:
            yield arm["id"], against["id"]


def _controls(arms: list[Json]) -> Iterator[tuple[str, str]]:
    """The controls: +v with asking for steps, both together with neither, and +v with each random vector."""
    ids = {arm["id"] for arm in arms}
    if "baseline-think" in ids:
        yield "plus", "baseline-think"
    if "plus-think" in ids:
        yield "plus-think", "baseline"
    for arm in arms:
        if arm["kind"] == "random":
            yield "plus", arm["id"]


def _pairs(arms: Json, cells: Cells, arm: str, against: str, benchmark: str) -> list[tuple[Json, Json]]:
    same: bool = arms[arm]["prompt"] == arms[against]["prompt"]
    return paired(cells[arm, benchmark], cells[against, benchmark], same_prompt=same)


def _scores(pairs: list[tuple[Json, Json]]) -> tuple[list[float], list[float]]:
    return [float(mine["correct"]) for mine, _ in pairs], [float(other["correct"]) for _, other in pairs]


def _gains(arms: Json, cells: Cells, arm: str, benchmark: str) -> list[float]:
    """An arm's score minus the baseline's, for each document."""
    mine, other = _scores(_pairs(arms, cells, arm, "baseline", benchmark))
    return [one - its for one, its in zip(mine, other, strict=True)]
