"""A ref, as the user writes it, becomes a folder on this machine or a name on the Hub."""

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
# What a folder holds that is of some kind that is read, beside weights.
_ANY = {"model.safetensors.index.json", "vector.json", "adapter_config.json", "taskvec.json"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the Hub has a folder."""

    repo: str
    """`org/name`."""
    commit: str
    subfolder: str | None
    sha256: dict[str, str] = field(default_factory=dict[str, str])
    """SHA-256 of its files by name below the folder, as far as the Hub or its cache knows them."""

    @property
    def name(self) -> str:
        """`org/name[:subfolder]`, whatever its commit."""
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
    """The folder, spelled as the user did, `~` expanded; of one on the Hub its ref, which messages show."""
    name: str
    """`org/name[:subfolder]` where the Hub has it, else the folder's own name."""
    origin: Origin | None = None
    """Where the Hub has it: of refs, and of folders inside the Hugging Face cache."""
    remote: Remote | None = None
    """How its files are had, where it is not on this machine."""

    @property
    def pinned(self) -> str:
        """How a command names just this state of it: with the commit, where the Hub has it."""
        return self.origin.ref if self.origin else self.name

    @property
    def is_adapter(self) -> bool:
        """Whether it is a PEFT adapter that was not merged into a checkpoint."""
        return kind(self) == "adapter"

    @property
    def is_vector(self) -> bool:
        """Whether it is a vector that `extract` wrote: it holds a `vector.json`."""
        return kind(self) == "vector"

    def holds(self, name: str) -> bool:
        """Whether it has a file of this name."""
        if self.remote is not None:
            return any(known == name for known, _ in self.remote.files)
        return (Path(self.path) / name).is_file()

    def read(self, name: str) -> bytes | None:
        """All of a small file; None where there is none of this name.

        `OSError` where it cannot be read, is no file (a pipe would be waited for) or has more than 100 MB.
        """
        if self.remote is not None:
            return self.remote.read(name)
        path = Path(self.path) / name
        try:
            if path.exists() and not path.is_file():
                raise StorageError(None, f"{path} is not a file; put the file itself there", str(path))
            with path.open("rb") as file:
                data = file.read(_LARGEST + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if len(data) > _LARGEST:
            raise StorageError(
                None, f"{path} has more than {_LARGEST} bytes; put the real file there", str(path)
            )
        return data


class Fixed:
    """A folder on this machine, fixed to where its path led when it was given.

    A relative path leads elsewhere once the process has changed its working folder.
    """

    __slots__ = ("_whole", "path")

    def __init__(self, path: str) -> None:
        """Takes the path as the user spelled it."""
        self.path = path
        """As it was given."""
        self._whole = _whole(path) or path

    def __str__(self) -> str:
        """The path that leads there now: as the user spelled it where that still does, else the whole one."""
        return self.path if _whole(self.path) == self._whole else self._whole


def _whole(path: str) -> str | None:
    """The absolute path, links in it kept; None where the working folder has been removed."""
    try:
        return str(Path(path).absolute())
    except OSError:
        return None


def named(ref: Folder) -> HubName | Path:
    """What `ref` names: a folder that exists, and what is written as a path, is one; else the Hub is meant.

    A path begins with `.`, `/`, `~` or a drive. `UsageError` where it can be neither.
    """
    text = os.fspath(ref)
    if not text:
        raise UsageError("the name of a folder is empty; give the path of a checkpoint or vector folder")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text}: {error}; write the folder's whole path") from None
    if path.exists():
        return path
    if _URL.match(text):
        raise UsageError(
            f"{text} is an address, which is not read; name a model on the Hub as org/name, or download it"
        )
    # A shell completes the names of folders with a slash, and so do people.
    return parse(text if ":" in text else text.rstrip("/")) or path


def require_content(text: str, folder: Path) -> None:
    """`CorruptError` where a folder has the name of a model on the Hub and holds nothing to read."""
    try:
        hidden = parse(text.rstrip("/"))
        inside = [path.name for path in (*folder.glob("*"), *folder.glob("*/*"))] if hidden else []
    # What cannot be listed, or is no name on the Hub after all, is for others to say.
    except (OSError, UsageError):
        return
    if hidden is None or not folder.is_dir() or any(is_weights(name) or name in _ANY for name in inside):
        return
    revision = hidden.revision or "main"
    raise CorruptError(
        f"{text}: is a folder here that holds no checkpoint, and it hides the model of that name on the Hub;"
        f" write {hidden.repo}@{revision} for the Hub's, or ./{text} for the folder once a checkpoint is"
        " in it"
    )


def local(path: Path) -> Ref:
    """A folder on this machine."""
    origin = _in_cache(path)
    name = origin.name if origin else path.resolve().name or str(path.resolve())
    return Ref(str(path), name, origin)


def _in_cache(path: Path) -> Origin | None:
    """Where a folder `models--org--name/snapshots/<commit>`, or one inside it, comes from."""
    # Absolute, not resolved: a cache may itself keep its snapshots behind a link.
    parts = path.absolute().parts
    for at, (repo, middle) in enumerate(pairwise(parts)):
        if middle == "snapshots" and (match := _CACHED.fullmatch(repo)) and len(parts) > at + 2:
            subfolder = "/".join(parts[at + 3 :]) or None
            return Origin(f"{match['org']}/{match['name']}", parts[at + 2], subfolder, _digests(path))
    return None


def _digests(folder: Path) -> dict[str, str]:
    """The cache calls large files by their SHA-256, and links to them under their names."""
    links = folder.glob("*.safetensors") if folder.is_dir() else ()
    found = {link.name: link.readlink().name for link in links if link.is_symlink()}
    return {name: digest for name, digest in found.items() if _DIGEST.fullmatch(digest)}
