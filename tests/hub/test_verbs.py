"""Every verb on refs, against a Hub that behaves: what comes out is what local folders give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from families import files, manifest, weights
from hubserver import READER, Hub
from hubserver.published import DONORS, REFS, TARGET, Published, publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from command import Answer

    Run = Callable[..., Answer]


@pytest.fixture
def family(hub: Hub, tmp_path: Path) -> Published:
    """The family, on the Hub and here."""
    return publish(hub, tmp_path / "family")


@pytest.fixture
def local(family: Published, taskvec: Run, tmp_path: Path) -> Path:
    """What the transfer gives from local folders."""
    answer = taskvec("transfer", *family.folders, "--alpha", "0.5", "-o", "local", "--no-sync")
    assert answer.code == 0, answer.stderr
    return tmp_path / "local"


def ok(answer: Answer) -> str:
    assert answer.code == 0, answer.stderr
    return answer.stdout


def without_words(folder: Path) -> dict[str, bytes]:
    """All but the two files that name the inputs."""
    return {name: data for name, data in files(folder).items() if name not in ("taskvec.json", "README.md")}


@pytest.mark.parametrize("way", [[], ["--stream"], ["--stream", "--memory", "36MiB", "--threads", "1"]])
def test_a_transfer_from_refs_is_that_from_folders(
    way: list[str], hub: Hub, family: Published, local: Path, taskvec: Run, tmp_path: Path
) -> None:
    home = hub.env(tmp_path / "home")
    ok(taskvec("transfer", *REFS, "--alpha", "0.5", "-o", "out", "--no-sync", *way, **home))
    assert without_words(tmp_path / "out") == without_words(local)
    assert "pytorch_model.bin" not in files(tmp_path / "out")
    ok(taskvec("verify", "out"))

    donors = tmp_path / "home" / "hub" / "models--lab--donors"
    if "--stream" in way:
        assert not list(donors.rglob("*.safetensors"))
        assert all(path.stat().st_size < 10_000 for path in donors.rglob("*") if path.is_file())
    else:
        assert len(list(donors.glob("snapshots/*/*/*.safetensors"))) == 3
    # Pickles are not asked for.
    assert not [one for one in hub.requests() if one.path.endswith(".bin")]


@pytest.mark.parametrize("way", [[], ["--stream"]])
def test_a_sweep_from_refs_is_that_from_folders(
    way: list[str], hub: Hub, family: Published, local: Path, taskvec: Run, tmp_path: Path
) -> None:
    args = ("transfer", *REFS, "--alphas", "0,0.5,1", "--no-sync", *way)
    ok(taskvec(*args, "-o", "sweep", **hub.env(tmp_path / "home")))
    assert without_words(tmp_path / "sweep" / "alpha-0.5") == without_words(local)
    for alpha in ("0", "0.5", "1"):
        ok(taskvec("verify", f"sweep/alpha-{alpha}"))


def test_the_manifest_names_commits_and_digests_and_no_secrets(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    import hashlib

    home = hub.env(tmp_path / "home", HF_TOKEN=READER)
    for name, way in (("out", ()), ("streamed", ("--stream",))):
        answer = taskvec("transfer", *REFS, "-o", name, "--no-sync", "--verbose", *way, **home)
        ok(answer)
        text = "".join(
            path.read_text() for path in (tmp_path / name).iterdir() if path.suffix in (".json", ".md")
        )
        for secret in (READER, "127.0.0.1", "X-Amz", "Signature", str(tmp_path)):
            assert secret not in text + answer.stdout.replace(str(tmp_path / name), "") + answer.stderr
        inputs = manifest(tmp_path / name)["inputs"]
        assert [one["repo"] for one in inputs] == [TARGET, DONORS, DONORS]
        assert [one["commit"] for one in inputs] == [family.commits[0], family.commits[1], family.commits[1]]
        assert [one.get("subfolder") for one in inputs] == [None, "grpo", "sft"]
        for one, folder in zip(inputs, family.folders, strict=True):
            for file in one["files"]:
                data = (folder / file["name"]).read_bytes()
                assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert [one.get("streamed", False) for one in inputs] == [
            False,
            name == "streamed",
            name == "streamed",
        ]
    notes = " ".join(manifest(tmp_path / "streamed")["notes"])
    assert "SHA-256" in notes
    # The token went to the Hub, and to nobody else.
    asked = hub.requests()
    assert {one.authorization for one in asked if one.role == "hub"} >= {f"Bearer {READER}"}
    assert {one.authorization for one in asked if one.role == "cdn"} == {None}


def test_the_same_transfer_gives_the_same_manifest(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        env = hub.env(tmp_path / name)
        ok(taskvec("transfer", *REFS, "--stream", "-o", f"out-{name}", "--no-sync", **env))
    assert files(tmp_path / "out-one") == files(tmp_path / "out-two")


def test_extract_apply_and_diff_take_refs(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path, local: Path
) -> None:
    home = hub.env(tmp_path / "home")
    for name, way in (("v", ()), ("w", ("--stream",))):
        ok(taskvec("extract", *REFS[1:], "-o", name, "--no-sync", *way, **home))
    assert weights(tmp_path / "v") == weights(tmp_path / "w")
    hub.publish("lab/vector", tmp_path / "v")
    ok(taskvec("extract", *REFS[1:], "-o", "dense", "--encoding", "dense", "--no-sync", **home))
    hub.publish("lab/dense", tmp_path / "dense")
    for ref in ("lab/dense", "lab/vector"):
        args = ("--alpha", "0.5", "-o", "out", "--no-sync", "--overwrite")
        ok(taskvec("apply", REFS[0], ref, *args, **home))
        assert weights(tmp_path / "out") == weights(local), ref
    found = json.loads(ok(taskvec("diff", REFS[0], str(tmp_path / "out"), "--json", **home)))
    assert found["total"]["changed"] > 0.9
    inside = json.loads(ok(taskvec("inspect", "lab/vector", "--json", **home)))
    assert inside["kind"] == "vector"
    hub.publish("lab/out", tmp_path / "out")
    ok(taskvec("verify", "lab/out", **home))


def test_inspect_reads_headers_alone(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> None:
    home = hub.env(tmp_path / "home")
    there = json.loads(ok(taskvec("inspect", REFS[1], "--json", **home)))
    here = json.loads(ok(taskvec("inspect", family.minuend, "--json")))
    assert {**there, "name": ""} == {**here, "name": ""}
    assert sum(one.sent for one in hub.requests()) < 200_000
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_check_needs_no_download(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> None:
    plan = json.loads(ok(taskvec("check", *REFS, "--json", **hub.env(tmp_path / "home"))))
    size = sum(path.stat().st_size for folder in family.folders for path in folder.glob("*.safetensors"))
    assert plan["compatible"]
    assert size < plan["download"]["bytes"] < size + 10_000
    assert plan["download"]["free"] > 0
    assert [one["remote"] for one in plan["inputs"]] == [True, True, True]
    # A header and little more of each shard; all shards together are 6.
    ranges = [one for one in hub.requests() if one.path.endswith(".safetensors")]
    assert len(ranges) <= 12
    assert sum(one.sent for one in hub.requests()) < 700_000
    streamed = json.loads(ok(taskvec("check", *REFS, "--stream", "--json", **hub.env(tmp_path / "home"))))
    assert streamed["download"]["streamed"] > streamed["download"]["bytes"] > 0


def test_check_finds_what_does_not_fit_before_anything_is_moved(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    from families import CONFIG, write
    from hubserver.published import tensors

    other = write(tmp_path / "other", tensors("x", rows=650), config={**CONFIG, "hidden_size": 512})
    (other / "tokenizer.json").write_text('{"model": {"vocab": {"a": 1, "b": 0}}, "added_tokens": []}')
    hub.publish("lab/other", other)
    home = hub.env(tmp_path / "home")
    answer = taskvec("check", REFS[0], "lab/other", REFS[2], **home)
    assert answer.code == 1
    assert "warning: lab/other/config.json: hidden_size" in answer.stderr
    assert "problem: lab/other/tokenizer.json: 2 tokens have another id" in answer.stdout
    answer = taskvec("transfer", REFS[0], "lab/other", REFS[2], "-o", "out", **home)
    assert answer.code == 1
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_a_warm_cache_needs_no_hub(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> None:
    home = hub.env(tmp_path / "home")
    ok(taskvec("transfer", *REFS, "-o", "out", "--no-sync", **home))
    hub.clear_log()
    offline = {**home, "HF_HUB_OFFLINE": "1"}
    for refs in (REFS, (f"{TARGET}@{family.commits[0]}", *REFS[1:])):
        ok(taskvec("transfer", *refs, "-o", "again", "--no-sync", "--overwrite", **offline))
        assert weights(tmp_path / "again") == weights(tmp_path / "out")
        ok(taskvec("check", *refs, **offline))
    assert not hub.requests()
    assert manifest(tmp_path / "again")["inputs"] == manifest(tmp_path / "out")["inputs"]


@pytest.mark.parametrize("missing", ["chat_template.jinja", "model-00002-of-00003.safetensors"])
def test_a_part_of_a_snapshot_is_not_taken_for_all_of_it(
    missing: str, hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    home = hub.env(tmp_path / "home")
    ok(taskvec("transfer", *REFS, "-o", "out", "--no-sync", **home))
    (link,) = (tmp_path / "home" / "hub" / "models--lab--instruct" / "snapshots").glob(f"*/{missing}")
    link.unlink()
    answer = taskvec("transfer", *REFS, "-o", "again", "--no-sync", **home | {"HF_HUB_OFFLINE": "1"})
    assert answer.code == 4
    assert missing in answer.stderr
    assert "HF_HUB_OFFLINE" in answer.stderr
    assert not (tmp_path / "again" / "config.json").exists()
    # With the Hub there, only that file is fetched again.
    hub.clear_log()
    ok(taskvec("transfer", *REFS, "-o", "again", "--no-sync", **home))
    fetched = {
        Path(one.path).name for one in hub.requests() if one.method == "GET" and "/resolve/" in one.path
    }
    assert fetched <= {missing}
    assert weights(tmp_path / "again") == weights(tmp_path / "out")


def test_nothing_in_the_cache_and_no_hub(taskvec: Run, tmp_path: Path, hub: Hub) -> None:
    answer = taskvec("check", *REFS, **hub.env(tmp_path / "home", HF_HUB_OFFLINE="1"))
    assert answer.code == 4
    assert answer.stderr == (
        f"taskvec: {TARGET}: is neither a local folder nor complete in the cache,"
        " and HF_HUB_OFFLINE forbids asking the Hub; run once without it\n"
    )


def test_another_cache(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> None:
    home = hub.env(tmp_path / "home")
    ok(taskvec("transfer", *REFS, "-o", "out", "--no-sync", "--cache-dir", tmp_path / "cache", **home))
    assert len(list((tmp_path / "cache").glob("models--*/snapshots/*/**/*.safetensors"))) == 6
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_a_file_in_the_cache_is_hashed_once_and_found_out(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    home = hub.env(tmp_path / "home", XDG_CACHE_HOME=str(tmp_path / "xdg"))
    ok(taskvec("extract", *REFS[1:], "-o", "v", "--no-sync", **home))
    assert len(list((tmp_path / "xdg" / "taskvec" / "checked").iterdir())) == 3
    (link,) = (tmp_path / "home" / "hub").glob("models--lab--donors/snapshots/*/grpo/model.safetensors")
    blob = link.resolve()
    data = bytearray(blob.read_bytes())
    data[-5] ^= 1
    blob.write_bytes(data)
    answer = taskvec("extract", *REFS[1:], "-o", "w", "--no-sync", **home)
    assert answer.code == 3
    assert f"{DONORS}:grpo: grpo/model.safetensors has another content in the cache" in answer.stderr
    assert f"remove {blob} and run again" in answer.stderr
    assert not (tmp_path / "w").exists()
    blob.unlink()
    ok(taskvec("extract", *REFS[1:], "-o", "w", "--no-sync", **home))
    assert weights(tmp_path / "w") == weights(tmp_path / "v")


def test_a_branch_that_moves_is_what_it_was_when_the_run_began(
    hub: Hub, family: Published, local: Path, taskvec: Run, tmp_path: Path
) -> None:
    from families import write
    from hubserver.published import tensors

    moved = hub.publish("lab/moved", write(tmp_path / "moved", tensors("moved"), shards=3))
    for number, way in enumerate(((), ("--stream",))):
        hub.reset()
        publish(hub, tmp_path / f"family{number}")
        for folder in ("grpo", "sft"):
            write(tmp_path / "later" / folder, tensors(f"later {folder}"))
        first = hub.head(DONORS)
        later = hub.publish(DONORS, tmp_path / "later", revision="next")
        hub.misbehave("move", repo=DONORS, revision="main", to=later, path=f"{DONORS}/resolve", times=1)
        home = hub.env(tmp_path / f"home{number}")
        ok(taskvec("transfer", *REFS, "--alpha", "0.5", "-o", f"out{number}", "--no-sync", *way, **home))
        assert hub.head(DONORS) == later != first
        assert weights(tmp_path / f"out{number}") == weights(local)
        assert manifest(tmp_path / f"out{number}")["inputs"][1]["commit"] == first
    assert moved


def test_a_folder_here_is_meant_before_one_on_the_hub(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(family.minuend, tmp_path / TARGET)
    home = hub.env(tmp_path / "home")
    inside = json.loads(ok(taskvec("inspect", TARGET, "--json", **home)))
    assert inside["name"] == "instruct"
    assert not hub.requests()
    for path in ("./lab/nothing", str(tmp_path / "lab" / "nothing"), "../lab/x"):
        answer = taskvec("inspect", path, **home)
        assert answer.code == 4
        assert "No such file" in answer.stderr
    assert not hub.requests()


@pytest.mark.parametrize(
    ("refs", "said"),
    [
        (("lab/instruct", "family/donors/grpo", "family/donors/sft"), "no donor is one"),
        (("family/instruct", "family/donors/grpo", "family/donors/sft"), "no donor is one"),
    ],
)
def test_stream_is_for_donors_on_the_hub(
    refs: tuple[str, ...], said: str, hub: Hub, family: Published, taskvec: Run, tmp_path: Path
) -> None:
    answer = taskvec("transfer", *refs, "--stream", "-o", "out", **hub.env(tmp_path / "home"))
    assert answer.code == 2
    assert said in answer.stderr


def test_only_pickles(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> None:
    hub.publish("lab/pickles", {"pytorch_model.bin": b"\x80\x02", "config.json": b"{}"})
    hub.publish("lab/nested", {"a/model.safetensors": b"x", "config.json": b"{}"})
    home = hub.env(tmp_path / "home")
    answer = taskvec("check", *REFS[:2], "lab/pickles", **home)
    assert answer.code == 3
    assert "lab/pickles: holds no model.safetensors" in answer.stderr
    assert "pytorch_model.bin" in answer.stderr
    assert "convert it to safetensors" in answer.stderr
    answer = taskvec("check", *REFS[:2], "lab/nested", **home)
    assert answer.code == 3
    assert "lab/nested:a" in answer.stderr
    assert not [one for one in hub.requests() if one.path.endswith(".bin")]


def test_python_takes_refs_too(
    hub: Hub, family: Published, taskvec: Run, tmp_path: Path, local: Path
) -> None:
    import subprocess
    import sys

    code = (
        "import sys, taskvec\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        f"t, g, s = {REFS!r}\n"
        "assert taskvec.check(t, g, s).compatible\n"
        "done = taskvec.transfer(t, g, s, 'out', alpha=0.5, sync=False, stream=True)\n"
        "vector = taskvec.extract(g, s, 'v', sync=False, cache_dir='cache')\n"
        "print(done.out, vector.path)\n"
    )
    env = hub.env(tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "out") == weights(local)
    assert (tmp_path / "cache" / "models--lab--donors").is_dir()


def test_the_card_names_refs(hub: Hub, family: Published, taskvec: Run, tmp_path: Path) -> None:
    ok(taskvec("transfer", *REFS, "-o", "out", "--no-sync", **hub.env(tmp_path / "home")))
    text = (tmp_path / "out" / "README.md").read_text()
    front: dict[str, Any] = __import__("yaml").safe_load(text.split("---")[1])
    assert front["base_model"] == [TARGET, DONORS]
    assert front["base_model_relation"] == "merge"
    assert front["license"] == "apache-2.0"
    target, donors = family.commits
    pinned = f"{TARGET}@{target} {DONORS}@{donors}:grpo {DONORS}@{donors}:sft"
    assert f"taskvec transfer {pinned} --alpha 1.0 -o OUT" in text
    assert f"| minuend | [{DONORS}:grpo](https://huggingface.co/{DONORS}/tree/{donors}/grpo) |" in text


def test_a_study_takes_refs(hub: Hub, taskvec: Run, tmp_path: Path) -> None:
    import chat

    root = chat.write_family(tmp_path / "chat")
    chat.write_tasks(tmp_path / "tasks", count=8)
    whole = chat.study(root, tmp_path / "tasks", offline=False)
    names = {str(root / role): f"lab/{role}" for role in ("instruct", "grpo", "sft")}
    for folder, ref in names.items():
        hub.publish(ref, Path(folder))
    study = chat.write_study(
        tmp_path / "study.yaml",
        {
            **whole,
            "target": names[whole["target"]],
            "donors": {role: names[folder] for role, folder in whole["donors"].items()},
        },
    )
    ok(taskvec("study", "check", study, **hub.env(tmp_path / "home")))
    assert len(list((tmp_path / "home").rglob("model.safetensors"))) == 3
