"""`push`: verifies a folder that taskvec wrote, and uploads it to the Hub."""

from __future__ import annotations

import errno
import glob
import json
import os
import pathlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import taskvec._core as _core

from .errors import MismatchError, StorageError, UsageError
from .hub.errors import explained, explaining
from .hub.library import hub, quiet
from .hub.names import parse
from .records import Result
from .verbs import verify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Json

_MANIFESTS = ("taskvec.json", "vector.json")
_MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class PushResult(Result):
    """What `push` uploaded, and where it is on the Hub."""

    repo: str
    """`org/name`."""
    revision: str
    """The branch."""
    commit: str
    """The commit that holds all files."""
    url: str
    """The page of the repository on the Hub, at this branch."""
    files: int
    bytes: int
    """Size of all files together, including those that the Hub already had."""
    notes: tuple[str, ...]


def push(
    out: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    progress: _core.Progress | None = None,
) -> PushResult:
    """Uploads a folder that `extract`, `apply` or `transfer` wrote to a model repository on the Hub.

    The folder is verified first. huggingface_hub, with the user's login, then sends exactly the manifest and
    the files that the manifest names. Files that the Hub already has are not sent again, so the same call
    continues an interrupted upload. If the branch holds weights of another checkpoint, they are removed in
    the same commit, since a loader could mistake them for part of this one; the git history keeps them.

    Args:
        out: The local folder.
        repo: `org/name`; created if it does not exist.
        private: Whether a new repository is private. A repository that exists must be private already.
        revision: The branch, created from `main` if it does not exist, or a pull request such as
            `refs/pr/1`; default: `main`.
        progress: Called as `progress(phase, bytes_done, bytes_total)` while the folder is verified.

    Returns:
        Where the files are now, with the commit that holds all of them.

    Raises:
        UsageError: The name of the repository or of the branch is not valid.
        MismatchError: The folder is not as it was written, or holds a file that may be a secret, or the
            repository is public and `private` is set.
        CorruptError: The manifest cannot be read.
        StorageError: There is no folder or manifest, no token, no permission or no network.
    """
    branch = _branch(revision)
    name = _repository(repo)
    folder = pathlib.Path(out).expanduser()
    _can_write(name)
    sizes = _verified(folder, progress)
    notes = [f"left out, not in the manifest: {_some(extra)}"] if (extra := _others(folder, sizes)) else []
    api = hub().HfApi(library_name="taskvec", library_version=_core.version)
    with quiet(bars=getattr(progress, "shown", False)):
        with explaining(name, writing=True):
            api.create_repo(name, private=private or None, exist_ok=True)
            if private and not api.model_info(name).private:
                raise MismatchError(
                    f"{name} already exists and is public; make it private on the Hub, or omit --private"
                )
            if branch != _MAIN and not branch.startswith("refs/"):
                api.create_branch(name, branch=branch, exist_ok=True)
            foreign = _foreign(_listed(api, name, branch), sizes)
        if foreign:
            notes.append(f"removed from {name}@{branch}, as part of another checkpoint: {_some(foreign)}")
        info = _upload(api, name, branch, folder, sizes, foreign)
        with explaining(name):
            there = _listed(api, name, info.oid)
    if lost := [one for one, size in sizes.items() if there.get(one) != size]:
        raise MismatchError(
            f"{name}: its commit {info.oid} does not have {lost[0]}; if a .gitignore in the repository"
            " excludes it, remove that and push again"
        )
    result: Json = {
        "schema": "taskvec/push/1",
        "repo": name,
        "revision": branch,
        "commit": info.oid,
        "url": f"{api.endpoint}/{name}" + ("" if branch == _MAIN else f"/tree/{branch}"),
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "notes": notes,
    }
    return PushResult.from_json(result)


def _repository(repo: str) -> str:
    name = parse(repo)
    if name is None:
        raise UsageError(f"{repo} is not the name of a repository on the Hub; write it as org/name")
    if name.revision or name.subfolder:
        raise UsageError(
            f"{repo} is not a whole repository; write {name.repo}, and give a branch with --revision"
        )
    return name.repo


def _branch(revision: str | None) -> str:
    if revision == "" or (revision and _COMMIT.fullmatch(revision)):
        raise UsageError(f"revision {revision!r} is not a branch; give the name of a branch to push to")
    return revision or _MAIN


def _can_write(name: str) -> None:
    """Checks that an upload is possible, before the folder is verified, which takes minutes."""
    if hub().is_offline_mode():
        raise StorageError(errno.EACCES, f"{name}: HF_HUB_OFFLINE forbids an upload; run again without it")
    if hub().get_token() is None:
        raise StorageError(
            errno.EACCES, f"{name}: an upload needs a token; log in with `hf auth login` or set HF_TOKEN"
        )


def _verified(folder: pathlib.Path, progress: _core.Progress | None) -> dict[str, int]:
    """Verifies the folder; returns the files to send, with their sizes in bytes."""
    if not folder.is_dir():
        raise StorageError(
            errno.ENOENT, f"{folder} does not exist; give a folder that taskvec wrote", str(folder)
        )
    found = verify(folder, progress=progress)
    if not found.ok:
        first = found.problems[0]
        what = first.message if first.file in first.message else f"{first.file}: {first.message}"
        raise MismatchError(f"{folder} is not as it was written and was not pushed: {what}; write it again")
    manifest = next(path for name in _MANIFESTS if (path := folder / name).is_file())
    said: Json = json.loads(manifest.read_bytes())
    if strays := sorted(one["name"] for one in said["files"] if _core.is_stray(one["name"])):
        raise MismatchError(
            f"{folder} was not pushed: it holds files that may be secrets, or were left by a training run:"
            f" {_some(strays)}; write the folder again, which leaves them out"
        )
    return {one["name"]: one["size"] for one in said["files"]} | {manifest.name: manifest.stat().st_size}


def _others(folder: pathlib.Path, sizes: Iterable[str]) -> list[str]:
    """The other files of the folder; a subfolder without any file to send is listed as a whole."""
    ours = {folder / name for name in sizes}
    above = {parent for path in ours for parent in path.parents}
    found: list[str] = []
    for root, folders, files in os.walk(folder):
        here = pathlib.Path(root)
        found += [(here / one).relative_to(folder).as_posix() for one in files if here / one not in ours]
        found += [
            f"{(here / one).relative_to(folder).as_posix()}/" for one in folders if here / one not in above
        ]
        folders[:] = [one for one in folders if here / one in above]
    return sorted(found)


def _listed(api: Any, name: str, revision: str) -> dict[str, int]:
    """The files of a repository, with their sizes in bytes."""
    tree = api.list_repo_tree(name, recursive=True, revision=revision)
    return {one.path: one.size for one in tree if hasattr(one, "size")}


def _foreign(there: Iterable[str], sizes: Iterable[str]) -> list[str]:
    """Files that a loader could mistake for part of this checkpoint: weights, index, adapter, manifest."""
    known = {*_MANIFESTS, "adapter_config.json"}
    weights = (".safetensors", ".safetensors.index.json")
    return sorted(
        one for one in set(there) - set(sizes) if "/" not in one and (one in known or one.endswith(weights))
    )


def _upload(
    api: Any, name: str, branch: str, folder: pathlib.Path, sizes: Iterable[str], foreign: list[str]
) -> Any:
    try:
        with explaining(name, writing=True):
            try:
                return api.upload_folder(
                    repo_id=name,
                    folder_path=folder,
                    revision=branch,
                    commit_message=f"Upload by taskvec {_core.version}",
                    # The call takes glob patterns, so the names are escaped to match only themselves.
                    allow_patterns=[glob.escape(one) for one in sizes],
                    delete_patterns=[glob.escape(one) for one in foreign] or None,
                )
            except ValueError as error:
                # huggingface_hub raises ValueError for a model card that the Hub refuses, before it uploads.
                if "README.md" not in str(error):
                    raise
                why = " ".join(str(error).split("\n", 1)[-1].split())
                raise MismatchError(
                    f"{folder / 'README.md'}: the Hub refuses its metadata ({why}); correct the target's own"
                    " card and write the folder again"
                ) from error
    except RuntimeError as error:
        # huggingface_hub wraps any error with a large file in a RuntimeError.
        raise explained(error, name, writing=True) from error


def _some(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
