"""What the README shows is what happens: its commands and its Python run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hubserver import WRITER, Hub
from made_family import write_family

REPOSITORIES = {
    "Qwen/Qwen2.5-1.5B-Instruct": "instruct",
    "Qwen/Qwen2.5-7B-Instruct": "instruct",
    "SII-Enigma/Qwen2.5-7B-Ins-SFT-GRPO": "grpo",
    "SII-Enigma/Qwen2.5-7B-Ins-SFT-32k": "sft",
}
BOTH = "jayminbhan/RLVR-vs-SFT-Qwen2.5-1.5b-checkpoints"
README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(README.read_text(encoding="utf-8")) if kind == language]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_family(tmp_path, seed=0)
    run(tmp_path, "extract instruct base -o other-skill")
    return tmp_path


def run(folder: Path, command: str, **environment: str) -> None:
    line = f"{sys.executable} -W ignore -m taskvec {command}"
    env = {**os.environ, "PYTHONUTF8": "1", **environment}
    subprocess.run(line, shell=True, cwd=folder, check=True, env=env)


@pytest.fixture
def environment(hub: Hub, models: Path) -> dict[str, str]:
    """A Hub that has the models that the README names there, in miniature."""
    for repo, role in REPOSITORIES.items():
        hub.publish(repo, models / role)
    folders = {"GRPO_FOLDER": "grpo", "SFT_FOLDER": "sft"}
    hub.publish(
        BOTH,
        {
            f"{folder}/{path.name}": path.read_bytes()
            for folder, role in folders.items()
            for path in (models / role).iterdir()
        },
    )
    return hub.env(models / "home", HF_TOKEN=WRITER)


def test_the_commands(models: Path, environment: dict[str, str]) -> None:
    commands = [
        line.removeprefix("taskvec ")
        for block in blocks("")
        for line in block.replace("\\\n", "").splitlines()
        # The demo runs the study too; both take minutes, and .ci/run runs the one.
        if line.startswith("taskvec ") and "demo" not in line and "study" not in line
    ]
    assert len(commands) > 10, "the examples are still found"
    seen: set[str] = set()
    for command in commands:
        out = re.search(r"-o (\S+)", command)
        # The README writes `smarter` more than once, as ways to the same thing.
        again = out is not None and out[1] in seen
        run(models, f"{command.split('#')[0]} {'--overwrite' if again else ''}", **environment)
        if out:
            seen.add(out[1])
    assert {"smarter", "smarter-small", "skill", "both"} <= seen


def test_the_python(models: Path) -> None:
    pytest.importorskip("transformers")
    code = "\n".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=models, check=True, capture_output=True, text=True
    )
    assert float(done.stdout) == pytest.approx(1, abs=0.05)


def test_every_exit_code_is_told() -> None:
    from taskvec import errors

    text = README.read_text(encoding="utf-8")
    codes = {error.exit_code for error in vars(errors).values() if isinstance(error, type)} - {None}
    assert codes == {1, 2, 3, 4}
    for code in codes:
        assert f"| {code} |" in text
