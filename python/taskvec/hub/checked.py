"""Compares downloaded files with the Hub's digests, once for each; huggingface_hub does not do that."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .snapshot import File

_PIECE = 1 << 20
_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


def check(path: Path, file: File, what: str, go_on: Callable[[], None]) -> bool:
    """Whether the cached file is known to have the content that the Hub lists.

    Reads the file in blocks of 1 MiB. The result for a large file is remembered, so it is read only once.

    Args:
        path: the file in the cache.
        file: the file as the Hub lists it.
        what: its name in messages.
        go_on: called for every MiB; may raise to stop.

    Returns:
        False if no digest of the content is known.

    Raises:
        CorruptError: the content is another.
    """
    at = path.resolve()
    state = at.stat()
    looks = [file.sha256 or file.git, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns]
    memory = _memory(at) if file.sha256 or file.perhaps_large else None
    # A file that was written to since then has another modification time, and is read again.
    with suppress(OSError, ValueError):
        if memory and json.loads(memory.read_text()) == looks:
            return True
    found = good(_pieces(at, go_on), file)
    if found is False:
        raise differs(what, at)
    if found is None:
        return False
    if memory is None:
        return True
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        made = memory.with_suffix(f".{os.getpid()}")
        made.write_text(json.dumps(looks))
        made.replace(memory)
    return True


def good(pieces: Iterable[bytes | memoryview], file: File) -> bool | None:
    """Whether these bytes are the whole file, by its digest on the Hub; None if no digest is known."""
    sha256, git = hashlib.sha256(), _blob(file.size)
    for piece in pieces:
        sha256.update(piece)
        if file.sha256 is None:
            git.update(piece)
    if file.sha256 is not None:
        return sha256.hexdigest() == file.sha256
    # For a large file git may have the digest of its LFS pointer, whose text follows from the content
    # (unless an LFS extension has added lines to it).
    text = _POINTER.format(sha256.hexdigest(), file.size).encode()
    pointer = _blob(len(text))
    pointer.update(text)
    if file.git in (git.hexdigest(), pointer.hexdigest()):
        return True
    return None if file.perhaps_large else False


def differs(what: str, path: Path) -> CorruptError:
    """The error for a file in the cache whose content is not that on the Hub."""
    return CorruptError(
        f"{what} has another content in the cache than on the Hub (its digest differs);"
        f" remove {path.resolve()} and run again"
    )


def _blob(size: int) -> Any:
    """A hash in progress that becomes git's digest of `size` bytes, once they are fed to it."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _pieces(path: Path, go_on: Callable[[], None]) -> Iterator[memoryview]:
    """The content in blocks; each is valid until the next is read."""
    with path.open("rb", buffering=0) as stream:
        piece = bytearray(_PIECE)
        while got := stream.readinto(piece):
            go_on()
            yield memoryview(piece)[:got]


def _memory(file: Path) -> Path | None:
    """The file that remembers a good result; it is outside huggingface_hub's cache, not to disturb that."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # The user has no home directory.
        return None
    return home / "taskvec" / "checked" / hashlib.sha256(os.fsencode(file)).hexdigest()
