"""Starts the processes of a judgement: a bare interpreter for each side, which inherits only its pipes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

MEMORY = 2 << 30
"""The most bytes of address space for a side."""
JUDGE_SHARE = 4
"""The judge's processor time as a multiple of the worker's, since its tests can be long."""
# Set to 1, because numpy's libraries would start threads, which the sandbox forbids.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
# No site-packages, no user folder or script folder on the path, no compiled files written.
_FLAGS = ("-S", "-s", "-P", "-B")
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_HERE = Path(__file__).resolve().parent
# Seconds to wait until a process that has closed its pipes, and bubblewrap around it, have ended.
_GRACE = 1.0


@dataclass(frozen=True, slots=True)
class Room:
    """How a side is started: its interpreter, what it may read, and how long it may compute."""

    python: str
    readable: tuple[str, ...]
    packages: dict[str, str]
    cpu_seconds: int
    bubblewrap: str | None = None

    @classmethod
    def of_this_interpreter(cls, cpu_seconds: int) -> Room:
        """Uses the Python that runs this, with numpy but no other package, and without bubblewrap."""
        # In a virtual environment, take the interpreter it was made from, which needs no pyvenv.cfg.
        python = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
        base = Path(sys.base_prefix).resolve()
        packages = {
            name: str(Path(spec.origin).parent)
            for name in ("numpy",)
            if (spec := find_spec(name)) is not None and spec.origin
        }
        places = [*_SYSTEM_LIBRARIES, base / "lib", base / "lib64"]
        places += [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
        for folder in packages.values():
            # Wheels put shared libraries into a folder beside the package.
            places += [folder, f"{folder}.libs"]
        there = dict.fromkeys(str(place) for place in places if Path(place).exists())
        return cls(str(python), tuple(there), packages, cpu_seconds)

    def command(self, side: str, channels: list[tuple[int, int]]) -> list[str]:
        """The command line of the `judge` or the `worker`, for these pipes."""
        settings = {
            "channels": channels,
            "readable": self.readable,
            "packages": self.packages,
            "cpu_seconds": self.cpu_seconds * (JUDGE_SHARE if side == "judge" else 1),
            "memory": MEMORY,
        }
        script = str(_HERE / "confined.py")
        return [*self.wrapped(), self.python, *_FLAGS, script, side, json.dumps(settings)]

    def wrapped(self) -> list[str]:
        """The prefix of a command: bubblewrap with new namespaces, and only the readable paths mounted."""
        if self.bubblewrap is None:
            return []
        paths = (*self.readable, self.python, str(_HERE))
        binds = [part for path in paths for part in ("--ro-bind", path, path)]
        # `--as-pid-1`: otherwise bubblewrap starts a process 1, and leaves it to the machine to clean up.
        alone = ("--unshare-all", "--as-pid-1", "--die-with-parent", "--cap-drop", "ALL", "--chdir", "/")
        return [self.bubblewrap, *alone, *binds, "--"]


def find_bubblewrap(room: Room) -> tuple[str | None, str]:
    """The path of bubblewrap if it works here, else None; and a phrase that says so."""
    path = shutil.which("bwrap")
    if path is None:
        return None, "bubblewrap is not installed"
    inside = replace(room, bubblewrap=path)
    try:
        tried = subprocess.run(
            [*inside.wrapped(), room.python, *_FLAGS, "-c", "print('inside')"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None, "bubblewrap does not start"
    if tried.stdout != "inside\n":
        said = (tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"])[-1]
        return None, f"bubblewrap does not work here ({said[:100]})"
    return path, "bubblewrap"


def environment() -> dict[str, str]:
    """The environment variables of a side; the only one of the user's is needed by some interpreters."""
    # A fixed hash seed makes the order of sets, and so the verdicts, the same in every run.
    chosen = {"PYTHONHASHSEED": "0", **dict.fromkeys(_THREADS, "1")}
    libraries = os.environ.get("LD_LIBRARY_PATH")
    return {**chosen, "LD_LIBRARY_PATH": libraries} if libraries else chosen


class Side:
    """A process of a judgement; `end` must always be called."""

    def __init__(self, room: Room, name: str, channels: list[tuple[int, int]]) -> None:
        """Starts the `judge` or the `worker` in a new session, which the terminal's Ctrl-C does not reach."""
        self._process = subprocess.Popen(
            room.command(name, channels),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment(), cwd="/", start_new_session=True,
            pass_fds=[one for pair in channels for one in pair],
        )  # fmt: skip

    def returned(self) -> int | None:
        """The exit status, or None if it still runs: −N for signal N, or 128 + N through bubblewrap."""
        try:
            return self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kills the process and all that it has started, and waits for it."""
        if self._process.returncode is None:
            # The process has not been waited for, so its id cannot have been reused.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Pipes:
    """File descriptors that are closed together."""

    def __init__(self) -> None:
        """Opens no pipe yet."""
        self._open: set[int] = set()

    def pipe(self) -> tuple[int, int]:
        """Opens a pipe; returns the end to read from and the end to write to."""
        both = os.pipe()
        self._open.update(both)
        return both

    def close(self, *descriptors: int) -> None:
        """Closes these descriptors; without arguments, all that are still open."""
        for one in descriptors or tuple(self._open):
            self._open.discard(one)
            os.close(one)
