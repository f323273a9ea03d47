"""The server's whole state, and the routes by which a test changes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cdn, reading, writing
from .faults import Rule, Rules
from .listener import Listener
from .repos import Store
from .wire import Refused, Reply, as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Call

SETTINGS: dict[str, Any] = {
    # How long a signed URL is good for, in seconds and in requests.
    "signature_seconds": 3600,
    "signature_uses": None,
    # Files on one page of a tree.
    "page": 1000,
    # Uploads above this many bytes go in parts of `part` bytes.
    "multipart_above": 100 << 20,
    "part": 16 << 20,
}


class World:
    """Repositories, rules, log, and the two listeners."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.rules = Rules()
        self.log: list[dict[str, Any]] = []
        self.settings = dict(SETTINGS)
        self.signatures = cdn.Signatures()
        hub = Listener("hub", self, routed(reading.ROUTES + writing.ROUTES))
        content = Listener("cdn", self, routed(cdn.ROUTES))
        self.endpoint = f"http://127.0.0.1:{hub.server_port}"
        self.cdn = f"http://127.0.0.1:{content.server_port}"

    def control(self, method: str, path: str, body: bytes) -> Reply:
        """Carries out what the handle in the test's process asks for."""
        given = json.loads(body) if body else {}
        match path.removeprefix("/control/"):
            case "publish":
                repo = self.store.repo(given["repo"])
                repo.private, repo.gated = given["private"], given["gated"]
                hashed = given["digests"] == "true"
                files = {
                    name: self.store.published(Path(where), hashed=hashed)
                    for name, where in given["files"].items()
                }
                return as_json(repo.commit(given["revision"], files))
            case "files":
                repo = self.store.repos[given["repo"]]
                found = repo.commits[repo.commit_of(given["revision"]) or ""]
                return as_json({name: one.where for name, one in found.items()})
            case "head":
                return as_json(self.store.repos[given["repo"]].commit_of(given["revision"]))
            case "misbehave":
                self.rules.add(Rule(**given))
            case "behave":
                self.rules.clear()
            case "settings":
                self.settings |= given
            case "log":
                return as_json(self.log)
            case "clear_log":
                self.log.clear()
            case "reset":
                self.rules.clear()
                self.store.clear()
                self.log.clear()
                self.settings = dict(SETTINGS)
            case _:
                return as_json(f"{method} {path}: no such control", 404)
        return as_json(None)


def routed(routes: list[tuple[str, str, Callable[..., Reply]]]) -> Callable[[Call], Reply]:
    """Answers a request by the first route whose methods and path match it."""
    compiled = [(methods.split(), re.compile(path), route) for methods, path, route in routes]

    def answer(call: Call) -> Reply:
        for methods, path, route in compiled:
            if call.method in methods and (match := path.fullmatch(call.raw)):
                return route(
                    call, **{name: text for name, text in match.groupdict().items() if text is not None}
                )
        raise Refused(404, f"{call.method} {call.path}: no such route")

    return answer
