"""SHA-256 of downloaded files against the Hub's, once: huggingface_hub hashes nothing that it downloads."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .snapshot import File

_PIECE = 1 << 20


def check(path: Path, sha256: str, what: str, go_on: Callable[[], None]) -> None:
    """Raises `CorruptError` unless the file has this SHA-256; what was found good once is not read again.

    Args:
        path: the file.
        sha256: in hexadecimal digits.
        what: its name for the message.
        go_on: called for every MiB; may raise to stop.
    """
    file = path.resolve()
    state = file.stat()
    looks = [sha256, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns]
    memory = _memory(file)
    # A file that was written to since has another time.
    with suppress(OSError, ValueError):
        if memory and json.loads(memory.read_text()) == looks:
            return
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        piece = bytearray(_PIECE)
        while got := stream.readinto(piece):
            go_on()
            digest.update(memoryview(piece)[:got])
    if digest.hexdigest() != sha256:
        raise differs(what, file)
    if memory is None:
        return
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        made = memory.with_suffix(f".{os.getpid()}")
        made.write_text(json.dumps(looks))
        made.replace(memory)


def good(data: bytes, file: File) -> bool:
    """Whether this is the whole content of a file, by the Hub's digest of it."""
    if file.sha256 is not None:
        return hashlib.sha256(data).hexdigest() == file.sha256
    return file.git is None or hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest() == file.git


def differs(what: str, path: Path) -> CorruptError:
    """The error for a file of the cache that is not what the Hub has."""
    return CorruptError(
        f"{what} is in the cache with another content than the Hub has (its digest differs);"
        f" remove {path.resolve()} and run again"
    )


def _memory(file: Path) -> Path | None:
    """Where it is remembered that a file was good; the layout of huggingface_hub's cache is its own."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # A user without a home.
        return None
    return home / "taskvec" / "checked" / hashlib.sha256(os.fsencode(file)).hexdigest()
