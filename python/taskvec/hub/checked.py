"""Files against the Hub's digests of them, once: huggingface_hub hashes nothing that it downloads."""

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
    """Whether the cached file is known to be what the Hub has; a large one found good once is not read again.

    Reads it in blocks of a MiB, however large it is.

    Args:
        path: where the cache has it.
        file: what the Hub lists.
        what: its name for the message.
        go_on: called for every MiB; may raise to stop.

    Returns:
        False where no digest of its content is known.

    Raises:
        CorruptError: its content is another.
    """
    at = path.resolve()
    state = at.stat()
    looks = [file.sha256 or file.git, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns]
    memory = _memory(at) if file.sha256 or file.perhaps_large else None
    # A file that was written to since has another time.
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
    """Whether these bytes are all of a file, by the Hub's digest of it; None where that is unknown."""
    sha256, git = hashlib.sha256(), _blob(file.size)
    for piece in pieces:
        sha256.update(piece)
        if file.sha256 is None:
            git.update(piece)
    if file.sha256 is not None:
        return sha256.hexdigest() == file.sha256
    # The text of a pointer follows from the content, unless an extension of LFS has added to it.
    text = _POINTER.format(sha256.hexdigest(), file.size).encode()
    pointer = _blob(len(text))
    pointer.update(text)
    if file.git in (git.hexdigest(), pointer.hexdigest()):
        return True
    return None if file.perhaps_large else False


def differs(what: str, path: Path) -> CorruptError:
    """The error for a file of the cache that is not what the Hub has."""
    return CorruptError(
        f"{what} is in the cache with another content than the Hub has (its digest differs);"
        f" remove {path.resolve()} and run again"
    )


def _blob(size: int) -> Any:
    """Git's digest of a content of so many bytes, which are yet to come."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _pieces(path: Path, go_on: Callable[[], None]) -> Iterator[memoryview]:
    """The content in blocks, each valid until the next."""
    with path.open("rb", buffering=0) as stream:
        piece = bytearray(_PIECE)
        while got := stream.readinto(piece):
            go_on()
            yield memoryview(piece)[:got]


def _memory(file: Path) -> Path | None:
    """Where it is remembered that a file was good; the layout of huggingface_hub's cache is its own."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # A user without a home.
        return None
    return home / "taskvec" / "checked" / hashlib.sha256(os.fsencode(file)).hexdigest()
