"""What is beside the weights of a target or donor, and where a folder that is no checkpoint leads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hostile import PARTIAL, call, checkpoint, donors, noise, refused, unwarned

if TYPE_CHECKING:
    from collections.abc import Iterable


def put(folder: Path, names: Iterable[str], text: str = "{}") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def found(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def answered(*args: Any) -> list[str]:
    """The notes of a command that went well."""
    code, stdout, stderr = call([*args, "--json"])
    assert (code, unwarned(stderr)) == (0, "")
    return json.loads(stdout)["notes"]


def test_a_training_folder_as_a_target(tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    strays = [
        ".env", ".env.production", ".netrc", ".git-credentials", "server.key", "id_rsa", "hf_token",
        "trainer_state.json", "events.out.tfevents.1", "train.log", "optimizer.pt", "scheduler.pt",
        "rng_state_0.pth", "training_args.bin", "zero_to_fp32.py", "latest",
    ]  # fmt: skip
    folders = ["wandb", "runs", "mlruns", "checkpoint-500", "checkpoint-best", "global_step12", "__pycache__"]
    put(inputs[0], [*strays, *(f"{folder}/deep/config.json" for folder in folders)], "SECRET")
    kept = ["tokenizer_config.json", "chat_template.jinja", "code/modeling.py", ".gitattributes"]
    put(inputs[0], kept)
    notes = answered("transfer", *inputs, "-o", tmp_path / "out")
    (note,) = [note for note in notes if note.startswith("left out of the output: ")]
    assert set(note.removeprefix("left out of the output: ").split(", ")) == {*strays, *folders}
    assert note in answered("check", *inputs)
    written = {"config.json", "model.safetensors", "README.md", "taskvec.json"}
    assert found(tmp_path / "out") == {*kept, *written}
    assert not any(b"SECRET" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_lost_and_found_is_no_content(tmp_path: Path) -> None:
    """As at the root of a disk of its own: it is the system's, and only root may look into it."""
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    out = tmp_path / "out"
    for folder in (*inputs, out):
        (folder / "lost+found").mkdir(parents=True, mode=0o000)
    notes = answered("transfer", *inputs, "-o", out)
    assert not any("lost+found" in note for note in notes)
    assert not (out / PARTIAL).exists()
    code, stdout, _ = call(["transfer", *inputs, "-o", out, "--overwrite", "--json"])
    assert code == 0
    assert "lost+found" not in stdout
    assert call(["verify", out])[0] == 0


def test_weights_with_an_adapter_beside_them(tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    for folder in inputs[:2]:
        put(folder, ["adapter_config.json", "adapter_model.safetensors"])
    put(inputs[0], ["speech-lora/adapter_config.json", "speech-lora/adapter_model.safetensors"])
    for args in (["check", *inputs], ["transfer", *inputs, "-o", tmp_path / "out"]):
        notes = answered(*args)
        for name in ("t", "g"):
            says = f"{name} holds full weights and an adapter: the full weights are read"
            assert any(note.startswith(says) for note in notes), notes
        assert not any(note.startswith("s holds") for note in notes)
    assert not [name for name in found(tmp_path / "out") if "adapter" in name]
    notes = answered("extract", *inputs[1:], "-o", tmp_path / "v")
    assert any(note.startswith("g holds full weights and an adapter") for note in notes)


def test_transformers_opens_a_target_that_had_an_adapter(family: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("peft")
    target = tmp_path / "target"
    target.mkdir()
    for path in (family / "instruct").iterdir():
        (target / path.name).symlink_to(path)
    said = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "gone"), "r": 1, "lora_alpha": 1}
    put(target, ["adapter_config.json"], json.dumps(said))
    put(target, ["adapter_model.safetensors"])
    answered("transfer", target, family / "grpo", family / "sft", "-o", tmp_path / "out")
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_code_that_a_config_names_and_nobody_has(tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    names = {"AutoConfig": "own.C", "AutoModel": ["parts.model.M", None], "AutoTokenizer": "org/name--far.T"}
    for folder in inputs:
        put(folder, ["config.json"], json.dumps({"model_type": "none", "auto_map": names}))
    notes = answered("check", *inputs)
    assert [note for note in notes if "auto_map" in note] == [
        "config.json of t names code that is not in its folder (auto_map): own.py, parts/model.py; the output"
        " can be loaded only if transformers supports the model without that code"
    ]
    put(inputs[0], ["own.py", "parts/model.py"])
    assert not [note for note in answered("check", *inputs) if "auto_map" in note]


@pytest.mark.parametrize("spelled", ["{}", "{}/", "{}/.", "./x/../{}"])
def test_adapters_and_checkpoints_below_are_named(
    spelled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x").mkdir()
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    put(tmp_path, ["run/grpo/adapter_config.json", "run/sft/adapter_config.json"])
    where = spelled.format("run")
    for args in (
        ["check", "t", where, "s"],
        ["transfer", "t", where, "s", "-o", "out"],
        ["inspect", where],
    ):
        refused(call(args), 3, "hold adapters; as a donor, name one of them: `grpo`, `sft`")
    checkpoint(tmp_path / "run" / "merged", {"w": noise(1, 4)})
    refused(call(["check", where, *inputs[1:]]), 3, "name one of them: `merged` (adapters: `grpo`, `sft`)")
    answer = call(["apply", "t", where, "-o", "out"])
    refused(answer, 3, "holds no vector.json, so it is not a vector")
    assert call(["extract", "g", "s", "-o", "run/deep/v"])[0] == 0
    refused(call(["apply", "t", where, "-o", "out"]), 3, "but its subfolders do; name one of them: `deep/v`")
    assert not Path("out").exists()


def test_the_caches_folder_of_a_repository(tmp_path: Path) -> None:
    inputs = donors(tmp_path, {"w": noise(1, 4)})
    repository = tmp_path / "hub" / "models--org--name"
    for commit in ("0" * 40, "1" * 40):
        checkpoint(repository / "snapshots" / commit, {"w": noise(1, 4)})
    put(repository, ["refs/main"], "1" * 40)
    snapshot = f"{repository}/snapshots/{'1' * 40}"
    for args in (["check", inputs[0], repository, inputs[2]], ["inspect", f"{repository}/"]):
        refused(call(args), 3, str(repository), f"name `{snapshot}`")
    refused(call(["apply", inputs[0], repository, "-o", tmp_path / "out"]), 3, f"name `{snapshot}`")
    assert call(["check", inputs[0], snapshot, inputs[2]])[0] == 0


def test_a_refused_job_takes_the_folders_it_made(tmp_path: Path) -> None:
    """A tied head that differs is found when its bytes are read, after the staging folder was made."""
    tensors = {"model.embed_tokens.weight": noise(1, 6), "lm_head.weight": noise(2, 6)}
    inputs = donors(tmp_path / "in", tensors)
    for folder in inputs:
        put(folder, ["config.json"], '{"tie_word_embeddings": true}')
    refused(call(["transfer", *inputs, "-o", tmp_path / "new" / "deep" / "out"]), 1, "ties the two")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    (tmp_path / "new").mkdir()
    refused(call(["transfer", *inputs, "-o", tmp_path / "new" / "deep" / "out"]), 1, "ties the two")
    assert [*(tmp_path / "new").iterdir()] == []
