"""Shows how a study was run: command, date, inputs, data with revisions, settings, versions, study file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..analysis.phrases import settings
from .html import Row, element, folded, table, terms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rundir.results import Benchmark, Data, Results

_MANY = 8
"""The number of rows from which the table of data is folded."""


def provenance(results: Results) -> Iterator[str]:
    """Everything that is needed to repeat the study."""
    study = results.study
    backend = study.get("backend", "hf")
    yield terms(
        [
            ("command", results.command),
            ("started", results.started),
            ("study digest", results.study_digest),
            *((one.role, f"{one.name} ({one.digest})") for one in results.inputs),
            ("think line", study.get("think")),
            ("rounding", study.get("rounding")),
            ("backend", backend if isinstance(backend, str) else ", ".join(backend)),
            ("device", results.device),
            ("dtype", results.dtype),
            ("batch size", _batch_size(results)),
            ("generation config", _generation(results)),
            ("code of the model", results.sandbox and f"run in a sandbox: {results.sandbox}"),
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
    data = [(one, entry) for one in results.benchmarks if one.parent is None for entry in one.data]
    if data:
        rows = table(
            "Data",
            "repository or files, its commit, and the fingerprint of the rows",
            ("benchmark", "task", "from", "configuration", "revision", "fingerprint"),
            (_data(one, entry) for one, entry in data),
        )
        yield rows if len(data) < _MANY else folded(f"Data: {len(data)} tasks with their revisions", rows)
    text = json.dumps(results.to_json()["study"], ensure_ascii=False, indent=2)
    yield folded("The study file, with defaults filled in", element("pre", text))


def _batch_size(results: Results) -> str:
    said = str(results.study.get("batch_size"))
    found = ", ".join(f"{name} {size}" for name, size in results.batch_sizes.items())
    return f"{said}: {found}" if found else said


def _generation(results: Results) -> str | None:
    """Which settings of the target's generation config were used, and which were not."""
    used, unused = (settings(results.generation[which]) for which in ("used", "unused"))
    said = [
        used and f"used for every arm: {used}",
        unused and f"not used, since answers are greedy: {unused}",
    ]
    return "; ".join(filter(None, said)) or None


def _asked(one: Benchmark) -> Row:
    row = Row(one.title).add(one.task, "text").add(one.version).add(one.kind, "text")
    row.add(one.metric, "text").add(one.filter, "text")
    for number in (one.shots, one.max_new_tokens, one.limit, one.n):
        row.add(number)
    return row.add(one.note, "prose")


def _data(benchmark: Benchmark, entry: Data) -> Row:
    row = Row(benchmark.title).add(entry.task, "text")
    row.add(", ".join(entry.files) if entry.files else entry.repository, "prose")
    return row.add(entry.configuration, "text").add(entry.revision, "digest").add(entry.fingerprint, "digest")
