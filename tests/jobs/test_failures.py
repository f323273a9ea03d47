"""Whatever goes wrong with a job in parts: one sentence, the right exit code, and no half of an output."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from hostile import PARTIAL, call, refused
from parted import FIRST, Inputs, assert_equal, finish, planned, record, run_all, staged
from taskvec import StorageError

if TYPE_CHECKING:
    from pathlib import Path

    import taskvec


def test_parts_are_missing(job: taskvec.Job, tmp_path: Path, single: Path) -> None:
    job.run(1)
    status = job.status()
    assert (status.done, status.missing, status.missing_parts) == (1, "0,2-4", [0, 2, 3, 4])
    assert 0 < status.bytes_done < status.bytes
    code, said, _ = call(["status", job.folder])
    assert code == 1
    assert "missing: 0,2-4" in said
    refused(call(["commit", job.folder]), 1, "parts are missing: 0,2-4; run them, and commit again")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [PARTIAL]
    finish(job, tmp_path, single)
    assert call(["status", job.folder])[0] == 0


def test_a_part_that_is_done_is_left_alone(job: taskvec.Job) -> None:
    job.run(2)
    before = record(job, 2).read_bytes()
    again = job.run(2)
    assert again.already
    assert record(job, 2).read_bytes() == before


def test_commit_once_more(job: taskvec.Job, tmp_path: Path, single: Path) -> None:
    run_all(job)
    assert call(["commit", job.folder])[0] == 0
    code, said, told = call(["commit", job.folder])
    assert code == 0
    assert "committed already" in told
    assert "wrote" in said
    assert job.status().committed
    assert job.run(3).already
    # Neither weights nor inputs are needed to say so, nor is a staging folder that a stopped commit left.
    (tmp_path / "out" / PARTIAL).mkdir()
    (tmp_path / "out" / PARTIAL / "lock").touch()
    assert call(["commit", job.folder])[0] == 0
    assert_equal(tmp_path / "out", single)


def test_the_output_is_not_what_was_committed(job: taskvec.Job, tmp_path: Path) -> None:
    run_all(job)
    job.commit()
    (tmp_path / "out" / "taskvec.json").write_text("{}")
    for command in (["commit", job.folder], ["status", job.folder]):
        refused(call(command), 1, "taskvec.json", "plan a new job")


@pytest.mark.parametrize("damage", ["torn", "altered", "empty", "no sum", "binary"])
def test_a_damaged_record_counts_as_missing(
    damage: str, job: taskvec.Job, tmp_path: Path, single: Path
) -> None:
    run_all(job)
    path = record(job, 3)
    content = path.read_bytes()
    damaged = {
        "torn": content[:-40], "altered": content.replace(b'"part":3', b'"part":4'), "empty": b"",
        "no sum": content.splitlines()[0], "binary": b"\xff\x00" + content,
    }  # fmt: skip
    path.write_bytes(damaged[damage])
    status = job.status()
    assert status.missing == "3"
    assert status.problems[0].why is not None
    assert "the record is damaged" in status.problems[0].why
    refused(call(["commit", job.folder]), 1, "missing: 3", "part-00003.json", "damaged")
    assert not job.run(3).already
    finish(job, tmp_path, single)


def test_a_record_of_another_job(inputs: Inputs, job: taskvec.Job, tmp_path: Path, single: Path) -> None:
    other = planned(inputs, tmp_path / "other", alpha=0.5)
    other.run(0)
    run_all(job, [1, 2, 3, 4])
    shutil.copy(record(other, 0), record(job, 0))
    for command in (["status", job.folder], ["commit", job.folder], ["run", job.folder, "--part", "0"]):
        refused(call(command), 1, "part-00000.json", "belongs to another plan; delete it")
    record(job, 0).unlink()
    finish(job, tmp_path, single)


def test_a_record_of_another_part(job: taskvec.Job, tmp_path: Path, single: Path) -> None:
    run_all(job)
    shutil.copy(record(job, 0), record(job, 1))
    refused(call(["commit", job.folder]), 1, "part-00001.json", "does not describe part 1")
    record(job, 1).unlink()
    finish(job, tmp_path, single)


@pytest.mark.parametrize("how", ["longer", "touched", "gone", "replaced"])
def test_a_file_changed_after_its_part(how: str, job: taskvec.Job, tmp_path: Path, single: Path) -> None:
    run_all(job)
    path = staged(tmp_path / "out", FIRST)
    if how == "longer":
        path.write_bytes(path.read_bytes() + b"\0")
    elif how == "touched":
        os.utime(path)
    elif how == "gone":
        path.unlink()
    else:
        shutil.copyfile(staged(tmp_path / "out", FIRST.replace("1-", "2-")), path)
    why = "is gone" if how == "gone" else "was changed after its part was done"
    refused(call(["commit", job.folder]), 1, "missing: 0", FIRST, why)
    assert job.status().problems[0].part == 0
    assert not job.run(0).already
    finish(job, tmp_path, single)


def test_damage_that_only_reading_finds(job: taskvec.Job, tmp_path: Path, single: Path) -> None:
    """The same length and the same time: nothing but `--verify`, or `verify` afterwards, can know."""
    run_all(job)
    path = staged(tmp_path / "out", FIRST)
    time, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))
    assert job.status().missing == ""
    refused(call(["commit", job.folder, "--verify"]), 1, FIRST, "is not what part 0 wrote; run part 0 again")
    assert job.status().missing == "0"
    finish(job, tmp_path, single)


def test_the_folder_of_the_job_is_gone(job: taskvec.Job, tmp_path: Path) -> None:
    job.run(0)
    shutil.rmtree(job.folder)
    for command in (["run", job.folder, "--part", "1"], ["status", job.folder], ["commit", job.folder]):
        refused(call(command), 4, "plan.json", "No such file")
    with pytest.raises(StorageError, match=r"plan\.json"):
        job.run(1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [PARTIAL]


def test_the_staging_folder_is_gone(job: taskvec.Job, tmp_path: Path, single: Path) -> None:
    run_all(job, [0, 1, 2])
    shutil.rmtree(tmp_path / "out")
    assert job.status().missing == "0-4"
    finish(job, tmp_path, single)
