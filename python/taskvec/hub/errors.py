"""Turns errors of huggingface_hub into one sentence that says what to do, without URLs or tokens."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import StorageError, TaskvecError, UsageError
from .library import constants, errors, httpx
from .library import hub as library

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tenacity import RetryCallState

TRANSIENT = (408, 429, 500, 502, 503, 504)
"""HTTP statuses that may be temporary: the same for which huggingface_hub itself retries."""

_NOT_THERE = FileNotFoundError | ConnectionError
_PAGE = "https://huggingface.co/"


@contextmanager
def explaining(ref: str, *, writing: bool = False) -> Generator[None]:
    """Turns what huggingface_hub raises inside the block into an error of `taskvec.errors` about `ref`."""
    hub, http = errors(), httpx()
    ours = (hub.HfHubHTTPError, hub.EntryNotFoundError, hub.OfflineModeIsEnabled, hub.FileMetadataError)
    cached = (hub.RevisionResolutionError, hub.CachedRepoTreeNotFoundError, hub.HFValidationError)
    try:
        yield
    except TaskvecError:
        raise
    # ValueError and ImportError come from an invalid endpoint, token or proxy.
    except (*ours, *cached, http.HTTPError, http.InvalidURL, OSError, ValueError, ImportError) as error:
        raise explained(error, ref, writing=writing) from error


def explained(error: BaseException, ref: str, *, writing: bool = False) -> TaskvecError:
    """The error to raise for an error of huggingface_hub or its HTTP client; `ref` names the folder."""
    hub = errors()
    chain = list(_causes(error))
    first = chain[0]
    local = isinstance(first, OSError) and first.errno is not None and not isinstance(first, _NOT_THERE)
    if constants().is_offline_mode() and not local:
        # `ref` names a folder, or one of its files as "org/name: config.json".
        what = "is not in the cache" if ": " in ref else "is neither a local folder nor complete in the cache"
        return _refused(f"{ref}: {what}, and HF_HUB_OFFLINE forbids asking the Hub; run once without it")
    if isinstance(first, hub.HFValidationError):
        return UsageError(f"{ref} is not a valid name of a repository on the Hub; write it as org/name")
    answered = next((one for one in chain if isinstance(one, hub.HfHubHTTPError)), None)
    if answered is not None:
        return _refused(f"{ref}: {_answer(answered, ref, writing=writing)}")
    system = next((one for one in chain if isinstance(one, OSError) and one.errno is not None), None)
    if system is not None and not any(isinstance(one, httpx().TransportError) for one in chain):
        name = f" ({system.filename})" if system.filename else ""
        return StorageError(system.errno, f"{ref}: {system.strerror}{name}; correct that and run again")
    if isinstance(first, httpx().LocalProtocolError | UnicodeError):
        return UsageError(f"{ref}: the token holds characters that HTTP does not allow; log in again")
    said = " ".join(str(chain[-1]).split()) or type(chain[-1]).__name__
    if isinstance(first, ValueError | ImportError | httpx().UnsupportedProtocol):
        return UsageError(
            f"{ref}: the Hub cannot be asked ({_plain(said)}); correct HF_ENDPOINT or the proxy settings"
        )
    return _refused(
        f"{ref}: the Hub could not be reached ({_plain(said)}); check the network and run again", errno.EIO
    )


def _answer(error: Any, ref: str, *, writing: bool) -> str:
    hub = errors()
    repo = ref.partition("@")[0].partition(":")[0]
    missing = "is not on the Hub" if writing else "is neither a local folder nor on the Hub"
    token, status = library().get_token() is not None, error.response.status_code
    login = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, hub.GatedRepoError):
        if not token:
            return f"is gated, and no token was given; accept its terms at {_PAGE}{repo}, then {login}"
        return f"is gated, and this token has no access to it; ask for it at {_PAGE}{repo}"
    if isinstance(error, hub.RevisionNotFoundError):
        return f"has no such revision; {_PAGE}{repo}/tree/main lists its revisions"
    if isinstance(error, hub.EntryNotFoundError):
        return f"has no such file or folder; {_PAGE}{repo}/tree/main lists its files"
    if isinstance(error, hub.DisabledRepoError):
        return "has been disabled on the Hub; choose another repository"
    if isinstance(error, hub.RepositoryNotFoundError):
        if token:
            return f"{missing}, or this token has no access to it; check the name and the token"
        return f"{missing}, or it is private and no token was given; check the name, or {login}"
    if status == 401:
        return f"the Hub does not accept this token; {login}" if token else f"needs a token; {login}"
    if status == 403:
        what = "write to it" if writing else "read it"
        return f"this token may not {what}; make one that may, at {_PAGE}settings/tokens"
    if status == 404:
        return "does not exist; check the name"
    if status == 429:
        return "the Hub limits requests (429 Too Many Requests); run again in some minutes"
    if status >= 500:
        return f"the Hub has an internal error (status {status}); run again later"
    return f"the Hub refused with status {status}; check the name and run again"


def _causes(error: BaseException) -> Iterator[Any]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _plain(said: str) -> str:
    """The text without URLs: a signed URL gives access to a file to everyone who reads it."""
    return " ".join(word if "://" not in word else "…" for word in said.split())


def _refused(message: str, number: int = errno.EACCES) -> StorageError:
    return StorageError(number, message)


def transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    hub, http = errors(), httpx()
    for one in _causes(error):
        if isinstance(one, http.UnsupportedProtocol | http.LocalProtocolError):
            return False
        if isinstance(one, http.TransportError):
            return True
        if isinstance(one, hub.HfHubHTTPError):
            return one.response.status_code in TRANSIENT
        # Another thread, or the server, has closed the shared connections.
        if isinstance(one, OSError) and one.errno in (errno.EBADF, errno.ECONNRESET, errno.EPIPE):
            return True
    return False


def asked(error: BaseException) -> float | None:
    """Seconds to wait, as the server's `Retry-After` header says; None if it does not say."""
    for one in _causes(error):
        if isinstance(one, errors().HfHubHTTPError):
            seconds = str(one.response.headers.get("Retry-After", ""))
            return float(seconds) + 1 if seconds.isdigit() else None
    return None


def pause(state: RetryCallState) -> float:
    """Seconds to wait before the next attempt: what the server asks for, else 1, 2, 4 and so on."""
    error = state.outcome and state.outcome.exception()
    return (asked(error) if error else None) or float(2 ** (state.attempt_number - 1))
