"""Commits that meet each other, or that are killed: one output, complete or not there."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import taskvec
from hostile import PARTIAL, call, finish, refused, start, trio
from parted import assert_equal, edit


def test_two_commits_at_once(tmp_path: Path) -> None:
    """Twenty times: one manifest, and both say that it is done."""
    folders = trio(tmp_path / "in", 6 << 10)
    taskvec.transfer(*folders, tmp_path / "single")
    for attempt in range(20):
        root = tmp_path / str(attempt)
        job = taskvec.plan("transfer", *folders, out=root / "out", parts=2, job=root / "job")
        for part in range(2):
            job.run(part)
        both = [start(["commit", job.folder, "--json"]) for _ in range(2)]
        answers = [finish(process) for process in both]
        assert [code for code, _, _ in answers] == [0, 0], answers
        assert len({json.loads(said)["out"] for _, said, _ in answers}) == 1
        assert_equal(root / "out", tmp_path / "single")
        assert job.status().committed


def test_a_commit_killed_among_the_renames(tmp_path: Path) -> None:
    """Many small files beside the weights, so that the renames take long enough to be caught."""
    folders = trio(tmp_path / "in", 6 << 10)
    for number in range(2000):
        (folders[0] / f"extra-{number:04}.txt").write_text(str(number))
    taskvec.transfer(*folders, tmp_path / "single", sync=False)
    for attempt in range(10):
        root = tmp_path / str(attempt)
        job = taskvec.plan("transfer", *folders, out=root / "out", parts=2, job=root / "job", sync=False)
        for part in range(2):
            job.run(part)
        process = start(["commit", job.folder])
        note = root / "out" / PARTIAL / "commit.json"
        while not note.exists() and process.poll() is None:
            time.sleep(0.0002)
        process.kill()
        finish(process)
        moved = sum(1 for path in (root / "out").iterdir() if path.name != PARTIAL)
        if note.exists() and 0 < moved < 2000:
            break
    else:
        pytest.skip("the renames were too quick to be caught")
    assert not (root / "out" / "taskvec.json").exists()
    assert job.status().missing == ""
    result = job.commit()
    assert result.bytes.read == 0
    assert_equal(root / "out", tmp_path / "single")


def test_a_commit_killed_before_its_note(tmp_path: Path) -> None:
    """Everything is in place, but the job does not know it."""
    folders = trio(tmp_path / "in", 6 << 10)
    job = taskvec.plan("transfer", *folders, out=tmp_path / "out", parts=2, job=tmp_path / "job")
    for part in range(2):
        job.run(part)
    job.commit()
    order = [one["name"] for one in json.loads((tmp_path / "out" / "taskvec.json").read_bytes())["files"]]
    note = {"plan": job_id(job), "job": job_id(job), "files": [*order, "taskvec.json"]}
    (tmp_path / "out" / PARTIAL / "files").mkdir(parents=True)
    (tmp_path / "out" / PARTIAL / "commit.json").write_text(json.dumps(note))
    mark = {"id": job_id(job), "folder": job.folder}
    (tmp_path / "out" / PARTIAL / "job.json").write_text(json.dumps(mark))
    (Path(job.folder) / "done.json").unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert job.status().missing == ""
    assert job.run(0).already
    job.commit()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def job_id(job: taskvec.Job) -> str:
    return json.loads((Path(job.folder) / "plan.json").read_bytes())["id"]


def test_a_note_of_another_commit(tmp_path: Path) -> None:
    folders = trio(tmp_path / "in", 6 << 10)
    job = taskvec.plan("transfer", *folders, out=tmp_path / "out", parts=1, job=tmp_path / "job")
    job.run(0)
    job.commit()
    edit(Path(job.folder) / "done.json", lambda note: note.update(job="0" * 32))
    refused(call(["status", job.folder]), 1, "done.json", "is not of this job")
