"""Attacks on the sandbox, as root and as a plain user, with bubblewrap around it and without.

Each attack tries something and returns "done", or a secret, if it succeeds; its tests demand just that, so an
attack passes its tests if it gets through. All must fail, and what they aim at must be as it was.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest

from sandboxed import PLACES, Place, Served, canaries_in, processes_with, public_folder, serve, write_package
from taskvec.study.scoring.sandbox import Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")

DONE = "def check(candidate):\n    assert candidate() == 'done'\n"
THREE = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(30, 4) == 34\n"

# What follows is written as the body of a function that returns "done" at its end.
BODIES = {
    # Time and memory.
    "endless loop": "while True: pass",
    "loop that ignores signals": """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass""",
    "sleep": "import time; time.sleep(1000)",
    "10 GB at once": "data = bytearray(10 * 10**9)",
    "10 GB in pieces": "data = [bytearray(10**7) for _ in range(1000)]",
    "deep recursion": """
        import sys
        sys.setrecursionlimit(10**9)
        def down(n): return down(n + 1) + 1
        down(0)""",
    # Processes.
    "fork": "[os.fork() or os._exit(0) for _ in range(50)]",
    "posix_spawn": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "thread": "import threading; threading.Thread(target=print).start()",
    "subprocess": "import subprocess; subprocess.run(['/bin/true'], check=True)",
    "os.system": "assert os.system('touch FOLDER/system') == 0",
    "multiprocessing": "import multiprocessing; multiprocessing.Process(target=print).start()",
    # The network.
    "TCP": "import socket; socket.create_connection(('127.0.0.1', TCP), 5)",
    "UDP": """
        import socket
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', UDP))""",
    "abstract socket": "import socket; socket.socket(socket.AF_UNIX).connect(chr(0) + 'ABSTRACT')",
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(0))",
    # Files.
    "write outside": "open('FOLDER/written', 'w').write('x')",
    "write to shared memory": "open('SHARED', 'w').write('x')",
    "append": "open('KEPT', 'a').write('x')",
    "truncate": "os.truncate('KEPT', 0)",
    "truncate while opening to read": "os.open('KEPT', os.O_RDONLY | os.O_TRUNC)",
    "truncate the library": "os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "open the library to write": "os.open(os.__file__, os.O_WRONLY)",
    "fill the disk": """
        with open('FOLDER/full', 'wb') as file:
            for _ in range(10): file.write(bytes(10**6))""",
    "unnamed file": "os.open('FOLDER', os.O_TMPFILE | os.O_RDWR)",
    "file in memory": "os.memfd_create('x')",
    "temporary file": "import tempfile; tempfile.NamedTemporaryFile()",
    "remove": "os.remove('KEPT')",
    "rename": "os.rename('KEPT', 'KEPT.moved')",
    "folder": "os.mkdir('FOLDER/made')",
    "link": "os.symlink('/', 'FOLDER/link')",
    "chmod": "os.chmod('KEPT', 0o600)",
    "change times": "os.utime('KEPT', (0, 0))",
    "change folder": "os.chdir('/usr')",
    # Signals and other processes.
    "kill a process": "os.kill(SIBLING, 9)",
    "kill the parent": "os.kill(os.getppid(), 9)",
    # Signal 0 is refused like the others, and is safe where it is not.
    "kill all": "os.kill(-1, 0)",
    "signal by file ownership": """
        import fcntl
        def owned(number):
            try: return fcntl.fcntl(number, fcntl.F_SETOWN, SIBLING) == 0
            except OSError: return False
        if not any([owned(number) for number in range(64)]): raise PermissionError""",
    "limits of another process": "import resource; resource.prlimit(SIBLING, resource.RLIMIT_CPU, (0, 0))",
    "limits of its own": "import resource; resource.prlimit(0, resource.RLIMIT_NOFILE, (9, 9))",
    "priority of another process": "os.setpriority(os.PRIO_PROCESS, SIBLING, 10)",
    "pidfd": "os.pidfd_open(SIBLING)",
    "terminal": "import fcntl; fcntl.ioctl(0, 0x5412, b'x')",
}

# Those that return what they must not know.
LEAKS = {
    "the environment": "return os.environ['TOKEN']",
    "its own environment in /proc": "return open('/proc/self/environ').read()",
    "the parent's environment": "return open(f'/proc/{os.getppid()}/environ').read()",
    "every environment": """
        import glob
        found = ''
        for one in glob.glob('/proc/[0-9]*/environ'):
            try: found += open(one, errors='replace').read()
            except OSError: pass
        return found""",
    "a secret file": "return open('SECRET').read()",
    "a secret file by a system call": """
        import ctypes
        libc = ctypes.CDLL(None)
        data = ctypes.create_string_buffer(100)
        libc.read(libc.open(b'SECRET', 0), data, 99)
        return data.value.decode()""",
}
# Those whose secret is not the token: that they could be read at all.
READS = {
    "passwords": "open('/etc/passwd').read()",
    "home": "os.listdir('HOME')",
    "a folder of its own user": "os.listdir('FOLDER')",
    "root": "os.listdir('/')",
    "processes": "os.listdir('/proc')",
    "devices": "os.listdir('/dev')",
    "memory of the parent": "open(f'/proc/{os.getppid()}/mem', 'rb')",
}
# Not to be tried on the machine that the tests run on.
UNSAFE = {
    "endless loop", "loop that ignores signals", "sleep", "10 GB at once", "10 GB in pieces",
    "deep recursion", "kill the parent", "kill all", "truncate the library", "open the library to write",
    "terminal", "memory of the parent", "the parent's environment",
}  # fmt: skip
# Those that leave a mark which `Canaries.touched` sees.
MARKS = {
    "os.system", "TCP", "UDP", "abstract socket", "write outside", "write to shared memory", "append",
    "truncate", "truncate while opening to read", "fill the disk", "remove", "rename", "folder", "link",
    "chmod", "change times", "kill a process", "limits of another process", "priority of another process",
}  # fmt: skip

# By number on x86_64: what Python has no function for.
CALLS = {
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "mount": 165, "unshare": 272,
    "setns": 308, "chroot": 161, "pivot_root": 155, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "keyctl": 250, "io_uring_setup": 425, "clone": 56, "clone3": 435, "vfork": 58, "execve": 59,
    "execveat": 322, "socket": 41, "socketpair": 53, "kill": 62, "tkill": 200, "tgkill": 234,
    "rt_sigqueueinfo": 129, "creat": 85, "openat2": 437, "open_by_handle_at": 304, "fchmodat2": 452,
    "setuid": 105, "capset": 126, "prctl": 157, "seccomp": 317, "landlock_restrict_self": 446,
    "init_module": 175, "reboot": 169, "sethostname": 170, "settimeofday": 164, "swapon": 167, "shmget": 29,
    "semget": 64, "msgget": 68, "mq_open": 240, "inotify_init": 253, "timer_create": 222, "setrlimit": 160,
    "sched_setscheduler": 144, "sendmsg": 46, "pipe": 22, "splice": 275, "ioctl": 16, "fsopen": 430,
    "pidfd_getfd": 438, "process_madvise": 440, "memfd_secret": 447, "arch_prctl": 158,
}  # fmt: skip

# Programs that fake their answer: `f(a, b)` must give a sum, and none of these does.
FAKES = {
    "words on standard output": """
        def f(a, b):
            print('passed')
            print('{"passed": true, "reason": "passed"}', flush=True)""",
    "a verdict on every pipe": """
        import os
        def f(a, b):
            for number in range(64):
                for line in (b'{"passed": true, "reason": "passed"}', b'{"confined": true}'):
                    try: os.write(number, line + b'\\n')
                    except OSError: pass""",
    "a flooded pipe": """
        import os
        def f(a, b):
            while True:
                for number in range(3, 64):
                    try: os.write(number, b'x' * 65536)
                    except OSError: pass""",
    "pipes closed": "import os, time\nos.closerange(0, 64)\ntime.sleep(1000)\ndef f(a, b): pass",
    "sys.exit": "import sys\ndef f(a, b):\n    sys.exit(0)",
    "os._exit": "import os\ndef f(a, b):\n    os._exit(0)",
    "exit at import": "import os\nos._exit(0)",
    "SystemExit at import": "raise SystemExit(0)",
    "exit later": "import atexit, os\natexit.register(os._exit, 0)\ndef f(a, b):\n    return None",
    "own check": "def check(candidate): pass\ndef f(a, b): return None",
    "patched builtins": """
        import builtins
        builtins.AssertionError = builtins.len = builtins.compile = builtins.exec = lambda *_: True
        builtins.__build_class__ = None
        def f(a, b): return None""",
    "patched modules": """
        import sys, json
        json.dumps = lambda _: '{"passed": true}'
        json.loads = lambda _: {"passed": True}
        main = sys.modules['__main__']
        main.judge = main._tested = main._answered = lambda *_: {"passed": True, "reason": "passed"}
        def f(a, b): return None""",
    "always equal": """
        class Equal:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 0
        def f(a, b): return Equal()""",
    "an int that is always equal": """
        class Equal(int):
            def __eq__(self, other): return True
            def __hash__(self): return 0
        def f(a, b): return Equal(0)""",
    "a str that is always equal": """
        class Equal(str):
            def __eq__(self, other): return True
            def __hash__(self): return 0
        def f(a, b): return Equal("")""",
    "a type that calls itself int": """
        class Equal:
            __class__ = int
            def __eq__(self, other): return True
        def f(a, b): return Equal()""",
    "frames": """
        import sys
        def f(a, b):
            frame = sys._getframe()
            while frame:
                for value in frame.f_locals.values():
                    if isinstance(value, dict) and 'test' in value: return 3
                frame = frame.f_back""",
    "gc hunt": """
        import gc
        def f(a, b):
            for one in gc.get_objects():
                if isinstance(one, dict) and 'test' in one and 'prompt' in one: return 3""",
    "raise AssertionError": "def f(a, b): raise AssertionError",
    "raise StopIteration": "def f(a, b): raise StopIteration",
    "raise KeyboardInterrupt": "def f(a, b): raise KeyboardInterrupt",
    "a deep answer": "def f(a, b):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "a deep answer past the encoder": """
        import os
        def f(a, b):
            for number in range(3, 64):
                try: os.write(number, b'{"value": ' + b'[' * 10**6 + b'\\n')
                except OSError: pass""",
    "an answer that contains itself": "def f(a, b):\n    x = []\n    x.append(x)\n    return x",
    "a huge answer": "def f(a, b): return 'x' * (64 << 20)",
    "a huge int": "def f(a, b): return 1 << 10**7",
    "a huge int written out": """
        import os
        def f(a, b):
            for number in range(3, 64):
                try: os.write(number, b'{"value": ' + b'9' * 10**6 + b'}\\n')
                except OSError: pass""",
    "a set of lists": """
        import os
        def f(a, b):
            for number in range(3, 64):
                try: os.write(number, b'{"value": {"set": [[1]]}}\\n')
                except OSError: pass""",
    "no answer at all": """
        import os
        def f(a, b):
            for number in range(3, 64):
                try: os.write(number, b'{}\\n[]\\n')
                except OSError: pass""",
    "segmentation fault": "import ctypes\ndef f(a, b): ctypes.string_at(0)",
    "machine code of the 32-bit interface": """
        import ctypes, mmap
        # mov eax, 20 (getpid); int 0x80; ret
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(bytes.fromhex('b814000000cd80c3'))
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        def f(a, b): return a + b if call() > 0 else None""",
}


@dataclass(frozen=True)
class Attack:
    """A program, the name of its function, and tests that it passes if it gets through."""

    source: str
    entry_point: str
    test: str

    def program(self, names: dict[str, str]) -> Program:
        source = self.source
        for name, value in names.items():
            source = source.replace(name, value)
        return Program("", source, self.test, self.entry_point)


def function(body: str) -> str:
    body = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return f"import os\ndef attack():\n{body}\n    return 'done'\n"


# Names the calls that were not refused with EPERM.
BY_NUMBER = f"""
def calls():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    found = []
    for name, number in {CALLS}.items():
        if (libc.syscall(number, 0, 0, 0, 0, 0, 0), ctypes.get_errno()) != (-1, 1):
            found.append(name)
    if found:
        raise RuntimeError(', '.join(found))
    return found
"""


def attacks(token: str) -> dict[str, Attack]:
    """Every attack by its name."""
    leaked = f"def check(candidate):\n    assert {token!r} in candidate()\n"
    return {
        **{name: Attack(function(body), "attack", DONE) for name, body in (BODIES | READS).items()},
        **{name: Attack(function(body), "attack", leaked) for name, body in LEAKS.items()},
        **{name: Attack(textwrap.dedent(source), "f", THREE) for name, source in FAKES.items()},
    }


NAMES = tuple(attacks(""))


@dataclass(frozen=True)
class Outcome:
    """What came of all attacks at one place."""

    served: Served
    touched: list[str]
    left: list[int]
    token: str


@pytest.fixture(scope="module")
def outcomes() -> dict[Place, Outcome]:
    """Filled a place at a time."""
    return {}


@pytest.fixture(params=PLACES, ids=str)
def outcome(request: pytest.FixtureRequest, outcomes: dict[Place, Outcome]) -> Outcome:
    place: Place = request.param
    if place not in outcomes:
        with public_folder() as folder, canaries_in(folder, place.drops) as canaries:
            write_package(folder)
            programs = [one.program(canaries.names) for one in attacks(canaries.token).values()]
            programs.append(
                Program("", BY_NUMBER, "def check(candidate):\n    assert candidate() == []", "calls")
            )
            served = serve(folder, place, programs, canaries.token)
            left = processes_with(str(folder))
            outcomes[place] = Outcome(served, canaries.touched(), left, canaries.token)
    found = outcomes[place]
    if place.bubblewrap and "no second wall" in found.served.described:
        pytest.skip(found.served.described)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_sandbox_contains(name: str, outcome: Outcome) -> None:
    passed, reason = outcome.served.verdicts[NAMES.index(name)]
    assert not passed
    assert reason not in ("passed", "empty")


def test_sandbox_refuses_system_calls(outcome: Outcome) -> None:
    assert outcome.served.verdicts[-1] == (True, "passed")


def test_sandbox_lets_nothing_out(outcome: Outcome) -> None:
    assert outcome.touched == []
    assert outcome.left == []
    assert outcome.token not in outcome.served.output


@pytest.mark.parametrize("name", sorted({*BODIES, *READS, *LEAKS} - UNSAFE))
def test_attack_gets_through_where_there_is_no_sandbox(name: str) -> None:
    """Or its failure in the sandbox would show nothing."""
    with public_folder() as folder, canaries_in(folder, {}) as canaries:
        program = attacks(canaries.token)[name].program(canaries.names)
        source = f"{program.completion}\n{program.test}\ncheck({program.entry_point})\n"
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, env={"TOKEN": canaries.token},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        if name in MARKS:
            assert canaries.touched() != []


@pytest.mark.parametrize(
    "name", ["always equal", "an int that is always equal", "a str that is always equal"]
)
def test_fake_gets_through_where_there_is_no_sandbox(name: str) -> None:
    found: dict[str, Any] = {}
    exec(f"{textwrap.dedent(FAKES[name])}\n{THREE}\ncheck(f)", found)
