"""The tests' own Hub, met by the real huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub.utils import httpx

from hubserver import OTHER, READER, WRITER, Hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEIGHTS = random.Random(0).randbytes(300_000)
FILES = {
    "config.json": b'{"model_type": "qwen2"}',
    "model.safetensors": WEIGHTS,
    "empty.txt": b"",
    "sub/a b%.txt": b"a",
    "sub/deeper/other.safetensors": WEIGHTS[:1000],
}


def script(hub: Hub, home: Path, code: str, **environment: str) -> Any:
    """What huggingface_hub, in a process of its own, makes of `code`, which sets `answer`."""
    code = f"import json, huggingface_hub as hf\napi = hf.HfApi()\n{code}\nprint(json.dumps(answer))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=hub.env(home, HF_HUB_DISABLE_PROGRESS_BARS="1", **environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


def signed(hub: Hub, http: httpx.Client, path: str = "model.safetensors") -> str:
    """Where a large file of org/m can be had."""
    return http.get(f"{hub.endpoint}/org/m/resolve/main/{path}").headers["Location"]


def test_a_snapshot_arrives_byte_for_byte(hub: Hub, tmp_path: Path) -> None:
    commit = hub.publish("org/m", FILES)
    folder = tmp_path / "home" / "hub" / "models--org--m" / "snapshots" / commit
    said = script(hub, tmp_path / "home", 'answer = hf.snapshot_download("org/m")')
    assert said == str(folder)
    assert below(folder) == FILES
    served = {request.path.rsplit("/", 1)[-1]: request.role for request in hub.requests() if request.sent}
    assert (served["model.safetensors"], served["config.json"]) == ("cdn", "hub")


def test_the_hub_lists_what_it_has(hub: Hub, tmp_path: Path) -> None:
    commit = hub.publish("org/m", FILES)
    hub.set(page=2)
    code = (
        'info = api.model_info("org/m", files_metadata=True)\n'
        'tree = api.list_repo_tree("org/m", recursive=True)\n'
        'named = api.get_paths_info("org/m", ["config.json", "sub"])\n'
        'refs = api.list_repo_refs("org/m")\n'
        "siblings = [(s.rfilename, s.size, s.blob_id, s.lfs and s.lfs.sha256) for s in info.siblings]\n"
        "files = [(f.path, f.size, f.lfs and f.lfs.sha256) for f in tree if hasattr(f, 'size')]\n"
        "answer = [info.sha, siblings, files, [one.path for one in named]]\n"
        "answer += [[(b.name, b.target_commit) for b in refs.branches]]"
    )
    sha, siblings, tree, named, branches = script(hub, tmp_path, code)
    large = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items() if "safetensors" in name}
    assert sha == commit
    assert {name: (size, digest) for name, size, _, digest in siblings} == {
        name: (len(data), large.get(name)) for name, data in FILES.items()
    }
    blob = hashlib.sha1(b"blob 23\0" + FILES["config.json"]).hexdigest()
    assert next(git for name, _, git, _ in siblings if name == "config.json") == blob
    assert {name: (size, digest) for name, size, digest in tree} == {
        name: (len(data), large.get(name)) for name, data in FILES.items()
    }
    assert sorted(named) == ["config.json", "sub"]
    assert ["main", commit] in branches
    pages = [request for request in hub.requests() if "/tree/" in request.path]
    assert len(pages) == 4, "five files and two folders, two on a page"


def test_revisions_are_branches_and_commits(hub: Hub, tmp_path: Path) -> None:
    first = hub.publish("org/m", {"a.txt": b"1"})
    second = hub.publish("org/m", {"a.txt": b"2"})
    pull = hub.publish("org/m", {"a.txt": b"3"}, revision="refs/pr/1")
    code = (
        "from pathlib import Path\n"
        f"revisions = ['main', 'refs/pr/1', {first!r}]\n"
        'answer = [Path(hf.hf_hub_download("org/m", "a.txt", revision=one)).read_text() for one in revisions]'
    )
    assert script(hub, tmp_path, code) == ["2", "3", "1"]
    assert (hub.head("org/m"), hub.head("org/m", "refs/pr/1")) == (second, pull)
    assert hub.files("org/m", first) == {"a.txt": b"1"}


def test_a_branch_can_move_while_a_client_looks_on(hub: Hub, tmp_path: Path) -> None:
    old = hub.publish("org/m", {"a.txt": b"old"})
    new = hub.publish("org/m", {"a.txt": b"new"}, revision="next")
    hub.misbehave("move", path="/revision/main", after=1, times=1, repo="org/m", revision="main", to=new)
    code = 'answer = [api.model_info("org/m", revision="main").sha for _ in range(3)]'
    assert script(hub, tmp_path, code) == [old, old, new]


ERRORS = """
answer = []
for call in (
    lambda: api.model_info("org/none"),
    lambda: api.model_info("org/private"),
    lambda: hf.hf_hub_download("org/gated", "config.json"),
    lambda: hf.hf_hub_download("org/m", "config.json", revision="none"),
    lambda: hf.hf_hub_download("org/m", "none.json"),
    lambda: list(api.list_repo_tree("org/m", "none")),
    lambda: api.whoami(),
):
    try:
        call()
    except Exception as error:
        response = getattr(error, "response", None)
        answer.append([type(error).__name__, response.status_code if response is not None else None])
    else:
        answer.append(None)
"""


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (
            "",
            [
                ["RepositoryNotFoundError", 401],
                ["RepositoryNotFoundError", 401],
                ["GatedRepoError", 401],
                ["RevisionNotFoundError", 404],
                ["RemoteEntryNotFoundError", 404],
                ["RemoteEntryNotFoundError", 404],
                ["LocalTokenNotFoundError", None],
            ],
        ),
        (
            OTHER,
            [
                ["RepositoryNotFoundError", 404],
                ["RepositoryNotFoundError", 404],
                ["GatedRepoError", 403],
                ["RevisionNotFoundError", 404],
                ["RemoteEntryNotFoundError", 404],
                ["RemoteEntryNotFoundError", 404],
                None,
            ],
        ),
        (
            READER,
            [
                ["RepositoryNotFoundError", 404],
                None,
                None,
                ["RevisionNotFoundError", 404],
                ["RemoteEntryNotFoundError", 404],
                ["RemoteEntryNotFoundError", 404],
                None,
            ],
        ),
        ("hf_unknown", [["HfHubHTTPError", 401]] * 2),
    ],
)
def test_each_refusal_is_the_one_the_client_knows(
    hub: Hub, tmp_path: Path, token: str, said: list[Any]
) -> None:
    for name, how in (("m", {}), ("private", {"private": True}), ("gated", {"gated": True})):
        hub.publish(f"org/{name}", {"config.json": b"{}"}, **how)
    assert script(hub, tmp_path, ERRORS, HF_TOKEN=token)[: len(said)] == said


UPLOAD = """
api.create_repo("org/new", exist_ok=True, private=True)
api.create_branch("org/new", branch="v1", exist_ok=True)
answer = api.upload_folder(repo_id="org/new", folder_path={folder!r}, revision="v1").oid
"""


def test_what_is_uploaded_is_there(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: org/m\n---\n# Card\n")
    # Below the length of the larger file: that one goes in parts.
    hub.set(multipart_above=100_000, part=130_000)
    code = UPLOAD.format(folder=str(folder))
    commit = script(hub, tmp_path / "home", code, HF_TOKEN=WRITER)
    assert commit == hub.head("org/new", "v1") != hub.head("org/new")
    there = hub.files("org/new", "v1")
    assert there.pop(".gitattributes").startswith(b"*.7z filter=lfs")
    assert there == below(folder)
    sent = [request.received for request in hub.requests() if request.method == "PUT"]
    assert sorted(sent) == [1000, 40_000, 130_000, 130_000]
    assert {request.authorization for request in hub.requests() if request.role == "cdn"} == {None}

    hub.clear_log()
    assert script(hub, tmp_path / "home", code, HF_TOKEN=WRITER) == commit
    assert not [request for request in hub.requests() if request.method == "PUT"]
    got = script(
        hub,
        tmp_path / "other",
        'answer = hf.snapshot_download("org/new", revision="v1", local_dir="{}")'.format(tmp_path / "got"),
        HF_TOKEN=READER,
    )
    assert got == str(tmp_path / "got")
    assert {name: (tmp_path / "got" / name).read_bytes() for name in FILES} == FILES


@pytest.mark.parametrize("token", ["", READER])
def test_only_a_writer_may_write(hub: Hub, tmp_path: Path, token: str) -> None:
    code = (
        "try:\n    api.create_repo('org/new')\nexcept Exception as error:\n"
        "    answer = [type(error).__name__, error.response.status_code]"
    )
    # Without a token the client gives up after the Hub's 401, which on http has no name of its own.
    wanted = ["HfHubHTTPError", 403 if token else 401]
    assert script(hub, tmp_path, code, HF_TOKEN=token) == wanted


@pytest.mark.parametrize(
    "front",
    ["license: nonsense", "base_model: not an id", "tags: [1]", "base_model_relation: cousin", "a: ["],
)
def test_a_malformed_card_is_refused(hub: Hub, tmp_path: Path, front: str) -> None:
    hub.publish("org/m", {"a.txt": b""})
    code = (
        f"card = {f'---{chr(10)}{front}{chr(10)}---{chr(10)}# Card'!r}.encode()\n"
        "try:\n    api.upload_file(path_or_fileobj=card, path_in_repo='README.md', repo_id='org/m')\n"
        "except ValueError as error:\n    answer = str(error)"
    )
    assert "Invalid metadata" in script(hub, tmp_path, code, HF_TOKEN=WRITER)
    assert list(hub.files("org/m")) == ["a.txt"]


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [("0-0", 0, 1), ("10-19", 10, 20), ("299990-", 299_990, 300_000), ("-7", 299_993, 300_000)],
)
def test_ranges(hub: Hub, http: httpx.Client, asked: str, begin: int, end: int) -> None:
    hub.publish("org/m", FILES)
    got = http.get(signed(hub, http), headers={"Range": f"bytes={asked}"})
    assert (got.status_code, got.content) == (206, WEIGHTS[begin:end])
    assert got.headers["Content-Range"] == f"bytes {begin}-{end - 1}/300000"
    seen = hub.requests()[-1]
    assert (seen.role, seen.range, seen.status, seen.sent) == ("cdn", f"bytes={asked}", 206, end - begin)
    assert (seen.host, seen.query, seen.authorization) == ("127.0.0.1", True, None)


def test_a_terabyte_of_holes_is_published_unread(hub: Hub, http: httpx.Client, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "b"):
        with (folder / f"{name}.safetensors").open("wb") as file:
            file.truncate(1 << 40)
    (folder / "config.json").write_bytes(FILES["config.json"])
    hub.publish("org/m", folder, digests="made up")
    listed = {one["path"]: one for one in http.get(f"{hub.endpoint}/api/models/org/m/tree/main").json()}
    assert listed["a.safetensors"]["size"] == 1 << 40
    assert listed["a.safetensors"]["lfs"]["oid"] != listed["b.safetensors"]["lfs"]["oid"]
    # Files that clients check are as true as ever.
    blob = b"blob 23\0" + FILES["config.json"]
    assert listed["config.json"]["oid"] == hashlib.sha1(blob).hexdigest()
    got = http.get(signed(hub, http, "b.safetensors"), headers={"Range": "bytes=-5"})
    assert (got.status_code, got.content) == (206, bytes(5))


def test_a_range_behind_the_end(hub: Hub, http: httpx.Client) -> None:
    hub.publish("org/m", FILES)
    got = http.get(signed(hub, http), headers={"Range": "bytes=300000-"})
    assert (got.status_code, got.headers["Content-Range"]) == (416, "bytes */300000")


def test_a_signature_has_an_end_and_takes_no_token(hub: Hub, http: httpx.Client) -> None:
    hub.publish("org/m", FILES)
    assert http.get(signed(hub, http).partition("?")[0]).status_code == 403
    assert http.put(signed(hub, http)).status_code == 404
    hub.set(signature_uses=2)
    url = signed(hub, http)
    assert [http.get(url).status_code for _ in range(3)] == [200, 200, 403]
    assert http.get(signed(hub, http), headers={"Authorization": f"Bearer {READER}"}).status_code == 400
    hub.set(signature_uses=None, signature_seconds=0.2)
    url = signed(hub, http)
    assert http.get(url).status_code == 200
    time.sleep(0.3)
    assert http.get(url).status_code == 403


FIRST = {"Range": "bytes=100-999"}


def test_it_answers_wrongly_when_told_to(hub: Hub, http: httpx.Client) -> None:
    hub.publish("org/m", FILES)

    def got(kind: str, **details: Any) -> httpx.Response:
        hub.behave()
        url = signed(hub, http)
        hub.misbehave(kind, role="cdn", path=r"model\.safetensors$", **details)
        return http.get(url, headers=FIRST)

    whole = got("whole")
    assert (whole.status_code, len(whole.content)) == (200, 300_000)
    other = got("wrong_range", begin=1, end=-1)
    assert (other.content, other.headers["Content-Range"]) == (WEIGHTS[101:999], "bytes 101-998/300000")
    short = got("short", by=3)
    assert (short.content, short.headers["Content-Range"]) == (WEIGHTS[100:997], "bytes 100-999/300000")
    flipped = got("flip", at=5).content
    assert [at for at in range(900) if flipped[at] != WEIGHTS[100 + at]] == [5]
    assert (got("expired").status_code, got("latency", ms=1).content) == (403, WEIGHTS[100:1000])
    refused = got("status", code=429, headers={"Retry-After": "7"}, error_code="RepoNotFound")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "7")
    assert refused.headers["X-Error-Code"] == "RepoNotFound"
    changed = got("headers", headers={"ETag": None, "Content-Range": "bytes 0-1/2"})
    assert ("ETag" in changed.headers, changed.headers["Content-Range"]) == (False, "bytes 0-1/2")


def test_it_says_wrong_sizes_when_told_to(hub: Hub, http: httpx.Client) -> None:
    hub.publish("org/m", FILES)
    hub.misbehave("wrong_size", file="model", by=-1)
    api = f"{hub.endpoint}/api/models/org/m"
    listed = http.get(f"{api}/tree/main").json() + http.get(api, params={"blobs": "true"}).json()["siblings"]
    sizes = {one.get("path") or one["rfilename"]: one["size"] for one in listed}
    assert (sizes["model.safetensors"], sizes["config.json"]) == (299_999, 23)
    head = http.head(f"{hub.endpoint}/org/m/resolve/main/model.safetensors")
    assert head.headers["X-Linked-Size"] == "299999"


@pytest.mark.parametrize("reset", [False, True])
def test_it_closes_connections_when_told_to(hub: Hub, http: httpx.Client, reset: bool) -> None:
    hub.publish("org/m", FILES)
    wanted = httpx.ReadError if reset else httpx.RemoteProtocolError
    url = signed(hub, http)
    hub.misbehave("cut", role="cdn", at=100_000, reset=reset)
    got: list[bytes] = []

    def read() -> None:
        with http.stream("GET", url) as response:
            got.extend(response.iter_bytes())

    with pytest.raises(wanted):
        read()
    assert reset or b"".join(got) == WEIGHTS[:100_000]
    assert hub.requests()[-1].sent == 100_000
    hub.behave()
    hub.misbehave("drop", role="cdn", reset=reset)
    with pytest.raises(wanted):
        http.get(url)
    assert hub.requests()[-1].status is None


def test_it_is_slow_when_told_to(hub: Hub, http: httpx.Client) -> None:
    hub.publish("org/m", FILES)
    url = signed(hub, http)
    for kind, details in (
        ("latency", {"ms": 300}),
        ("stall", {"at": 1000, "seconds": 0.3}),
        ("bandwidth", {"rate": 1_000_000}),
    ):
        hub.behave()
        hub.misbehave(kind, role="cdn", **details)
        begun = time.monotonic()
        assert http.get(url).content == WEIGHTS
        assert time.monotonic() - begun > 0.25, kind


def test_a_rule_counts_what_it_meets(hub: Hub, http: httpx.Client) -> None:
    hub.publish("org/m", FILES)
    url = f"{hub.endpoint}/org/m/resolve/main/config.json"
    hub.misbehave("status", method="GET", path="config", after=1, times=2, code=503)
    codes = [http.get(url).status_code, http.head(url).status_code]
    codes += [http.get(url).status_code for _ in range(3)]
    assert codes == [200, 200, 503, 503, 200]


def test_an_upload_can_be_broken_off(hub: Hub, http: httpx.Client) -> None:
    hub.publish("org/m", FILES)
    api = f"{hub.endpoint}/org/m.git/info/lfs/objects/batch"
    sent = bytes(3 << 20)
    oid = hashlib.sha256(sent).hexdigest()
    asked = {"objects": [{"oid": oid, "size": len(sent)}]}
    answer = http.post(api, json=asked, headers={"Authorization": f"Bearer {WRITER}"})
    url = answer.json()["objects"][0]["actions"]["upload"]["href"]
    hub.misbehave("cut", of="request", at=1 << 20, reset=True, times=1)
    with pytest.raises(httpx.NetworkError):
        http.put(url, content=sent)
    assert (1 << 20) < hub.requests()[-1].received < len(sent)
    assert http.put(url, content=bytes(10)).status_code == 400
    assert http.put(url, content=sent).status_code == 200


def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    with Hub(tmp_path) as hub:
        process = hub._process
        assert process.poll() is None
    assert process.poll() == 0
