"""What a transfer is measured against: the floor, built here, and mergekit in its own environment."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

MERGEKIT = "mergekit==0.1.5"
READS = ("mmap", "pread", "direct")
WRITES = ("buffered", "direct")


class FloorMode(NamedTuple):
    """How the floor reads and writes, and with how many threads."""

    read: str
    write: str
    threads: int

    def __str__(self) -> str:
        """As the table names it."""
        return f"{self.read} in, {self.write} out, {self.threads} threads"


def floor_modes() -> list[FloorMode]:
    """Every mode worth a try: more threads than cores keep the cores busy while a direct write waits."""
    cores = len(os.sched_getaffinity(0))
    return [FloorMode(*mode) for mode in itertools.product(READS, WRITES, (cores, 2 * cores))]


def build_floor(folder: Path) -> Path:
    """Compiles `floor.rs` and returns the program."""
    program = folder / "floor"
    source = Path(__file__).with_name("floor.rs")
    subprocess.run(["rustc", "-O", "--edition", "2024", "-o", program, source], check=True)
    return program


def floor_command(
    program: Path, output: Path, inputs: list[Path], mode: FloorMode, durable: bool
) -> list[str]:
    """How the floor is called."""
    modes = ["--read", mode.read, "--write", mode.write, "--threads", mode.threads]
    return [str(word) for word in (program, output, *inputs, *modes, *(["--fsync"] if durable else []))]


def install_mergekit(folder: Path) -> Path:
    """Makes mergekit's environment (torch makes it 5 GB) unless it is there; returns its `python`."""
    environment = folder / "mergekit"
    python = environment / "bin" / "python"
    # The freeze is taken last, so that an environment that has one is finished.
    freeze = environment / "freeze.txt"
    if not freeze.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-cache-dir", MERGEKIT]
        subprocess.run(install, check=True)
        with freeze.open("wb") as file:
            subprocess.run([python, "-m", "pip", "freeze"], check=True, stdout=file)
    return python


def mergekit_versions(folder: Path) -> str:
    """The versions that bear on its speed."""
    lines = (folder / "mergekit" / "freeze.txt").read_text(encoding="utf-8").splitlines()
    return ", ".join(
        line for line in lines if line.partition("==")[0] in ("mergekit", "torch", "safetensors")
    )


def mergekit_command(python: Path, work: Path, output: Path, inputs: list[Path], alpha: str) -> list[str]:
    """`linear` with weights 1, α and −α, summed in float32: the same arithmetic, as a user asks for it."""
    weights = (1.0, float(alpha), -float(alpha))
    recipe = {
        "merge_method": "linear",
        "models": [
            {"model": str(folder), "parameters": {"weight": weight}}
            for folder, weight in zip(inputs, weights, strict=True)
        ],
        "parameters": {"normalize": False},
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    path = work / "mergekit.yml"
    # JSON is YAML.
    path.write_text(json.dumps(recipe, indent=2), encoding="utf-8")
    return [str(python.with_name("mergekit-yaml")), str(path), str(output), "--no-copy-tokenizer"]
