"""Made-up RUN folders: outcomes in, the files that a finished or interrupted study leaves out."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


ARMS: dict[str, dict[str, Any]] = {
    "baseline": {"label": "instruct", "kind": "baseline"},
    "plus": {"label": "+v", "kind": "plus", "alpha": 1.0},
    "baseline-think": {"label": "instruct, think", "kind": "baseline", "prompt": "think"},
    "plus-think": {"label": "+v, think", "kind": "plus", "prompt": "think", "alpha": 1.0},
    "minus": {"label": "−v", "kind": "minus", "alpha": -1.0},
    **{f"random-{n}": {"label": f"random {n}", "kind": "random", "alpha": 1.0, "seed": n} for n in (1, 2, 3)},
    **{f"alpha-{a:g}": {"label": f"{a:g} v", "kind": "sweep", "alpha": a} for a in (0.25, 0.5, 0.75, 1.5)},
    "minuend": {"label": "grpo", "kind": "donor"},
    "subtrahend": {"label": "sft", "kind": "donor"},
}


def outcomes(n: int, right: int, first: int = 0) -> list[float]:
    """n documents of which `right` are answered rightly, from document `first` on, around the end."""
    return [float((at - first) % n < right) for at in range(n)]


def effect(
    alpha: float | None, gain: float = 1.0, norm: float = 2.0, cosine: float = 1.0
) -> dict[str, Any] | None:
    """An arm's totals, or those of a tensor, as rounding would have left them."""
    if alpha is None:
        return None
    return {
        "norm_v": norm,
        "norm_requested": norm * abs(alpha),
        "norm_effective": norm * abs(alpha) * gain / cosine,
        "gain": gain,
        "cosine": cosine,
        "changed": 0.3,
        "survival": 0.9,
        "grid_noise": None,
        "nonfinite_inputs": 0,
        "overflowed": 0,
    }


def write_run(
    folder: Path,
    cells: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    arms: Sequence[str] | None = None,
    benchmarks: Mapping[str, Mapping[str, Any]] | None = None,
    rows: Mapping[str, Mapping[str, Any]] | None = None,
    gains: Mapping[str, float] | None = None,
    study: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a RUN folder.

    Args:
        folder: Where; made if need be.
        cells: Scores by arm and benchmark, one per document.
        arms: The study's arms; by default those of `cells`.
        benchmarks: What to change in `run.json`'s entry of each benchmark.
        rows: What to change in the sample rows of a cell, "ARM.BENCHMARK"; a callable gets the document's
            number.
        gains: Effective gain by arm, where it is not 1.
        study: What to change in the study.
        run: What else to change in `run.json`.
    """
    for name in ("samples", "arms"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lengths = {name: len(scores) for cell in cells.values() for name, scores in cell.items()}
    entries = [
        {
            "id": name,
            "title": name.capitalize(),
            "task": f"mini_{name}",
            "version": 1,
            "kind": "generate",
            "metric": "exact_match",
            "filter": "strict",
            "shots": 0,
            "max_new_tokens": 80,
            "limit": None,
            "n": n,
            "note": None,
            "of": None,
            "parent": None,
            "sweep": True,
            "perturbation": None,
            "readings": [],
            "data": [
                {
                    "task": f"mini_{name}",
                    "repository": f"made/{name}",
                    "configuration": None,
                    "revision": "0" * 40,
                    "fingerprint": "f" * 16,
                    "files": None,
                }
            ],
            "subtasks": [],
            **(benchmarks or {}).get(name, {}),
        }
        for name, n in lengths.items()
    ]
    chosen = [
        {"id": name, "prompt": "plain", "alpha": None, "seed": None, **ARMS[name]} for name in arms or cells
    ]
    written = {
        "schema": "taskvec/run/1",
        "identity": {},
        "study": {
            "schema": "taskvec/study/1",
            "name": "made-up",
            "about": "Does the vector do what it should?",
            "alpha": 1.0,
            "think": "Think step by step.",
            "batch_size": 16,
            "rounding": "nearest",
            "backend": "hf",
            "benchmarks": [{"id": name, "sweep": True} for name in lengths],
            **(study or {}),
        },
        "versions": {"taskvec": "0.1.0", "python": "3.11.7", "torch": "2.15.0"},
        "device": "cpu",
        "dtype": "float32",
        "inputs": [
            {"role": role, "name": name, "digest": hashlib.md5(name.encode()).hexdigest()}
            for role, name in (("target", "instruct"), ("minuend", "grpo"), ("subtrahend", "sft"))
        ],
        "arms": chosen,
        "benchmarks": entries,
        "primary": [
            {"arm": "plus", "against": "baseline", "benchmark": one["id"]}
            for one in entries
            if one["parent"] is None
        ],
        "study_digest": "d1" * 16,
        "command": "taskvec study run made-up -o RUN",
        "started": "2026-11-24T12:00:00Z",
        **(run or {}),
    }
    write_json(folder / "run.json", written)
    for arm in chosen:
        gain = (gains or {}).get(arm["id"], 1.0)
        made = effect(arm["alpha"], gain)
        tensors = [
            {"name": name, **(effect(arm["alpha"], gain, norm, cosine=0.8) or {})}
            for name, norm in (
                ("model.norm.weight", 0.0),
                ("model.layers.10.mlp.up_proj.weight", 4.0),
                ("model.layers.10.mlp.down_proj.weight", 3.0),
                ("model.layers.2.mlp.up_proj.weight", 1.0),
                ("model.embed_tokens.weight", 2.0),
            )
        ]
        write_json(
            folder / "arms" / f"{arm['id']}.json",
            {"effect": made, "tensors": tensors if made else None, "seconds": 0.5},
        )
    for arm in chosen:
        for name, scores in cells.get(arm["id"], {}).items():
            changes = (rows or {}).get(f"{arm['id']}.{name}", {})
            lines = [sample(number, score, arm["prompt"], changes) for number, score in enumerate(scores)]
            write_lines(folder / "samples" / f"{arm['id']}.{name}.jsonl", lines)
    return folder


def sample(number: int, score: float, prompt: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A sample row; a change that can be called is given the document's number."""
    row = {
        "doc_id": number,
        "doc_hash": f"doc {number}",
        "prompt_hash": f"{prompt} {number}",
        "task": "made",
        "cluster": None,
        "question": f"Which is number {number}?",
        "target": str(number),
        "response": f"#### {number}",
        "answer": str(number) if score else "?",
        "correct": score,
        "extracted": True,
        "empty": False,
        "touched": None,
        "readings": {},
        "verdict": None,
        "tokens": 10 + number % 5,
        "truncated": False,
        "prompt_tokens": 20,
        "seconds": 0.25,
    }
    return row | {key: value(number) if callable(value) else value for key, value in changes.items()}


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def typical(n: int = 500) -> dict[str, dict[str, list[float]]]:
    """All arms on four benchmarks, with the outcome that the built-in family is expected to have."""

    def spread(share: float, first: float = 0.0) -> list[float]:
        return outcomes(n, round(share * n), round(first * n))

    levels = {
        "baseline": (0.46, 0.80, 0.30, 0.62),
        "plus": (0.974, 0.99, 0.72, 0.63),
        "baseline-think": (0.97, 0.985, 0.71, 0.62),
        "plus-think": (0.976, 0.99, 0.72, 0.63),
        "minus": (0.25, 0.79, 0.19, 0.60),
        "random-1": (0.468, 0.80, 0.31, 0.62),
        "random-2": (0.452, 0.796, 0.29, 0.624),
        "random-3": (0.474, 0.804, 0.304, 0.616),
        "alpha-0.25": (0.52, 0.81, 0.34, 0.62),
        "alpha-0.5": (0.98, 0.96, 0.55, 0.63),
        "alpha-0.75": (0.978, 0.99, 0.73, 0.63),
        "alpha-1.5": (0.83, 0.97, 0.70, 0.62),
        "minuend": (0.995, 0.50, 0.25, 0.55),
        "subtrahend": (0.56, 0.52, 0.24, 0.56),
    }
    names = ("chain", "logic", "list", "order")
    return {
        arm: {name: spread(share, 0.005 * at) for name, share in zip(names, shares, strict=True)}
        for at, (arm, shares) in enumerate(levels.items())
    }
