"""push: what taskvec wrote goes to the Hub, once `verify` has found it as it was written."""

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
    """What `push` uploaded, and where it is."""

    repo: str
    """`org/name`."""
    revision: str
    """The branch."""
    commit: str
    """The commit that holds all of it."""
    url: str
    """The page of it on the Hub."""
    files: int
    bytes: int
    """All files together; of these the Hub may have had some already."""
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

    The folder is verified first. Exactly the files that its manifest names, and the manifest, are sent, by
    huggingface_hub and with the user's login; what the Hub already has is not sent again, so that an
    interrupted upload goes on with the same call. Weights of another checkpoint that the branch holds beside
    them are removed in the same commit, since a loader could take them for this one's; git keeps them.

    Args:
        out: The local folder.
        repo: `org/name`; made if it is not there.
        private: Whether a new repository is closed to others. One that exists must be so already.
        revision: The branch, made from `main` if it is not there, or a pull request, as `refs/pr/1`; default:
            `main`.
        progress: Called with (phase, bytes done, bytes in all) while the folder is verified.

    Returns:
        Where it is now: `commit` is the one that holds all of it.

    Raises:
        UsageError: The name of the repository or branch cannot be one.
        MismatchError: The folder is not as it was written, an earlier version wrote secrets of its target
            into it, or the repository is public and should not be.
        CorruptError: The manifest cannot be read.
        StorageError: No folder or manifest, no token, no permission, no network.
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
                    f"{name} is there and public already; make it private on the Hub, or leave --private out"
                )
            if branch != _MAIN and not branch.startswith("refs/"):
                api.create_branch(name, branch=branch, exist_ok=True)
            foreign = _foreign(_listed(api, name, branch), sizes)
        if foreign:
            notes.append(f"removed from {name}@{branch}, as they are of another checkpoint: {_some(foreign)}")
        info = _upload(api, name, branch, folder, sizes, foreign)
        with explaining(name):
            there = _listed(api, name, info.oid)
    if lost := [one for one, size in sizes.items() if there.get(one) != size]:
        raise MismatchError(
            f"{name}: its commit {info.oid} lacks {lost[0]}; if a .gitignore there keeps it out, remove that"
            " and push again"
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
        raise UsageError(f"{repo}: is not the name of a repository on the Hub; write it as org/name")
    if name.revision or name.subfolder:
        raise UsageError(
            f"{repo}: a whole repository is pushed to; write {name.repo}, and a branch as --revision"
        )
    return name.repo


def _branch(revision: str | None) -> str:
    if revision == "" or (revision and _COMMIT.fullmatch(revision)):
        raise UsageError(
            f"revision {revision!r} is not a branch, and only to one can be pushed; name a branch"
        )
    return revision or _MAIN


def _can_write(name: str) -> None:
    """What would fail after minutes of reading had better fail now."""
    if hub().is_offline_mode():
        raise StorageError(errno.EACCES, f"{name}: HF_HUB_OFFLINE forbids an upload; run again without it")
    if hub().get_token() is None:
        raise StorageError(
            errno.EACCES, f"{name}: an upload needs a token; log in with `hf auth login` or set HF_TOKEN"
        )


def _verified(folder: pathlib.Path, progress: _core.Progress | None) -> dict[str, int]:
    """The files to send, with their sizes in bytes, if all is as it was written."""
    if not folder.is_dir():
        raise StorageError(
            errno.ENOENT, f"{folder}: there is no such folder; give one that taskvec wrote", str(folder)
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
            f"{folder} was not pushed: it holds what may be a secret, or was left by a training run:"
            f" {_some(strays)}; write it again, which leaves such files out"
        )
    return {one["name"]: one["size"] for one in said["files"]} | {manifest.name: manifest.stat().st_size}


def _others(folder: pathlib.Path, sizes: Iterable[str]) -> list[str]:
    """What lies beside the files to send; a folder that holds none of them as a whole."""
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
    """What a loader could take for part of the folder: weights, an index, an adapter, another manifest."""
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
                    # Patterns are all it takes; as such the names must stand for themselves alone.
                    allow_patterns=[glob.escape(one) for one in sizes],
                    delete_patterns=[glob.escape(one) for one in foreign] or None,
                )
            except ValueError as error:
                # What the Hub has against a model card comes as one, before anything is sent.
                if "README.md" not in str(error):
                    raise
                why = " ".join(str(error).split("\n", 1)[-1].split())
                raise MismatchError(
                    f"{folder / 'README.md'}: its metadata is refused ({why}); mend the target's own card"
                    " and write the folder again"
                ) from error
    except RuntimeError as error:
        # So it wraps whatever happened to one of the large files.
        raise explained(error, name, writing=True) from error


def _some(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
