"""A Hub for the tests: a real HTTP server in a process of its own, reached by huggingface_hub itself.

It speaks the Hub's routes for model repositories, with large files on another port behind signed URLs, logs
every request, and can be told to misbehave. Nothing of huggingface_hub is replaced: a command meets this
server through `HF_ENDPOINT`, which `Hub.env` sets.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from .faults import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

READER, OTHER, WRITER = "hf_test_reader", "hf_test_other", "hf_test_writer"
"""Tokens: may read everything; may read what is public; may read everything and write."""


@dataclass(frozen=True)
class Request:
    """A request as the server saw it, in the order in which they came."""

    role: str
    """`hub` or `cdn`."""
    host: str
    port: int
    method: str
    path: str
    """Decoded, without the query."""
    query: bool
    authorization: str | None
    range: str | None
    user_agent: str | None
    status: int | None
    """None where the connection was closed instead, or no answer has been given yet."""
    sent: int
    """Bytes of the answer's body."""
    received: int
    """Bytes of the request's body."""
    begun: float
    ended: float | None
    """Seconds, on the server's monotonic clock."""


class Hub:
    """The server, as a context manager."""

    def __init__(self, root: Path) -> None:
        """Keeps what is uploaded or published below `root`."""
        self._root = root.absolute()
        self._made = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self._root / "store"],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        said = json.loads(self._process.stdout.readline())
        self.endpoint: str = said["endpoint"]
        self.cdn: str = said["cdn"]
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)

    def publish(
        self,
        repo: str,
        folder: Path | Mapping[str, bytes],
        *,
        revision: str = "main",
        private: bool = False,
        gated: bool = False,
        digests: Literal["true", "made up"] = "true",
    ) -> str:
        """Makes these the files of a commit on a branch, in place of what was there; returns the commit.

        Files above 16 MiB are served from where they lie, so they must stay as they are. They are not even
        read where digests are made up, of their path, size and time: for files that nobody downloads whole.
        Names in a mapping are taken as they come: `..` too.
        """
        if isinstance(folder, Path):
            files = {
                path.relative_to(folder).as_posix(): str(path.absolute())
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
        else:
            files: dict[str, str] = {}
            self._made += 1
            made = self._root / "made" / str(self._made)
            made.mkdir(parents=True)
            for number, (name, data) in enumerate(folder.items()):
                (made / str(number)).write_bytes(data)
                files[name] = str(made / str(number))
        given = {"repo": repo, "files": files, "revision": revision, "private": private, "gated": gated}
        return self._control("publish", {**given, "digests": digests})

    def misbehave(
        self,
        kind: str,
        *,
        role: str | None = None,
        method: str | None = None,
        path: str = "",
        times: int | None = None,
        after: int = 0,
        **details: Any,
    ) -> None:
        """From now on treats requests badly; `hubserver.faults.KINDS` says which kinds there are, and how.

        Args:
            kind: What to do.
            role: Only to `hub` or `cdn`.
            method: Only with this method.
            path: A regular expression, searched for in the decoded path without the query.
            times: To so many requests that match, then no more.
            after: Leaving the first so many that match alone.
            details: What the kind takes.
        """
        assert kind in KINDS, kind
        rule = {"kind": kind, "role": role, "method": method, "path": path, "times": times, "after": after}
        self._control("misbehave", {**rule, "details": details})

    def behave(self) -> None:
        """Takes back every `misbehave`."""
        self._control("behave")

    def set(self, **settings: Any) -> None:
        """Changes how the server works: `hubserver.world.SETTINGS` says what there is."""
        self._control("settings", settings)

    def reset(self) -> None:
        """Forgets repositories, rules, settings and log."""
        self._control("reset")

    def requests(self) -> list[Request]:
        """What has been asked since the log was cleared, the tests' own controls apart."""
        return [Request(**one) for one in self._control("log")]

    def clear_log(self) -> None:
        """Forgets the requests so far."""
        self._control("clear_log")

    def head(self, repo: str, revision: str = "main") -> str | None:
        """The commit that a revision stands for."""
        return self._control("head", {"repo": repo, "revision": revision})

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What is in a repository."""
        places = self._control("files", {"repo": repo, "revision": revision})
        return {name: Path(where).read_bytes() for name, where in places.items()}

    def env(self, home: Path, **extra: str) -> dict[str, str]:
        """The environment in which a command meets this Hub alone.

        Args:
            home: `HF_HOME`; fresh for an empty cache, the same again for a warm one.
            extra: More variables, as `HF_TOKEN=hubserver.READER`.
        """
        return {
            **os.environ,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_XET_CACHE": str(home / "xet"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            # Set for the tests' own process; a value, since a variable that is only left out comes back where
            # environments are merged.
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_TOKEN": "",
            "HF_TOKEN_PATH": str(home / "token"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHONUTF8": "1",
            **extra,
        }

    def _control(self, what: str, given: Mapping[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"), timeout=600)
        connection.request("POST", f"/control/{what}", json.dumps(given or {}))
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, body.decode()
        return json.loads(body)
