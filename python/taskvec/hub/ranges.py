"""Byte ranges of files on the Hub, each answer checked against what was asked for.

huggingface_hub's session asks (its authentication, proxies, certificates). Here stands what it has no
function for: the address of a large file is resolved once and used until it expires, a connection that breaks
goes on where it was, and a pause that the Hub asks for can be stopped.
"""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._core import version
from ..errors import CorruptError, StorageError, TaskvecError
from .checked import good
from .errors import asked, explained, transient
from .library import constants, hub, utils

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .snapshot import File, Snapshot

# Attempts without a byte gained.
_ATTEMPTS = 6
# A signed address has been resolved anew just before: if it is refused again, it is refused for good.
_STALE = (400, 401, 403, 404, 410)
# Seconds after which a wait looks up, so that it can be stopped.
_TICK = 0.2


class Ranges:
    """Reads from one snapshot; for any number of threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Asks for nothing yet."""
        self._snapshot = snapshot
        self._addresses: dict[str, str] = {}
        self._lock = threading.Lock()

    def read(self, file: File, begin: int, end: int) -> Iterator[bytes]:
        """Bytes `[begin, end)` in pieces, in order; a connection is read only as fast as they are taken.

        `StorageError` where they cannot be had, `CorruptError` where the file is not what the Hub lists.
        """
        name = f"{self._snapshot.name.text}: {file.path}"
        failed = 0
        while begin < end:
            broken: BaseException = EOFError("the connection ends early")
            for piece in self._answer(file, name, begin, end):
                if isinstance(piece, BaseException):
                    broken = piece
                    break
                begin += len(piece)
                failed = 0
                yield piece
            if begin < end:
                failed += 1
                if failed == _ATTEMPTS and isinstance(broken, _Stale):
                    raise StorageError(
                        errno.EACCES,
                        f"{name}: is refused by the Hub's storage (status {broken}), at a new address too;"
                        " run again later",
                    )
                if failed == _ATTEMPTS:
                    raise explained(broken, name) from broken
                # An address that has expired, or a server that is gone: ask for another.
                with self._lock:
                    self._addresses.pop(file.path, None)
                yield from _waiting(
                    0 if isinstance(broken, _Stale) else asked(broken) or 2 ** (failed - 1) - 1
                )

    def whole(self, file: File) -> bytes:
        """All of a small file, its content checked against the Hub's digest."""
        data = b"".join(self.read(file, 0, file.size))
        if not good([data], file):
            raise CorruptError(
                f"{self._snapshot.name.text}: {file.path} arrived as something else than the Hub lists under"
                f" its digest; run again, and if it stays so tell the repository's owner"
            )
        return data

    def _answer(self, file: File, name: str, begin: int, end: int) -> Iterator[bytes | BaseException]:
        """The body of one answer; instead of a piece, the reason why it breaks off and may be asked again."""
        headers = {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        how: Any = {"timeout": constants().HF_HUB_DOWNLOAD_TIMEOUT}
        try:
            address = self._address(file, name)
            how["headers"] = _headers(address) | headers
            with utils().get_session().stream("GET", address, **how) as response:
                if response.status_code in _STALE and not _on_hub(str(response.url)):
                    # The storage's answer, not the Hub's: most likely the signature has expired.
                    yield _Stale(response.status_code)
                    return
                utils().hf_raise_for_status(response)
                _check(response, file, name, begin, end)
                for piece in response.iter_raw():
                    yield piece[: end - begin]
                    begin += len(piece)
        except TaskvecError:
            raise
        except Exception as error:
            if not transient(error):
                raise explained(error, name) from error
            yield error

    def _address(self, file: File, name: str) -> str:
        """Where to read the file: of a large one the signed address that the Hub gives out."""
        url = hub().hf_hub_url(self._snapshot.name.repo, file.path, revision=self._snapshot.commit)
        if file.sha256 is None:
            return url
        with self._lock:
            known = self._addresses.get(file.path)
        if known is not None:
            return known
        found = hub().get_hf_file_metadata(url)
        if (found.commit_hash, found.etag, found.size) != (self._snapshot.commit, file.sha256, file.size):
            raise CorruptError(
                f"{name}: the Hub offers another file than it lists for this commit; run again, and if"
                " it stays so tell the repository's owner"
            )
        with self._lock:
            self._addresses[file.path] = found.location
        return found.location


def _headers(address: str) -> dict[str, str]:
    """The token goes to the Hub alone."""
    return utils().build_hf_headers(
        token=None if _on_hub(address) else False, library_name="taskvec", library_version=version
    )


def _on_hub(address: str) -> bool:
    asked, ours = urlsplit(address), urlsplit(str(constants().ENDPOINT))
    return (asked.scheme, asked.netloc.lower()) == (ours.scheme, ours.netloc.lower())


def _waiting(seconds: float) -> Iterator[bytes]:
    """Nothing, again and again, for so long: whoever takes it may stop at each."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        yield b""
        time.sleep(min(left, _TICK))


class _Stale(Exception):
    """The status with which a storage, not the Hub, refuses an address."""


def _check(response: Any, file: File, name: str, begin: int, end: int) -> None:
    """Whether an answer holds just the bytes that were asked for."""
    length = response.headers.get("Content-Length")
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise CorruptError(
            f"{name}: came encoded as {encoding}, which was not asked for; something between here and the Hub"
            " alters answers, download the model instead"
        )
    if response.status_code == 200 and (begin, end) == (0, file.size) and length in (None, str(file.size)):
        return
    if response.status_code != 206:
        raise StorageError(
            None,
            f"{name}: a range was asked for, and answered with status {response.status_code}, not 206;"
            " if it stays so, download the model instead",
        )
    said = response.headers.get("Content-Range", "")
    right = (f"bytes {begin}-{end - 1}/{file.size}", f"bytes {begin}-{end - 1}/*")
    if said not in right or length not in (None, str(end - begin)):
        raise CorruptError(
            f"{name}: asked for bytes {begin} to {end - 1} of {file.size}, the server sent {said or 'others'}"
            f" in {length or 'unknown'} bytes; run again, and if it stays so tell the repository's owner"
        )
