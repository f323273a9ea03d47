"""The Hub's routes that write: create a repository or branch, announce, upload and commit files."""

from __future__ import annotations

import base64
import fnmatch
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from . import cdn
from .reading import NAME, at, opened, user
from .repos import Repo, goes_to_lfs
from .wire import Refused, Reply, as_json

if TYPE_CHECKING:
    from .repos import Files
    from .wire import Call

_REPO_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
# Enough of the Hub's list to tell a licence from a slip.
_LICENCES = {
    "apache-2.0",
    "mit",
    "other",
    "unknown",
    "gemma",
    "llama3",
    "llama3.1",
    "llama3.2",
    "bsd-3-clause",
}
_LICENCES |= {"cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "openrail", "bigscience-bloom-rail-1.0", "gpl-3.0"}
_RELATIONS = {"adapter", "merge", "quantized", "finetune"}


def writer(call: Call, namespace: str) -> None:
    """Lets only those pass that may write."""
    who = user(call)
    if who is None:
        raise Refused(401, "Invalid username or password.")
    if who != "writer":
        raise Refused(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')


def writable(call: Call, name: str) -> Repo:
    """A repository, for those that may write to it."""
    repo = opened(call, name)
    writer(call, repo.name.split("/")[0])
    return repo


def create(call: Call) -> Reply:
    given = call.json()
    namespace = given.get("organization") or "writer"
    writer(call, namespace)
    if not _REPO_NAME.fullmatch(given["name"]):
        raise Refused(400, f"Invalid name: {given['name']}")
    name = f"{namespace}/{given['name']}"
    url = {"url": f"{call.world.endpoint}/{name}", "name": name}
    if name in call.world.store.repos:
        return as_json({"error": "You already created this model repo", **url}, 409)
    call.world.store.repo(name).private = given.get("visibility") == "private" or bool(given.get("private"))
    return as_json(url)


def branch(call: Call, name: str, revision: str) -> Reply:
    repo = writable(call, name)
    wanted = unquote(revision)
    if wanted.startswith("refs/"):
        raise Refused(400, f"Invalid reference for a branch: {wanted}")
    if wanted in repo.branches:
        raise Refused(409, f"Reference already exists: {wanted}")
    repo.branches[wanted], _ = at(repo, (call.json() or {}).get("startingPoint", "main"))
    return as_json(None)


def validate_yaml(call: Call) -> Reply:
    return problems(call.json()["content"]) or as_json({"errors": [], "warnings": []})


def problems(card: str) -> Reply | None:
    """What the Hub has against the metadata of a model card, if anything."""
    import yaml

    found: list[str] = []
    block = re.match(r"---\n(.*?)\n---(\n|$)", card, re.DOTALL)
    if block is None:
        return as_json(
            {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
        )
    try:
        front: Any = yaml.safe_load(block[1]) or {}
    except yaml.YAMLError as error:
        return as_json({"errors": [{"message": f"invalid YAML: {error}"}], "warnings": []}, 400)

    def texts(key: str) -> list[Any]:
        value = front.get(key, [])
        return value if isinstance(value, list) else [value]

    found += [
        f'"license" must be one of a list, not {one}' for one in texts("license") if one not in _LICENCES
    ]
    found += [
        f'"base_model" must be a model id, not {one}'
        for one in texts("base_model")
        if not isinstance(one, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", one)
    ]
    found += [
        f'"{key}" must hold texts'
        for key in ("tags", "language")
        for one in texts(key)
        if not isinstance(one, str)
    ]
    found += [
        f'"base_model_relation" is not {one}' for one in texts("base_model_relation") if one not in _RELATIONS
    ]
    return as_json({"errors": [{"message": one} for one in found], "warnings": []}, 400) if found else None


def preupload(call: Call, name: str, revision: str) -> Reply:
    repo = writable(call, name)
    _, files = at(repo, revision)
    given = call.json()
    ignored = given.get("gitIgnore") or (files[".gitignore"].read().decode() if ".gitignore" in files else "")

    def told(path: str, size: int) -> dict[str, Any]:
        large = goes_to_lfs(path, size)
        there = files.get(path)
        oid = {"oid": there.sha256 if large else there.git} if there else {}
        skip = any(fnmatch.fnmatchcase(path, line.strip()) for line in ignored.splitlines() if line.strip())
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": skip, **oid}

    return as_json({"files": [told(one["path"], one["size"]) for one in given["files"]]})


def batch(call: Call, name: str) -> Reply:
    writable(call, name)
    settings = call.world.settings

    def told(oid: str, size: int) -> dict[str, Any]:
        if call.world.store.uploaded(oid) is not None:
            return {"oid": oid, "size": size}
        verify = {"href": f"{call.world.endpoint}/{unquote(name)}.git/info/lfs/objects/verify", "header": {}}
        if size <= settings["multipart_above"]:
            return {
                "oid": oid,
                "size": size,
                "actions": {"upload": {"href": cdn.upload_url(call, oid, 0), "header": {}}, "verify": verify},
            }
        parts = range(1, -(-size // settings["part"]) + 1)
        header = {"chunk_size": str(settings["part"])}
        header |= {str(part): cdn.upload_url(call, oid, part) for part in parts}
        path = f"/api/complete_multipart/{oid}"
        done = call.world.endpoint + call.world.signatures.sign("POST", path, settings["signature_seconds"])
        return {
            "oid": oid,
            "size": size,
            "actions": {"upload": {"href": done, "header": header}, "verify": verify},
        }

    return as_json(
        {"transfer": "basic", "objects": [told(one["oid"], one["size"]) for one in call.json()["objects"]]}
    )


def verify(call: Call, name: str) -> Reply:
    writable(call, name)
    given = call.json()
    found = call.world.store.uploaded(given["oid"])
    if found is None or found.size != given["size"]:
        raise Refused(400, f"{given['oid']} was not uploaded")
    return as_json({"message": "ok"})


def commit(call: Call, name: str, revision: str) -> Reply:
    repo = writable(call, name)
    wanted = unquote(revision)
    if wanted not in repo.branches:
        raise Refused(404, f"Invalid rev id: {wanted}", "RevisionNotFound")
    files: Files = dict(repo.commits[repo.branches[wanted]])
    for line in call.read().splitlines():
        item = json.loads(line)
        value = item["value"]
        match item["key"]:
            case "header":
                if (parent := value.get("parentCommit")) and not repo.branches[wanted].startswith(parent):
                    raise Refused(412, "A commit has happened since. Please refresh and try again.")
            case "file":
                data = base64.b64decode(value["content"])
                if (
                    value["path"] == "README.md"
                    and (wrong := problems(data.decode()))
                    and wrong.status == 400
                ):
                    return wrong
                files[value["path"]] = call.world.store.kept(data)
            case "lfsFile":
                found = call.world.store.uploaded(value["oid"])
                if found is None:
                    raise Refused(400, f"{value['path']}: its content was not uploaded")
                files[value["path"]] = found
            case "deletedFile":
                del files[value["path"]]
            case "deletedFolder":
                files = {at: one for at, one in files.items() if not at.startswith(f"{value['path']}/")}
            case other:
                raise Refused(400, f"unknown operation {other}")
    made = repo.commit(wanted, files)
    url = f"{call.world.endpoint}/{repo.name}/commit/{made}"
    return as_json({"success": True, "commitUrl": url, "commitOid": made, "hookOutput": ""})


_LFS = rf"/{NAME}\.git/info/lfs/objects"
ROUTES = [
    ("POST", r"/api/repos/create", create),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("POST", rf"/api/models/{NAME}/branch/(?P<revision>[^/]+)", branch),
    ("POST", rf"/api/models/{NAME}/preupload/(?P<revision>[^/]+)", preupload),
    ("POST", rf"/api/models/{NAME}/commit/(?P<revision>[^/]+)", commit),
    ("POST", rf"{_LFS}/batch", batch),
    ("POST", rf"{_LFS}/verify", verify),
    ("POST", r"/api/complete_multipart/(?P<sha256>[0-9a-f]{64})", cdn.complete),
]
