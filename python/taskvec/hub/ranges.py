"""Reads byte ranges of files on the Hub, and checks each response against the request.

Requests go through huggingface_hub's session, with its authentication, proxies and certificates. This file
adds what that library has no function for: the URL of a large file is resolved once and used until it
expires, reading continues where a connection broke, and waiting can be interrupted.
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

# Attempts in a row that bring no byte, before reading fails.
_ATTEMPTS = 6
# Statuses with which the storage refuses a signed URL that has expired.
_STALE = (400, 401, 403, 404, 410)
# Longest sleep in seconds; in between, waiting can be interrupted.
_TICK = 0.2


class Ranges:
    """Reads from one snapshot; threads may share it."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Sends no request yet."""
        self._snapshot = snapshot
        self._addresses: dict[str, str] = {}
        self._lock = threading.Lock()

    def read(self, file: File, begin: int, end: int) -> Iterator[bytes]:
        """Bytes `[begin, end)` in order, in pieces; reads from the connection only as pieces are taken.

        Raises `StorageError` if they are not available, and `CorruptError` if the file is not the one that
        the Hub lists.
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
                        f"{name}: the Hub's storage refuses it (status {broken}), at a new URL too;"
                        " run again later",
                    )
                if failed == _ATTEMPTS:
                    raise explained(broken, name) from broken
                # The URL has expired or its server does not answer: the next attempt asks for another URL.
                with self._lock:
                    self._addresses.pop(file.path, None)
                yield from _waiting(
                    0 if isinstance(broken, _Stale) else asked(broken) or 2 ** (failed - 1) - 1
                )

    def whole(self, file: File) -> bytes:
        """Reads a small file whole, and checks its content against the Hub's digest."""
        data = b"".join(self.read(file, 0, file.size))
        if not good([data], file):
            raise CorruptError(
                f"{self._snapshot.name.text}: {file.path} arrived with another content than the Hub lists"
                " (its digest differs); run again, and if that does not help, tell the repository's owner"
            )
        return data

    def _answer(self, file: File, name: str, begin: int, end: int) -> Iterator[bytes | BaseException]:
        """The body of one response, in pieces; if it breaks off and may be retried, the last is an error."""
        headers = {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        how: Any = {"timeout": constants().HF_HUB_DOWNLOAD_TIMEOUT}
        try:
            address = self._address(file, name)
            how["headers"] = _headers(address) | headers
            with utils().get_session().stream("GET", address, **how) as response:
                if response.status_code in _STALE and not _on_hub(str(response.url)):
                    # The storage refuses it, not the Hub: most likely the signed URL has expired.
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
        """The URL of the file; for a large file the signed URL of its storage, which the Hub gives."""
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
                " that does not help, tell the repository's owner"
            )
        with self._lock:
            self._addresses[file.path] = found.location
        return found.location


def _headers(address: str) -> dict[str, str]:
    """HTTP headers; the token is sent to the Hub only, never to a storage server."""
    return utils().build_hf_headers(
        token=None if _on_hub(address) else False, library_name="taskvec", library_version=version
    )


def _on_hub(address: str) -> bool:
    asked, ours = urlsplit(address), urlsplit(str(constants().ENDPOINT))
    return (asked.scheme, asked.netloc.lower()) == (ours.scheme, ours.netloc.lower())


def _waiting(seconds: float) -> Iterator[bytes]:
    """Waits; yields empty pieces meanwhile, so that the caller can stop."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        yield b""
        time.sleep(min(left, _TICK))


class _Stale(Exception):
    """A storage server, not the Hub, refused a URL; the argument is the HTTP status."""


def _check(response: Any, file: File, name: str, begin: int, end: int) -> None:
    """Raises an error unless the response holds exactly the bytes that were requested."""
    length = response.headers.get("Content-Length")
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise CorruptError(
            f"{name} arrived encoded as {encoding}, which was not requested: a proxy alters responses of the"
            " Hub; download the model instead"
        )
    if response.status_code == 200 and (begin, end) == (0, file.size) and length in (None, str(file.size)):
        return
    if response.status_code != 206:
        raise StorageError(
            None,
            f"{name}: the server answered a range request with status {response.status_code}, not 206;"
            " run again, and if that does not help, download the model instead",
        )
    said = response.headers.get("Content-Range", "")
    right = (f"bytes {begin}-{end - 1}/{file.size}", f"bytes {begin}-{end - 1}/*")
    if said not in right or length not in (None, str(end - begin)):
        raise CorruptError(
            f"{name}: asked for bytes {begin} to {end - 1} of {file.size}, the server sent {said or 'others'}"
            f" in {length or 'unknown'} bytes; run again, and if that does not help, tell the repository's"
            " owner"
        )
