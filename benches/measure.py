"""Runs a program once and says what it took: time, CPU, memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from machine import MemoryCgroup


@dataclass(frozen=True)
class Run:
    """What one run took. Memory in bytes."""

    seconds: float
    """From start to exit, as a user waits: an interpreter's imports are part of it."""
    cpu: float
    anonymous: int
    """Highest anonymous memory seen, every 5 ms: what no file backs, the program's own buffers."""
    resident: int
    """Highest resident set: mapped files count as far as they were in memory."""
    charged: int | None
    """Highest charge to the memory cgroup, page cache included; None without a limit."""
    printed: str
    """What it wrote to standard output."""


class _Sampler(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.anonymous = self.resident = 0
        self.done = threading.Event()
        self._status = Path(f"/proc/{pid}/status")

    def run(self) -> None:
        # The kernel's own record of a child (ru_maxrss) begins with its parent's size, so the child is asked.
        while not self.done.wait(0.005):
            with contextlib.suppress(OSError):
                for line in self._status.read_text(encoding="ascii").splitlines():
                    if line.startswith("RssAnon:"):
                        self.anonymous = max(self.anonymous, int(line.split()[1]) << 10)
                    elif line.startswith("VmHWM:"):
                        self.resident = max(self.resident, int(line.split()[1]) << 10)


def run(
    command: Sequence[str | Path],
    cgroup: MemoryCgroup | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Runs a command, in a cgroup where one is given; a failure ends the benchmark with its words."""
    group = cgroup.entered() if cgroup else contextlib.nullcontext()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, group:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=env,
            preexec_fn=cgroup.join if cgroup else None,
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.done.set()
        sampler.join()
        if process.returncode:
            words = (_all(output) + _all(errors))[-4000:]
            name = " ".join(map(str, command))
            raise SystemExit(f"{name}\nended with exit code {process.returncode}:\n{words}")
        printed = _all(output)
    cpu, charged = usage.ru_utime + usage.ru_stime, cgroup.peak if cgroup else None
    return Run(seconds, cpu, sampler.anonymous, sampler.resident, charged, printed)


def _all(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
