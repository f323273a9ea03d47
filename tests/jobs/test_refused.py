"""Plans and runs that make no sense are refused, and folders stay as they were."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import taskvec
from families import read, write
from hostile import PARTIAL, call, refused
from parted import FIRST, SHARDS, Inputs, assert_equal, edit, finish, planned, run_all
from taskvec import MismatchError, UsageError


def test_another_version(job: taskvec.Job) -> None:
    path = Path(job.folder) / "plan.json"
    edit(path, lambda plan: plan["identity"].update(taskvec="9.9.9"))
    for command in (["run", job.folder, "--part", "0"], ["status", job.folder], ["commit", job.folder]):
        refused(call(command), 1, "planned by taskvec 9.9.9", f"this is taskvec {taskvec.__version__}")


@pytest.mark.parametrize("how", ["altered", "torn", "other schema", "parts"])
def test_a_damaged_plan(how: str, job: taskvec.Job) -> None:
    path = Path(job.folder) / "plan.json"
    if how == "torn":
        path.write_bytes(path.read_bytes()[:-30])
    elif how == "other schema":
        edit(path, lambda plan: plan.update(schema="taskvec/run/1"))
    elif how == "altered":
        edit(path, lambda plan: plan["asked"]["options"].update(seed=3))
    else:
        edit(path, lambda plan: plan["parts"].pop())
    for command in (["run", job.folder, "--part", "0"], ["status", job.folder], ["commit", job.folder]):
        refused(call(command), 3, "plan.json", "plan of a job" if how == "other schema" else "plan anew")


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("5", "there is no part 5: the job in"),
        ("0/4", "has 5 parts, not 4"),
        ("1/", "is not of the form"),
        ("x", "is not of the form"),
        ("-1", "is not of the form"),
        ("0/5/5", "is not of the form"),
    ],
)
def test_no_such_part(part: str, what: str, job: taskvec.Job) -> None:
    refused(call(["run", job.folder, f"--part={part}"]), 2, what)


def test_what_a_run_is_asked(job: taskvec.Job) -> None:
    refused(call(["run", job.folder]), 2, "name one part with --part I, or run all parts with --ray")
    refused(call(["run", job.folder, "--part", "0", "--ray"]), 2, "name one part")
    refused(call(["run", job.folder, "--part", "0", "--memory", "1kB"]), 2, "memory")
    with pytest.raises(UsageError, match="is not a number of parts"):
        job.run(-1)
    more: Any = {"dtype": "f32"}
    with pytest.raises(UsageError, match="dtype is decided by the plan; what a run may set is memory"):
        job.run(0, **more)


def test_more_parts_than_files(inputs: Inputs, tmp_path: Path) -> None:
    for parts in (SHARDS + 1, 10**6):
        with pytest.raises(UsageError, match=rf"has {SHARDS} file.*use --parts {SHARDS}$"):
            planned(inputs, tmp_path, parts=parts)
    with pytest.raises(UsageError, match="--parts is 0"):
        planned(inputs, tmp_path, parts=0)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_once_more(job: taskvec.Job, inputs: Inputs, tmp_path: Path, single: Path) -> None:
    job.run(0)
    again = planned(inputs, tmp_path)
    assert again.planned is not None
    assert again.planned.already
    assert again.status().missing == "1-4"
    for more in ({"parts": 4}, {"alpha": 0.5}):
        with pytest.raises(UsageError, match="holds the plan of another job"):
            planned(inputs, tmp_path, **more)
    finish(job, tmp_path, single)
    assert planned(inputs, tmp_path).status().committed


def test_folders_that_a_plan_cannot_have(inputs: Inputs, tmp_path: Path) -> None:
    def plan(out: Path, job: Path, **more: Any) -> None:
        taskvec.plan("transfer", *inputs, out=out, parts=2, job=job, **more)

    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    free = tmp_path / "free"
    for out, job, what in (
        (free, free / "job", "is inside the output"),
        (free / "out", free, "contains the output"),
        (free, free, "is the output"),
        (free, inputs[0] / "job", "is inside the input"),
        (inputs[1] / "out", free, "is inside the input"),
        (free, full, "contains file and no plan of a job"),
        (full, free, "exists and is not empty"),
        (free, full / "file", "is a file, but the job has to be a folder"),
    ):
        with pytest.raises(UsageError, match=what):
            plan(out, job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_what_a_job_has_is_nobody_elses(
    job: taskvec.Job, inputs: Inputs, tmp_path: Path, single: Path
) -> None:
    job.run(0)
    out = tmp_path / "out"
    command = ["transfer", *inputs, "-o", out]
    refused(call(command), 2, f"belongs to the job in {job.folder}", "commit that job, or delete")
    refused(call([*command, "--overwrite"]), 2, "belongs to the job in")
    with pytest.raises(UsageError, match="belongs to the job in"):
        taskvec.plan("transfer", *inputs, out=out, parts=2, job=tmp_path / "other")
    finish(job, tmp_path, single)


def test_files_that_came_into_the_output(job: taskvec.Job, tmp_path: Path) -> None:
    run_all(job)
    (tmp_path / "out" / "config.json").write_text("{}")
    refused(call(["commit", job.folder]), 2, "exists and is not empty")
    (tmp_path / "out" / "config.json").unlink()
    job.commit()


def test_an_output_is_replaced_only_by_the_commit(inputs: Inputs, tmp_path: Path, single: Path) -> None:
    shutil.copytree(inputs[1], tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    job = planned(inputs, tmp_path, overwrite=True)
    run_all(job)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()}
    job.commit()
    assert_equal(tmp_path / "out", single)


def test_an_unfinished_run_is_cleared_away_by_the_plan(inputs: Inputs, tmp_path: Path, single: Path) -> None:
    left = tmp_path / "out" / PARTIAL / "files" / FIRST
    left.parent.mkdir(parents=True)
    left.write_bytes(b"junk")
    job = planned(inputs, tmp_path)
    assert not left.exists()
    finish(job, tmp_path, single)


def more_than_the_target(inputs: Inputs, root: Path) -> list[Path]:
    """Donors with a tensor that the target does not have."""
    tensors = {**read(inputs[2]), "lm_head.weight": torch.zeros(3, 3).bfloat16()}
    return [write(root / role, tensors) for role in ("g", "s")]


def test_what_cannot_be_planned(inputs: Inputs, tmp_path: Path) -> None:
    where: dict[str, Any] = {"out": tmp_path / "out", "job": tmp_path / "job", "parts": 1}
    with pytest.raises(UsageError, match=re.escape("leave --encoding dense out")):
        taskvec.plan("extract", *inputs[1:], encoding="dense", **where)
    with pytest.raises(UsageError, match="verb 'combine' is not one of transfer, apply, graft, extract"):
        taskvec.plan("combine", *inputs[1:], **where)
    with pytest.raises(UsageError, match="transfer takes 3 inputs, not 2"):
        taskvec.plan("transfer", *inputs[1:], **where)
    with pytest.raises(UsageError, match="alphas is not an argument of transfer"):
        taskvec.plan("transfer", *inputs, alphas=[1, 2], **where)
    with pytest.raises(MismatchError, match=r"model\.safetensors.*lm_head"):
        taskvec.plan("transfer", inputs[0], *more_than_the_target(inputs, tmp_path / "in"), **where)
    code, _, told = call(["plan", "transfer", *inputs, "-o", where["out"], "--alphas", "1,2", "--parts", "1"])
    assert code == 2
    assert "--alphas" in told
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
