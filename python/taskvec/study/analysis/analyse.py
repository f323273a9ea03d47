"""Makes the results of a run folder: reads the cells, compares arms, corrects tests, and draws conclusions.

Everything is computed from the samples, so a report can always be made again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CorruptError, UsageError
from ..rundir.reading import as_written, read_json
from ..rundir.results import SCHEMA, Results
from ..rundir.run_folder import read_run
from ..rundir.samples import Samples, read
from . import power
from .cells import Cells, cell
from .changed_answers import changed_answers
from .comparisons import comparisons, corrected, random_means, token_changes
from .conclusions import conclude
from .design import Design
from .exact_tests import LEVEL
from .robustness import robustness
from .vector_shape import vector_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...records import Json

_CARRIED = ("study", "study_digest", "command", "started", "versions", "device", "dtype", "inputs")


def load(path: str | Path) -> Results:
    """The results of a run folder, computed from its samples, or those in a results.json.

    Raises:
        UsageError: The path is neither of the two.
        StorageError: A file cannot be read.
        CorruptError: A file is damaged, or files do not belong together.
    """
    path = Path(path)
    if path.is_dir():
        return build(path)
    found = read_json(path)
    if found.get("schema") != SCHEMA:
        raise UsageError(f"{path} is not a {SCHEMA}; name a RUN folder or the results.json in one")
    with as_written(str(path), "make it again from its RUN folder"):
        return Results.from_json(found)


def build(folder: Path) -> Results:
    """The results of a run folder, finished or not.

    Raises:
        UsageError: It is not a run folder.
        MismatchError: Its schema is not one that this version reads.
        StorageError: A file in it cannot be read.
        CorruptError: A file in it is damaged, or two do not belong together.
    """
    run = read_run(folder)
    with as_written(f"{folder}: its run.json, an arm or a sample", "run it again with --overwrite"):
        return _built(folder, run)


def _built(folder: Path, run: Json) -> Results:
    wanted = list(_wanted(run))
    made = {arm["id"]: _made(folder, arm["id"]) for arm in run["arms"]}
    cells: Cells = {}
    for arm, benchmark in wanted:
        path = folder / "samples" / f"{arm}.{benchmark['id']}.jsonl"
        if path.exists():
            cells[arm, benchmark["id"]] = _complete(read(path), benchmark["n"])
    compared, robust, families = corrected(run, list(comparisons(run, cells)), list(robustness(run, cells)))
    missing = [f"{arm}.{benchmark['id']}" for arm, benchmark in wanted if (arm, benchmark["id"]) not in cells]
    found: Json = {
        "schema": SCHEMA,
        **{key: run[key] for key in _CARRIED},
        "sandbox": run.get("sandbox"),
        "batch_sizes": run.get("batch_sizes", {}),
        "generation": run.get("generation", {"used": {}, "unused": {}}),
        "vector": vector_shape(made["plus"]["tensors"], run.get("target_norms", {})),
        "benchmarks": [_benchmark(run, one, cells, families) for one in run["benchmarks"]],
        "arms": [{**arm, **made[arm["id"]], "cells": _cells(run, arm, cells)} for arm in run["arms"]],
        "comparisons": compared,
        "families": families,
        "tests": sum(families.values()),
        "token_changes": list(token_changes(run, cells)),
        "random_means": list(random_means(run, cells)),
        "robustness": robust,
        "changed_answers": list(changed_answers(run, cells)),
        "conclusions": [],
        "complete": not missing,
        "missing": missing,
    }
    found["conclusions"] = conclude(Results.from_json(found))
    return Results.from_json(found)


def _wanted(run: Json) -> Iterator[tuple[str, Json]]:
    """The cells of the study.

    Arms of the sweep run only on benchmarks with `sweep`. On derived benchmarks only the baseline and +v run,
    with the plain prompt.
    """
    for arm in run["arms"]:
        for benchmark in run["benchmarks"]:
            if benchmark["parent"] is not None:
                asked = arm["id"] in ("baseline", "plus")
            else:
                asked = arm["kind"] != "sweep" or benchmark["sweep"]
            if asked:
                yield arm["id"], benchmark


def _made(folder: Path, arm: str) -> Json:
    """What was recorded when an arm's weights were made; all None if they have not been made yet."""
    file = folder / "arms" / f"{arm}.json"
    if not file.exists():
        return {"effect": None, "seconds": None, "tensors": None}
    found = read_json(file)
    return {key: found[key] for key in ("effect", "seconds", "tensors")}


def _complete(samples: Samples, n: int) -> Samples:
    if len(samples.rows) != n:
        raise CorruptError(
            f"{samples.file} holds {len(samples.rows)} of the benchmark's {n} documents; delete it and"
            f" run again"
        )
    return samples


def _cells(run: Json, arm: Json, cells: Cells) -> Json:
    return {
        benchmark["id"]: cell(cells[arm["id"], benchmark["id"]], benchmark)
        for benchmark in run["benchmarks"]
        if (arm["id"], benchmark["id"]) in cells
    }


def _benchmark(run: Json, benchmark: Json, cells: Cells, families: Json) -> Json:
    """A benchmark with the power of its tests, in the primary family if it is in that, else the secondary."""
    n, named = benchmark["n"], {one["benchmark"] for one in run["primary"]}
    tests = max(1, families["primary" if benchmark["id"] in named else "secondary"])
    level = LEVEL / tests
    smallest = [
        {"changed": share, "difference": power.smallest_effect(n, share, level)} for share in power.SHARES
    ]
    note = power.power_note(n, tests)
    scored = next((one for (_, name), one in cells.items() if name == benchmark["id"]), None)
    if scored and Design.of(scored.rows.values()).clustered:
        note += " That is for independent documents; here some share a seed question, so they show less."
    within = {"level": level, "power": power.POWER, "smallest": smallest}
    return {**benchmark, "power": within, "power_note": note}
