"""The typed results of jobs against JSON as the core writes it, and how the commands show them."""

from __future__ import annotations

import dataclasses
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

import taskvec
from hostile import call, trio
from taskvec.jobs.results import MissingPart

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def job(tmp_path: Path) -> taskvec.Job:
    folders = trio(tmp_path / "in", 6 << 10)
    return taskvec.plan("transfer", *folders, out=tmp_path / "out", parts=2, job=tmp_path / "job")


def assert_complete(result: Any, schema: str) -> None:
    """Every member of the document is a field, and no field is made up; it survives a pickle."""
    document = result.to_json()
    assert document["schema"] == schema
    fields = {field.name for field in dataclasses.fields(result)} - {"_json"}
    assert fields == document.keys() - {"schema"}
    assert pickle.loads(pickle.dumps(result)) == result
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.job = ""


def test_every_member_is_a_field(job: taskvec.Job) -> None:
    assert job.planned is not None
    assert_complete(job.planned, "taskvec/job-plan/1")
    assert_complete(job.run(0), "taskvec/part-result/1")
    assert_complete(job.run(0), "taskvec/part-result/1")
    assert_complete(job.status(), "taskvec/job-status/1")
    job.run(1)
    result = job.commit()
    assert result.to_json()["schema"] == "taskvec/result/1"
    status = job.status()
    assert_complete(status, "taskvec/job-status/1")
    assert status.result == result
    assert dataclasses.fields(MissingPart)[0].name == "part"


def test_what_the_commands_print(job: taskvec.Job, tmp_path: Path) -> None:
    code, said, _ = call(["run", job.folder, "--part", "0/2"])
    assert (code, said.startswith("part 0 of 2 (1 weight file, ")) == (0, True)
    assert "is done already" in call(["run", job.folder, "--part", "0"])[1]
    assert call(["run", job.folder, "--part", "1", "--quiet"])[1:] == ("", "")
    _, said, _ = call(["status", job.folder])
    assert said.startswith("2 of 2 parts done, ")
    code, said, _ = call(["commit", job.folder, "--json"])
    assert (code, json.loads(said)["out"]) == (0, str(tmp_path / "out"))
    assert f"committed: {tmp_path / 'out'}" in call(["status", job.folder])[1]
    told = call(["run", job.folder, "--part", "1", "--json"])[1]
    assert json.loads(told)["already"] is True


def test_a_job_that_is_opened_elsewhere(job: taskvec.Job) -> None:
    opened = taskvec.open_job(job.folder)
    assert (opened.folder, opened.parts, opened.planned) == (job.folder, 2, None)
    assert opened.asked == job.asked


def test_options_of_the_plan_hold_until_others_are_given(tmp_path: Path) -> None:
    folders = trio(tmp_path / "in", 6 << 10)
    job = taskvec.plan(
        "transfer", *folders, out=tmp_path / "out", parts=2, job=tmp_path / "job", threads=1, io="pread"
    )
    first = json.loads(call(["run", job.folder, "--part", "0", "--json"])[1])
    assert (first["threads"], first["io"]) == (1, "pread")
    second = json.loads(
        call(["run", job.folder, "--part", "1", "--json", "--io", "mmap", "--threads", "2"])[1]
    )
    assert (second["threads"], second["io"]) == (2, "mmap")
