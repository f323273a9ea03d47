"""The sandbox's walls: refused where one is missing, what the kernel says of them, nothing left behind."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandboxed import gone, processes_with, public_folder, write_package
from taskvec.errors import UsageError
from taskvec.study.scoring.sandbox import Program, Sandbox, sandbox_probes, sandbox_process
from taskvec.study.scoring.sandbox import sandbox_walls as walls

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")

ADVICE = "use Linux 5.13 or newer on x86_64 with Landlock and seccomp, or remove the benchmark from the study"


def refused(why: str) -> str:
    return f"code that a model wrote is not run here: {why}; {ADVICE}"


@pytest.mark.parametrize(
    ("system", "machine", "why"),
    [
        ("darwin", "arm64", "Landlock and seccomp exist only on Linux, and this is darwin"),
        ("win32", "AMD64", "Landlock and seccomp exist only on Linux, and this is win32"),
        ("linux", "aarch64", "the filter of system calls is only for 64-bit x86_64, and this is aarch64"),
    ],
)
def test_sandbox_refuses_other_systems(
    system: str, machine: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*names[:4], machine)))
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(UsageError) as error:
        Sandbox.open()
    assert str(error.value) == refused(why)


# A filter of the test's own: system call `number` gives `error`, if `first` is None or is its first argument.
# All processes started later inherit it: for them this is a kernel that lacks something.
KERNEL_WITHOUT = """
import ctypes, struct
def without(number, first, error):
    lines = [(0x20, 0, 0, 0), (0x15, 0, 3 if first is not None else 1, number)]
    if first is not None:
        lines += [(0x20, 0, 0, 16), (0x15, 0, 1, first)]
    lines += [(0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    kept = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(lines), ctypes.addressof(kept)))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, *map(ctypes.c_ulong, (1, 0, 0, 0))) == 0
    assert libc.prctl(22, ctypes.c_ulong(2), ctypes.c_ulong(ctypes.addressof(program))) == 0

from taskvec.errors import UsageError
from taskvec.study.scoring.sandbox import Program, Sandbox
"""
ENOSYS, EOPNOTSUPP, EINVAL = 38, 95, 22
MISSING = {
    "Landlock": ((444, None, ENOSYS), "Landlock is not available in this kernel (Function not implemented)"),
    "Landlock at boot": (
        (444, None, EOPNOTSUPP), "Landlock is switched off in this kernel (Operation not supported)"
    ),
    "Landlock's last step": ((446, None, ENOSYS), "Landlock failed (Function not implemented)"),
    "seccomp": ((157, 22, EINVAL), "seccomp failed (Invalid argument)"),
    "no new privileges": ((157, 38, EINVAL), "prctl failed (Invalid argument)"),
    "dropping capabilities": ((126, None, 1), "dropping capabilities failed (Operation not permitted)"),
}  # fmt: skip


def run_with_package(folder: Path, code: str) -> str:
    write_package(folder)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(folder), "PATH": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", MISSING)
def test_sandbox_refuses_a_kernel_that_lacks_a_wall(name: str, tmp_path: Path) -> None:
    missing, why = MISSING[name]
    code = f"""
without{missing}
try:
    Sandbox.open()
except UsageError as error:
    print(error)
"""
    assert run_with_package(tmp_path, KERNEL_WITHOUT + code) == f"{refused(why)}\n"


@pytest.mark.parametrize("name", MISSING)
def test_a_wall_that_fails_later_is_no_verdict(name: str, tmp_path: Path) -> None:
    missing, why = MISSING[name]
    code = f"""
opened = Sandbox.open()
program = Program("", "def f(): return 1", "def check(candidate): assert candidate() == 1", "f")
assert opened.judge(program).passed
without{missing}
try:
    opened.judge(program)
except UsageError as error:
    print(error)
"""
    assert run_with_package(tmp_path, KERNEL_WITHOUT + code) == f"{refused(why)}\n"


@pytest.mark.parametrize("attempt", sandbox_probes.PROBES)
def test_sandbox_refuses_where_a_probe_gets_through(attempt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A wall with a hole: what this probe tries does no harm and works.
    monkeypatch.setitem(sandbox_probes.PROBES, attempt, "def probe(): return 'done'")
    with pytest.raises(UsageError) as error:
        Sandbox.open()
    assert str(error.value) == refused(f"a probe that tries to {attempt} was not stopped (wrong answer)")


@pytest.mark.parametrize("attempt", sandbox_probes.PROBES)
def test_probes_get_through_where_there_is_no_sandbox(attempt: str) -> None:
    code = f"{sandbox_probes.PROBES[attempt]}\nprint(probe())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"
    assert not list(Path("/tmp").glob("taskvec-probe-*"))


def test_sandbox_refuses_where_not_even_an_honest_program_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_probes, "HONEST", "def probe(numbers, names): return None")
    with pytest.raises(
        UsageError, match=r"even an honest program fails \(wrong answer\) behind Landlock ABI"
    ):
        Sandbox.open()


def test_sandbox_refuses_an_interpreter_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError) as error:
        Sandbox.open()
    assert str(error.value) == refused("the interpreter did not start")
    # A start that takes longer than the limit is a refusal too, and not a failed program.
    monkeypatch.undo()
    with pytest.raises(UsageError) as error:
        Sandbox.open(wall_seconds=0.0)
    assert str(error.value) == refused("the interpreter did not start")

    monkeypatch.setattr(sys, "_base_executable", "/nonexistent/python")
    with pytest.raises(UsageError) as error:
        Sandbox.open()
    assert str(error.value) == refused("a process cannot be started (No such file or directory)")


def test_sandbox_says_which_walls_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    one = f"Landlock ABI {walls.landlock_abi()}, seccomp; no second wall: "
    assert Sandbox.open().described == f"{one}bubblewrap is not installed"
    # As where user namespaces are forbidden.
    script = tmp_path / "bwrap"
    script.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    script.chmod(0o755)
    said = "bubblewrap does not work here (bwrap: setting up uid map: Permission denied)"
    assert Sandbox.open().described == one + said
    script.write_text("not a program")
    assert Sandbox.open().described == f"{one}bubblewrap does not start"


# The walls themselves, as the kernel sees them.


@pytest.mark.parametrize("abi", range(1, 8))
def test_walls_hold_with_every_version_of_landlock(abi: int, tmp_path: Path) -> None:
    """An older interface takes fewer rights away; what it leaves, the filter of system calls refuses."""
    if abi > walls.landlock_abi():
        pytest.skip("this kernel is older")
    write_package(tmp_path)
    (tmp_path / "kept.txt").write_text("as it was")
    readable = [str(tmp_path), *sandbox_process.Room.of_this_interpreter(1).readable]
    code = f"""
import os, sys, time
from taskvec.study.scoring.sandbox import sandbox_walls as walls
walls.landlock_abi = lambda: {abi}
walls.confine({readable!r}, 10, 1 << 31)
assert open({str(tmp_path / "kept.txt")!r}).read() == "as it was"
def refused(call, *arguments):
    try: call(*arguments)
    except PermissionError: return
    raise AssertionError((call, arguments))
for path in ("/etc/passwd", "/proc/self/environ", "/root", {str(tmp_path.parent / "x")!r}):
    refused(os.open, path, os.O_RDONLY) if os.path.exists(path) else None
for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_CREAT | os.O_EXCL, os.O_APPEND | os.O_WRONLY):
    refused(os.open, {str(tmp_path / "kept.txt")!r}, flags)
refused(os.rename, {str(tmp_path / "kept.txt")!r}, {str(tmp_path / "moved.txt")!r})
print("held", flush=True)
sys.stdin.readline()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        proc = Path(f"/proc/{process.pid}")
        status = dict(
            line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line
        )
        limits = (proc / "limits").read_text()
        process.communicate("\n")
    assert (tmp_path / "kept.txt").read_text() == "as it was"
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for name, value in (
        ("cpu time", "10 +10"), ("file size", "0 +0"), ("core file size", "0 +0"), ("processes", "0 +0"),
        ("open files", "64 +64"), ("address space", f"{1 << 31} +{1 << 31}"), ("locked memory", "0 +0"),
    ):  # fmt: skip
        assert re.search(rf"Max {name} +{value}", limits), name


def test_system_calls_have_the_numbers_of_the_header() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    numbers = {name: int(number) for name, number in re.findall(r"__NR_(\w+) (\d+)", header.read_text())}
    named = walls._CALLS | {
        "open": walls._OPEN, "openat": walls._OPENAT, "fcntl": walls._FCNTL, "prlimit64": walls._PRLIMIT64,
        "capset": walls._CAPSET,
    }  # fmt: skip
    assert {name: numbers[name] for name in named} == named


# Nothing is left behind.


def test_judging_leaves_nothing_open_and_nobody_behind() -> None:
    opened = Sandbox.open()

    def state() -> tuple[list[str], int]:
        gc.collect()
        mine = f"/proc/self/task/{os.getpid()}/children"
        return sorted(Path("/proc/self/fd").iterdir()), len(Path(mine).read_text().split())

    before = state()
    for source in ("def f(x): return 2", "def f(x): return 1", "import os\nos._exit(0)", "def f(x"):
        for _ in range(4):
            opened.judge(Program("", source, "def check(candidate): assert candidate(1) == 2", "f"))
    assert state() == before
    assert processes_with(sandbox_process.__file__.replace("sandbox_process", "confined")) == []


@pytest.mark.parametrize("path", [os.environ["PATH"], "/nonexistent"], ids=["bubblewrap", "alone"])
def test_a_program_is_given_two_pipes_and_nothing_else(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nonexistent")
    source = """
import fcntl, os, stat
def f():
    found = []
    for number in range(64):
        try: found.append(stat.filemode(os.fstat(number).st_mode)[0])
        except OSError: pass
    return found, set(os.environ)
"""
    names = {f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS")}
    names |= {"PYTHONHASHSEED", "LD_LIBRARY_PATH"}
    # The other two are Python's own and bubblewrap's.
    test = f"""
def check(candidate):
    kinds, names = candidate()
    assert kinds == ["c", "c", "c", "p", "p"] and names - {{"LC_CTYPE", "PWD"}} == {names!r}
"""
    assert Sandbox.open().judge(Program("", source, test, "f")).passed


JUDGES_A_SLEEPER = """
import os
from taskvec.study.scoring.sandbox import Program, Sandbox
opened = Sandbox.open()
print("opened", flush=True)
opened.judge(Program("", "import time\\ndef f(): time.sleep(1000)", "def check(c): c()", "f"))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("path", [os.environ["PATH"], "/nonexistent"], ids=["bubblewrap", "alone"])
def test_no_process_outlives_the_one_that_asked(number: int, path: str) -> None:
    with public_folder() as folder:
        write_package(folder)
        process = subprocess.Popen(
            [sys.executable, "-c", JUDGES_A_SLEEPER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(folder), "PATH": path}, text=True,
        )  # fmt: skip
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "opened\n"
            script = str(folder / "taskvec/study/scoring/sandbox/confined.py")
            until = time.monotonic() + 20
            while len(processes_with(script)) < 2 and time.monotonic() < until:
                time.sleep(0.02)
            # The program sleeps by now.
            time.sleep(0.5)
            assert len(processes_with(script)) >= 2
            process.send_signal(number)
            process.wait(20)
            assert gone(script)
