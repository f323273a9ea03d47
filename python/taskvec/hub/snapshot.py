"""A folder on the Hub at one commit: what is in it, and what of that the cache already has."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StorageError
from .errors import explaining, pause, transient
from .library import constants, hub

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .names import HubName

_MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Seconds that the Hub has for an answer.
_PATIENCE = 30


@dataclass(frozen=True, slots=True)
class File:
    """One file, as the Hub lists it."""

    path: str
    """From the repository's root, parts joined by `/`."""
    size: int
    """Bytes."""
    sha256: str | None
    """Of large files (LFS, Xet); None for those that git keeps itself."""
    git: str | None
    """git's own digest of files that it keeps itself, else None."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A folder of a repository, pinned to a commit."""

    name: HubName
    commit: str
    cache_dir: str | None
    """huggingface_hub's cache; None means where that library keeps it."""
    files: dict[str, File] = field(default_factory=dict[str, File])
    """All files in and below the folder, by name from there."""

    def cached(self, name: str) -> Path | None:
        """Where the cache has this file whole; its content is not looked at."""
        file = self.files[name]
        found = hub().try_to_load_from_cache(
            self.name.repo, file.path, cache_dir=self.cache_dir, revision=self.commit
        )
        path = Path(found) if isinstance(found, str) else None
        return path if path and path.stat().st_size == file.size else None


def snapshot(name: HubName, cache_dir: str | None, commits: dict[tuple[str, str], str]) -> Snapshot:
    """Asks the Hub, or with HF_HUB_OFFLINE its cache, for the commit and what is in the folder.

    `commits` remembers what each revision was, so that all folders of a run that name it see the same one.
    `StorageError` says why there is no such folder, or why this user may not have it.
    """
    with explaining(name.text):
        revision = (name.repo, name.revision or _MAIN)
        if revision not in commits:
            commits[revision] = _commit(name, cache_dir)
        commit = commits[revision]
        found = {file.path: file for file in _files(name, commit, cache_dir)}
    if name.subfolder is not None:
        front = name.subfolder + "/"
        found = {path.removeprefix(front): file for path, file in found.items() if path.startswith(front)}
        if not found:
            raise StorageError(
                None,
                f"{name.text}: the repository has no folder {name.subfolder} at this revision; see"
                f" https://huggingface.co/{name.repo}/tree/{name.revision or 'main'} for those it has",
            )
    return Snapshot(name, commit, cache_dir, found)


def _commit(name: HubName, cache_dir: str | None) -> str:
    from tenacity import Retrying, retry_if_exception, stop_after_attempt

    revision = name.revision or _MAIN
    if _COMMIT.fullmatch(revision):
        return revision
    if constants().is_offline_mode():
        cached = hub().resolve_revision(
            name.repo, revision=revision, cache_dir=cache_dir, local_files_only=True
        )
        return cached.resolved
    # huggingface_hub asks only once here; and its function for revisions answers a Hub that fails with what
    # the cache remembers, which may be an old commit.
    patiently = Retrying(
        retry=retry_if_exception(transient), stop=stop_after_attempt(4), wait=pause, reraise=True
    )
    found = patiently(hub().HfApi().model_info, name.repo, revision=name.revision, timeout=_PATIENCE)
    ref = cache(cache_dir) / f"models--{name.repo.replace('/', '--')}" / "refs" / revision
    # What a later run without the Hub goes by; where it cannot be written, there is none.
    with suppress(OSError):
        ref.parent.mkdir(parents=True, exist_ok=True)
        # Put in place whole: another process may be reading it.
        made = ref.with_name(f"{ref.name}.{os.getpid()}")
        made.write_text(found.sha)
        made.replace(ref)
    return found.sha


def cache(cache_dir: str | None) -> Path:
    """Where downloads are kept."""
    return Path(cache_dir or constants().HF_HUB_CACHE).expanduser().absolute()


def _files(name: HubName, commit: str, cache_dir: str | None) -> Iterable[File]:
    if constants().is_offline_mode():
        for file in hub().get_cached_repo_tree(name.repo, revision=commit, cache_dir=cache_dir):
            yield _offline(file, name, commit, cache_dir)
        return
    for file in hub().HfApi().list_repo_tree(name.repo, recursive=True, revision=commit):
        if isinstance(file, hub().RepoFile):
            large = file.lfs
            yield File(file.path, file.size, large and large.sha256, None if large else file.blob_id)


def _offline(file: Any, name: HubName, commit: str, cache_dir: str | None) -> File:
    """The cached list has no SHA-256; but the cache calls large files by theirs."""
    found = hub().try_to_load_from_cache(name.repo, file.path, cache_dir=cache_dir, revision=commit)
    # One step only: with Xet that blob is itself a link, to a name that is another digest.
    link = Path(found) if isinstance(found, str) else None
    blob = link.readlink().name if link and link.is_symlink() else ""
    sha256 = blob if len(blob) == 64 and all(char in "0123456789abcdef" for char in blob) else None
    return File(file.path, file.size, sha256, None if sha256 else file.blob_id)
