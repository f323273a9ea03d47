"""What several test files share."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from taskvec.demo_family import write_family

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature family, to be read only: folders base, sft, grpo and instruct."""
    root = tmp_path_factory.mktemp("family")
    write_family(root, seed=0)
    return root


@pytest.fixture
def taskvec(tmp_path: Path) -> Callable[..., Answer]:
    """Runs the command line in a process of its own, in an empty folder."""

    def run(*args: str | Path, **environment: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "taskvec", *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONUTF8": "1", **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run
