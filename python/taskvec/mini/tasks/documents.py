"""Reads the test sets for lm-eval, which finds this file by the `!function` in the tasks' YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def load(name: str, **_: object) -> dict[str, Any]:
    """The splits of a task, which has one, `test`. lm-eval passes the task's metadata too."""
    import datasets  # pyright: ignore[reportMissingTypeStubs]

    lines = Path(__file__).with_name(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {"test": datasets.Dataset.from_list(rows)}  # pyright: ignore[reportUnknownMemberType]
