"""A folder on the Hub at one commit: its files, and which of them are in the cache."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .._core import is_weights
from ..errors import CorruptError, StorageError
from .errors import explaining, pause, transient
from .library import constants, hub

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .names import HubName

_MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Seconds to wait for a response of the Hub.
_PATIENCE = 30


@dataclass(frozen=True, slots=True)
class File:
    """One file, as the Hub lists it."""

    path: str
    """Path from the root of the repository, with `/` between its parts."""
    size: int
    """Size in bytes."""
    sha256: str | None = None
    """Digest of a large file (LFS, Xet); None for a file in git itself, and if it is not known."""
    git: str | None = None
    """If `sha256` is None: git's digest of what git stores, the content or an LFS pointer to it."""
    perhaps_large: bool = False
    """Whether it is not known if `git` is the digest of the content or of an LFS pointer."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A folder of a repository, pinned to a commit."""

    name: HubName
    commit: str
    cache_dir: str | None
    """The folder of huggingface_hub's cache; None means the library's default."""
    files: dict[str, File] = field(default_factory=dict[str, File])
    """All files in the folder and its subfolders, by path relative to the folder."""

    def cached(self, name: str) -> Path | None:
        """The path of the file in the cache if it is there with its full size; the content is not checked.

        Raises `CorruptError` if the size is another and the run is offline, so the file cannot be downloaded.
        """
        file = self.files[name]
        found = hub().try_to_load_from_cache(
            self.name.repo, file.path, cache_dir=self.cache_dir, revision=self.commit
        )
        if not isinstance(found, str):
            return None
        path = Path(found)
        size = path.stat().st_size
        if size != file.size and constants().is_offline_mode():
            raise CorruptError(
                f"{self.name.text}: {file.path} is in the cache with {size} bytes, not the {file.size} that"
                f" the Hub lists; remove {path.resolve()} and run once without HF_HUB_OFFLINE"
            )
        return path if size == file.size else None


def snapshot(name: HubName, cache_dir: str | None, commits: dict[tuple[str, str], str]) -> Snapshot:
    """Asks the Hub (with HF_HUB_OFFLINE, its cache) for the commit and the files of a folder.

    `commits` remembers the commit of each revision, so that all folders of a run see the same one. Raises
    `StorageError` if there is no such folder or the user has no access to it.
    """
    try:
        with explaining(name.text):
            revision = (name.repo, name.revision or _MAIN)
            if revision not in commits:
                commits[revision] = _commit(name, cache_dir)
            commit = commits[revision]
            found = {file.path: file for file in _files(name, commit, cache_dir)}
    except StorageError as error:
        if error.__cause__ and transient(error.__cause__) and _has_weights(name, cache_dir):
            message = f"{error}, or set HF_HUB_OFFLINE=1 to use the copy in the cache"
            raise StorageError(error.errno, message) from error.__cause__
        raise
    if name.subfolder is not None:
        front = name.subfolder + "/"
        found = {path.removeprefix(front): file for path, file in found.items() if path.startswith(front)}
        if not found:
            raise StorageError(
                None,
                f"{name.text}: the repository has no folder {name.subfolder} at this revision;"
                f" https://huggingface.co/{name.repo}/tree/{name.revision or 'main'} lists its folders",
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
    # huggingface_hub does not retry `model_info`, so this does. Its `resolve_revision` is not used: if the
    # Hub fails, it returns the commit in the cache, which may be an old one.
    patiently = Retrying(
        retry=retry_if_exception(transient), stop=stop_after_attempt(4), wait=pause, reraise=True
    )
    found = patiently(hub().HfApi().model_info, name.repo, revision=name.revision, timeout=_PATIENCE)
    ref = repository(name, cache_dir) / "refs" / revision
    # A later offline run finds the commit by this file. If it cannot be written, such a run is not possible.
    with suppress(OSError):
        ref.parent.mkdir(parents=True, exist_ok=True)
        # Written under another name and renamed, because another process may be reading the file.
        made = ref.with_name(f"{ref.name}.{os.getpid()}")
        made.write_text(found.sha)
        made.replace(ref)
    return found.sha


def cache(cache_dir: str | None) -> Path:
    """The folder of the cache, as an absolute path."""
    return Path(cache_dir or constants().HF_HUB_CACHE).expanduser().absolute()


def _has_weights(name: HubName, cache_dir: str | None) -> bool:
    """Whether an offline run would find weights of this folder in the cache."""
    revision, front = name.revision or _MAIN, f"{name.subfolder}/" if name.subfolder else ""
    try:
        if not _COMMIT.fullmatch(revision):
            revision = (repository(name, cache_dir) / "refs" / revision).read_text()
        listed = hub().get_cached_repo_tree(name.repo, revision=revision, cache_dir=cache_dir)
    # CachedRepoTreeNotFoundError does not derive from a builtin exception that could be named here.
    except Exception:
        return False
    snapshot = repository(name, cache_dir) / "snapshots" / revision
    weights = [file.path for file in listed if file.path.endswith(".safetensors")]
    return any((snapshot / path).is_file() for path in weights if path.startswith(front))


def repository(name: HubName, cache_dir: str | None) -> Path:
    """The folder of the cache that holds the files of a repository."""
    return cache(cache_dir) / f"models--{name.repo.replace('/', '--')}"


def _files(name: HubName, commit: str, cache_dir: str | None) -> Iterable[File]:
    if constants().is_offline_mode():
        return _offline(name, commit, cache_dir)
    listed = hub().HfApi().list_repo_tree(name.repo, recursive=True, revision=commit)
    return [
        File(one.path, one.size, one.lfs and one.lfs.sha256, None if one.lfs else one.blob_id)
        for one in listed
        if isinstance(one, hub().RepoFile)
    ]


def _offline(name: HubName, commit: str, cache_dir: str | None) -> Iterable[File]:
    """The files of the listing in the cache, with the digests that the cache knows.

    The SHA-256 of a large file is in the listing. If the cache uses links, it is also the name of the link's
    target. The `blob_id` of a large file is git's digest of an LFS pointer, not of the content.
    """
    listed = hub().get_cached_repo_tree(name.repo, revision=commit, cache_dir=cache_dir)
    large = _listed_sha256(repository(name, cache_dir) / "trees" / f"{commit}.json")
    for file in listed:
        blob = _linked(name, file.path, commit, cache_dir)
        sha256 = large.get(file.path) or (blob if _SHA256.fullmatch(blob) else None)
        # A listing without any SHA-256 was written by a version that leaves them out, so it does not show
        # that a file is small. Weights are hardly ever stored in git itself.
        small = _COMMIT.fullmatch(blob) or (large and not file.xet_hash and not is_weights(file.path))
        yield File(file.path, file.size, sha256, None if sha256 else file.blob_id, not (sha256 or small))


def _listed_sha256(listing: Path) -> dict[str, str]:
    """SHA-256 by path, from the file in which huggingface_hub lists a commit; its function omits them."""
    # If the file is malformed, the library has already reported it.
    with suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
        files = json.loads(listing.read_bytes())["files"]
        found = {path: str(file.get("lfs_sha256")) for path, file in files.items()}
        return {path: sha256 for path, sha256 in found.items() if _SHA256.fullmatch(sha256)}
    return {}


def _linked(name: HubName, path: str, commit: str, cache_dir: str | None) -> str:
    """The name of the blob to which the cache links a file; empty if there is no such link."""
    found = hub().try_to_load_from_cache(name.repo, path, cache_dir=cache_dir, revision=commit)
    # Only one link is followed: with Xet the blob is itself a link, whose target is named by another digest.
    link = Path(found) if isinstance(found, str) else None
    return link.readlink().name if link and link.is_symlink() else ""
