"""Inputs that are cut or touched while they are read, and the handler that keeps Python alive then."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import taskvec
from hostile import PARTIAL, SLOW, finish, freeze_midway, refused, trio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mapping and direct reads as Linux has them")
ELEMENTS = 36 << 20


@pytest.fixture
def inputs(tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    yield trio(tmp_path / "trio", ELEMENTS)
    shutil.rmtree(tmp_path)


def cut(folder: Path) -> Path:
    """Leaves a quarter of the folder's last weight file."""
    path = sorted(folder.glob("*.safetensors"))[-1]
    os.truncate(path, path.stat().st_size // 4)
    return path


@pytest.mark.parametrize("io", ["mmap", "pread", "direct", "auto"])
@pytest.mark.parametrize("role", [0, 2])
def test_cut_half_way(io: str, role: int, inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = freeze_midway(("transfer", *inputs, "-o", out, *SLOW, "--io", io), out)
    path = cut(inputs[role])
    process.send_signal(signal.SIGCONT)
    answer = finish(process)
    assert answer[0] in (3, 4)
    refused(answer, answer[0], str(path))
    assert not out.exists()


@pytest.mark.parametrize("io", ["mmap", "pread", "direct"])
def test_touched_half_way(io: str, inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = freeze_midway(("transfer", *inputs, "-o", out, *SLOW, "--io", io), out)
    path = inputs[1] / "model.safetensors"
    os.utime(path)
    process.send_signal(signal.SIGCONT)
    refused(finish(process), 3, str(path), "changed while it was read")
    assert not out.exists()


def test_replaced_half_way(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The run has the old file open, yet its manifest would speak of the new one."""
    out = tmp_path / "out"
    process = freeze_midway(("transfer", *inputs, "-o", out, *SLOW), out)
    path = inputs[1] / "model.safetensors"
    os.link(path, tmp_path / "kept")
    (inputs[1] / "new").write_bytes(b"something else")
    (inputs[1] / "new").rename(path)
    process.send_signal(signal.SIGCONT)
    refused(finish(process), 3, str(path), "changed")
    assert not out.exists()


def sigbus_action() -> bytes:
    """What the system does on SIGBUS: handler and flags, as the C library tells them."""
    size = 152
    old = ctypes.create_string_buffer(size)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.sigaction(int(signal.SIGBUS), None, old) == 0
    # Handler (8 bytes), mask (128, of which the system fills 8), flags (4).
    return old.raw[:16] + old.raw[136:140]


def test_python_lives_and_gets_its_handler_back(
    inputs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKVEC_SIMD", "scalar")
    assert faulthandler.is_enabled()
    out = tmp_path / "out"
    before = sigbus_action()
    during, cut_paths = [], []

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "writing" and not cut_paths and done < total // 2:
            during.append(sigbus_action())
            cut_paths.append(cut(inputs[0]))

    with pytest.raises(taskvec.CorruptError) as raised:
        taskvec.transfer(
            *inputs, out, io="mmap", threads=1, memory="16MiB", rounding="stochastic", progress=progress
        )
    assert str(cut_paths[0]) in str(raised.value)
    assert during[0] != before
    assert sigbus_action() == before
    assert not out.exists()


OWN_FAULT = """
import mmap, os, sys, tempfile
import taskvec
def progress(phase, done, total):
    with tempfile.TemporaryFile() as file:
        file.truncate(1 << 16)
        mapped = mmap.mmap(file.fileno(), 1 << 16)
        file.truncate(0)
        print("touching", flush=True)
        mapped[5000]
        print("alive", flush=True)
slow = {"threads": 1, "memory": "16MiB", "rounding": "stochastic"}
taskvec.transfer(*sys.argv[1:5], io="mmap", progress=progress, **slow)
"""


@pytest.mark.parametrize("handler", ["faulthandler", "none"])
def test_faults_of_others_go_to_others(handler: str, inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ["-X", "faulthandler"] if handler == "faulthandler" else []
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *flags, "-c", OWN_FAULT, *map(str, inputs), str(out)],
        env={**os.environ, "TASKVEC_SIMD": "scalar"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "touching\n"
    assert done.returncode == -signal.SIGBUS
    assert ("Fatal Python error: Bus error" in done.stderr) == (handler == "faulthandler")
    assert [path.name for path in out.iterdir()] == [PARTIAL]
