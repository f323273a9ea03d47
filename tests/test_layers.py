"""The wings of the core and of the study stand in a row, and each imports only what stands before it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import taskvec.study

STUDY = Path(taskvec.study.__file__).parent
WINGS = ("spec", "rundir", "scoring", "analysis", "reporting", "running")

CORE = Path(__file__).parents[1] / "rust" / "core" / "src"
# From the bottom.
CORE_WINGS = (
    "numeric", "system", "codec", "storage", "format", "checkpoint", "source", "plan", "engine", "output",
    "verbs",
)  # fmt: skip
EVERYBODYS = {"control", "error", "text"}
_COMMENT = re.compile(r"//.*")
_PATH = re.compile(r"\b(?:crate|super::super(?:::super)*)::(\{[^;]*\}|\w+)")


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


def upwards_in_rust(root: Path, wings: tuple[str, ...]) -> list[str]:
    """Paths from the root of a crate that run against the order of its wings, in `use` lines or elsewhere.

    Comments may point to any place.
    """
    found: list[str] = []
    for at, wing in enumerate(wings):
        for path in sorted((root / wing).rglob("*.rs")):
            code = _COMMENT.sub("", path.read_text(encoding="utf-8"))
            for hit in _PATH.finditer(code):
                line = code.count("\n", 0, hit.start()) + 1
                names = re.findall(r"\w+", hit[1])
                found += [
                    f"{path.relative_to(root)}:{line} uses {name}"
                    for name in names
                    if name in wings[at + 1 :]
                ]
    return found


def test_no_import_runs_upwards() -> None:
    assert upwards(STUDY, WINGS) == []
    assert upwards_in_rust(CORE, CORE_WINGS) == []


def test_every_folder_and_file_of_the_core_has_its_place() -> None:
    assert {path.name for path in CORE.iterdir() if path.is_dir()} == set(CORE_WINGS)
    assert {path.stem for path in CORE.glob("*.rs")} == EVERYBODYS | {"lib"}


def test_every_list_of_the_wings_has_their_order() -> None:
    listed = {
        CORE / "lib.rs": r"^//! - `(\w+)`: ",
        CORE.parents[2] / "ARCHITECTURE.md": r"^\| `(\w+)` \| ",
    }
    for path, line in listed.items():
        wings = re.findall(line, path.read_text(encoding="utf-8"), re.MULTILINE)
        assert tuple(reversed(wings)) == CORE_WINGS, path


def test_the_core_in_numbers() -> None:
    """A file fits in the head, a folder in the eye."""
    for folder in CORE.iterdir():
        files = list(folder.rglob("*.rs"))
        assert len(files) <= 15, folder
        for path in files:
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


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


def test_a_path_that_runs_upwards_is_seen_in_rust(tmp_path: Path) -> None:
    for wing in ("low", "high"):
        (tmp_path / wing).mkdir()
    (tmp_path / "low" / "one.rs").write_text(
        "// crate::high may be spoken of\nuse crate::high::Two;\nuse crate::{error, high};\n"
        "fn f() { crate::high::g() }\nuse crate::low::three;\nuse super::super::high;\n"
    )
    (tmp_path / "high" / "two.rs").write_text("use crate::low::one;\n")
    assert upwards_in_rust(tmp_path, ("low", "high")) == [
        f"low/one.rs:{line} uses high" for line in (2, 3, 4, 6)
    ]
