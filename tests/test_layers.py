"""The study's wings stand in a row, and each imports only what stands before it."""

from __future__ import annotations

import ast
from pathlib import Path

import taskvec.study

STUDY = Path(taskvec.study.__file__).parent
WINGS = ("spec", "rundir", "scoring", "analysis", "reporting", "running")


def upwards(root: Path, wings: tuple[str, ...]) -> list[str]:
    """Import lines that run against the order of the wings."""
    found: list[str] = []
    for at, wing in enumerate(wings):
        for path in sorted((root / wing).rglob("*.py")):
            depth = len(path.relative_to(root).parts)
            for node in ast.walk(ast.parse(path.read_text())):
                # Two dots from a file of a wing are the study itself, three from a room within a wing.
                if isinstance(node, ast.ImportFrom) and node.level == depth:
                    named = (node.module or "").partition(".")[0]
                    names = [named] if named else [alias.name for alias in node.names]
                    found += [
                        f"{path.relative_to(root)}:{node.lineno} imports {name}"
                        for name in names
                        if name in wings[at + 1 :]
                    ]
    return found


def test_no_import_runs_upwards() -> None:
    assert upwards(STUDY, WINGS) == []


def test_every_folder_of_the_study_is_a_wing() -> None:
    folders = {path.name for path in STUDY.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(WINGS)


def test_an_import_that_runs_upwards_is_seen(tmp_path: Path) -> None:
    (tmp_path / "low" / "room").mkdir(parents=True)
    (tmp_path / "high").mkdir()
    (tmp_path / "low" / "one.py").write_text(
        "from ..high.two import x\nfrom .. import high\nfrom .other import y\n"
    )
    (tmp_path / "low" / "room" / "three.py").write_text("def f():\n    from ...high import z\n")
    (tmp_path / "high" / "two.py").write_text("from ..low import one\n")
    assert upwards(tmp_path, ("low", "high")) == [
        "low/one.py:1 imports high", "low/one.py:2 imports high", "low/room/three.py:2 imports high",
    ]  # fmt: skip
