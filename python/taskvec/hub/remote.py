"""A folder on the Hub as the core reads it: by byte ranges, or file by file after a download."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import taskvec._core as _core

from ..errors import StorageError
from .checked import check, differs, good
from .downloads import room
from .ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .downloads import Downloads
    from .snapshot import Snapshot

_INDEX = "model.safetensors.index.json"
# Files that the checks read of every input, besides its weights.
_BESIDE = {_INDEX, "config.json", "tokenizer.json", "README.md", "vector.json", "adapter_config.json"}
_LARGEST = 100_000_000
_PIECE = 1 << 20
# Seconds to wait for a file at a time; in between, waiting can be interrupted.
_PATIENCE = 0.2


class Remote:
    """Implements the protocol `taskvec._core.Remote`, through which the core reads a folder on the Hub."""

    def __init__(
        self, snapshot: Snapshot, downloads: Downloads, small: dict[str, bytes], *, streams: bool
    ) -> None:
        """Reads nothing yet.

        Args:
            snapshot: the folder.
            downloads: the downloads of the run.
            small: contents of small files by digest; all folders of the run share it, since they often have
                the same tokenizer.
            streams: whether weights are read by ranges only, and not downloaded.
        """
        self._snapshot, self._downloads, self._small = snapshot, downloads, small
        self._ranges = Ranges(snapshot)
        self._names = list(snapshot.files)
        self.files = [(name, file.size) for name, file in snapshot.files.items()]
        """Name and size in bytes of every file in the folder and its subfolders."""
        self.streams = streams
        """Whether weights are read by ranges only, and not stored on disk."""

    def fetch(self, file: int, begin: int, end: int) -> Iterator[bytes]:
        """Bytes `[begin, end)` of a file in order, in pieces; from the cache if the file is in it."""
        name = self._names[file]
        listed = self._snapshot.files[name]
        path = self._snapshot.cached(name)
        whole = (begin, end) == (0, listed.size) and not name.endswith(".safetensors")
        if whole and (path is None or listed.size <= _LARGEST):
            # `read` compares the content with its digest, also if the file is already in the cache.
            yield self.read(name) or b""
        elif path:
            if self.streams:
                # Without streaming, the file goes through the downloads, which check it.
                what = f"{self._snapshot.name.text}: {listed.path}"
                unchecked = self._downloads.unchecked
                if what not in unchecked and not check(path, listed, what, lambda: None):
                    unchecked.add(what)
            with path.open("rb") as stream:
                stream.seek(begin)
                while begin < end and (piece := stream.read(min(_PIECE, end - begin))):
                    begin += len(piece)
                    yield piece
        else:
            yield from self._ranges.read(listed, begin, end)

    def read(self, name: str) -> bytes | None:
        """Reads a small file whole and checks it; None if the folder has no file of this name."""
        file = self._snapshot.files.get(name)
        if file is None:
            return None
        what = f"{self._snapshot.name.text}: {file.path}"
        if file.size > _LARGEST:
            raise StorageError(None, f"{what} has more than {_LARGEST} bytes; replace it by the right file")
        if path := self._snapshot.cached(name):
            data = path.read_bytes()
            if (found := good([data], file)) is False:
                raise differs(what, path)
            if found is None:
                self._downloads.unchecked.add(what)
            return data
        key = file.sha256 or file.git or file.path
        if key not in self._small:
            self._small[key] = self._ranges.whole(file)
        return self._small[key]

    @property
    def shards(self) -> set[str]:
        """The weight files of the folder, according to its index."""
        top = {name for name in self._names if "/" not in name}
        weights = {name for name in top if name.endswith(".safetensors")}
        if not {"vector.json", "adapter_config.json"}.isdisjoint(top - {"model.safetensors", _INDEX}):
            return weights
        if _INDEX not in top:
            return weights & {"model.safetensors"}
        # If the index is malformed, the core reports it.
        with suppress(ValueError, KeyError, AttributeError, TypeError):
            return weights & set(json.loads(self.read(_INDEX) or b"")["weight_map"].values())
        return set()

    def missing(self, *, sidecars: bool) -> dict[tuple[str, str, str], int]:
        """The weight files that are not in the cache, with their bytes; with `sidecars`, other files too."""
        needed = self.shards | _BESIDE
        if sidecars:
            beside = (name for name in self._names if not _core.is_weights(name))
            needed |= {name for name in beside if not _core.is_stray(name)}
        where, files = self._snapshot, self._snapshot.files
        absent = [files[name] for name in needed & files.keys() if not where.cached(name)]
        return {(where.name.repo, where.commit, file.path): file.size for file in absent}

    def room(self) -> int:
        """Free space on the disk of the cache, in bytes."""
        return room(self._snapshot)[1]

    def want(self, file: int) -> None:
        """Starts to download a file, and the small files that a later offline run needs with it."""
        self._downloads.want(self._snapshot, self._names[file])
        for name in self._snapshot.files.keys() & _BESIDE:
            self._downloads.want(self._snapshot, name)

    def local(self, file: int) -> str | None:
        """The path of the complete, checked file in the cache; None if it has not arrived yet."""
        path = self._downloads.local(self._snapshot, self._names[file], _PATIENCE)
        return None if path is None else str(path)
