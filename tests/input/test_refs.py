from __future__ import annotations

import re
from pathlib import Path

import pytest

import taskvec
from taskvec import CorruptError, UsageError
from taskvec.hub.names import HubName
from taskvec.inputs.refs import local, named

COMMIT = "0" * 40


def test_a_folder_is_named_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "grpo"
    folder.mkdir()
    assert local(folder).name == "grpo"
    assert local(folder).origin is None
    monkeypatch.chdir(folder)
    assert local(Path()).name == "grpo"
    assert local(Path()).path == "."


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert named("~/grpo") == tmp_path / "grpo"


def test_the_cache_of_the_hub_gives_name_and_commit(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Qwen--Qwen2.5-1.5B--x" / "snapshots" / COMMIT
    (snapshot / "sub").mkdir(parents=True)
    for folder, subfolder in ((snapshot, None), (snapshot / "sub", "sub")):
        ref = local(folder)
        assert ref.name == "Qwen/Qwen2.5-1.5B--x" + (f":{subfolder}" if subfolder else "")
        assert ref.origin
        assert (ref.origin.commit, ref.origin.subfolder) == (COMMIT, subfolder)


def test_the_cache_of_the_hub_gives_digests(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / COMMIT
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    large, small = "a" * 64, "b" * 40
    for name, blob in (("model.safetensors", large), ("other.safetensors", small)):
        (blobs / blob).write_bytes(b"")
        (snapshot / name).symlink_to(blobs / blob)
    ref = local(snapshot)
    assert ref.origin
    assert ref.origin.sha256 == {"model.safetensors": large}


@pytest.mark.parametrize(
    ("text", "repo", "revision", "subfolder"),
    [
        ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B", None, None),
        ("a/b@main", "a/b", "main", None),
        ("a/b@refs/pr/1:sub/dir/", "a/b", "refs/pr/1", "sub/dir"),
        ("a/b:grpo", "a/b", None, "grpo"),
        ("a/b@v1.0", "a/b", "v1.0", None),
        ("a/_b.c-d@0123", "a/_b.c-d", "0123", None),
    ],
)
def test_what_is_no_path_is_a_name_on_the_hub(
    text: str, repo: str, revision: str | None, subfolder: str | None,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert named(text) == HubName(text, repo, revision, subfolder)


@pytest.mark.parametrize(
    "text", ["./a/b", "../a/b", "/a/b", "~/a/b", "a", "a/", "a/b/c", "a b/c", "./org/name/"]
)
def test_what_is_written_as_a_path_is_one(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named(text) == Path(text).expanduser()


@pytest.mark.parametrize(
    ("text", "bare"), [("org/name/", "org/name"), ("org/name//", "org/name"), ("a/b@v1/", "a/b@v1")]
)
def test_a_slash_at_the_end_is_no_part_of_a_name(
    text: str, bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named(text) == named(bare)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert isinstance(named("org/name/"), Path)


def hiding(folder: Path, *files: str) -> None:
    for name in ("", *files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}") if name else path.mkdir(exist_ok=True)


@pytest.mark.parametrize("text", ["org/name", "org/name/"])
@pytest.mark.parametrize("files", [(), ("config.json",), ("sub/README.md",)])
def test_a_folder_without_a_checkpoint_hides_the_hub(
    files: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hiding(tmp_path / "org" / "name", *files)
    monkeypatch.chdir(tmp_path)
    said = (
        "hides the model of that name on the Hub; write org/name@main for the model on the Hub, or ./org/name"
    )
    for verb in (lambda: taskvec.inspect(text), lambda: taskvec.check(text, "g", "s"),
                 lambda: taskvec.diff(text, text), lambda: taskvec.Vector(text)):  # fmt: skip
        with pytest.raises(CorruptError, match=re.escape(said)):
            verb()
    # Named so, nothing is hidden, and what is wrong with the folder is said.
    with pytest.raises(CorruptError, match=r"holds no model\.safetensors"):
        taskvec.inspect("./org/name")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "a/model.safetensors", "a/adapter_config.json"])
def test_a_folder_with_something_to_read_hides_nothing(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hiding(tmp_path / "org" / "name", file)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorruptError) as error:
        taskvec.inspect("org/name")
    assert "Hub" not in str(error.value)


def test_a_folder_wins_over_a_ref_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert named("org/name") == Path("org/name")
    assert isinstance(named("org/other"), HubName)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("a/b@", "has no revision after the @"),
        ("a/b@main:", "is not a valid subfolder"),
        ("a/b:../c", "is not a valid subfolder"),
        ("a/b:c//d", "is not a valid subfolder"),
        ("a/b:/etc", "is not a valid subfolder"),
        ("a/b--c", "a/b--c is not a valid name of a repository"),
        ("a/b..c", "is not a valid name of a repository"),
        ("a/b.git", "is not a valid name of a repository"),
        ("s3://bucket/x", "is a URL"),
        ("hf://a/b", "is a URL"),
        ("https://huggingface.co/a/b", "is a URL"),
    ],
)
def test_what_can_be_neither(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        named(text)
