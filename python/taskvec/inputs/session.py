"""Opens the inputs of one call, and pins those on the Hub to the commit that their revision has now."""

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
    """Pins revisions over several calls: a command that plans and then runs sees the same commits."""
    token = _commits.set({})
    try:
        yield
    finally:
        _commits.reset(token)


class Session:
    """Opens refs, for the length of a `with` block; if the block fails, running downloads are stopped."""

    def __init__(self, options: Options, progress: object = None) -> None:
        """Opens nothing yet; downloads have bars only beside the command line's own bar, not a caller's."""
        self._options, self._bars = options, bool(getattr(progress, "shown", False))
        self._downloads: Downloads | None = None
        shared = _commits.get()
        self._commits = {} if shared is None else shared
        self._small: dict[str, bytes] = {}
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        """Returns the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends downloads: waits for them if the block succeeded, else stops them."""
        # `with` closes them also if Ctrl-C ends the wait.
        with self._ends:
            if kind is None and self._downloads is not None:
                self._downloads.finish()

    def target(self, ref: Folder) -> Ref:
        """Opens a checkpoint whose sidecars are also read, not only its weights."""
        return self._opened(ref, streams=False)

    def donors(self, *refs: Folder) -> list[Ref]:
        """Opens checkpoints, adapters or vectors of which only weights are read; streamed if asked for."""
        found = [self._opened(ref, streams=self._options.stream) for ref in refs]
        if self._options.stream and not any(one.remote and one.remote.streams for one in found):
            raise UsageError(
                "--stream is for donors that are checkpoints on the Hub, and no donor is one; omit --stream"
            )
        return found

    def whole(self, ref: Folder) -> Ref:
        """Opens a folder with all its files on this machine; one on the Hub is downloaded first."""
        found = self.target(ref)
        if found.remote is None:
            return found
        # `inspect` refuses what is not a checkpoint before it is downloaded, and lists the files to download.
        inside = json.loads(_core.inspect(found, listed=False))
        wanted = found.remote.shards | {file["name"] for file in inside["files"]} | set(inside["sidecars"])
        wanted |= {name for name, _ in found.remote.files if "/" not in name and name.endswith(".json")}
        return Ref(_downloaded(found.remote, wanted), found.name, found.origin)

    def unchecked(self) -> list[str]:
        """A warning for each file whose content could not be compared with the Hub's digest."""
        files = sorted(self._downloads.unchecked) if self._downloads else []
        return [
            f"{file} is in the cache without a digest, so only its size was checked; run once without"
            " HF_HUB_OFFLINE to check its content"
            for file in files
        ]

    def traffic(self, target: Ref | None, donors: Iterable[Ref]) -> Json:
        """The bytes that a run would still download to the cache (`bytes`) or stream (`streamed`)."""
        remotes = [(one.remote, one is target) for one in (target, *donors) if one is not None and one.remote]
        # Counted by file, since two refs may name the same repository.
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
        # An absolute path, because the working directory may change before the last file is read.
        folder = snapshot(name, str(cache(self._options.cache_dir)), self._commits)
        # Adapters and vectors are never streamed: their files are small, and are not read in order.
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
        # `local` waits only a moment: a thread in an endless wait would not see Ctrl-C.
        while (path := remote.local(at)) is None:
            pass
        root = str(Path(path).parents[remote.files[at][0].count("/")])
    return root
