"""A ref, as the user writes it, becomes a local folder and a name that is fit to print."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .errors import UsageError

_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[^:]+)?(:.+)?", re.ASCII)
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_CACHED = re.compile(r"models--(?P<org>.+?)--(?P<name>.+)")


@dataclass(frozen=True, slots=True)
class Ref:
    """A checkpoint or vector on this machine."""

    path: str
    """The folder, spelled as the user did, `~` expanded."""
    name: str
    """`org/name` where the folder lies in the Hugging Face cache, else the folder's own name."""
    on_hub: bool
    """Whether `name` is a repository on the Hub."""


def resolve(ref: str | os.PathLike[str]) -> Ref:
    """The folder that `ref` names; `UsageError` for what only the Hub or a remote store could answer."""
    text = os.fspath(ref)
    if not text:
        raise UsageError("the name of a folder is empty; give the path of a checkpoint or vector folder")
    path = Path(text).expanduser()
    # With a folder of that first name here it is a slip in a path, and the core says that nothing is there.
    on_hub = _HUB.fullmatch(text) and not path.parent.is_dir()
    if not path.exists() and (on_hub or _URL.match(text)):
        raise UsageError(
            f"{text} is not a folder here; refs on the Hub come in a later release, download it first"
        )
    cached = _cached_name(path)
    return Ref(str(path), cached or path.resolve().name or str(path.resolve()), on_hub=cached is not None)


def _cached_name(path: Path) -> str | None:
    """`org/name` of a folder `models--org--name/snapshots/<commit>` or inside one."""
    # Absolute, not resolved: a cache may itself keep its snapshots behind a link.
    parts = path.absolute().parts
    for repo, middle in pairwise(parts):
        if middle == "snapshots" and (match := _CACHED.fullmatch(repo)):
            return f"{match['org']}/{match['name']}"
    return None
