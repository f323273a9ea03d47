"""A Hub that misbehaves: a run recovers, or ends in one sentence with nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from families import TIED, files, weights, write
from hubserver import OTHER, READER
from hubserver.published import DONORS, REFS, TARGET, Published, publish, tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer
    from hubserver import Hub

    Run = Callable[..., Answer]

WAYS = pytest.mark.parametrize("way", [(), ("--stream",)], ids=["download", "stream"])
LATER = {"retry-after": "1"}


@pytest.fixture
def family(hub: Hub, tmp_path: Path) -> Published:
    return publish(hub, tmp_path / "family")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the transfer gives from folders: torch's answer is for other tests to compare."""
    import taskvec

    root = tmp_path_factory.mktemp("local")
    folders = [
        write(root / name, tensors(name), shards=count, config=TIED)
        for name, count in (("instruct", 3), ("donors/grpo", 1), ("donors/sft", 2))
    ]
    taskvec.transfer(*folders, root / "out", sync=False)
    return weights(root / "out")


def one_sentence(answer: Answer, tmp_path: Path, code: int) -> str:
    """The message, once it is sure that it is one, tells no secret, and that nothing was left."""
    assert answer.code == code, answer.stderr
    said = [line for line in answer.stderr.splitlines() if line.startswith("taskvec: ")]
    assert len(said) == 1, answer.stderr
    for secret in (READER, OTHER, "127.0.0.1", "http://", "Signature=", "X-Amz"):
        assert secret not in answer.stderr + answer.stdout
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "out" / "config.json").exists()
    assert not (tmp_path / "out" / "taskvec.json").exists()
    return said[0]


@WAYS
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("status", {"role": "cdn", "code": 429, "headers": LATER, "times": 1}),
        ("status", {"role": "hub", "path": "/api/models/", "code": 429, "headers": LATER, "times": 1}),
        ("status", {"role": "hub", "path": "/tree/", "code": 500, "times": 1}),
        ("status", {"role": "hub", "path": "/resolve/.*safetensors", "code": 503, "times": 1}),
        ("status", {"role": "cdn", "code": 500, "times": 1}),
        ("drop", {"role": "cdn", "times": 1}),
        ("drop", {"role": "cdn", "times": 1, "reset": True}),
        ("cut", {"role": "cdn", "at": 300_000, "times": 3}),
        ("cut", {"role": "cdn", "at": 300_000, "times": 2, "reset": True}),
        ("expired", {"role": "cdn", "times": 2}),
    ],
)  # fmt: skip
def test_what_passes_is_recovered_from(
    way: tuple[str, ...], kind: str, how: dict[str, Any], hub: Hub, family: Published,
    local: dict[str, bytes], taskvec: Run, tmp_path: Path,
) -> None:  # fmt: skip
    hub.misbehave(kind, **how)
    answer = taskvec("transfer", *REFS, "-o", "out", "--no-sync", *way, **hub.env(tmp_path / "home"))
    assert answer.code == 0, answer.stderr
    assert weights(tmp_path / "out") == local


@WAYS
@pytest.mark.parametrize(
    ("kind", "how", "code", "said"),
    [
        ("wrong_size", {"file": "safetensors", "by": 8}, 3, "safetensors"),
        ("headers", {"role": "hub", "method": "HEAD", "path": "safetensors",
                     "headers": {"X-Linked-Etag": '"' + "0" * 64 + '"'}}, 3, "safetensors"),
        ("headers", {"role": "hub", "method": "HEAD", "path": "safetensors",
                     "headers": {"X-Repo-Commit": "0" * 40}}, 3, "another file"),
        ("status", {"role": "hub", "path": "/resolve/.*safetensors", "code": 403}, 4, "may not read"),
        ("status", {"role": "hub", "path": "/resolve/.*safetensors", "code": 404}, 4, "does not exist"),
    ],
)  # fmt: skip
def test_what_does_not_pass_ends_in_a_sentence(
    way: tuple[str, ...], kind: str, how: dict[str, Any], code: int, said: str, hub: Hub, family: Published,
    taskvec: Run, tmp_path: Path,
) -> None:  # fmt: skip
    hub.misbehave(kind, **how)
    home = hub.env(tmp_path / "home", HF_TOKEN=READER)
    answer = taskvec("transfer", *REFS, "-o", "out", "--no-sync", *way, **home)
    assert said in one_sentence(answer, tmp_path, code)
    # What has not arrived is not left half in the cache.
    assert not list((tmp_path / "home").rglob("*.incomplete"))


@pytest.mark.parametrize(
    ("kind", "how", "code", "said"),
    [
        ("whole", {}, 4, "status 200, not 206"),
        ("wrong_range", {"begin": 8, "end": 8}, 3, "the server sent bytes"),
        ("wrong_range", {"begin": 0, "end": -8}, 3, "the server sent bytes"),
        ("short", {"by": 100}, 3, "asked for bytes"),
        ("headers", {"headers": {"Content-Range": None}}, 3, "the server sent others"),
        ("expired", {}, 4, "status 403"),
    ],
)
def test_a_wrong_range_is_noticed(
    kind: str, how: dict[str, Any], code: int, said: str, hub: Hub, family: Published, taskvec: Run,
    tmp_path: Path,
) -> None:  # fmt: skip
    hub.misbehave(kind, role="cdn", path="donors", **how)
    answer = taskvec("transfer", *REFS, "--stream", "-o", "out", "--no-sync", **hub.env(tmp_path / "home"))
    assert said in one_sentence(answer, tmp_path, code)


def test_a_flipped_byte_in_a_download_is_noticed(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    hub.misbehave("flip", role="cdn", path="donors", at=700_000)
    answer = taskvec("transfer", *REFS, "-o", "out", "--no-sync", **hub.env(tmp_path / "home"))
    assert "its digest differs" in one_sentence(answer, tmp_path, 3)


def test_a_flipped_byte_in_a_small_file_is_noticed(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    hub.misbehave("flip", role="hub", method="GET", path="config.json", at=3)
    answer = taskvec("check", *REFS, **hub.env(tmp_path / "home"))
    assert "config.json arrived with another content" in one_sentence(answer, tmp_path, 3)


@pytest.mark.parametrize(
    ("ref", "token", "said"),
    [
        (
            "lab/nothing",
            None,
            "is neither a local folder nor on the Hub, or it is private and no token was given",
        ),
        (
            "lab/nothing",
            READER,
            "is neither a local folder nor on the Hub, or this token has no access to it",
        ),
        (
            "lab/private",
            None,
            "is neither a local folder nor on the Hub, or it is private and no token was given",
        ),
        ("lab/private", OTHER, "is neither a local folder nor on the Hub, or this token has no access to it"),
        ("lab/gated", None, "is gated, and no token was given"),
        ("lab/gated", OTHER, "is gated, and this token has no access to it"),
        (TARGET, "hf_wrong", "the Hub does not accept this token"),
        (f"{TARGET}@nothing", None, "has no such revision"),
        (f"{DONORS}:nothing", None, "has no folder nothing at this revision"),
    ],
)
def test_who_may_not(
    ref: str, token: str | None, said: str, hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    hub.publish("lab/private", family.minuend, private=True)
    hub.publish("lab/gated", family.minuend, gated=True)
    home = hub.env(tmp_path / "home", **({} if token is None else {"HF_TOKEN": token}))
    answer = taskvec("check", ref, *REFS[1:], **home)
    assert said in one_sentence(answer, tmp_path, 4)


def test_who_may(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> None:
    hub.publish("lab/private", family.minuend, private=True)
    hub.publish("lab/gated", family.subtrahend, gated=True)
    home = hub.env(tmp_path / "home", HF_TOKEN=READER)
    for number, way in enumerate(((), ("--stream",))):
        answer = taskvec(
            "transfer", TARGET, "lab/private", "lab/gated", "-o", f"out{number}", "--no-sync", *way, **home
        )
        assert answer.code == 0, answer.stderr


def test_an_index_that_leads_away_is_refused_unasked(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    index = {"weight_map": {"a": "../../../other/repo/resolve/main/model.safetensors"}}
    hub.publish(
        "lab/evil", {"model.safetensors.index.json": json.dumps(index).encode(), "config.json": b"{}"}
    )
    answer = taskvec("check", REFS[0], "lab/evil", REFS[2], **hub.env(tmp_path / "home", HF_TOKEN=READER))
    assert "not the plain name of a .safetensors file" in one_sentence(answer, tmp_path, 3)
    assert not [one for one in hub.requests() if "other" in one.path or ".." in one.path]


def test_a_file_name_that_leads_away_is_refused(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    content = {path.name: path.read_bytes() for path in family.target.iterdir()}
    hub.publish("lab/evil", {**content, "../../outside.txt": b"x"})
    answer = taskvec(
        "transfer", "lab/evil", *REFS[1:], "-o", "out", "--no-sync", **hub.env(tmp_path / "home")
    )
    one_sentence(answer, tmp_path, 3)
    assert not list(tmp_path.rglob("outside.txt"))


def test_a_shard_that_the_repository_lacks(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> None:
    folder = tmp_path / "lacking"
    shutil.copytree(family.target, folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    hub.publish("lab/lacking", folder)
    answer = taskvec("check", "lab/lacking", *REFS[1:], **hub.env(tmp_path / "home"))
    said = one_sentence(answer, tmp_path, 3)
    assert "lab/lacking/model.safetensors.index.json: lists tensor" in said
    assert "which is missing" in said


def test_a_hub_that_is_not_there(taskvec: Run, hub: Hub, family: Published, tmp_path: Path) -> None:
    home = {**hub.env(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    answer = taskvec("check", *REFS, **home)
    assert "could not be reached" in one_sentence(answer, tmp_path, 4)


def test_a_disk_without_room_is_found_before_the_download(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    hub.misbehave("wrong_size", file="safetensors", by=1 << 60)
    answer = taskvec("transfer", *REFS, "-o", "out", **hub.env(tmp_path / "home"))
    one_sentence(answer, tmp_path, 3 if "bytes" in answer.stderr and answer.code == 3 else 4)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@WAYS
def test_ctrl_c_is_answered_while_bytes_are_awaited(
    way: tuple[str, ...], hub: Hub, family: Published, local: dict[str, bytes], taskvec: Run, tmp_path: Path
) -> None:
    hub.misbehave("bandwidth", role="cdn", path="donors", rate=300_000)
    env = {**os.environ, **hub.env(tmp_path / "home")}
    command = [sys.executable, "-m", "taskvec", "transfer", *REFS, "-o", "out", "--no-sync", *way]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    while len([one for one in hub.requests() if one.role == "cdn" and "donors" in one.path]) < 4:
        time.sleep(0.1)
    time.sleep(0.5)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == 130
    assert said.startswith("taskvec: stopping")
    assert "Traceback" not in said
    assert not list((tmp_path / "home").rglob("*.incomplete"))
    hub.behave()
    answer = taskvec("transfer", *REFS, "-o", "out", "--no-sync", *way, **hub.env(tmp_path / "home"))
    assert answer.code == 0, answer.stderr
    assert weights(tmp_path / "out") == local


def test_a_streamed_run_that_was_killed_goes_on(
    hub: Hub, family: Published, local: dict[str, bytes], taskvec: Run, tmp_path: Path
) -> None:
    # Three requests for headers, then bodies that break off, then nothing more.
    hub.misbehave("cut", role="cdn", path="donors", at=2_500_000, after=3)
    hub.misbehave("expired", role="cdn", path="donors", after=5)
    home = hub.env(tmp_path / "home")
    answer = taskvec("transfer", *REFS, "-o", "out", "--stream", "--no-sync", "--memory", "36MiB", **home)
    hub.behave()
    assert answer.code == 4, answer.stderr
    assert (tmp_path / "out" / ".taskvec-partial").is_dir()
    answer = taskvec("transfer", *REFS, "-o", "out", "--stream", "--no-sync", "--json", **home)
    assert json.loads(answer.stdout)["engine"]["resumed_bytes"] > 0
    assert weights(tmp_path / "out") == local
    assert not [name for name in files(tmp_path / "out") if "partial" in name]
