"""The wings of core, package and study have an order, and each imports only what comes before it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

# The sources, so that nothing needs to be built or installed.
PACKAGE = Path(__file__).parents[1] / "python" / "taskvec"
# From the bottom; a name is a folder or a file.
PACKAGE_WINGS = (
    "start", "errors", "records", "text", "options", "results", "check_result", "hub", "inputs", "card",
    "fit", "live", "vector", "verbs", "jobs", "algebra", "merging", "dry_run", "advice", "upload", "study",
    "cli",
    "__main__",
)  # fmt: skip
STUDY = PACKAGE / "study"
STUDY_WINGS = ("spec", "rundir", "scoring", "analysis", "reporting", "running")

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
        for path in [*sorted((root / wing).rglob("*.py")), *root.glob(f"{wing}.py")]:
            depth = len(path.relative_to(root).parts)
            for node in ast.walk(ast.parse(path.read_text())):
                # Two dots from a file of a wing are the root, three from a room within a wing.
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
    assert upwards(PACKAGE, PACKAGE_WINGS) == []
    assert upwards(STUDY, STUDY_WINGS) == []
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
        core, _, _ = path.read_text(encoding="utf-8").partition("## The package")
        wings = re.findall(line, core, re.MULTILINE)
        assert tuple(reversed(wings)) == CORE_WINGS, path


def test_a_file_fits_in_the_head_and_a_folder_in_the_eye() -> None:
    rust = (CORE, CORE.parent / "tests", CORE.parents[1] / "py" / "src")
    for root, ending, longest in (*((root, "rs", 400) for root in rust), (PACKAGE, "py", 300)):
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            files = list(folder.glob(f"*.{ending}"))
            assert len(files) <= 16, folder
            for path in files:
                assert len(path.read_text(encoding="utf-8").splitlines()) <= longest, path


def test_every_folder_and_file_of_the_package_has_its_place() -> None:
    data = {"mini", "studies", "__pycache__"}
    names = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - data
    names |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert names == set(PACKAGE_WINGS)
    folders = {path.name for path in STUDY.iterdir() if path.is_dir()} - data
    assert folders == set(STUDY_WINGS)


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
