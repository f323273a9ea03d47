"""Writes the test sets that ship with the package.

    python benches/mini/benchmarks.py python/taskvec/mini/tasks

The sets are the same every time: only a change of the generators or of how problems are split changes them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import problems


def row(problem: problems.Problem) -> dict[str, Any]:
    """A problem as the task files read it; where there are choices, they are whole answers."""
    if not problem.choices:
        return {"prompt": problem.prompt, "answer": problem.answer}
    choices = [f"#### {choice}" for choice in problem.choices]
    return {"prompt": problem.prompt, "choices": choices, "answer": problem.choices.index(problem.answer)}


def lines(task: str) -> str:
    """The JSONL of a benchmark's test set."""
    return "".join(json.dumps(row(problem)) + "\n" for problem in problems.held_out(task, "test"))


def main() -> None:
    """Writes one file a benchmark into the folder named."""
    folder = Path(sys.argv[1])
    for task in problems.BENCHMARKS:
        (folder / f"mini_{task}.jsonl").write_text(lines(task), encoding="utf-8")


if __name__ == "__main__":
    main()
