"""The Hub's routes that read: info, tree, refs, resolve, who am I."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote

from . import cdn
from .repos import goes_to_lfs
from .wire import Body, Part, Refused, Reply, as_json, ranged

if TYPE_CHECKING:
    from .repos import Content, Files, Repo
    from .wire import Call


TOKENS = {"hf_test_reader": "reader", "hf_test_other": "other", "hf_test_writer": "writer"}
"""`reader` may read every repository, `other` the public ones, `writer` may write too."""


def user(call: Call) -> str | None:
    """Whose token came along; none is fine, an unknown one is not."""
    given = call.headers.get("Authorization")
    if given is None:
        return None
    if (found := TOKENS.get(given.removeprefix("Bearer "))) is None:
        raise Refused(401, "Invalid credentials in Authorization header")
    return found


def opened(call: Call, name: str) -> Repo:
    """A repository that the caller may see; what is private looks as if it were not there."""
    who = user(call)
    repo = call.world.store.repos.get(unquote(name))
    if repo is None or (repo.private and who not in ("reader", "writer")):
        # The Hub answers 401 to those who have not said who they are.
        message = "Repository not found" if who else "Invalid username or password."
        raise Refused(404 if who else 401, message, "RepoNotFound")
    return repo


def at(repo: Repo, revision: str) -> tuple[str, Files]:
    """The commit that a revision names, and its files."""
    commit = repo.commit_of(unquote(revision))
    if commit is None:
        raise Refused(404, f"Invalid rev id: {unquote(revision)}", "RevisionNotFound")
    return commit, repo.commits[commit]


def whoami(call: Call) -> Reply:
    who = user(call)
    if who is None:
        raise Refused(401, "Invalid username or password.")
    token = {"role": "write" if who == "writer" else "read", "displayName": who}
    auth = {"type": "access_token", "accessToken": token}
    return as_json({"type": "user", "name": who, "fullname": who, "orgs": [], "auth": auth})


def harnesses(call: Call) -> Reply:
    return as_json({"standardEnvVars": [], "harnesses": {}})


def info(call: Call, name: str, revision: str = "main") -> Reply:
    repo = opened(call, name)
    commit, files = at(repo, revision)
    # A client may send any text that it takes for true.
    blobs = call.query.get("blobs", "").lower() in ("true", "1")
    return as_json(
        {
            "_id": commit[:24],
            "id": repo.name,
            "modelId": repo.name,
            "sha": commit,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "lastModified": "2026-01-01T00:00:00.000Z",
            "siblings": [sibling(call, path, one, blobs=blobs) for path, one in sorted(files.items())],
        }
    )


def sibling(call: Call, path: str, content: Content, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    listed = entry(call, path, content)
    large = listed.get("lfs")
    lfs = {"lfs": {**large, "sha256": large["oid"]}} if large else {}
    return {"rfilename": path, "size": listed["size"], "blobId": listed["oid"], **lfs}


def entry(call: Call, path: str, content: Content) -> dict[str, Any]:
    """A file as trees list it."""
    size = call.faults.listed(path, content.size)
    if not goes_to_lfs(path, content.size):
        return {"type": "file", "path": path, "size": size, "oid": content.git}
    pointer = content.pointer()
    lfs = {"oid": content.sha256, "size": size, "pointerSize": 125 + len(str(content.size))}
    return {"type": "file", "path": path, "size": size, "oid": pointer, "lfs": lfs}


def entries(call: Call, files: Files) -> list[dict[str, Any]]:
    """Every file and folder."""
    folders = {str(one) for path in files for one in PurePosixPath(path).parents} - {".", "/"}
    listed = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders]
    listed += [entry(call, path, content) for path, content in files.items()]
    return sorted(listed, key=lambda one: one["path"])


def tree(call: Call, name: str, revision: str, path: str = "") -> Reply:
    _, files = at(opened(call, name), revision)
    inside = unquote(path).strip("/")
    found = entries(call, files)
    if inside:
        found = [one for one in found if one["path"].startswith(f"{inside}/")]
        if not found:
            raise Refused(404, f"{inside} does not exist on {unquote(revision)}", "EntryNotFound")
    if call.query.get("recursive", "").lower() not in ("true", "1"):
        depth = inside.count("/") + 1 if inside else 0
        found = [one for one in found if one["path"].count("/") == depth]
    first = int(call.query.get("cursor", "0"))
    page = min(int(call.query.get("limit", "1000")), call.world.settings["page"])
    rest = {name: value for name, value in call.query.items() if name != "cursor"}
    more = "&".join(f"{name}={quote(value)}" for name, value in {**rest, "cursor": str(first + page)}.items())
    link = {"Link": f'<{call.world.endpoint}{call.raw}?{more}>; rel="next"'}
    return as_json(found[first : first + page], **(link if first + page < len(found) else {}))


def paths_info(call: Call, name: str, revision: str) -> Reply:
    _, files = at(opened(call, name), revision)
    asked = parse_qs(call.read().decode())["paths"]
    return as_json([one for one in entries(call, files) if one["path"] in asked])


def refs(call: Call, name: str) -> Reply:
    repo = opened(call, name)
    found = [
        {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit}
        for branch, commit in repo.branches.items()
    ]
    pulls = {"pullRequests": []} if "include_prs" in call.query else {}
    return as_json({"branches": found, "converts": [], "tags": [], **pulls})


def resolve(call: Call, name: str, revision: str, path: str) -> Reply:
    repo = opened(call, name)
    if repo.gated and user(call) not in ("reader", "writer"):
        known = user(call) is not None
        why = "you are not in the authorized list" if known else "you must be authenticated to access it"
        raise Refused(403 if known else 401, f"Access to model {repo.name} is restricted: {why}", "GatedRepo")
    commit, files = at(repo, revision)
    name = unquote(path)
    if (content := files.get(name)) is None:
        said = {"X-Repo-Commit": commit}
        raise Refused(404, f"Entry not found: {name}", "EntryNotFound", **said)
    headers = {"X-Repo-Commit": commit}
    if not goes_to_lfs(name, content.size):
        body = Body((Part(0, content.size, where=content.where),))
        return ranged(call, body, {**headers, "ETag": f'"{content.git}"', "Content-Type": "text/plain"})
    headers |= {
        "Location": cdn.download_url(call, repo.name, name, content),
        "X-Linked-ETag": f'"{content.sha256}"',
        "X-Linked-Size": str(call.faults.listed(name, content.size)),
        "Accept-Ranges": "bytes",
    }
    return Reply(302, headers)


NAME = r"(?P<name>[^/]+/[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", whoami),
    ("GET", r"/api/agent-harnesses", harnesses),
    *(
        ("GET", rf"/api/models/{NAME}{tail}", route)
        for tail, route in (
            (r"/revision/(?P<revision>[^/]+)", info),
            (r"/refs", refs),
            (r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", tree),
            (r"", info),
        )
    ),
    ("POST", rf"/api/models/{NAME}/paths-info/(?P<revision>[^/]+)", paths_info),
    ("GET HEAD", rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", resolve),
]
