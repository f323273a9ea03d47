"""What `taskvec study check` says: what a study would do, and how small an effect it could show."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analysis.power import power_note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...records import Json
    from .preflight import Ready

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Checked:
    """A study that can run."""

    ready: Ready

    def to_json(self) -> Json:
        """What `--json` prints."""
        run = self.ready.run
        return {
            "schema": "taskvec/study-check/1",
            **{key: run[key] for key in ("study", "versions", "device", "dtype", "inputs", "arms")},
            "benchmarks": [{**one, "power_note": power_note(one["n"])} for one in run["benchmarks"]],
            "cells": len(self.ready.cells()),
            "generations": self.ready.generations,
            "choices": self.ready.decisions,
            "notes": list(self.ready.plan.notes),
        }

    def lines(self) -> Iterator[str]:
        """The same for people."""
        ready, run = self.ready, self.ready.run
        yield f"{ready.study.name}: {ready.study.about}"
        inputs = ", ".join(f"{one['role']} {one['name']}" for one in run["inputs"])
        yield f"  inputs      {inputs}: they fit together"
        yield f"  arms        {len(ready.arms)}: {'; '.join(arm.label for arm in ready.arms)}"
        yield f"  runs on     {run['device']} in {ready.dtype}, {ready.study.batch_size} at a time"
        yield f"  to do       {ready.generations:,} answers to generate, {ready.decisions:,} choices to make"
        for one in run["benchmarks"]:
            shots = "1 shot" if one["shots"] == 1 else f"{one['shots']} shots"
            cap = f", at most {one['max_new_tokens']} new tokens" if one["max_new_tokens"] else ""
            scored = one["metric"] if one["filter"] == "none" else f"{one['metric']} after {one['filter']}"
            yield f"{one['title']} ({one['task']}): {one['n']:,} documents, {shots}{cap}, {scored}"
            if one["note"]:
                yield f"  note: {one['note']}"
        for n in sorted({one["n"] for one in run["benchmarks"]}):
            yield from textwrap.wrap(power_note(n), _WIDTH)
        yield from (f"note: {note}" for note in ready.plan.notes)
