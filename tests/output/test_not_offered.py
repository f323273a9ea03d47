"""Calls that a file system does not offer, or fails, played by a library that is preloaded."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from hostile import PARTIAL, Answer, refused, run, sums, trio

if TYPE_CHECKING:
    from pathlib import Path

# Each call fails with the number in its variable: of folders, or of what is no folder, or whatever it is for.
LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <stdio.h>

static int fails(const char *variable) {
  const char *code = getenv(variable);
  if (!code) return 0;
  errno = atoi(code);
  return 1;
}
static int folder(int fd) { struct stat s; return fstat(fd, &s) == 0 && S_ISDIR(s.st_mode); }
#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))
int fsync(int fd) {
  return fails(folder(fd) ? "SYNC_FOLDER" : "SYNC_FILE") ? -1 : REAL("fsync", int (*)(int))(fd);
}
int flock(int fd, int how) { return fails("LOCK") ? -1 : REAL("flock", int (*)(int, int))(fd, how); }
static int opens(const char *path, int flags, mode_t mode, const char *name) {
  struct stat s;
  int is_folder = stat(path, &s) == 0 && S_ISDIR(s.st_mode) && !(flags & O_DIRECTORY);
  if (is_folder && fails("OPEN_FOLDER")) return -1;
  if ((flags & O_DIRECT) && fails("OPEN_DIRECT")) return -1;
  return REAL(name, int (*)(const char *, int, ...))(path, flags, mode);
}
#define OPEN(name) int name(const char *path, int flags, ...) { \
  va_list more; va_start(more, flags); mode_t mode = va_arg(more, int); va_end(more); \
  return opens(path, flags, mode, #name); }
OPEN(open)
OPEN(open64)
int rename(const char *from, const char *to) {
  return strstr(from, ".taskvec-partial") && fails("RENAME") ? -1
    : REAL("rename", int (*)(const char *, const char *))(from, to);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("library")
    (folder / "calls.c").write_text(LIBRARY)
    made = folder / "calls.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, folder / "calls.c", "-ldl"], check=True)
    return made


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return trio(tmp_path_factory.mktemp("trio"), 200_000)


@pytest.fixture(scope="module")
def straight(inputs: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run writes where nothing is refused."""
    out = tmp_path_factory.mktemp("straight") / "out"
    assert run(["transfer", *inputs, "-o", out])[0] == 0
    return sums(out)


def transfer(library: Path, inputs: tuple[Path, ...], out: Path, call: str, code: int, *more: str) -> Answer:
    # By its name: LD_PRELOAD is a list, and a path with a space in it would be two.
    found_in = os.pathsep.join(filter(None, [str(library.parent), os.environ.get("LD_LIBRARY_PATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", found_in)
        patch.setenv("LD_PRELOAD", library.name)
        patch.setenv(call, str(code))
        return run(["transfer", *inputs, "-o", out, *more])


NOT_OFFERED = [
    *(
        ("SYNC_FOLDER", code)
        for code in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EISDIR)
    ),
    *(("OPEN_FOLDER", code) for code in (errno.EACCES, errno.EISDIR, errno.EINVAL)),
    *(("LOCK", code) for code in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)),
    *(("OPEN_DIRECT", code) for code in (errno.EINVAL, errno.ENOTSUP)),
    *(("RENAME", code) for code in (errno.EXDEV, errno.ENOSYS, errno.ENOTSUP)),
]


@pytest.mark.parametrize(("call", "code"), NOT_OFFERED)
def test_what_is_not_offered_stops_no_run(
    call: str,
    code: int,
    library: Path,
    inputs: tuple[Path, ...],
    straight: dict[str, str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    more = ["--io", "direct"] if call == "OPEN_DIRECT" else []
    exit_code, stdout, stderr = transfer(library, inputs, out, call, code, "--json", *more)
    assert exit_code == 0, stderr
    assert json.loads(stdout)["warnings"] == []
    assert sums(out) == straight


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_files_that_cannot_be_synced_are_warned_of(
    code: int, library: Path, inputs: tuple[Path, ...], straight: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    exit_code, stdout, stderr = transfer(library, inputs, out, "SYNC_FILE", code, "--json")
    assert exit_code == 0, stderr
    (warning,) = json.loads(stdout)["warnings"]
    assert str(out) in warning
    assert "taskvec verify" in warning
    assert sums(out) == straight


FAILED = [
    *(
        (call, code)
        for call in ("SYNC_FOLDER", "SYNC_FILE")
        for code in (errno.EIO, errno.ENOSPC, errno.EDQUOT)
    ),
    ("LOCK", errno.EIO),
    ("OPEN_FOLDER", errno.EIO),
    ("RENAME", errno.EIO),
]


@pytest.mark.parametrize(("call", "code"), FAILED)
def test_what_fails_fails_the_run(
    call: str,
    code: int,
    library: Path,
    inputs: tuple[Path, ...],
    straight: dict[str, str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "new" / "out"
    answer = transfer(library, inputs, out, call, code)
    refused(answer, 4, str(out), os.strerror(code))
    if call == "LOCK":
        assert not (tmp_path / "new").exists(), "nothing was done yet"
    else:
        assert [path.name for path in out.iterdir()] == [PARTIAL]
    assert run(["transfer", *inputs, "-o", out])[0] == 0
    assert sums(out) == straight
