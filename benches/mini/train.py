"""Trains the miniature family from scratch on a CPU.

    python benches/mini/train.py --seed 0 --out FOLDER

Writes base, instruct, sft and grpo as checkpoint folders: instruct and sft from base as stored, grpo from
sft. One thread, some ten minutes; the same seed gives the same bytes on the same machine with the same
releases. `log.json` says what was done. Needs the dependency group `mini` beside the extra `eval`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before the imports below, which read them: nothing here needs the network.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

import corpus
import models
import torch
import words
from fit import fit

PARENTS = {"base": None, "instruct": "base", "sft": "base", "grpo": "sft"}


def _supervised(model: Any, stage: str, tokenizer: Any, seed: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in fit(model, stage, list(corpus.documents(stage, seed)), tokenizer, seed):
        print(stage, row, flush=True)
        rows.append(row)
    return rows


def _stage(stage: str, root: Path, seed: int) -> dict[str, Any]:
    """Trains one checkpoint and writes it; returns its part of the log."""
    start = time.monotonic()
    parent, folder = PARENTS[stage], root / stage
    # Every stage has a generator of its own: one can be made again alone.
    torch.manual_seed(seed)
    model = models.load(root / parent) if parent else models.fresh()
    words.write_tokenizer(folder)
    tokenizer = models.tokenizer(folder)
    if stage == "grpo":
        from reinforce import reinforce

        rows = reinforce(model, tokenizer, seed, root / "scratch")
        print(*rows, sep="\n", flush=True)
    else:
        rows = _supervised(model, stage, tokenizer, seed)
    models.save(model, folder, stage)
    return {"stage": stage, "seconds": round(time.monotonic() - start), "rows": rows}


def main() -> None:
    """Reads the command line, trains what is asked for and writes the log."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--stages", nargs="+", default=list(PARENTS), choices=list(PARENTS), help="default: all"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("trl").setLevel(logging.ERROR)
    for stage in options.stages:
        (options.out / stage).mkdir(parents=True, exist_ok=True)
    log = {
        "seed": options.seed,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "trl", "tokenizers")},
        "stages": [_stage(stage, options.out, options.seed) for stage in options.stages],
    }
    (options.out / "log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
