"""The restrictions ("walls") that a process puts on itself before it runs code that a model wrote.

They are permanent: code inside cannot remove them, not even machine code. Only Linux has them, and the filter
of system calls is written for x86_64. This file uses only the standard library, because `confined.py` imports
it in a bare interpreter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import struct
import sys

KNOWN_ABI = 7
"""The newest version of Landlock's interface (ABI) that this file supports."""

# Numbers and layouts are from linux/landlock.h, linux/prctl.h, linux/capability.h and asm/unistd_64.h.
_CAPSET = 126
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_CONNECT_AND_BIND_TCP = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

# The system calls that an interpreter, its standard library and numpy need to compute. All others fail with
# EPERM: no process or thread can be started, no signal sent, nothing connected, mounted, traced, written or
# renamed.
_CALLS = {
    "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "pread64": 17, "access": 21, "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32,
    "nanosleep": 35, "getpid": 39, "exit": 60, "uname": 63, "getcwd": 79, "readlink": 89, "gettimeofday":
    96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104,
    "geteuid": 107, "getegid": 108, "getppid": 110, "sigaltstack": 131, "gettid": 186, "time": 201, "futex":
    202, "sched_getaffinity": 204, "getdents64": 217, "restart_syscall": 219, "clock_gettime": 228,
    "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "newfstatat": 262, "readlinkat": 267,
    "faccessat": 269, "pselect6": 270, "ppoll": 271, "getrandom": 318, "statx": 332, "faccessat2": 439,
}  # fmt: skip
_OPEN, _FCNTL, _OPENAT, _PRLIMIT64 = 2, 72, 257, 302
# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, and the bit of O_TMPFILE that is not in O_DIRECTORY.
_WRITING = 0o1 | 0o2 | 0o100 | 0o1000 | 0o20000000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL and F_DUPFD_CLOEXEC. F_SETOWN with O_ASYNC could signal other processes.
_FCNTL_COMMANDS = (0, 1, 2, 3, 1030)

_AUDIT_ARCH_X86_64 = 0xC000003E
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


class Unavailable(Exception):
    """A wall that is not available on this machine; `str()` says which one, and why."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _system(number: int, *arguments: int | bytes) -> int:
    """Makes a system call by its number; arguments of type `bytes` are passed by address.

    Raises:
        OSError: the call failed.
    """
    passed = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    libc = _libc()
    libc.syscall.restype = ctypes.c_long
    return _checked(libc.syscall(ctypes.c_long(number), *passed))


def _prctl(option: int, *arguments: int) -> None:
    four = (*arguments, 0, 0, 0, 0)[:4]
    _checked(_libc().prctl(ctypes.c_int(option), *(ctypes.c_ulong(one) for one in four)))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def check_platform() -> None:
    """Checks that this is Linux on x86_64, whose system call numbers the filter uses.

    Raises:
        Unavailable: this is another system.
    """
    if sys.platform != "linux":
        raise Unavailable(f"Landlock and seccomp exist only on Linux, and this is {sys.platform}")
    machine = os.uname().machine
    if machine != "x86_64" or sys.maxsize < 1 << 32:
        raise Unavailable(f"the filter of system calls is only for 64-bit x86_64, and this is {machine}")


def landlock_abi() -> int:
    """The version of Landlock's interface (ABI) in this kernel: 1 (Linux 5.13) or higher.

    Raises:
        Unavailable: the kernel does not have Landlock, or it is switched off.
    """
    try:
        return _system(_LANDLOCK_CREATE_RULESET, 0, 0, 1)
    except OSError as error:
        off = "is switched off" if error.errno == errno.EOPNOTSUPP else "is not available"
        raise Unavailable(f"Landlock {off} in this kernel ({error.strerror})") from None


def confine(readable: list[str], cpu_seconds: int, memory: int) -> None:
    """Confines this process permanently.

    Args:
        readable: files and folders (with their contents) that can still be read. Nothing can be written.
        cpu_seconds: processor time (user and system) after which the kernel kills the process.
        memory: the most bytes of address space.

    Raises:
        Unavailable: a wall could not be put up; the process must then not run any code of a model.
    """
    check_platform()
    abi = landlock_abi()
    steps = (
        ("prctl", _stand_alone),
        ("Landlock", lambda: _landlock(readable, min(abi, KNOWN_ABI))),
        ("resource limits", lambda: _limits(cpu_seconds, memory)),
        ("dropping capabilities", _drop_capabilities),
        # Last, because it forbids system calls that the other steps need.
        ("seccomp", _filter_calls),
    )
    for name, step in steps:
        try:
            step()
        except (OSError, ValueError) as error:
            raise Unavailable(f"{name} failed ({getattr(error, 'strerror', None) or error})") from None


def _stand_alone() -> None:
    # The process is killed when its parent ends, and no other process of this user may trace it.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _landlock(readable: list[str], abi: int) -> None:
    # All rights that this version of Landlock has are removed; the rules allow reading some paths again.
    rights = 13 + (abi >= 2) + (abi >= 3) + (abi >= 5)
    ruleset = struct.pack("=Q", (1 << rights) - 1)
    if abi >= 4:
        ruleset += struct.pack("=Q", _CONNECT_AND_BIND_TCP)
    if abi >= 6:
        ruleset += struct.pack("=Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    descriptor = _system(_LANDLOCK_CREATE_RULESET, ruleset, len(ruleset), 0)
    try:
        for path in readable:
            _allow_reading(descriptor, path)
        _system(_LANDLOCK_RESTRICT_SELF, descriptor, 0)
    finally:
        os.close(descriptor)


def _allow_reading(ruleset: int, path: str) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rights = _READ_FILE | _READ_DIR if folder else _READ_FILE
        # 1 is LANDLOCK_RULE_PATH_BENEATH: a rule for everything beneath a path.
        _system(_LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _limits(cpu_seconds: int, memory: int) -> None:
    # Imported here, because Windows does not have the module; `check_platform` refuses it with a message.
    import resource

    for which, soft, hard in (
        (resource.RLIMIT_AS, memory, memory),
        # If both limits are equal, the kernel sends SIGKILL at once, not SIGXCPU, which can be ignored.
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NPROC, 0, 0),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        resource.setrlimit(which, (soft, hard))


def _drop_capabilities() -> None:
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, number)
        except OSError as error:
            # EINVAL: past the last capability. EPERM: an ordinary user has none, and may not drop any.
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            break
    _system(_CAPSET, struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), struct.pack("=6I", *(0,) * 6))


def _filter_calls() -> None:
    code = _filter()
    program = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, padding, and their address.
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(program)))
    # 2 is SECCOMP_MODE_FILTER.
    _prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(header))


def _filter() -> bytes:
    """The seccomp filter as classic BPF, eight bytes for each instruction."""
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _AUDIT_ARCH_X86_64),
        # System calls of the 32-bit interface have other numbers, so they are forbidden.
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for number in _CALLS.values():
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    lines += _only_if(_OPEN, *_no_bit_of(_WRITING, _argument(1)))
    lines += _only_if(_OPENAT, *_no_bit_of(_WRITING, _argument(2)))
    lines += _only_if(_FCNTL, *_one_of(_FCNTL_COMMANDS, _argument(1)))
    # glibc reads the limits of its own process. Setting limits is forbidden: those of another process could
    # end it.
    no_new_limit = [*_one_of((0,), _argument(2)), *_one_of((0,), _argument(2) + 4)]
    lines += _only_if(_PRLIMIT64, *_one_of((0,), _argument(0)), *no_new_limit)
    lines.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


_Line = tuple[int, int, int, int]


def _only_if(number: int, *conditions: _Line) -> list[_Line]:
    """Instructions for one system call: allow it if all conditions hold; other calls skip them."""
    return [(_EQUAL, 0, len(conditions) + 1, number), *conditions, (_RETURN, 0, 0, _ALLOW)]


def _argument(number: int) -> int:
    """The offset of the lower half of an argument; the upper half is four bytes further."""
    return _ARGUMENTS_AT + 8 * number


def _no_bit_of(bits: int, at: int) -> list[_Line]:
    return [(_LOAD, 0, 0, at), (_ANY_BIT, 0, 1, bits), (_RETURN, 0, 0, _REFUSE)]


def _one_of(values: tuple[int, ...], at: int) -> list[_Line]:
    last = len(values) - 1
    jumps = [(_EQUAL, last - number + 1, 0, value) for number, value in enumerate(values)]
    return [(_LOAD, 0, 0, at), *jumps, (_RETURN, 0, 0, _REFUSE)]
