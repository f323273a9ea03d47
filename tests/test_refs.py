from __future__ import annotations

from pathlib import Path

import pytest

from taskvec import UsageError
from taskvec.refs import resolve


def test_a_folder_is_named_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "grpo"
    folder.mkdir()
    assert resolve(folder).name == "grpo"
    assert not resolve(folder).on_hub
    monkeypatch.chdir(folder)
    assert resolve(".").name == "grpo"
    assert resolve(".").path == "."


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert resolve("~/grpo").path == str(tmp_path / "grpo")


def test_the_cache_of_the_hub_gives_the_name(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Qwen--Qwen2.5-1.5B--x" / "snapshots" / ("0" * 40)
    (snapshot / "sub").mkdir(parents=True)
    for folder in (snapshot, snapshot / "sub"):
        assert resolve(folder).name == "Qwen/Qwen2.5-1.5B--x"
        assert resolve(folder).on_hub


@pytest.mark.parametrize(
    "ref", ["Qwen/Qwen2.5-1.5B", "a/b@main", "a/b@main:sub/dir", "s3://bucket/x", "hf://a/b"]
)
def test_remote_refs_wait_for_a_later_release(
    ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is not a folder here; refs on the Hub come in a later release"):
        resolve(ref)


def test_a_folder_wins_over_a_ref_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name").name == "name"
    # A slip in a path, not a ref: that nothing is there is for the core to say.
    assert resolve("org/nmae").path == str(Path("org/nmae"))


def test_no_name_at_all() -> None:
    with pytest.raises(UsageError, match="empty"):
        resolve("")
