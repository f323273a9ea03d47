"""Problems with many tensors are told as one: how many there are, and three of their names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hostile import call, checkpoint, noise, refused
from taskvec import check

if TYPE_CHECKING:
    from pathlib import Path

    from hostile import Answer


def family(root: Path, own: int, donors: int) -> list[Path]:
    """A target and two donors with so many tensors of their own names, and one that all have."""
    folders: list[Path] = []
    for role, count in (("t", own), ("g", donors), ("s", donors)):
        names = [f"{'t' if role == 't' else 'd'}.{at}.weight" for at in range(count)]
        folders.append(checkpoint(root / role, {name: noise(1, 8) for name in ["both", *names]}, shards=2))
    return folders


def problems(answer: Answer) -> list[str]:
    return [line for line in answer[1].splitlines() if line.startswith("problem: ")]


def test_missing_tensors_are_counted(tmp_path: Path) -> None:
    folders = family(tmp_path, 3, 1200)
    answer = call(["check", *folders])
    assert answer[0] == 1
    (line,) = problems(answer)
    wanted = (
        "1,200 tensors of the minuend are not in the target, such as `d.0.weight`, `d.1.weight`, "
        "`d.2.weight`; exclude them (--exclude) if the target does not need them"
    )
    assert line == f"problem: {folders[1] / 'model-00001-of-00002.safetensors'}: {wanted}"
    said = refused(call(["transfer", *folders, "-o", tmp_path / "out"]), 1, wanted, str(folders[1]))
    assert "more" not in said


def test_all_are_listed_on_request(tmp_path: Path) -> None:
    folders = family(tmp_path, 3, 60)
    assert len(problems(call(["check", *folders, "--verbose"]))) == 60
    listed = json.loads(call(["check", *folders, "--json"])[1])["problems"]
    plan = check(*folders)
    assert [one["tensor"] for one in listed] == [one.tensor for one in plan.problems]
    assert len(plan.problems) == 60
    assert plan.problems[59].tensor == "d.59.weight"
    assert plan.problems[59].file == str(folders[1] / "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(("role", "lacking"), [("g", "subtrahend"), ("s", "minuend")])
def test_of_which_donor_they_are_is_said(role: str, lacking: str, tmp_path: Path) -> None:
    folders = [
        checkpoint(tmp_path / one, {f"{at}.w": noise(1, 8) for at in range(9 if one in ("t", role) else 2)})
        for one in "tgs"
    ]
    (line,) = problems(call(["check", *folders]))
    other = "minuend" if lacking == "subtrahend" else "subtrahend"
    assert f"7 tensors of the {other} are not in the {lacking}, such as `2.w`, `3.w`, `4.w`; " in line


def test_few_are_told_one_by_one_and_kinds_apart(tmp_path: Path) -> None:
    shapes = {"t": 8, "g": 4, "s": 4}
    folders = [
        checkpoint(
            tmp_path / role,
            {f"{at}.w": noise(1, size) for at in range(5)}
            | {f"{at}.m": noise(1, size * 2).reshape(2, size) for at in range(2)},
        )
        for role, size in shapes.items()
    ]
    lines = problems(call(["check", *folders]))
    assert len(lines) == 3
    assert (
        "5 tensors, such as `0.w`, `1.w`, `2.w`, have this problem: its shape is [8] in the target"
        in lines[0]
    )
    assert ["`0.m`" in lines[1], "`1.m`" in lines[2]] == [True, True]
    refused(
        call(["transfer", *folders, "-o", tmp_path / "out"]), 1, "(and 2 more; `taskvec check` lists them)"
    )


def test_a_prefix_is_still_suggested(tmp_path: Path) -> None:
    folders = [
        checkpoint(
            tmp_path / role, {f"{prefix}layers.{at}.w": np.zeros(4, np.uint16) for at in range(300)}, shards=3
        )
        for role, prefix in (("t", "model."), ("g", ""), ("s", ""))
    ]
    (line,) = problems(call(["check", *folders]))
    assert line.endswith("; the names differ only by a prefix, so give --strip-prefix model.")
    assert call(["check", *folders, "--strip-prefix", "model."])[0] == 0
