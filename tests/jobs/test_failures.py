"""Whatever goes wrong with a job in parts: one sentence, the right exit code, and no half of an output."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import taskvec
from families import read, write
from hostile import PARTIAL, call, refused
from parted import SHARDS, assert_equal, edit, family, record, run_all, staged
from taskvec import CorruptError, MismatchError, StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Inputs = tuple[Path, Path, Path]
FIRST = "model-00001-of-00005.safetensors"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Inputs, Path]]:
    """Inputs to be read only, and what a single run makes of them."""
    root = tmp_path_factory.mktemp("family")
    inputs = family(root)
    taskvec.transfer(*inputs, root / "single")
    yield inputs, root / "single"
    shutil.rmtree(root)


@pytest.fixture
def inputs(shared: tuple[Inputs, Path]) -> Inputs:
    return shared[0]


@pytest.fixture
def single(shared: tuple[Inputs, Path]) -> Path:
    return shared[1]


@pytest.fixture
def mine(inputs: Inputs, tmp_path: Path) -> Inputs:
    """Copies that a test may change, with the times of the originals."""
    t, g, s = (shutil.copytree(one, tmp_path / one.name) for one in inputs)
    return t, g, s


@pytest.fixture
def job(inputs: Inputs, tmp_path: Path) -> taskvec.Job:
    return planned(inputs, tmp_path)


def planned(inputs: Inputs, root: Path, parts: int = SHARDS, **more: Any) -> taskvec.Job:
    return taskvec.plan("transfer", *inputs, out=root / "out", parts=parts, job=root / "job", **more)


def finish(job: taskvec.Job, tmp_path: Path, single: Path) -> None:
    """Whatever went wrong, the job can be brought to its end."""
    for part in job.status().missing_parts:
        job.run(part)
    job.commit()
    assert_equal(tmp_path / "out", single)


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


def replace_bytes(folder: Path) -> str:
    path = folder / FIRST
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return "was changed since the job was planned"


def replace_size(folder: Path) -> str:
    path = folder / FIRST
    size = path.stat().st_size
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes((start).to_bytes(8, "little") + content[8:start] + b"        " + content[start:])
    assert path.stat().st_size == size + 8
    return f"has {size + 8} bytes, but had {size} when the job was planned"


def replace_header(folder: Path) -> str:
    path = folder / FIRST
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:start].replace(b'"pt"', b'"tf"') + content[start:])
    assert path.read_bytes() != content
    return "has another header than when the job was planned"


def replace_config(folder: Path) -> str:
    edit(folder / "config.json", lambda config: config.update(new=1))
    return "has another configuration than when the job was planned"


def replace_index(folder: Path) -> str:
    edit(folder / "model.safetensors.index.json", lambda index: index["metadata"].update(new=1))
    return "has another index than when the job was planned"


def replace_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").write_text('{"model":{}}')
    return "when the job was planned"


def add_file(folder: Path) -> str:
    (folder / "new.txt").write_text("new")
    return "was not there when the job was planned"


def remove_file(folder: Path) -> str:
    (folder / "sub" / "code.py").unlink()
    return "was there when the job was planned, and is not now"


CHANGES = [
    replace_bytes, replace_size, replace_header, replace_config, replace_index, replace_tokenizer, add_file,
    remove_file,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
def test_an_input_changed_between_parts(change: Callable[[Path], str], mine: Inputs, tmp_path: Path) -> None:
    job = planned(mine, tmp_path)
    run_all(job, [0, 1, 2])
    what = change(mine[0])
    refused(call(["run", job.folder, "--part", "3"]), 3, str(mine[0]), what, "restore it, or plan anew")
    refused(call(["run", job.folder, "--part", "4", "--quiet"]), 3, what)
    assert job.status().missing == "3-4"
    assert list((Path(job.folder) / "attempts").glob("*.journal")) == []


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.__name__)
def test_an_input_changed_before_the_commit(
    change: Callable[[Path], str], mine: Inputs, tmp_path: Path
) -> None:
    job = planned(mine, tmp_path)
    run_all(job)
    what = change(mine[0])
    refused(call(["commit", job.folder]), 3, what)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [PARTIAL]


def test_an_input_is_gone(mine: Inputs, tmp_path: Path) -> None:
    job = planned(mine, tmp_path)
    shutil.rmtree(mine[1])
    assert call(["run", job.folder, "--part", "0"])[0] in (3, 4)


def test_a_copy_with_the_same_times_will_do(mine: Inputs, tmp_path: Path, single: Path) -> None:
    """Other inodes and times of attributes, as another client of a file system may show them."""
    job = planned(mine, tmp_path)
    run_all(job, [0, 1])
    for folder in mine:
        shutil.copytree(folder, tmp_path / "copy")
        shutil.rmtree(folder)
        (tmp_path / "copy").rename(folder)
    finish(job, tmp_path, single)


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
    assert sorted(path.name for path in tmp_path.iterdir() if path != free) == ["full"]


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


def test_a_donor_that_is_damaged_leaves_no_part(mine: Inputs, tmp_path: Path) -> None:
    """A file whose header is sound and whose data end too early is refused by the plan itself."""
    path = mine[2] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptError, match=r"model\.safetensors"):
        planned(mine, tmp_path)
    assert not (tmp_path / "job").exists()
