"""Chooses α on the development sets, then runs the two studies, and HumanEval with consent.

    python benches/real/run.py WORK
    python benches/real/run.py WORK --allow-code-execution

WORK is what `fetch.py` and `train.py` have filled. The same command goes on with what was interrupted. Each
run is a folder with its report: `WORK/run-dev` chose α, `WORK/run`, `WORK/run-sibling`, `WORK/run-code`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def study(name: str, work: Path, alpha: float, out: str, options: list[str]) -> Path:
    """Writes a study with its α into the work folder and runs it there; returns the run's folder."""
    text = (HERE / f"{name}.yaml").read_text(encoding="utf-8")
    file = work / f"{name}.yaml"
    file.write_text(text.replace("\nalpha: 1\n", f"\nalpha: {alpha:g}\n"), encoding="utf-8")
    command = [sys.executable, "-m", "taskvec", "study", "run", str(file), "-o", str(work / out), *options]
    # No request is made of the Hub, not even for the data sets' own modules.
    subprocess.run(command, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    return work / out


def chosen(run: Path) -> float:
    """The α with the most right answers on the development sets together; of equals the smallest."""
    results: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    right = {
        arm["alpha"]: sum(cell["score"] * cell["n"] for cell in arm["cells"].values())
        for arm in sorted(results["arms"], key=lambda one: one["alpha"] or 0)
        if arm["alpha"] is not None
    }
    print("right answers on the development sets, by α:", {one: round(count) for one, count in right.items()})
    return max(right, key=lambda one: right[one])


def main() -> None:
    """Reads the command line and runs what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--allow-code-execution", action="store_true", help="HumanEval too")
    options = parser.parse_args()
    where = ["--device", options.device]
    alpha = chosen(study("dev", options.work, 1.0, "run-dev", where))
    study("study", options.work, alpha, "run", where)
    # α = 1, the whole of v: nothing was chosen here.
    study("sibling", options.work, 1.0, "run-sibling", where)
    if options.allow_code_execution:
        study("code", options.work, alpha, "run-code", [*where, "--allow-code-execution"])


if __name__ == "__main__":
    main()
