"""The folders of one call, on this machine or on the Hub, there pinned to the commit of this moment."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import taskvec._core as _core

from ..errors import UsageError
from .refs import Origin, Ref, local, named, require_content

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from types import TracebackType

    from ..hub.downloads import Downloads
    from ..hub.names import HubName
    from ..hub.remote import Remote
    from ..options import Options
    from ..records import Json
    from .refs import Folder

_commits: ContextVar[dict[tuple[str, str], str] | None] = ContextVar("_commits", default=None)


@contextmanager
def pinned() -> Generator[None]:
    """What a revision means is asked once for all calls inside: a command may plan first and then run."""
    token = _commits.set({})
    try:
        yield
    finally:
        _commits.reset(token)


class Session:
    """Opens refs for as long as a `with` block lasts; at its end downloads that are under way are stopped."""

    def __init__(self, options: Options, *, bars: bool = False) -> None:
        """Opens nothing yet; `bars` shows how downloads go."""
        self._options, self._bars = options, bars
        self._downloads: Downloads | None = None
        shared = _commits.get()
        self._commits = {} if shared is None else shared
        self._small: dict[str, bytes] = {}
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        """The folders themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops downloads; where all went well, only when what was wanted has come."""
        # Closed also where Ctrl-C ends the wait.
        with self._ends:
            if kind is None and self._downloads is not None:
                self._downloads.finish()

    def target(self, ref: Folder) -> Ref:
        """A checkpoint that gives an output its files."""
        return self._opened(ref, streams=False)

    def donors(self, *refs: Folder) -> list[Ref]:
        """Checkpoints, adapters or vectors whose weights alone are read: by ranges, if that is wished."""
        found = [self._opened(ref, streams=self._options.stream) for ref in refs]
        if self._options.stream and not any(one.remote and one.remote.streams for one in found):
            raise UsageError(
                "--stream reads checkpoints from the Hub past the disk, and no donor is one; leave it out"
            )
        return found

    def whole(self, ref: Folder) -> Ref:
        """A folder whose files are all on this machine: one on the Hub is downloaded first."""
        found = self.target(ref)
        if found.remote is None:
            return found
        # What is no checkpoint is refused before anything is moved; and what belongs to one, the core says.
        inside = json.loads(_core.inspect(found))
        wanted = found.remote.shards | {file["name"] for file in inside["files"]} | set(inside["sidecars"])
        wanted |= {name for name, _ in found.remote.files if "/" not in name and name.endswith(".json")}
        return Ref(_downloaded(found.remote, wanted), found.name, found.origin)

    def unchecked(self) -> list[str]:
        """What a result has to say of files whose content could not be compared with the Hub's."""
        files = sorted(self._downloads.unchecked) if self._downloads else []
        return [
            f"{file} was taken from the cache by its size alone: the cache does not know its digest; run once"
            " without HF_HUB_OFFLINE to have it compared"
            for file in files
        ]

    def traffic(self, target: Ref | None, donors: Iterable[Ref]) -> Json:
        """The bytes that a run would still move from the Hub: to the cache, and past it."""
        remotes = [(one.remote, one is target) for one in (target, *donors) if one is not None and one.remote]
        # By file: two refs may name the same.
        kept: dict[tuple[str, str, str], int] = {}
        streamed: dict[tuple[str, str, str], int] = {}
        for one, whole in remotes:
            (streamed if one.streams else kept).update(one.missing(sidecars=whole))
        return {
            "bytes": sum(kept.values()),
            "streamed": sum(streamed.values()),
            "free": remotes[0][0].room() if remotes else None,
        }

    def _opened(self, ref: Folder, *, streams: bool) -> Ref:
        where = named(ref)
        if isinstance(where, Path):
            require_content(os.fspath(ref), where)
            return local(where)
        return self._remote(where, streams=streams)

    def _remote(self, name: HubName, *, streams: bool) -> Ref:
        from ..hub.downloads import Downloads
        from ..hub.library import quiet
        from ..hub.remote import Remote
        from ..hub.snapshot import cache, snapshot

        if self._downloads is None:
            self._ends.enter_context(quiet(bars=self._bars))
            self._downloads = Downloads(bars=self._bars)
            self._ends.callback(self._downloads.close)
        # Whole: the working folder may be another when the last file is asked for.
        folder = snapshot(name, str(cache(self._options.cache_dir)), self._commits)
        # Low-rank factors and a vector's exceptions are read here and there; they are small.
        sha256 = {file: listed.sha256 for file, listed in folder.files.items() if listed.sha256}
        origin = Origin(name.repo, folder.commit, name.subfolder, sha256)
        downloaded = Remote(folder, self._downloads, self._small, streams=False)
        ref = Ref(name.text, origin.name, origin, downloaded)
        if not streams or ref.is_adapter or ref.is_vector:
            return ref
        return replace(ref, remote=Remote(folder, self._downloads, self._small, streams=True))


def _downloaded(remote: Remote, wanted: set[str]) -> str:
    places = [at for at, (name, _) in enumerate(remote.files) if name in wanted]
    for at in places:
        remote.want(at)
    root = ""
    for at in places:
        # Short waits: a thread that waits without end does not see Ctrl-C.
        while (path := remote.local(at)) is None:
            pass
        root = str(Path(path).parents[remote.files[at][0].count("/")])
    return root
