"""Where large files lie: signed URLs on another port, good for a while, taking no token."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlencode

from .wire import Body, Part, Refused, Reply, as_json, ranged

if TYPE_CHECKING:
    from .repos import Content
    from .wire import Call


class Signatures:
    """Makes and checks the query of signed URLs."""

    def __init__(self) -> None:
        self._secret = os.urandom(16)
        self._number = itertools.count()
        self._uses: dict[str, int] = {}
        self._lock = threading.Lock()

    def sign(self, method: str, raw: str, seconds: float) -> str:
        """`raw` with a query that lets `method` through for so long."""
        said = {"Expires": f"{time.time() + seconds:.3f}", "Key-Pair-Id": str(next(self._number))}
        return f"{raw}?{urlencode({**said, 'Signature': self._of(method, raw, said)})}"

    def check(self, call: Call) -> None:
        """Refuses what is not signed, or is no longer."""
        said = {name: call.query.get(name, "") for name in ("Expires", "Key-Pair-Id")}
        method = "GET" if call.method == "HEAD" else call.method
        if not hmac.compare_digest(self._of(method, call.raw, said), call.query.get("Signature", "")):
            raise Refused(403, "Access denied")
        with self._lock:
            uses = self._uses[said["Key-Pair-Id"]] = self._uses.get(said["Key-Pair-Id"], 0) + 1
        most = call.world.settings["signature_uses"]
        if time.time() > float(said["Expires"]) or (most is not None and uses > most):
            raise Refused(403, "Request has expired")

    def _of(self, method: str, raw: str, said: dict[str, str]) -> str:
        text = f"{method} {raw} {sorted(said.items())}"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def download_url(call: Call, repo: str, path: str, content: Content) -> str:
    """Where a large file can be had for now."""
    raw = f"/lfs/{repo}/{content.sha256}/{quote(path)}"
    signed = call.world.signatures.sign("GET", raw, call.world.settings["signature_seconds"])
    return call.world.cdn + signed


def upload_url(call: Call, sha256: str, part: int) -> str:
    """Where a large file, or a part of it, can be put; part 0 is the whole."""
    raw = f"/upload/{sha256}/{part}"
    return call.world.cdn + call.world.signatures.sign("PUT", raw, call.world.settings["signature_seconds"])


def checked(call: Call) -> None:
    """Only a signature counts here; a token beside it is refused, as storage services do."""
    if "Authorization" in call.headers:
        raise Refused(400, "Only one auth mechanism allowed")
    call.world.signatures.check(call)


def download(call: Call, sha256: str, repo: str, path: str) -> Reply:
    """The content, found through the repository that the URL was signed for."""
    checked(call)
    for files in call.world.store.repos[unquote(repo)].commits.values():
        content = files.get(unquote(path))
        if content and content.sha256 == sha256:
            body = Body((Part(0, content.size, where=content.where),))
            return ranged(call, body, {"ETag": f'"{sha256}"', "Content-Type": "binary/octet-stream"})
    raise Refused(404, "Not found")


def upload(call: Call, sha256: str, part: str) -> Reply:
    """Keeps what is sent once all of it is there."""
    checked(call)
    blobs = call.world.store.blobs
    where = blobs / f"{sha256}.{part}"
    digest = hashlib.sha256()
    with where.open("wb") as file:
        for chunk in call.chunks():
            file.write(chunk)
            digest.update(chunk)
    if part == "0":
        if digest.hexdigest() != sha256:
            raise Refused(400, "The content is not what was announced")
        where.rename(blobs / sha256)
    return Reply(200, {"ETag": f'"{digest.hexdigest()}"'})


def complete(call: Call, sha256: str) -> Reply:
    """Joins the parts of an upload."""
    call.world.signatures.check(call)
    parts = call.json()["parts"]
    blobs = call.world.store.blobs
    whole, digest = blobs / f"{sha256}.whole", hashlib.sha256()
    with whole.open("wb") as file:
        for one in parts:
            where = blobs / f"{sha256}.{one['partNumber']}"
            data = where.read_bytes()
            if one["etag"].strip('"') != hashlib.sha256(data).hexdigest():
                raise Refused(400, "A part is not what was sent")
            digest.update(data)
            file.write(data)
            where.unlink()
    if digest.hexdigest() != sha256:
        raise Refused(400, "The content is not what was announced")
    whole.rename(blobs / sha256)
    return as_json({"success": True})


_NAME = r"(?P<repo>[^/]+/[^/]+)"
ROUTES = [
    ("GET HEAD", rf"/lfs/{_NAME}/(?P<sha256>[0-9a-f]{{64}})/(?P<path>.+)", download),
    ("PUT", r"/upload/(?P<sha256>[0-9a-f]{64})/(?P<part>\d+)", upload),
]
