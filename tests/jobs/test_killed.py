"""Workers and commits that are killed, stopped, doubled: a job comes to the same end."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import taskvec
from hostile import SLOW, call, finish, refused, run, start, sums, trio
from parted import assert_equal, record, staged

if TYPE_CHECKING:
    from collections.abc import Iterator

ELEMENTS = 36 << 20
HOW = SLOW[:4]
EXTRACT = ("--threads", "1", "--memory", "24MiB")
# Locks as a network file system without a lock service answers: there are none.
NO_LOCKS = r"""
#include <errno.h>
int flock(int fd, int how) { (void)fd; (void)how; errno = ENOLCK; return -1; }
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    """The target is in two files, so that a job has two parts."""
    root = tmp_path_factory.mktemp("trio")
    yield trio(root, ELEMENTS)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def single(
    inputs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    """What single runs write."""
    root = tmp_path_factory.mktemp("single")
    taskvec.transfer(*inputs, root / "transfer", rounding="stochastic")
    taskvec.extract(inputs[0], inputs[2], root / "extract")
    yield {"transfer": root / "transfer", "extract": root / "extract"}
    shutil.rmtree(root)


@pytest.fixture
def job(inputs: tuple[Path, Path, Path], tmp_path: Path) -> Iterator[taskvec.Job]:
    yield plan("transfer", inputs, tmp_path)
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="module")
def no_locks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has no locks."""
    root = tmp_path_factory.mktemp("library")
    (root / "locks.c").write_text(NO_LOCKS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", root / "locks.so", root / "locks.c"], check=True)
    # A path in LD_PRELOAD ends at a space; a bare name is looked up in folders, whose names may have some.
    folders = [str(root), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    preloaded = {"LD_PRELOAD": "locks.so", "LD_LIBRARY_PATH": ":".join(folders)}
    return {**os.environ, **preloaded, "TASKVEC_SIMD": "scalar", "PYTHONUTF8": "1"}


def plan(verb: str, inputs: tuple[Path, Path, Path], root: Path) -> taskvec.Job:
    given = inputs if verb == "transfer" else (inputs[0], inputs[2])
    more: dict[str, Any] = {"rounding": "stochastic"} if verb == "transfer" else {}
    return taskvec.plan(verb, *given, out=root / "out", parts=2, job=root / "job", **more)


def command(job: taskvec.Job, part: int, how: tuple[str, ...] = HOW) -> list[str]:
    return ["run", job.folder, "--part", str(part), *how, "--json"]


def journals(job: taskvec.Job) -> list[Path]:
    return sorted((Path(job.folder) / "attempts").glob("*.journal"))


def stop_midway(process: subprocess.Popen[str], job: taskvec.Job, size: int, number: signal.Signals) -> None:
    """Sends a signal once some attempt has journalled so much."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        if any(path.stat().st_size >= size for path in journals(job)):
            process.send_signal(number)
            return
        time.sleep(0.0005)
    raise AssertionError("no journal")


def done(answer: tuple[int, str, str]) -> dict[str, Any]:
    assert answer[0] == 0, answer
    return json.loads(answer[1])


@pytest.mark.parametrize("verb", ["transfer", "extract"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_part_goes_on(
    verb: str,
    number: signal.Signals,
    inputs: tuple[Path, Path, Path],
    single: dict[str, Path],
    tmp_path: Path,
) -> None:
    job = plan(verb, inputs, tmp_path)
    how = HOW if verb == "transfer" else EXTRACT
    process = start(command(job, 1, how))
    stop_midway(process, job, 1500, number)
    code, _, told = finish(process)
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    assert number == signal.SIGKILL or "run the same command again to continue" in told
    assert job.status().missing == "0-1"
    refused(call(["commit", job.folder]), 1, "missing: 0-1")
    assert not record(job, 1).exists()
    assert done(run(command(job, 1, how)))["resumed_bytes"] > 1 << 20
    assert journals(job) == []
    done(run(command(job, 0, how)))
    job.commit()
    assert_equal(tmp_path / "out", single[verb])
    shutil.rmtree(tmp_path)


def test_killed_again_and_again(job: taskvec.Job, single: dict[str, Path], tmp_path: Path) -> None:
    for size in (300, 1500, 3000):
        process = start(command(job, 0))
        stop_midway(process, job, size, signal.SIGKILL)
        finish(process)
    assert len(journals(job)) == 3
    # The newest is torn, an older one is of another job, and one has nothing.
    longest = max(journals(job), key=lambda path: path.stat().st_size)
    longest.write_bytes(longest.read_bytes()[:-7])
    journals(job)[0].write_bytes(b"")
    assert done(run(command(job, 0)))["resumed_bytes"] > 4 << 20
    done(run(command(job, 1)))
    job.commit()
    assert_equal(tmp_path / "out", single["transfer"])


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_what_a_killed_worker_wrote_is_read_again(
    damage: str, job: taskvec.Job, single: dict[str, Path], tmp_path: Path
) -> None:
    process = start(command(job, 1))
    stop_midway(process, job, 2000, signal.SIGKILL)
    finish(process)
    path = staged(tmp_path / "out", "model-00002-of-00002.safetensors")
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[(2 << 20) + 5] ^= 1
        path.write_bytes(content)
    assert done(run(command(job, 1)))["resumed_bytes"] == (2 << 20 if damage == "flipped" else 0)
    done(run(command(job, 0)))
    job.commit()
    assert_equal(tmp_path / "out", single["transfer"])


def test_a_second_worker_is_refused(job: taskvec.Job, single: dict[str, Path], tmp_path: Path) -> None:
    process = start(command(job, 0))
    stop_midway(process, job, 400, signal.SIGSTOP)
    refused(run(command(job, 0)[:-1]), 4, "another worker has it", "run the part again later")
    # The other part is free, and the commit says what it waits for.
    done(run(command(job, 1)))
    refused(call(["commit", job.folder]), 1, "missing: 0")
    process.send_signal(signal.SIGCONT)
    assert finish(process)[0] == 0
    job.commit()
    assert_equal(tmp_path / "out", single["transfer"])


def test_two_workers_on_one_part(
    job: taskvec.Job, single: dict[str, Path], tmp_path: Path, no_locks: dict[str, str]
) -> None:
    """Where there are no locks, both write the same bytes to the same places."""
    both = [start_without_locks(job, 0, no_locks) for _ in range(2)]
    assert [finish(process)[0] for process in both] == [0, 0]
    assert done(run(command(job, 0)))["already"]
    done(run(command(job, 1)))
    job.commit(verify=True)
    assert_equal(tmp_path / "out", single["transfer"])


def start_without_locks(job: taskvec.Job, part: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "taskvec", *command(job, part)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_an_orphan_that_goes_on_after_the_commit(
    job: taskvec.Job, single: dict[str, Path], tmp_path: Path, no_locks: dict[str, str]
) -> None:
    orphan = start_without_locks(job, 0, no_locks)
    stop_midway(orphan, job, 1500, signal.SIGSTOP)
    for part in (0, 1):
        done(finish(start_without_locks(job, part, no_locks)))
    job.commit()
    before = sums(tmp_path / "out")
    orphan.send_signal(signal.SIGCONT)
    answer = done(finish(orphan))
    assert answer["already"]
    assert sums(tmp_path / "out") == before == sums(single["transfer"])
    assert taskvec.verify(tmp_path / "out").ok
    assert job.status().committed


def test_a_disk_that_is_full(job: taskvec.Job, single: dict[str, Path], tmp_path: Path) -> None:
    """A file may not become as long as it has to be."""
    least = 10 << 20
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (least, least))}
    refused(run(command(job, 0)[:-1], **limit), 4, "model-00001-of-00002.safetensors", "cannot")
    assert job.status().missing == "0-1"
    for part in range(2):
        done(run(command(job, part)))
    job.commit()
    assert_equal(tmp_path / "out", single["transfer"])


def test_a_record_that_disagrees(job: taskvec.Job, tmp_path: Path) -> None:
    """It cannot be: the plan decides every byte. So memory or a disk is bad, and nobody hides it."""
    from xxhash import xxh3_128_digest

    done(run(command(job, 0)))
    content, _ = record(job, 0).read_text().splitlines()
    document = json.loads(content)
    document["files"][0]["xxh3_128"] = "0" * 32
    text = json.dumps(document).encode()
    digest = xxh3_128_digest(xxh3_128_digest(text)).hex()
    record(job, 0).write_bytes(text + b"\n" + digest.encode() + b"\n")
    assert job.status().missing == "1"
    os.utime(staged(tmp_path / "out", "model-00001-of-00002.safetensors"))
    refused(
        run(command(job, 0)[:-1]), 3, "part-00000.json", "which cannot be", "check the memory and the disks"
    )
