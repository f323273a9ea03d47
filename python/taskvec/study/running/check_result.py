"""The result of `taskvec study check`: what a study would do, and how small an effect it can detect."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analysis.power import family_note, power_note
from .batch_size import ON_CPU

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...records import Json
    from .measure import Estimate
    from .preflight import Ready

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Checked:
    """A study that can run."""

    ready: Ready
    estimate: Estimate | None = None
    """The estimated time, memory and disk space; None if no batch was measured."""

    def to_json(self) -> Json:
        """The JSON object that `--json` prints."""
        run = self.ready.run
        return {
            "schema": "taskvec/study-check/1",
            **{key: run[key] for key in ("study", "versions", "device", "dtype", "inputs", "arms")},
            "benchmarks": [
                {**one, "power_note": power_note(one["n"], len(run["primary"]))} for one in run["benchmarks"]
            ],
            "primary": run["primary"],
            "code": self.ready.judge.described,
            "cells": len(self.ready.cells()),
            "generations": self.ready.generations,
            "choices": self.ready.decisions,
            "estimate": self.estimate and self.estimate.to_json(),
            "notes": list(self.ready.plan.notes),
            "warnings": list(self.ready.plan.warnings),
        }

    def lines(self) -> Iterator[str]:
        """The same as lines of text."""
        ready, run = self.ready, self.ready.run
        yield f"{ready.study.name}: {ready.study.about}"
        inputs = ", ".join(f"{one['role']} {one['name']}" for one in run["inputs"])
        yield f"  inputs      {inputs}: they fit together"
        yield f"  arms        {len(ready.arms)}: {'; '.join(arm.label for arm in ready.arms)}"
        yield f"  runs on     {run['device']} in {ready.dtype}, {_at_a_time(ready)} at a time"
        yield f"  to do       {ready.generations:,} answers to generate, {ready.decisions:,} choices to make"
        if self.estimate is not None:
            yield from self.estimate.lines()
        for one in run["benchmarks"]:
            shots = "1 shot" if one["shots"] == 1 else f"{one['shots']} shots"
            cap = f", at most {one['max_new_tokens']} new tokens" if one["max_new_tokens"] else ""
            scored = one["metric"] if one["filter"] == "none" else f"{one['metric']} after {one['filter']}"
            yield f"{one['title']} ({one['task']}): {one['n']:,} documents, {shots}{cap}, {scored}"
            if one["note"]:
                yield f"  note: {one['note']}"
        yield from self._data(run["benchmarks"])
        yield from self._power()
        yield from (f"note: {note}" for note in ready.plan.notes)
        yield from (f"warning: {warning}" for warning in ready.plan.warnings)

    def _data(self, benchmarks: list[Json]) -> Iterator[str]:
        """One line for each source of documents."""
        seen: dict[str, None] = {}
        for data in (each for one in benchmarks for each in one["data"]):
            where = data["repository"] or "files of its own"
            if data["files"]:
                where = f"{', '.join(data['files'])} instead of {where}"
            elif data["revision"]:
                where += f" at {data['revision'][:12]}"
            seen[where] = None
        for where in seen:
            yield f"data: {where}"
        if self.ready.judge.described:
            allowed = "allowed" if self.ready.judge.allowed else "run needs --allow-code-execution"
            yield f"code of the model: sandboxed by {self.ready.judge.described}; {allowed}"

    def _power(self) -> Iterator[str]:
        """Lines on how small an effect the primary comparisons can detect."""
        primary = self.ready.run["primary"]
        sizes = {one["id"]: (one["title"], one["n"]) for one in self.ready.run["benchmarks"]}
        asked = list(dict.fromkeys(one["benchmark"] for one in primary))
        for line in family_note([sizes[one] for one in asked], len(primary)):
            yield from textwrap.wrap(line, _WIDTH, subsequent_indent="  ")


def _at_a_time(ready: Ready) -> str:
    if ready.study.batch_size != "auto":
        return str(ready.study.batch_size)
    return str(ON_CPU) if ready.device == "cpu" else "as many prompts as fit"
