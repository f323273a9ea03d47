"""What the cache holds, and what a run makes of it: nothing is believed that was not looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from families import manifest, write
from hubfamily import DONORS, REFS, TARGET, Published, publish, tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Answer
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
    assert "chat_template.jinja is in the cache with another content" in answer.stderr
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
