"""The machine under a benchmark: what it is, what it caches, how much memory a run may have. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def _field(path: str, key: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return "unknown"


def describe(folder: Path) -> str:
    """CPU, cores, memory, kernel and the file system of a folder, in one line."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    cpu = _field("/proc/cpuinfo", "model name")
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"{cpu}, {cores} cores, {memory:.0f} GiB RAM, {system}, {file_system(folder)}"


def file_system(folder: Path) -> str:
    """The type and device of the file system that a folder is on."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        device, mount, kind = line.split()[:3]
        if folder.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, f"{kind} on {device}")
    return best[1]


def rustc_version() -> str:
    """The version of the compiler that the floor is built with."""
    return subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.strip()


def drop_cache(paths: Iterable[Path]) -> float:
    """Drops files from the page cache; returns the share of their pages that is still there."""
    resident = pages = 0
    for path in paths:
        with path.open("rb") as file:
            # Dirty pages can't be dropped.
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        in_cache, of = resident_pages(path)
        resident, pages = resident + in_cache, pages + of
    return resident / max(pages, 1)


def warm_cache(paths: Iterable[Path]) -> float:
    """Reads files once; returns the share of their pages that is then in the page cache."""
    resident = pages = 0
    buffer = bytearray(4 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        in_cache, of = resident_pages(path)
        resident, pages = resident + in_cache, pages + of
    return resident / max(pages, 1)


def resident_pages(path: Path) -> tuple[int, int]:
    """How many of a file's pages are in the page cache, and how many it has."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    if pages == 0:
        return 0, 0
    flags = (mmap.PROT_READ, mmap.MAP_SHARED)
    with path.open("rb") as file:
        # Not Python's own mmap: its address can't be had for a read-only mapping.
        start = _libc.mmap(None, size, *flags, file.fileno(), 0)
    if start == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), f"{path}: can't be mapped to see what is cached")
    states = ctypes.create_string_buffer(pages)
    failed = _libc.mincore(start, size, states)
    _libc.munmap(start, size)
    if failed:
        raise OSError(ctypes.get_errno(), f"{path}: the kernel doesn't say what is cached")
    return sum(state & 1 for state in states.raw), pages


class MemoryCgroup:
    """A memory cgroup (v1 or v2) with a hard limit; the page cache that its processes fill counts too."""

    def __init__(self, limit: int) -> None:
        """Takes the limit in bytes; the group itself is made by `entered`."""
        self.limit = limit
        self.peak = 0
        first = Path("/sys/fs/cgroup/memory")
        unified = Path("/sys/fs/cgroup/cgroup.subtree_control")
        if first.is_dir() and os.access(first, os.W_OK):
            self._version, root = 1, first
        elif os.access(unified, os.W_OK) and "memory" in unified.read_text(encoding="utf-8").split():
            self._version, root = 2, unified.parent
        else:
            raise SystemExit("--limit needs root and a writable memory cgroup (v1 or v2); there is none here")
        self._folder = root / f"taskvec-bench-{os.getpid()}"

    @contextlib.contextmanager
    def entered(self) -> Generator[MemoryCgroup]:
        """A fresh group, removed at the end; `peak` is its highest use by then."""
        first = self._version == 1
        self._folder.mkdir()
        try:
            self._write("memory.limit_in_bytes" if first else "memory.max", self.limit)
            # A run that swaps would pass for one that fits. Kernels without swap accounting lack these files.
            with contextlib.suppress(OSError):
                self._write("memory.swappiness" if first else "memory.swap.max", 0)
            yield self
            peak = "memory.max_usage_in_bytes" if first else "memory.peak"
            self.peak = int((self._folder / peak).read_text(encoding="ascii"))
        finally:
            self._folder.rmdir()

    def join(self) -> None:
        """Puts the calling process into the group: for a child, before it becomes its program."""
        self._write("cgroup.procs", os.getpid())

    def _write(self, name: str, value: int) -> None:
        (self._folder / name).write_text(str(value), encoding="ascii")
