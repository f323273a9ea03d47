"""push: what arrives on the Hub is what was written, and nothing that should not."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import yaml

import taskvec as package
from families import files
from hubserver import OTHER, READER, WRITER, Hub, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer

    Push = Callable[..., Answer]


@pytest.fixture(scope="module")
def written(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint `out` of three shards and a vector `v`, to be read only."""
    root = tmp_path_factory.mktemp("written")
    package.transfer(family / "instruct", family / "grpo", family / "sft", root / "out", sync=False)
    package.extract(family / "grpo", family / "sft", root / "v", sync=False)
    return root


@pytest.fixture
def out(written: Path, tmp_path: Path) -> Path:
    """A checkpoint of one's own."""
    return shutil.copytree(written / "out", tmp_path / "out")


@pytest.fixture
def push(hub: Hub, tmp_path: Path, taskvec: Push) -> Push:
    """Runs `taskvec push`; whatever happens, no token and no signed address is shown."""

    def run(*args: str | Path, token: str = WRITER, **more: str) -> Answer:
        answer = taskvec("push", *args, **hub.env(tmp_path / "home", HF_TOKEN=token, **more))
        for text in (answer.stdout, answer.stderr):
            assert "hf_test" not in text
            assert "Signature" not in text
            assert "Traceback" not in text
        return answer

    return run


def puts(hub: Hub) -> list[Request]:
    return [request for request in hub.requests() if request.method == "PUT"]


def there(hub: Hub, repo: str, revision: str = "main") -> dict[str, bytes]:
    """What is in a repository, the Hub's own file apart."""
    found = hub.files(repo, revision)
    found.pop(".gitattributes", None)
    return found


def test_a_checkpoint_arrives_whole(hub: Hub, push: Push, written: Path, tmp_path: Path) -> None:
    answer = push(written / "out", "org/new", "--json")
    assert (answer.code, answer.stderr) == (0, "")
    said = json.loads(answer.stdout)
    content = files(written / "out")
    assert there(hub, "org/new") == content
    assert said == {
        "schema": "taskvec/push/1",
        "repo": "org/new",
        "revision": "main",
        "commit": hub.head("org/new"),
        "url": f"{hub.endpoint}/org/new",
        "files": len(content),
        "bytes": sum(map(len, content.values())),
        "notes": [],
    }
    # Each host is told only what it needs to know.
    assert {request.authorization for request in hub.requests() if request.role == "cdn"} == {None}

    code = (
        f"import huggingface_hub as hf; hf.snapshot_download('org/new', local_dir={str(tmp_path / 'got')!r})"
    )
    subprocess.run([sys.executable, "-c", code], env=hub.env(tmp_path / "other"), check=True)
    assert package.verify(tmp_path / "got").ok
    assert {name: (tmp_path / "got" / name).read_bytes() for name in content} == content


def test_once_more_sends_nothing(hub: Hub, push: Push, written: Path) -> None:
    push(written / "out", "org/new")
    commit = hub.head("org/new")
    hub.clear_log()
    again = push(written / "out", "org/new", "--json")
    assert json.loads(again.stdout)["commit"] == commit == hub.head("org/new")
    assert not puts(hub)


def test_a_vector_arrives_whole(hub: Hub, push: Push, written: Path) -> None:
    answer = push(written / "v", "org/skill")
    assert answer.code == 0
    assert there(hub, "org/skill") == files(written / "v")
    assert f"pushed to {hub.endpoint}/org/skill" in answer.stdout
    assert hub.head("org/skill") in answer.stdout


def test_what_a_kill_interrupts_goes_on(hub: Hub, push: Push, written: Path, tmp_path: Path) -> None:
    # The first of three large files is sent at once, the others never.
    hub.misbehave("latency", method="PUT", after=1, ms=60_000)
    command = [sys.executable, "-m", "taskvec", "push", str(written / "out"), "org/new"]
    environment = hub.env(tmp_path / "home", HF_TOKEN=WRITER)
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 30
        while [request.status for request in puts(hub)].count(200) != 1 or len(puts(hub)) != 3:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    (sent,) = [request.path for request in puts(hub) if request.status == 200]
    assert there(hub, "org/new") == {}
    hub.behave()
    hub.clear_log()
    assert push(written / "out", "org/new").code == 0
    assert len(puts(hub)) == 2
    assert sent not in [request.path for request in puts(hub)]
    assert there(hub, "org/new") == files(written / "out")


def test_a_folder_that_is_damaged_stays_here(hub: Hub, push: Push, out: Path) -> None:
    shard = out / "model-00002-of-00003.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    answer = push(out, "org/new")
    assert (answer.code, answer.stdout) == (1, "")
    assert "model-00002-of-00003.safetensors" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert hub.requests() == []


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_only_what_taskvec_wrote_is_pushed(hub: Hub, push: Push, tmp_path: Path, what: str) -> None:
    if what == "empty":
        (tmp_path / what).mkdir()
    answer = push(tmp_path / what, "org/new")
    assert answer.code == (4 if what == "missing" else 1)
    assert str(tmp_path / what) in answer.stderr
    assert hub.requests() == []


def test_what_the_manifest_does_not_name_stays_here(hub: Hub, push: Push, out: Path) -> None:
    for name in (
        "notes.txt",
        ".taskvec-partial/journal",
        ".cache/huggingface/x",
        "runs/1/log",
        ".git/config",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    answer = push(out, "org/new", "--json")
    assert json.loads(answer.stdout)["notes"] == [
        "left out, not in the manifest: .cache/, .git/, .taskvec-partial/, notes.txt, runs/"
    ]
    assert set(there(hub, "org/new")) == {path.name for path in out.iterdir() if path.is_file()} - {
        "notes.txt"
    }


@pytest.mark.parametrize("name", [".env", "sub/id_rsa", "runs/1/events.txt", "trainer_state.json"])
def test_secrets_that_an_earlier_version_copied_stay_here(hub: Hub, push: Push, out: Path, name: str) -> None:
    stray = out / name
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes((out / "config.json").read_bytes())
    said = json.loads((out / "taskvec.json").read_bytes())
    (config,) = [one for one in said["files"] if one["name"] == "config.json"]
    said["files"].append({**config, "name": name})
    (out / "taskvec.json").write_text(json.dumps(said))
    answer = push(out, "org/new")
    assert (answer.code, answer.stdout) == (1, "")
    assert f"or were left by a training run: {name}; write the folder again" in answer.stderr
    assert hub.requests() == []


def test_names_are_names_and_no_patterns(hub: Hub, push: Push, family: Path, tmp_path: Path) -> None:
    target = shutil.copytree(family / "instruct", tmp_path / "target")
    for name in ("a[b].txt", "sub/c*.py"):
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(name)
    package.transfer(target, family / "grpo", family / "sft", tmp_path / "out", sync=False)
    (tmp_path / "out" / "sub" / "cc.py").write_text("not in the manifest")
    assert push(tmp_path / "out", "org/new").code == 0
    arrived = set(there(hub, "org/new"))
    assert arrived >= {"a[b].txt", "sub/c*.py"}
    assert "sub/cc.py" not in arrived


def test_weights_of_another_checkpoint_do_not_stay_beside_it(hub: Hub, push: Push, written: Path) -> None:
    stale = ["model.safetensors", "vector.json", "adapter_config.json"]
    kept = {"notes.md": b"mine", "other/model.safetensors": b"a checkpoint of its own"}
    before = hub.publish("org/m", {**dict.fromkeys(stale, b"old"), **kept, "config.json": b"old"})
    answer = push(written / "out", "org/m")
    assert answer.code == 0
    assert (
        f"removed from org/m@main, as part of another checkpoint: {', '.join(sorted(stale))}" in answer.stdout
    )
    assert there(hub, "org/m") == {**files(written / "out"), **kept}
    assert hub.files("org/m", before)["model.safetensors"] == b"old"


def test_private(hub: Hub, push: Push, written: Path, tmp_path: Path) -> None:
    assert push(written / "v", "org/mine", "--private").code == 0
    code = "import huggingface_hub as hf; hf.model_info('org/mine')"
    for token, seen in ((READER, True), (OTHER, False)):
        environment = hub.env(tmp_path / token, HF_TOKEN=token)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
        assert (done.returncode == 0) == seen
    # Once more, and a repository that others can read.
    assert push(written / "v", "org/mine", "--private").code == 0
    hub.publish("org/open", {"a.txt": b""})
    answer = push(written / "v", "org/open", "--private")
    assert answer.code == 1
    assert "org/open already exists and is public" in answer.stderr
    assert hub.files("org/open") == {"a.txt": b""}


def test_a_branch(hub: Hub, push: Push, written: Path) -> None:
    hub.publish("org/m", {"a.txt": b"main"})
    for _ in range(2):
        answer = push(written / "v", "org/m", "--revision", "half", "--json")
        said = json.loads(answer.stdout)
        assert (answer.code, said["revision"], said["commit"]) == (0, "half", hub.head("org/m", "half"))
        assert said["url"] == f"{hub.endpoint}/org/m/tree/half"
    assert hub.files("org/m", "half") == {**files(written / "v"), "a.txt": b"main"}
    assert hub.files("org/m") == {"a.txt": b"main"}


def test_a_pull_request(hub: Hub, push: Push, written: Path) -> None:
    hub.publish("org/m", {"a.txt": b"main"})
    hub.publish("org/m", {"a.txt": b"main"}, revision="refs/pr/1")
    assert push(written / "v", "org/m", "--revision", "refs/pr/1").code == 0
    assert hub.files("org/m", "refs/pr/1") == {**files(written / "v"), "a.txt": b"main"}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["new"], "org/name"),
        (["https://huggingface.co/org/new"], "org/name"),
        (["org/new@v1"], "--revision"),
        (["org/new:sub"], "--revision"),
        (["org/new--er"], "org/name"),
        (["org/new", "--revision", "a" * 40], "branch"),
        (["org/new", "--revision", ""], "branch"),
    ],
)
def test_a_request_that_makes_no_sense(
    hub: Hub, push: Push, written: Path, args: list[str], says: str
) -> None:
    answer = push(written / "v", *args)
    assert answer.code == 2
    assert says in answer.stderr
    assert hub.requests() == []


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"token": ""}, "hf auth login"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"token": READER}, "may not write"),
        ({"token": "hf_unknown"}, "HF_TOKEN"),
        # Nobody listens there.
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "network"),
    ],
)
def test_one_sentence_says_why_not(push: Push, written: Path, more: dict[str, str], says: str) -> None:
    answer = push(written / "v", "org/new", **more)
    assert (answer.code, answer.stdout) == (4, "")
    assert answer.stderr.startswith("taskvec: org/new: ")
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("method", "path", "code", "says"),
    [
        ("POST", "repos/create", 500, "internal error"),
        ("PUT", "upload", 403, "may not write"),
        ("POST", "commit/main", 503, "internal error"),
        ("POST", "commit/main", 429, "limits requests"),
    ],
)
def test_what_the_hub_refuses_on_the_way(
    hub: Hub, push: Push, written: Path, method: str, path: str, code: int, says: str
) -> None:
    hub.misbehave("status", method=method, path=path, code=code)
    answer = push(written / "v", "org/new")
    assert (answer.code, answer.stdout) == (4, "")
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1
    hub.behave()
    assert push(written / "v", "org/new").code == 0
    assert there(hub, "org/new") == files(written / "v")


def test_what_passes_is_waited_for(hub: Hub, push: Push, written: Path) -> None:
    hub.misbehave("status", method="PUT", code=503, times=1)
    answer = push(written / "v", "org/new")
    assert (answer.code, answer.stderr) == (0, "")
    assert there(hub, "org/new") == files(written / "v")


def test_a_file_that_the_repository_ignores_is_missed(hub: Hub, push: Push, written: Path) -> None:
    hub.publish("org/m", {".gitignore": b"vector.json\n"})
    answer = push(written / "v", "org/m")
    assert answer.code == 1
    assert "does not have vector.json" in answer.stderr


def test_a_licence_that_the_hub_does_not_know(hub: Hub, push: Push, family: Path, tmp_path: Path) -> None:
    target = shutil.copytree(family / "instruct", tmp_path / "target")
    (target / "README.md").write_text("---\nlicense: my own\n---\n# Card\n")
    package.transfer(target, family / "grpo", family / "sft", tmp_path / "out", sync=False)
    answer = push(tmp_path / "out", "org/new")
    assert answer.code == 1
    assert "README.md" in answer.stderr
    assert "my own" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not puts(hub)


def test_in_python(hub: Hub, written: Path, tmp_path: Path) -> None:
    code = (
        "import pickle, sys, taskvec\n"
        "seen = []\n"
        f"done = taskvec.push({str(written / 'v')!r}, 'org/new', progress=lambda *at: seen.append(at))\n"
        "assert seen, 'verifying tells how far it is'\n"
        "sys.stdout.buffer.write(pickle.dumps(done))"
    )
    environment = hub.env(tmp_path / "home", HF_TOKEN=WRITER)
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, check=True)
    result = pickle.loads(done.stdout)
    assert isinstance(result, package.PushResult)
    assert (result.repo, result.revision, result.commit) == ("org/new", "main", hub.head("org/new"))
    assert (result.files, result.notes) == (len(files(written / "v")), ())


def test_the_card_names_the_models_it_is_made_from(
    hub: Hub, push: Push, family: Path, tmp_path: Path
) -> None:
    cached: dict[str, Path] = {}
    for name in ("instruct", "grpo", "sft"):
        cached[name] = tmp_path / f"models--org--{name}" / "snapshots" / ("a" * 40)
        shutil.copytree(family / name, cached[name])
    package.transfer(cached["instruct"], cached["grpo"], cached["sft"], tmp_path / "out", sync=False)
    assert push(tmp_path / "out", "org/new").code == 0
    # Their own reader of model cards, in a process of its own since this one is offline.
    code = (
        "import huggingface_hub as hf, json\ncard = hf.ModelCard.load('org/new')\ncard.validate()\n"
        "print(json.dumps(card.data.to_dict()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=hub.env(tmp_path / "home"), check=True, capture_output=True
    )
    data = json.loads(done.stdout)
    assert data["base_model"] == ["org/instruct", "org/grpo", "org/sft"]
    assert data["base_model_relation"] == "merge"
    front = yaml.safe_load((family / "instruct" / "README.md").read_text().split("---")[1])
    assert data["license"] == front["license"]
