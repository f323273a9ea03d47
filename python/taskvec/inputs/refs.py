"""Tells whether a ref, as the user writes it, is a folder on this machine or a model on the Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .._core import is_weights, kind
from ..errors import CorruptError, StorageError, UsageError
from ..hub.names import HubName, parse

if TYPE_CHECKING:
    from ..hub.remote import Remote

Folder = str | os.PathLike[str]
"""A local folder, or a ref on the Hub: `org/name[@revision][:subfolder]`. A `Vector` is one too."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_CACHED = re.compile(r"models--(?P<org>.+?)--(?P<name>.+)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LARGEST = 100_000_000
# Files that show, like weights do, that a folder is a checkpoint, a vector, an adapter or an output.
_ANY = {"model.safetensors.index.json", "vector.json", "adapter_config.json", "taskvec.json"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a folder is on the Hub."""

    repo: str
    """`org/name`."""
    commit: str
    subfolder: str | None
    sha256: dict[str, str] = field(default_factory=dict[str, str])
    """SHA-256 of its files, by path relative to the folder, as far as the Hub or its cache knows them."""

    @property
    def name(self) -> str:
        """`org/name[:subfolder]`, without the commit."""
        return self.repo + (f":{self.subfolder}" if self.subfolder else "")

    @property
    def ref(self) -> str:
        """`org/name@commit[:subfolder]`."""
        return f"{self.repo}@{self.commit}" + (f":{self.subfolder}" if self.subfolder else "")

    @property
    def page(self) -> str:
        """Its page on the Hub."""
        return f"https://huggingface.co/{self.repo}/tree/{self.commit}" + (
            f"/{quote(self.subfolder)}" if self.subfolder else ""
        )


@dataclass(frozen=True, slots=True)
class Ref:
    """A checkpoint, adapter or vector: a folder on this machine, or one on the Hub."""

    path: str
    """The folder as the user wrote it, with `~` expanded; for a model on the Hub, its ref (for messages)."""
    name: str
    """`org/name[:subfolder]` if it comes from the Hub, else the folder's own name."""
    origin: Origin | None = None
    """Where it is on the Hub: set for refs, and for folders inside the Hugging Face cache."""
    remote: Remote | None = None
    """Reads its files from the Hub; None for a folder on this machine."""

    @property
    def pinned(self) -> str:
        """The name to write in a command that can be repeated: with the commit, if it is on the Hub."""
        return self.origin.ref if self.origin else self.name

    @property
    def is_adapter(self) -> bool:
        """Whether it is a PEFT adapter that was not merged into a checkpoint."""
        return kind(self) == "adapter"

    @property
    def is_vector(self) -> bool:
        """Whether it is a vector that `extract` wrote, that is, has a `vector.json`."""
        return kind(self) == "vector"

    def holds(self, name: str) -> bool:
        """Whether it has a file of this name."""
        if self.remote is not None:
            return any(known == name for known, _ in self.remote.files)
        return (Path(self.path) / name).is_file()

    def read(self, name: str) -> bytes | None:
        """Reads a small file whole; None if there is no file of this name.

        Raises `OSError` if it cannot be read, is not a regular file (reading a pipe could block) or has more
        than 100 MB.
        """
        if self.remote is not None:
            return self.remote.read(name)
        path = Path(self.path) / name
        try:
            if path.exists() and not path.is_file():
                raise StorageError(
                    None, f"{path} is not a regular file; replace it by the file itself", str(path)
                )
            with path.open("rb") as file:
                data = file.read(_LARGEST + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if len(data) > _LARGEST:
            raise StorageError(
                None, f"{path} has more than {_LARGEST} bytes; replace it by the right file", str(path)
            )
        return data


class Fixed:
    """A local folder whose path stays valid after the process has changed its working directory."""

    __slots__ = ("_whole", "path")

    def __init__(self, path: str) -> None:
        """Takes the path as the user wrote it, and resolves it in the present working directory."""
        self.path = path
        """The path as the user wrote it."""
        self._whole = _whole(path) or path

    def __str__(self) -> str:
        """The path as the user wrote it if it still leads to the folder, else the absolute path."""
        return self.path if _whole(self.path) == self._whole else self._whole


def _whole(path: str) -> str | None:
    """The absolute path, with links kept; None if the working directory has been removed."""
    try:
        return str(Path(path).absolute())
    except OSError:
        return None


def named(ref: Folder) -> HubName | Path:
    """Whether `ref` names a local folder or a model on the Hub.

    A folder that exists is taken first, then anything written as a path (it begins with `.`, `/`, `~` or a
    drive letter), then a name on the Hub. Raises `UsageError` if it can be none of these.
    """
    text = os.fspath(ref)
    if not text:
        raise UsageError("the name of a folder is empty; give the path of a checkpoint or vector folder")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text}: {error}; write the absolute path of the folder") from None
    if path.exists():
        return path
    if _URL.match(text):
        raise UsageError(
            f"{text} is a URL, which taskvec does not read; name a model on the Hub as org/name, or download"
            " it"
        )
    # Shells complete folder names with a slash at the end.
    return parse(text if ":" in text else text.rstrip("/")) or path


def require_content(text: str, folder: Path) -> None:
    """Raises `CorruptError` if a local folder has the name of a model on the Hub, but holds no model."""
    try:
        hidden = parse(text.rstrip("/"))
        inside = [path.name for path in (*folder.glob("*"), *folder.glob("*/*"))] if hidden else []
    # If the folder cannot be listed, or its name is not valid on the Hub, other checks report it.
    except (OSError, UsageError):
        return
    if hidden is None or not folder.is_dir() or any(is_weights(name) or name in _ANY for name in inside):
        return
    revision = hidden.revision or "main"
    raise CorruptError(
        f"{text} is a local folder without a checkpoint, and hides the model of that name on the Hub;"
        f" write {hidden.repo}@{revision} for the model on the Hub, or ./{text} for the folder once it holds"
        " a checkpoint"
    )


def local(path: Path) -> Ref:
    """The ref of a folder on this machine."""
    origin = _in_cache(path)
    name = origin.name if origin else path.resolve().name or str(path.resolve())
    return Ref(str(path), name, origin)


def _in_cache(path: Path) -> Origin | None:
    """Where a folder comes from that is in the cache, at or below `models--org--name/snapshots/<commit>`."""
    # The path is made absolute, but links are not resolved, as the cache may have its snapshots behind one.
    parts = path.absolute().parts
    for at, (repo, middle) in enumerate(pairwise(parts)):
        if middle == "snapshots" and (match := _CACHED.fullmatch(repo)) and len(parts) > at + 2:
            subfolder = "/".join(parts[at + 3 :]) or None
            return Origin(f"{match['org']}/{match['name']}", parts[at + 2], subfolder, _digests(path))
    return None


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 by file name: the cache stores a large file under its SHA-256 and links its name to that."""
    links = folder.glob("*.safetensors") if folder.is_dir() else ()
    found = {link.name: link.readlink().name for link in links if link.is_symlink()}
    return {name: digest for name, digest in found.items() if _DIGEST.fullmatch(digest)}
