"""What the cache holds, and what a run makes of it: nothing is believed that was not looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from families import manifest, weights, write
from hubserver.published import DONORS, REFS, TARGET, Published, publish, tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer
    from hubserver import Hub

    Run = Callable[..., Answer]


@pytest.fixture
def family(hub: Hub, tmp_path: Path) -> Published:
    return publish(hub, tmp_path / "family")


@pytest.fixture
def home(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> dict[str, str]:
    """An environment whose cache has the family."""
    found = hub.env(tmp_path / "home")
    assert taskvec("transfer", *REFS, "-o", "first", "--no-sync", **found).code == 0
    return found


def test_blobs_that_lie_in_xets_shared_store(home: dict[str, str], taskvec: Run, tmp_path: Path) -> None:
    store = tmp_path / "home" / "hub" / "blobs" / "5a"
    store.mkdir(parents=True)
    for number, blob in enumerate(sorted((tmp_path / "home" / "hub").glob("models--*/blobs/*"))):
        if len(blob.name) == 64:
            shared = store / f"{number:064x}"
            blob.rename(shared)
            blob.symlink_to(os.path.relpath(shared, blob.parent))
    answer = taskvec("transfer", *REFS, "-o", "again", "--no-sync", **home | {"HF_HUB_OFFLINE": "1"})
    assert answer.code == 0, answer.stderr
    assert manifest(tmp_path / "again")["inputs"] == manifest(tmp_path / "first")["inputs"]


@pytest.mark.parametrize(("kind", "how"), [("status", {"code": 503}), ("drop", {})])
def test_a_hub_that_fails_once_is_asked_again_not_the_cache(
    kind: str, how: dict[str, int], hub: Hub, home: dict[str, str], taskvec: Run, tmp_path: Path
) -> None:
    later = hub.publish(TARGET, write(tmp_path / "later", tensors("later"), shards=3))
    hub.misbehave(kind, path=f"/api/models/{TARGET}$", times=1, **how)
    answer = taskvec("transfer", *REFS, "-o", "again", "--no-sync", **home)
    assert answer.code == 0, answer.stderr
    assert manifest(tmp_path / "again")["inputs"][0]["commit"] == later


@pytest.mark.parametrize("way", [(), ("--stream",)])
def test_a_cached_shard_is_not_believed(
    way: tuple[str, ...], home: dict[str, str], taskvec: Run, tmp_path: Path
) -> None:
    (link,) = (tmp_path / "home" / "hub").glob("models--lab--donors/snapshots/*/grpo/model.safetensors")
    data = bytearray(link.read_bytes())
    data[-5] ^= 1
    link.resolve().write_bytes(data)
    answer = taskvec("transfer", *REFS, "-o", "again", "--no-sync", *way, **home)
    assert answer.code == 3
    assert "its digest differs" in answer.stderr
    assert not (tmp_path / "again").exists()


def test_a_small_file_is_not_believed(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> None:
    hub.misbehave("flip", role="hub", method="GET", path="chat_template.jinja", at=3)
    answer = taskvec("transfer", *REFS, "-o", "out", "--no-sync", **hub.env(tmp_path / "home"))
    assert answer.code == 3
    assert "chat_template.jinja has another content in the cache" in answer.stderr
    assert not (tmp_path / "out" / "config.json").exists()


def test_the_default_branch_is_main_and_asked_once(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    later = hub.publish(DONORS, tmp_path / "family" / "donors", revision="next")
    hub.misbehave("move", repo=DONORS, revision="main", to=later, path=f"{DONORS}/tree/", times=1)
    # --verbose plans first and then runs: both are of one commit.
    answer = taskvec("transfer", *REFS, "-o", "out", "--no-sync", "--verbose", **hub.env(tmp_path / "home"))
    assert answer.code == 0, answer.stderr
    commits = {one["commit"] for one in manifest(tmp_path / "out")["inputs"][1:]}
    assert commits == {family.commits[1]}
    assert len([one for one in hub.requests() if one.path == f"/api/models/{DONORS}"]) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_long_pause_can_be_stopped(hub: Hub, family: Published, tmp_path: Path) -> None:
    hub.misbehave("status", role="cdn", path="donors", code=429, headers={"Retry-After": "60"})
    command = [sys.executable, "-m", "taskvec", "transfer", *REFS, "-o", "out", "--stream", "--no-sync"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=hub.env(tmp_path / "home"), stderr=subprocess.PIPE, text=True
    )
    while not [one for one in hub.requests() if one.role == "cdn" and "donors" in one.path]:
        time.sleep(0.1)
    time.sleep(0.5)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"HF_ENDPOINT": "nonsense"}, 2, "HF_ENDPOINT"),
        ({"HF_TOKEN": "hf_\u201csmart\u201d"}, 2, "the token holds characters"),
        ({"HF_TOKEN": "hf_se\x0bcret"}, 2, "the token holds characters"),
    ],
)
def test_an_environment_that_cannot_work(
    changes: dict[str, str], code: int, said: str, hub: Hub, taskvec: Run, tmp_path: Path
) -> None:
    answer = taskvec("check", *REFS, **hub.env(tmp_path / "home") | changes)
    assert (answer.code, answer.stderr.count("\n")) == (code, 1), answer.stderr
    assert said in answer.stderr
    assert "cret" not in answer.stderr


def without_links(hub_cache: Path) -> None:
    """What a cache is where the system has no links, and after `cp -rL`: the files in place of links."""
    for link in [path for path in hub_cache.rglob("*") if path.is_symlink()]:
        content = link.read_bytes()
        link.unlink()
        link.write_bytes(content)


def relist(hub_cache: Path, change: Callable[[str, dict[str, object]], None]) -> None:
    """Changes every entry of the cache's lists of files."""
    for path in hub_cache.glob("models--*/trees/*.json"):
        listing = json.loads(path.read_bytes())
        for name, entry in listing["files"].items():
            change(name, entry)
        path.write_text(json.dumps(listing))


def forget_sha256(_name: str, entry: dict[str, object]) -> None:
    entry.pop("lfs_sha256", None)
    entry.pop("lfs_size", None)


def another_pointer(name: str, entry: dict[str, object]) -> None:
    """LFS extensions add lines to a pointer, so that its digest does not follow from the content."""
    forget_sha256(name, entry)
    if name.endswith(".safetensors"):
        entry["blob_id"] = "ab" * 20


OFFLINE = {"HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize("way", [(), ("--stream",)])
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("change", [None, forget_sha256, another_pointer])
def test_a_sound_cache_is_good_offline(
    change: Callable[..., None] | None, links: bool, way: tuple[str, ...], home: dict[str, str],
    taskvec: Run, tmp_path: Path,
) -> None:  # fmt: skip
    kept = tmp_path / "home" / "hub"
    if not links:
        without_links(kept)
    if change:
        relist(kept, change)
    answer = taskvec("transfer", *REFS, "-o", "again", "--no-sync", *way, **home | OFFLINE)
    assert answer.code == 0, answer.stderr
    assert weights(tmp_path / "again") == weights(tmp_path / "first")
    # Only where neither the list nor a link tells a digest is there nothing to compare with; that is said.
    unknown = change is another_pointer and not links
    assert answer.stderr.count("is in the cache without a digest") == (6 if unknown else 0)
    if way == () and (links or change is None):
        assert manifest(tmp_path / "again")["inputs"] == manifest(tmp_path / "first")["inputs"]


def test_diff_says_it_too(home: dict[str, str], taskvec: Run, tmp_path: Path) -> None:
    kept = tmp_path / "home" / "hub"
    without_links(kept)
    relist(kept, another_pointer)
    answer = taskvec("diff", REFS[0], REFS[1], "--json", **home | OFFLINE)
    assert answer.code == 0, answer.stderr
    warnings = json.loads(answer.stdout)["warnings"]
    assert warnings
    assert answer.stderr.splitlines() == [f"taskvec: warning: {one}" for one in warnings]


def test_inspect_compares_what_it_reads_whole(home: dict[str, str], taskvec: Run, tmp_path: Path) -> None:
    without_links(tmp_path / "home" / "hub")
    (path,) = (tmp_path / "home" / "hub").glob("models--lab--instruct/snapshots/*/config.json")
    path.write_bytes(path.read_bytes().replace(b"{", b"[", 1))
    answer = taskvec("inspect", REFS[0], **home | OFFLINE)
    assert answer.code == 3, answer.stdout
    assert "config.json has another content in the cache" in answer.stderr


def test_inspect_says_it_of_what_it_reads_whole(home: dict[str, str], taskvec: Run, tmp_path: Path) -> None:
    kept = tmp_path / "home" / "hub"
    without_links(kept)

    def unknown(name: str, entry: dict[str, object]) -> None:
        forget_sha256(name, entry)
        if name == "config.json":
            entry["blob_id"] = "ab" * 20

    relist(kept, unknown)
    answer = taskvec("inspect", REFS[0], "--json", **home | OFFLINE)
    assert answer.code == 0, answer.stderr
    warnings = json.loads(answer.stdout)["warnings"]
    assert answer.stderr.splitlines() == [f"taskvec: warning: {one}" for one in warnings]
    assert [warning.split(" is in the cache")[0] for warning in warnings] == [f"{REFS[0]}: config.json"]


@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", "chat_template.jinja"])
def test_another_content_without_links_is_found_offline(
    name: str, home: dict[str, str], taskvec: Run, tmp_path: Path
) -> None:
    without_links(tmp_path / "home" / "hub")
    (path,) = (tmp_path / "home" / "hub").glob(f"models--lab--instruct/snapshots/*/{name}")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    answer = taskvec("transfer", *REFS, "-o", "again", "--no-sync", **home | OFFLINE)
    assert answer.code == 3, answer.stderr
    assert f"{name} has another content in the cache" in answer.stderr
    assert str(path) in answer.stderr
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("change", [None, another_pointer])
@pytest.mark.parametrize("command", ["transfer", "check"])
def test_a_shard_cut_short_without_links_is_found_offline(
    command: str, change: Callable[..., None] | None, home: dict[str, str], taskvec: Run, tmp_path: Path
) -> None:
    kept = tmp_path / "home" / "hub"
    without_links(kept)
    if change:
        relist(kept, change)
    (path,) = kept.glob("models--lab--donors/snapshots/*/grpo/model.safetensors")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    out = ("-o", "again", "--no-sync") if command == "transfer" else ()
    answer = taskvec(command, *REFS, *out, **home | OFFLINE)
    assert answer.code in (3, 4), answer.stderr
    assert f"remove {path}" in answer.stderr
    assert not (tmp_path / "again").exists()


def test_a_large_file_is_compared_in_blocks(tmp_path: Path) -> None:
    """A sparse file of a GiB, in a process that may not have half of that."""
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from taskvec.hub.checked import check; from taskvec.hub.snapshot import File\n"
        "resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))\n"
        "file = File('model.safetensors', 1 << 30, git='0' * 40, perhaps_large=True)\n"
        "print(check(Path(sys.argv[1]), file, 'it', lambda: None))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_a_download_into_a_folder_of_its_own(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    """`hf download --local-dir`: an ordinary folder, whose notes on the download are not part of it."""
    home = hub.env(tmp_path / "home")
    code = "import sys, huggingface_hub as hub; hub.snapshot_download(sys.argv[1], local_dir=sys.argv[1])"
    for repo in (TARGET, DONORS):
        subprocess.run([sys.executable, "-c", code, repo], cwd=tmp_path, env=home, check=True)
    refs = (TARGET, f"{DONORS}/grpo", f"{DONORS}/sft")
    answer = taskvec("transfer", *refs, "-o", "out", "--no-sync", **home | OFFLINE)
    assert answer.code == 0, answer.stderr
    assert weights(tmp_path / "out") == weights_of(family, tmp_path)
    assert not (tmp_path / "out" / ".cache").exists()
    path = tmp_path / TARGET / "model-00002-of-00003.safetensors"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    answer = taskvec("check", *refs, **home | OFFLINE)
    assert answer.code == 3
    assert str(path.relative_to(tmp_path)) in answer.stderr


def weights_of(family: Published, tmp_path: Path) -> dict[str, bytes]:
    import taskvec

    taskvec.transfer(*family.folders, tmp_path / "right", sync=False)
    return weights(tmp_path / "right")


@pytest.mark.parametrize("fails", ["unreachable", "status"])
def test_a_hub_that_is_away_while_the_cache_is_whole(
    fails: str, hub: Hub, home: dict[str, str], taskvec: Run, tmp_path: Path
) -> None:
    how = {"HF_ENDPOINT": "http://127.0.0.1:9"} if fails == "unreachable" else {}
    hub.misbehave("status", path="/api/models/", code=503)
    answer = taskvec("check", *REFS, **home | how)
    assert answer.code == 4
    assert "or set HF_HUB_OFFLINE=1 to use the copy in the cache" in answer.stderr
    assert taskvec("check", *REFS, **home | how | OFFLINE).code == 0
    answer = taskvec("check", *REFS, "--cache-dir", tmp_path / "none", **home | how)
    assert answer.code == 4
    assert "HF_HUB_OFFLINE" not in answer.stderr
