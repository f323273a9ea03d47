"""Disks that are full or read-only, and outputs in the wrong place."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hostile import COMMAND, PARTIAL, checkpoint, noise, refused, run, sums, trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Trio = tuple[Path, Path, Path]

MIB = 1 << 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    root = tmp_path_factory.mktemp("trio")
    yield trio(root, 6 * MIB)
    shutil.rmtree(root)


class Disk:
    """A small file system in a mount namespace of its own, which ends with the process that holds it."""

    def __init__(self, mount: str, at: Path) -> None:
        at.mkdir()
        script = f'{mount} "$0" && echo ready && exec cat'
        self.holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script, str(at)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None
        if self.holder.stdout.readline() != "ready\n":
            _, why = self.holder.communicate()
            pytest.skip(f"cannot mount here: {why.strip()}")
        self.inside = at
        self.path = Path(f"/proc/{self.holder.pid}/root{at}")

    def run(self, *args: str | Path) -> tuple[int, str, str]:
        enter = ["nsenter", "-t", str(self.holder.pid), "-m"]
        done = subprocess.run([*enter, *COMMAND, *map(str, args)], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def fill(self, leave: int) -> None:
        """Takes all room but `leave` bytes."""
        stat = os.statvfs(self.path)
        with (self.path / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, stat.f_bavail * stat.f_frsize - leave)

    def free(self) -> None:
        (self.path / "ballast").unlink()

    def close(self) -> None:
        self.holder.communicate()


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    for tool in ("unshare", "nsenter", "mkfs.ext4"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    if request.param == "tmpfs":
        mount = "mount -t tmpfs -o size=200m none"
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(200 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
        mount = f"mount -o loop '{image}'"
    disk = Disk(mount, tmp_path / "disk")
    yield disk
    disk.close()


def test_too_little_room_is_said_before_the_work(disk: Disk, inputs: Trio, tmp_path: Path) -> None:
    out = disk.inside / "out"
    disk.fill(leave=5 * MIB)
    refused(
        disk.run("transfer", *inputs, "-o", out), 4, str(out), "bytes are still needed", "free some space"
    )
    assert not (disk.path / "out").exists(), "there is nothing yet that a second run could use"
    disk.free()
    assert disk.run("transfer", *inputs, "-o", out)[0] == 0
    assert run(["transfer", *inputs, "-o", tmp_path / "straight"])[0] == 0
    assert sums(disk.path / "out") == sums(tmp_path / "straight")


def test_room_for_every_output_of_a_sweep(disk: Disk, inputs: Trio, tmp_path: Path) -> None:
    """There would be room for one output, not for two."""
    out = disk.inside / "out"
    disk.fill(leave=20 * MIB)
    args = ("transfer", *inputs, "--alphas", "0.5,1", "-o")
    refused(disk.run(*args, out), 4, str(out), "bytes are still needed", "free some space")
    assert not (disk.path / "out").exists()
    disk.free()
    assert disk.run(*args, out)[0] == 0
    assert run([*args, tmp_path / "straight"])[0] == 0
    for name in ("alpha-0.5", "alpha-1"):
        assert sums(disk.path / "out" / name) == sums(tmp_path / "straight" / name)


@pytest.mark.parametrize(("encoding", "room"), [("dense", 26 * MIB), ("packed", 5 * MIB)])
def test_a_disk_that_fills_up_half_way(
    encoding: str, room: int, disk: Disk, inputs: Trio, tmp_path: Path
) -> None:
    """Neither exceptions nor the length of frames are foreseen, so that the room for them ends in mid-run."""
    out = disk.inside / "out"
    disk.fill(leave=room)
    args = ("extract", *inputs[1:], "--encoding", encoding, "--threads", "1", "--memory", "24MiB", "--json")
    code, stdout, stderr = disk.run(*args, "-o", out)
    assert code == 4, stderr
    assert stderr.count("\n") == 1
    assert "No space left" in stderr
    assert json.loads(stdout)["exit_code"] == 4
    assert [path.name for path in (disk.path / "out").iterdir()] == [PARTIAL]
    disk.free()
    code, stdout, stderr = disk.run(*args, "-o", out)
    assert code == 0, stderr
    assert json.loads(stdout)["engine"]["resumed_bytes"] > 0
    assert run([*args, "-o", tmp_path / "straight"])[0] == 0
    assert sums(disk.path / "out") == sums(tmp_path / "straight")


@pytest.mark.parametrize("kind", ["transfer", "dense", "packed"])
def test_a_limit_on_file_size(kind: str, inputs: Trio, tmp_path: Path) -> None:
    job = ("transfer", *inputs) if kind == "transfer" else ("extract", *inputs[1:], "--encoding", kind)
    args = (*job, "--threads", "1", "--memory", "24MiB")
    # Dense weights fit in both cases; the spool of the exceptions, or nothing, does not.
    limit = 13 * MIB if kind == "dense" else 6 * MIB

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out = tmp_path / "out"
    refused(run([*args, "-o", out], preexec_fn=limited), 4, str(out), "File too large")
    if kind != "transfer":
        assert [path.name for path in out.iterdir()] == [PARTIAL]
    else:
        assert not out.exists()
    code, stdout, stderr = run([*args, "-o", out, "--json"])
    assert code == 0, stderr
    assert (json.loads(stdout)["engine"]["resumed_bytes"] > 0) == (kind != "transfer")
    assert run([*args, "-o", tmp_path / "straight"])[0] == 0
    assert sums(out) == sums(tmp_path / "straight")


def as_nobody_special(command: list[str]) -> list[str]:
    """The command without root's right to pass over permissions."""
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    lost = "-dac_override,-dac_read_search,-fowner"
    return ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}", *command]


def test_a_parent_that_may_not_be_written(inputs: Trio, tmp_path: Path) -> None:
    parent = tmp_path / "locked"
    parent.mkdir(mode=0o555)
    command = as_nobody_special([*COMMAND, "transfer", *map(str, inputs), "-o", str(parent / "out")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    answer = (done.returncode, done.stdout, done.stderr)
    refused(answer, 4, str(parent / "out"), "cannot create", "Permission denied")
    assert list(parent.iterdir()) == []


def test_an_input_that_may_not_be_read(inputs: Trio, tmp_path: Path) -> None:
    target = shutil.copytree(inputs[0], tmp_path / "target")
    path = target / "model-00002-of-00002.safetensors"
    path.chmod(0)
    command = as_nobody_special([*COMMAND, "transfer", str(target), *map(str, inputs[1:]), "-o", "out"])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    refused((done.returncode, done.stdout, done.stderr), 4, str(path), "Permission denied")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def small(tmp_path: Path) -> Trio:
    """Three small checkpoints in the folder `models`."""
    return tuple(
        checkpoint(tmp_path / "models" / role, {"a": noise(seed, 50), "b": noise(seed + 10, 70)}, shards=2)
        for seed, role in enumerate(("t", "g", "s"))
    )  # type: ignore[return-value]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


PLACES: dict[str, tuple[Callable[[Path], str | Path], str]] = {
    "the target": (lambda root: root / "models" / "t", "is the input"),
    "a donor": (lambda root: root / "models" / "s", "is the input"),
    "inside the target": (lambda root: root / "models" / "t" / "deep" / "out", "is inside the input"),
    "around all": (lambda root: root / "models", "contains the input"),
    "dots": (lambda root: f"{root}/models/t/../s/.", "is the input"),
    "dots that lead out and in": (
        lambda root: f"{root}/models/../models/g/new/../out",
        "is inside the input",
    ),
    "a link to an input": (lambda root: root / "link-to-g", "is the input"),
    "below a link": (lambda root: root / "link-to-g" / "out", "is inside the input"),
    "a link to what is around": (lambda root: root / "link-to-models", "contains the input"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("overwrite", [False, True])
def test_never_over_an_input(place: str, overwrite: bool, small: Trio, tmp_path: Path) -> None:
    (tmp_path / "link-to-g").symlink_to(small[1])
    (tmp_path / "link-to-models").symlink_to(small[1].parent)
    before = content(tmp_path)
    where, says = PLACES[place]
    extra = ["--overwrite"] if overwrite else []
    refused(run(["transfer", *small, "-o", where(tmp_path), *extra]), 2, says, "choose another folder")
    assert content(tmp_path) == before
    assert not (tmp_path / "models" / "t" / "deep").exists()


def test_never_over_what_an_input_links_to(small: Trio, tmp_path: Path) -> None:
    """A folder of links, as in the Hub's cache: the weights themselves lie elsewhere."""
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in small[0].iterdir():
        (linked / path.name).symlink_to(path)
    before = content(tmp_path)
    refused(run(["transfer", linked, *small[1:], "-o", small[0], "--overwrite"]), 2, "contains the input")
    assert content(tmp_path) == before
    assert run(["transfer", linked, *small[1:], "-o", tmp_path / "out"])[0] == 0
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_never_over_a_vector(small: Trio, tmp_path: Path) -> None:
    assert run(["extract", *small[1:], "-o", tmp_path / "v"])[0] == 0
    before = content(tmp_path)
    args = ("apply", small[0], tmp_path / "v", "--overwrite", "-o")
    refused(run([*args, tmp_path / "v"]), 2, "is the input")
    refused(run([*args, tmp_path / "v" / "out"]), 2, "is inside the input")
    refused(run([*args, tmp_path]), 2, "contains the input")
    assert content(tmp_path) == before


def test_an_output_that_is_there_needs_a_word(small: Trio, tmp_path: Path) -> None:
    args = ("transfer", *small, "-o", tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert run(args)[0] == 0
    before = content(tmp_path / "out")
    refused(run(args), 2, str(tmp_path / "out"), "exists and is not empty", "--overwrite")
    assert content(tmp_path / "out") == before
    assert run([*args, "--overwrite"])[0] == 0
    assert content(tmp_path / "out") == before


def test_a_staging_folder_that_leads_elsewhere(small: Trio, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".taskvec-partial").symlink_to(tmp_path / "elsewhere")
    refused(run(["transfer", *small, "-o", tmp_path / "out"]), 2, ".taskvec-partial is a link")
    assert (tmp_path / "elsewhere" / "precious").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_place_of_the_output(overwrite: bool, small: Trio, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    args = ["transfer", *small, "-o", tmp_path / "out", *(["--overwrite"] if overwrite else [])]
    refused(run(args), 2, "is a file")
    refused(run(["transfer", *small, "-o", tmp_path / "out" / "deeper"]), 4, str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "precious"


def test_overwriting_leaves_nothing_of_the_old(small: Trio, tmp_path: Path) -> None:
    """Three shards, an index and extra files give way to one shard without an index."""
    out = tmp_path / "out"
    old = {name: noise(seed, 40) for seed, name in enumerate("abcd")}
    old_trio = [checkpoint(tmp_path / "old" / role, old, shards=3) for role in "tgs"]
    (old_trio[0] / "merges.txt").write_text("old")
    (old_trio[0] / "code").mkdir()
    (old_trio[0] / "code" / "modeling.py").write_text("old")
    assert run(["transfer", *old_trio, "-o", out])[0] == 0
    assert {"model-00003-of-00003.safetensors", "merges.txt", "code/modeling.py"} <= content(out).keys()
    # A loader would take this one up, whoever put it there.
    (out / "model-00009-of-00009.safetensors").write_bytes(b"stale")
    new = {"w": np.ones(8, np.float32)}
    new_trio = [checkpoint(tmp_path / "new" / role, new) for role in "tgs"]
    assert run(["transfer", *new_trio, "-o", out, "--overwrite"])[0] == 0
    assert run(["transfer", *new_trio, "-o", tmp_path / "fresh"])[0] == 0
    assert content(out) == content(tmp_path / "fresh")


def test_a_vector_over_a_checkpoint(small: Trio, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["transfer", *small, "-o", out])[0] == 0
    assert run(["extract", *small[1:], "-o", out, "--overwrite"])[0] == 0
    assert run(["extract", *small[1:], "-o", tmp_path / "fresh"])[0] == 0
    assert content(out) == content(tmp_path / "fresh")
    assert run(["transfer", *small, "-o", out, "--overwrite"])[0] == 0
    assert run(["transfer", *small, "-o", tmp_path / "merged"])[0] == 0
    assert content(out) == content(tmp_path / "merged")
