"""A folder on the Hub as the core reads it: by ranges of bytes, or file by file once they are downloaded."""

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
# What checks read of every input, beside its shards.
_BESIDE = {_INDEX, "config.json", "tokenizer.json", "README.md", "vector.json", "adapter_config.json"}
_LARGEST = 100_000_000
_PIECE = 1 << 20
# Seconds after which a wait for a file looks up, so that it can be stopped.
_PATIENCE = 0.2


class Remote:
    """What `taskvec._core.Remote` asks for."""

    def __init__(
        self, snapshot: Snapshot, downloads: Downloads, small: dict[str, bytes], *, streams: bool
    ) -> None:
        """Asks for nothing yet.

        Args:
            snapshot: the folder.
            downloads: those of the run.
            small: contents of small files by digest, shared by all folders of the run, which often have one
                tokenizer.
            streams: whether shards are read by ranges alone.
        """
        self._snapshot, self._downloads, self._small = snapshot, downloads, small
        self._ranges = Ranges(snapshot)
        self._names = list(snapshot.files)
        self.files = [(name, file.size) for name, file in snapshot.files.items()]
        """Name and bytes of every file in and below the folder."""
        self.streams = streams
        """Whether shards never come to the disk."""

    def fetch(self, file: int, begin: int, end: int) -> Iterator[bytes]:
        """Bytes `[begin, end)` of a file in order, in pieces; from the cache where it has the file."""
        name = self._names[file]
        listed = self._snapshot.files[name]
        path = self._snapshot.cached(name)
        whole = (begin, end) == (0, listed.size) and not name.endswith(".safetensors")
        if whole and (path is None or listed.size <= _LARGEST):
            # Compared with its digest, also where a verb that downloads nothing finds it in the cache.
            yield self.read(name) or b""
        elif path:
            if self.streams:
                # Of what is not streamed, the download makes sure.
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
        """All of a small file, checked; None where the folder has none of this name."""
        file = self._snapshot.files.get(name)
        if file is None:
            return None
        what = f"{self._snapshot.name.text}: {file.path}"
        if file.size > _LARGEST:
            raise StorageError(None, f"{what} has more than {_LARGEST} bytes; put the real file there")
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
        """The weight files that belong to the folder, as far as its index can be read."""
        top = {name for name in self._names if "/" not in name}
        weights = {name for name in top if name.endswith(".safetensors")}
        if not {"vector.json", "adapter_config.json"}.isdisjoint(top - {"model.safetensors", _INDEX}):
            return weights
        if _INDEX not in top:
            return weights & {"model.safetensors"}
        # What is wrong with an index is for the core to say.
        with suppress(ValueError, KeyError, AttributeError, TypeError):
            return weights & set(json.loads(self.read(_INDEX) or b"")["weight_map"].values())
        return set()

    def missing(self, *, sidecars: bool) -> dict[tuple[str, str, str], int]:
        """The shards that the cache has not, with their bytes; with `sidecars`, the files beside them too."""
        needed = self.shards | _BESIDE
        if sidecars:
            beside = (name for name in self._names if not _core.is_weights(name))
            needed |= {name for name in beside if not _core.is_stray(name)}
        where, files = self._snapshot, self._snapshot.files
        absent = [files[name] for name in needed & files.keys() if not where.cached(name)]
        return {(where.name.repo, where.commit, file.path): file.size for file in absent}

    def room(self) -> int:
        """Free bytes on the disk of the cache."""
        return room(self._snapshot)[1]

    def want(self, file: int) -> None:
        """Begins to download it, and what a later run without the Hub would look for beside it."""
        self._downloads.want(self._snapshot, self._names[file])
        for name in self._snapshot.files.keys() & _BESIDE:
            self._downloads.want(self._snapshot, name)

    def local(self, file: int) -> str | None:
        """The whole, checked file in the cache; None where it has not arrived yet: ask again."""
        path = self._downloads.local(self._snapshot, self._names[file], _PATIENCE)
        return None if path is None else str(path)
