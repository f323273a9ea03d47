"""The sandbox in a process of its own, as another user or with another PATH, and what must stay as it was."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import taskvec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskvec.study.scoring.sandbox import Program

CPU_SECONDS, WALL_SECONDS = 2, 6.0
PACKAGE = Path(taskvec.__file__).parent
NOBODY = 65534

# Opens a sandbox, says how it is described, and judges all programs of its input, two at a time.
SERVER = f"""
import json, sys
from concurrent.futures import ThreadPoolExecutor
from taskvec.study.scoring.sandbox import Program, Sandbox
sandbox = Sandbox.open(cpu_seconds={CPU_SECONDS}, wall_seconds={WALL_SECONDS})
with ThreadPoolExecutor(2) as pool:
    programs = [Program(**one) for one in json.loads(sys.stdin.read())]
    verdicts = [[one.passed, one.reason] for one in pool.map(sandbox.judge, programs)]
print(json.dumps([sandbox.described, verdicts]))
"""


@dataclass(frozen=True)
class Place:
    """A user, and whether bubblewrap is found."""

    user: str
    bubblewrap: bool

    def __str__(self) -> str:
        return f"{self.user}-{'bubblewrap' if self.bubblewrap else 'alone'}"

    @property
    def drops(self) -> dict[str, Any]:
        return {} if self.user == "self" else {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    @property
    def path(self) -> str:
        return os.environ["PATH"] if self.bubblewrap else "/nonexistent"


PLACES = [Place(user, bubblewrap) for user in ("self", "nobody") for bubblewrap in (True, False)]


def python_of(place: Place) -> str:
    """An interpreter that this user may run; skips the test where there is none."""
    if place.user == "self":
        return sys.executable
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; the other tests ran as a plain one")
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            code = "import sys; sys.exit(sys.version_info < (3, 11))"
            if not subprocess.run([python, "-c", code], check=False, cwd="/", **place.drops).returncode:
                return python
        except OSError:
            continue
    pytest.skip("there is no Python 3.11 that the user nobody may run")


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="taskvec-sandbox-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def write_package(folder: Path) -> None:
    """The sandbox's own files in a package with nothing else: all that it needs is the standard library."""
    scoring = folder / "taskvec" / "study" / "scoring"
    shutil.copytree(PACKAGE / "study" / "scoring" / "sandbox", scoring / "sandbox")
    shutil.copy(PACKAGE / "errors.py", folder / "taskvec")
    for package in (folder / "taskvec", scoring.parent, scoring):
        (package / "__init__.py").touch()


@dataclass
class Canaries:
    """What an attack would reach, read, write or kill, and how it is seen that it did."""

    folder: Path
    user: dict[str, Any]
    token: str = field(default_factory=lambda: f"token-{os.urandom(8).hex()}")
    name: str = field(default_factory=lambda: f"taskvec-{os.urandom(8).hex()}")

    def __post_init__(self) -> None:
        self.secret = self.folder / "secret.txt"
        self.secret.write_text(self.token)
        self.writable = self.folder / "writable"
        self.writable.mkdir()
        self.kept = self.writable / "kept.txt"
        self.kept.write_text("as it was")
        for path in (self.writable, self.kept):
            path.chmod(0o777)
        if self.user:
            for path in (self.secret, self.writable, self.kept):
                os.chown(path, NOBODY, NOBODY)
        self.state = self._state()
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.abstract.bind(f"\0{self.name}")
        self.abstract.listen()
        for one in (self.tcp, self.udp, self.abstract):
            one.setblocking(False)
        self.sibling = subprocess.Popen(["sleep", "600"], **self.user)
        self.settings = self._settings()
        self.shared = Path(f"/dev/shm/{self.name}")

    @property
    def names(self) -> dict[str, str]:
        """What stands in an attack's source for each of them."""
        return {
            "SECRET": str(self.secret), "FOLDER": str(self.writable), "KEPT": str(self.kept),
            "TCP": str(self.tcp.getsockname()[1]), "UDP": str(self.udp.getsockname()[1]),
            "ABSTRACT": self.name, "SIBLING": str(self.sibling.pid), "SHARED": str(self.shared),
            "HOME": str(Path.home()),
        }  # fmt: skip

    def _state(self) -> Any:
        if not self.kept.is_file():
            return None
        status = self.kept.stat()
        return status.st_mode, status.st_mtime_ns, self.kept.read_text()

    def _settings(self) -> Any:
        number = self.sibling.pid
        return os.getpriority(os.PRIO_PROCESS, number), Path(f"/proc/{number}/limits").read_text()

    def touched(self) -> list[str]:
        """What is no longer as it was."""
        # A signal takes a moment to work.
        time.sleep(0.05)
        alive = self.sibling.poll() is None
        found = {
            "a file was written": sorted(self.writable.iterdir()) != [self.kept] or self.shared.exists(),
            "a file was changed": self._state() != self.state,
            "a process was killed": not alive,
            "a limit was changed": alive and self._settings() != self.settings,
        }
        for name in ("tcp", "udp", "abstract"):
            try:
                one = getattr(self, name)
                one.recv(1) if name == "udp" else one.accept()[0].close()
                found[f"{name} was reached"] = True
            except BlockingIOError:
                pass
        return [what for what, seen in found.items() if seen]

    def close(self) -> None:
        for one in (self.tcp, self.udp, self.abstract):
            one.close()
        self.sibling.kill()
        self.sibling.wait()
        self.shared.unlink(missing_ok=True)


@contextmanager
def canaries_in(folder: Path, user: dict[str, Any]) -> Iterator[Canaries]:
    canaries = Canaries(folder, user)
    try:
        yield canaries
    finally:
        canaries.close()


@dataclass(frozen=True)
class Served:
    """What a sandbox in another process said."""

    described: str
    verdicts: list[tuple[bool, str]]
    output: str


def serve(folder: Path, place: Place, programs: list[Program], token: str = "") -> Served:
    """Judges programs at a place, with a package written by `write_package`."""
    environment = {"PATH": place.path, "PYTHONPATH": str(folder), "TOKEN": token, "HOME": "/"}
    done = subprocess.run(
        [python_of(place), "-W", "error", "-c", SERVER],
        input=json.dumps([asdict(one) for one in programs]), capture_output=True, text=True, env=environment,
        cwd="/", timeout=540, check=False, **place.drops,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    described, verdicts = json.loads(done.stdout)
    return Served(described, [(passed, reason) for passed, reason in verdicts], done.stdout + done.stderr)


def processes_with(text: str) -> list[int]:
    """Numbers of processes with `text` in their command line."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def gone(text: str, seconds: float = 10) -> bool:
    """Whether such processes end within so many seconds."""
    until = time.monotonic() + seconds
    while processes_with(text):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
