"""Computes the figures of one arm on one benchmark from its sample rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .design import Design
from .intervals import LENGTH_DRAWS, bootstrap, score_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...records import Json
    from ..rundir.samples import Samples

Cells = dict[tuple[str, str], "Samples"]
"""The finished cells of a run, by arm and benchmark."""


def cell(samples: Samples, benchmark: Json) -> Json:
    """A cell of `results.json`.

    Raises:
        KeyError: A row does not have one of the benchmark's readings.
    """
    rows = list(samples.rows.values())
    design, scores = Design.of(rows), samples.scores
    readings = {name: [float(row["readings"][name]) for row in rows] for name in benchmark["readings"]}
    tokens = lengths(rows)
    return {
        "n": len(scores),
        "score": sum(scores) / len(scores),
        "interval": list(score_interval(scores, design)),
        "extraction_failures": _unreadable(rows),
        "empty": samples.mean("empty"),
        "truncated": samples.mean("truncated"),
        "mean_tokens": samples.mean("tokens"),
        "tokens_interval": tokens and list(bootstrap(tokens, design, draws=LENGTH_DRAWS)),
        "seconds": None if samples.mean("seconds") is None else _total(rows),
        "touched": samples.mean("touched"),
        "readings": {
            name: {"score": sum(of) / len(of), "interval": list(score_interval(of, design))}
            for name, of in readings.items()
        },
        "subtasks": _subtasks(rows, benchmark["subtasks"]),
        "samples": f"samples/{samples.file.name}",
    }


def lengths(rows: Sequence[Json]) -> list[float] | None:
    """The number of new tokens of each answer; None if it is not known for all of them."""
    known = [float(row["tokens"]) for row in rows if row["tokens"] is not None]
    return known if len(known) == len(rows) else None


def _unreadable(rows: Sequence[Json]) -> float | None:
    """Share of outputs that are blank or in which the filter found no answer; None if not known."""
    if all(row["empty"] is None and row["extracted"] is None for row in rows):
        return None
    return sum(bool(row["empty"]) or row["extracted"] is False for row in rows) / len(rows)


def _total(rows: Sequence[Json]) -> float:
    return sum(float(row["seconds"] or 0.0) for row in rows)


def _subtasks(rows: Sequence[Json], names: Sequence[str]) -> Json:
    """Number of documents and mean score of each task of a group, in the group's order."""
    found: Json = {}
    for name in names:
        scores = [float(row["correct"]) for row in rows if row["task"] == name]
        found[name] = {"n": len(scores), "score": sum(scores) / len(scores)}
    return found
