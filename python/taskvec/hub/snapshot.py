"""A folder on the Hub at one commit: what is in it, and what of that the cache already has."""

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
# Seconds that the Hub has for an answer.
_PATIENCE = 30


@dataclass(frozen=True, slots=True)
class File:
    """One file, as the Hub lists it."""

    path: str
    """From the repository's root, parts joined by `/`."""
    size: int
    """Bytes."""
    sha256: str | None = None
    """Of large files (LFS, Xet); None for those that git keeps itself, and where it is not known."""
    git: str | None = None
    """Where that is None: git's digest of what it keeps, the content itself or an LFS pointer to it."""
    perhaps_large: bool = False
    """Whether it is not known which of the two git keeps."""


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
        """Where the cache has this file whole; its content is not looked at.

        `CorruptError` where it has another size and the Hub may not be asked for the file.
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
    """Asks the Hub, or with HF_HUB_OFFLINE its cache, for the commit and what is in the folder.

    `commits` remembers what each revision was, so that all folders of a run that name it see the same one.
    `StorageError` says why there is no such folder, or why this user may not have it.
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
            message = f"{error}, or use what the cache has of it with HF_HUB_OFFLINE=1"
            raise StorageError(error.errno, message) from error.__cause__
        raise
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
    ref = repository(name, cache_dir) / "refs" / revision
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


def _has_weights(name: HubName, cache_dir: str | None) -> bool:
    """Whether a run without the Hub would find weights of this folder in the cache."""
    revision, front = name.revision or _MAIN, f"{name.subfolder}/" if name.subfolder else ""
    try:
        if not _COMMIT.fullmatch(revision):
            revision = (repository(name, cache_dir) / "refs" / revision).read_text()
        listed = hub().get_cached_repo_tree(name.repo, revision=revision, cache_dir=cache_dir)
    # CachedRepoTreeNotFoundError is of no class of Python's own.
    except Exception:
        return False
    snapshot = repository(name, cache_dir) / "snapshots" / revision
    weights = [file.path for file in listed if file.path.endswith(".safetensors")]
    return any((snapshot / path).is_file() for path in weights if path.startswith(front))


def repository(name: HubName, cache_dir: str | None) -> Path:
    """The folder of the cache that holds all of a repository."""
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
    """The files of the cached listing, with the digests that this cache knows.

    The SHA-256 of a large file is in the listing, and where the cache has links, it is the name that the link
    leads to. The `blob_id` of a large file is git's digest of a pointer, not of the content.
    """
    listed = hub().get_cached_repo_tree(name.repo, revision=commit, cache_dir=cache_dir)
    large = _listed_sha256(repository(name, cache_dir) / "trees" / f"{commit}.json")
    for file in listed:
        blob = _linked(name, file.path, commit, cache_dir)
        sha256 = large.get(file.path) or (blob if _SHA256.fullmatch(blob) else None)
        # A listing without any SHA-256 comes from a writer that left it out; weights are hardly ever in git.
        small = _COMMIT.fullmatch(blob) or (large and not file.xet_hash and not is_weights(file.path))
        yield File(file.path, file.size, sha256, None if sha256 else file.blob_id, not (sha256 or small))


def _listed_sha256(listing: Path) -> dict[str, str]:
    """SHA-256 by path, as huggingface_hub's list of a commit has them; its own function leaves them out."""
    # What is wrong with the list itself, the library has said.
    with suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
        files = json.loads(listing.read_bytes())["files"]
        found = {path: str(file.get("lfs_sha256")) for path, file in files.items()}
        return {path: sha256 for path, sha256 in found.items() if _SHA256.fullmatch(sha256)}
    return {}


def _linked(name: HubName, path: str, commit: str, cache_dir: str | None) -> str:
    """The name of the blob that the cache links to under a file's name; empty where it has no such link."""
    found = hub().try_to_load_from_cache(name.repo, path, cache_dir=cache_dir, revision=commit)
    # One step only: with Xet that blob is itself a link, to a name that is another digest.
    link = Path(found) if isinstance(found, str) else None
    return link.readlink().name if link and link.is_symlink() else ""
