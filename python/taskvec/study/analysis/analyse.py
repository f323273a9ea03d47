"""From a RUN folder to its results: reads the cells, compares arms, corrects the tests, says what they show.

All of it comes from the samples, so a report can always be made again.
"""

from __future__ import annotations

import re
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CorruptError, UsageError
from ..rundir.results import SCHEMA, Results, as_written, read_json
from ..rundir.run_folder import read_run
from ..rundir.samples import Samples, paired, read
from . import power, statistics
from .conclusions import conclude

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...records import Json

    _Cells = dict[tuple[str, str], Samples]

_CARRIED = ("study", "study_digest", "command", "started", "versions", "device", "dtype", "inputs")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def load(path: str | Path) -> Results:
    """The results of a RUN folder, worked out anew from its samples, or those that a results.json holds.

    Raises:
        UsageError: It is neither of the two.
        StorageError: It cannot be read.
        CorruptError: What it holds is damaged, or does not belong together.
    """
    path = Path(path)
    if path.is_dir():
        return build(path)
    found = read_json(path)
    if found.get("schema") != SCHEMA:
        raise UsageError(f"{path} is no {SCHEMA}; name a RUN folder or the results.json in one")
    with as_written(str(path), "make it again from its RUN folder"):
        return Results.from_json(found)


def build(folder: Path) -> Results:
    """The results of a RUN folder, finished or not.

    Raises:
        UsageError: It is no RUN folder.
        MismatchError: It is one of a later version.
        StorageError: A file in it cannot be read.
        CorruptError: A file in it is damaged, or two do not belong together.
    """
    run = read_run(folder)
    with as_written(f"{folder}: its run.json, an arm or a sample", "run it again with --overwrite"):
        return _built(folder, run)


def _built(folder: Path, run: Json) -> Results:
    wanted = list(_wanted(run))
    made = {arm["id"]: _made(folder, arm["id"]) for arm in run["arms"]}
    cells: _Cells = {}
    for arm, benchmark in wanted:
        path = folder / "samples" / f"{arm}.{benchmark['id']}.jsonl"
        if path.exists():
            cells[arm, benchmark["id"]] = _complete(read(path), benchmark["n"])
    comparisons = list(_comparisons(run, cells))
    corrected = statistics.holm([one["p"] for one in comparisons])
    missing = [f"{arm}.{benchmark['id']}" for arm, benchmark in wanted if (arm, benchmark["id"]) not in cells]
    found: Json = {
        "schema": SCHEMA,
        **{key: run[key] for key in _CARRIED},
        "vector": _vector(made["plus"]["tensors"], run.get("target_norms", {})),
        "benchmarks": [_benchmark(one) for one in run["benchmarks"]],
        "arms": [{**arm, **made[arm["id"]], "cells": _cells(run, arm, cells)} for arm in run["arms"]],
        "comparisons": [{**one, "p_holm": p} for one, p in zip(comparisons, corrected, strict=True)],
        "families": {"primary": 0, "secondary": sum(p is not None for p in corrected)},
        "tests": sum(p is not None for p in corrected),
        "token_changes": [],
        "random_means": [],
        "robustness": [],
        "changed_answers": [],
        "conclusions": [],
        "complete": not missing,
        "missing": missing,
    }
    found["conclusions"] = conclude(Results.from_json(found))
    return Results.from_json(found)


def _wanted(run: Json) -> Iterator[tuple[str, Json]]:
    """The cells that the study asks for: the sweep runs only on the benchmarks that take part in it."""
    swept = {one["id"]: one.get("sweep", True) for one in run["study"]["benchmarks"]}
    for arm in run["arms"]:
        for benchmark in run["benchmarks"]:
            if arm["kind"] != "sweep" or swept[benchmark["id"]]:
                yield arm["id"], benchmark


def _made(folder: Path, arm: str) -> Json:
    """What was recorded when an arm's weights were made; nothing is known of one that has not been yet."""
    file = folder / "arms" / f"{arm}.json"
    if not file.exists():
        return {"effect": None, "seconds": None, "tensors": None}
    found = read_json(file)
    return {key: found[key] for key in ("effect", "seconds", "tensors")}


def _complete(samples: Samples, n: int) -> Samples:
    if len(samples.rows) != n:
        raise CorruptError(
            f"{samples.file}: holds {len(samples.rows)} of the benchmark's {n} documents; delete it and"
            f" run again"
        )
    return samples


def _comparisons(run: Json, cells: _Cells) -> Iterator[Json]:
    for arm, against in _pairs(run["arms"]):
        for benchmark in run["benchmarks"]:
            keys = (arm["id"], benchmark["id"]), (against["id"], benchmark["id"])
            if keys[0] not in cells or keys[1] not in cells:
                continue
            same_prompt = arm["prompt"] == against["prompt"]
            mine, other = paired(cells[keys[0]], cells[keys[1]], same_prompt=same_prompt)
            found = statistics.compare(mine, other)
            yield {
                "arm": arm["id"],
                "against": against["id"],
                "benchmark": benchmark["id"],
                "n": found.n,
                "difference": found.difference,
                "interval": list(found.interval),
                "wrong_to_right": found.wrong_to_right,
                "right_to_wrong": found.right_to_wrong,
                "test": None if found.p is None else "mcnemar",
                "family": "secondary",
                "p": found.p,
            }


def _pairs(arms: list[Json]) -> Iterator[tuple[Json, Json]]:
    """Every arm and its baseline; asking and not asking; v and asking; v and each random vector."""
    by_id = {arm["id"]: arm for arm in arms}
    for arm in arms:
        against = "baseline-think" if arm["id"] == "plus-think" else "baseline"
        if arm["id"] != against:
            yield arm, by_id[against]
    if "baseline-think" in by_id:
        yield by_id["plus"], by_id["baseline-think"]
    for arm in arms:
        if arm["kind"] == "random":
            yield by_id["plus"], arm


def _cells(run: Json, arm: Json, cells: _Cells) -> Json:
    return {
        benchmark["id"]: _cell(cells[arm["id"], benchmark["id"]])
        for benchmark in run["benchmarks"]
        if (arm["id"], benchmark["id"]) in cells
    }


def _cell(samples: Samples) -> Json:
    scores, extracted = samples.scores, samples.mean("extracted")
    return {
        "n": len(scores),
        "score": sum(scores) / len(scores),
        "interval": list(statistics.score_interval(scores)),
        "extraction_failures": None if extracted is None else 1 - extracted,
        "empty": samples.mean("empty"),
        "truncated": samples.mean("truncated"),
        "mean_tokens": samples.mean("tokens"),
        "tokens_interval": None,
        "seconds": None,
        "touched": samples.mean("touched"),
        "readings": {},
        "subtasks": {},
        "samples": f"samples/{samples.file.name}",
    }


def _benchmark(benchmark: Json) -> Json:
    n = benchmark["n"]
    smallest = [{"changed": share, "difference": power.smallest_effect(n, share)} for share in power.SHARES]
    within = {"level": statistics.LEVEL, "power": power.POWER, "smallest": smallest}
    return {**benchmark, "power": within, "power_note": power.power_note(n)}


def _vector(tensors: list[Json] | None, targets: dict[str, float]) -> Json | None:
    """Norms by layer: tensors outside the layers stand alone, the embedding first."""
    if tensors is None:
        return None
    squares: dict[str, tuple[float, float | None]] = {}
    for tensor in tensors:
        norm, target = tensor["norm_v"], targets.get(tensor["name"])
        if norm is None:
            continue
        layer = _layer(tensor["name"])
        mine, its = squares.get(layer, (0.0, 0.0))
        squares[layer] = mine + norm**2, None if its is None or target is None else its + target**2
    layers = [
        {"layer": layer, "norm": sqrt(mine), "relative": sqrt(mine / its) if its else None, "cosine": None}
        for layer, (mine, its) in sorted(squares.items(), key=lambda item: _place(item[0]))
    ]
    return {"norm": sqrt(sum(mine for mine, _ in squares.values())), "layers": layers}


def _layer(name: str) -> str:
    found = _LAYER.search(name)
    return found[1] if found else name.removeprefix("model.").removesuffix(".weight")


def _place(layer: str) -> tuple[int, int, str]:
    """Embedding, layers by number, the rest."""
    if layer.isdigit():
        return 1, int(layer), ""
    return (0 if "emb" in layer or "wte" in layer else 2), 0, layer
