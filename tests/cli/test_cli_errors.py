"""Every error a user can meet: its exit code, one line on standard error, no traceback unless asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hostile import call, checkpoint, noise, refused

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints t, g and s, a vector v, and some that do not fit."""
    root = tmp_path_factory.mktemp("models")
    for seed, role in enumerate("tgs"):
        checkpoint(root / role, {"a.weight": noise(seed, 64).reshape(8, 8), "b.bias": noise(seed + 9, 8)})
    checkpoint(root / "other-shape", {"a.weight": noise(5, 72).reshape(9, 8), "b.bias": noise(6, 8)})
    checkpoint(root / "other-names", {"c.weight": noise(5, 64).reshape(8, 8), "b.bias": noise(6, 8)})
    checkpoint(root / "other-type", {"a.weight": np.zeros((8, 8), np.int64), "b.bias": noise(6, 8)})
    quantized = checkpoint(
        root / "quantized", {"a.weight": noise(5, 64).reshape(8, 8), "b.bias": noise(6, 8)}
    )
    (quantized / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    tied = {
        "model.embed_tokens.weight": noise(1, 64).reshape(8, 8),
        "lm_head.weight": noise(2, 64).reshape(8, 8),
    }
    folder = checkpoint(root / "badly-tied", tied)
    (folder / "config.json").write_text('{"tie_word_embeddings": true}')
    assert call(["extract", root / "g", root / "s", "-o", root / "v"])[0] == 0
    (root / "file").write_text("not a folder")
    return root


@pytest.fixture
def inside(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in the folder of the models."""
    monkeypatch.chdir(here)


TGS = ["transfer", "t", "g", "s", "-o", "o"]
TV = ["apply", "-o", "o", "t", "v"]
CASES: dict[str, tuple[list[str], int, list[str]]] = {
    # 2: the request makes no sense
    "no such command": (["transfuse"], 2, ["transfuse"]),
    "no such option": ([*TGS, "--fast"], 2, ["--fast"]),
    "an argument missing": (["transfer", "t", "g", "-o", "o"], 2, ["SUBTRAHEND"]),
    "an argument too many": ([*TGS, "x"], 2, ["x"]),
    "no output": (["transfer", "t", "g", "s"], 2, ["--out"]),
    "an empty output": (["transfer", "t", "g", "s", "-o", ""], 2, ["empty"]),
    "an empty input": (["transfer", "", "g", "s", "-o", "o"], 2, ["empty"]),
    "no vector": (["apply", "t", "-o", "o"], 2, ["VECTORS"]),
    "a file as input": (["transfer", "file", "g", "s", "-o", "o"], 2, ["file: is a file"]),
    "a file as input of check": (["check", "file", "g", "s"], 2, ["file: is a file"]),
    "a file as input of inspect": (["inspect", "file"], 2, ["file: is a file"]),
    "a ref on the Hub": (["inspect", "org/model"], 4, ["org/model: is neither", "HF_HUB_OFFLINE"]),
    "a URL": (["inspect", "s3://bucket/model"], 2, ["s3://bucket/model"]),
    "alpha no number": ([*TGS, "--alpha", "half"], 2, ["'half' is not a number"]),
    "alpha not finite": ([*TGS, "--alpha", "inf"], 2, ["inf"]),
    "alpha NaN": ([*TGS, "--alpha", "nan"], 2, ["nan"]),
    "alpha too large for f32": ([*TGS, "--alpha", "1e39"], 2, ["1e39"]),
    "alpha too small for f32": ([*TGS, "--alpha", "1e-50"], 2, ["1e-50"]),
    "more alphas than vectors": ([*TV, "--alpha", "1", "--alpha", "2"], 2, ["2 alphas"]),
    "a rule that is none": ([*TGS, "--alpha-rule", "mlp"], 2, ["REGEX=α"]),
    "a rule that is no regex": ([*TGS, "--alpha-rule", "(=2"], 2, ["("]),
    "a rule that matches nothing": ([*TGS, "--alpha-rule", "nothing=2"], 2, ["nothing"]),
    "rules with several vectors": ([*TV, "v", "--alpha-rule", "a=2"], 2, ["--alpha-rule"]),
    "include no regex": ([*TGS, "--include", "["], 2, ["["]),
    "include matches nothing": ([*TGS, "--include", "nothing"], 2, ["nothing"]),
    "memory no size": ([*TGS, "--memory", "lots"], 2, ["'lots' is not a size"]),
    "memory too small": ([*TGS, "--memory", "10KiB"], 2, ["the least that works"]),
    "memory negative": ([*TGS, "--memory", "-1"], 2, ["-1"]),
    "no threads": ([*TGS, "--threads", "0"], 2, ["threads"]),
    "threads no number": ([*TGS, "--threads", "two"], 2, ["two"]),
    "no such io": ([*TGS, "--io", "floppy"], 2, ["floppy"]),
    "no such dtype": ([*TGS, "--dtype", "fp4"], 2, ["fp4"]),
    "no such rounding": ([*TGS, "--rounding", "up"], 2, ["up"]),
    "no such vocab": ([*TGS, "--vocab", "any"], 2, ["any"]),
    "seed out of range": ([*TGS, "--seed", "-1"], 2, ["seed"]),
    "nothing to round": ([*TGS, "--dtype", "f32", "--rounding", "stochastic"], 2, ["--rounding stochastic"]),
    "a dtype for a vector": (["extract", "g", "s", "-o", "o", "--dtype", "f32"], 2, ["--dtype"]),
    "over an input": (["transfer", "t", "g", "s", "-o", "t", "--overwrite"], 2, ["is the input"]),
    "an output that is there": (["transfer", "t", "g", "s", "-o", "v"], 2, ["v exists", "--overwrite"]),
    "check of one folder": (["check", "t", "g"], 2, ["minuend and a subtrahend"]),
    "check of mixed donors": (["check", "t", "v", "g"], 2, ["minuend and a subtrahend"]),
    # 1: sound, but they do not fit
    "another shape": (["transfer", "t", "other-shape", "s", "-o", "o"], 1, ["a.weight", "[9, 8]", "[8, 8]"]),
    "other names": (["transfer", "t", "other-names", "s", "-o", "o"], 1, ["c.weight"]),
    "other types": (["transfer", "t", "other-type", "s", "-o", "o"], 1, ["a.weight", "I64"]),
    "quantized weights": (["transfer", "quantized", "g", "s", "-o", "o"], 1, ["quantized", "gptq"]),
    "a head that is not its embedding": (
        ["transfer", "badly-tied", "badly-tied", "badly-tied", "-o", "o"],
        1,
        ["lm_head.weight", "tie_word_embeddings"],
    ),
    "nothing to verify against": (["verify", "t"], 1, ["t: holds neither"]),
    # 3: corrupt
    "a checkpoint as vector": (["apply", "t", "g", "-o", "o"], 3, ["g: holds no vector.json"]),
    "a folder without weights": (["inspect", "."], 3, [".: holds no model.safetensors"]),
    # 4: the system refused
    "no such input": (["transfer", "nowhere", "g", "s", "-o", "o"], 4, ["nowhere", "No such file"]),
    "no such donor": (["transfer", "t", "g", "./nowhere", "-o", "o"], 4, ["nowhere", "No such file"]),
    "no such vector": (["apply", "t", "nowhere", "-o", "o"], 4, ["nowhere", "No such file"]),
    "nothing to inspect": (["inspect", "nowhere"], 4, ["nowhere", "No such file"]),
    "nothing to compare": (["diff", "t", "nowhere"], 4, ["nowhere", "No such file"]),
    "nothing there to verify": (["verify", "nowhere"], 4, ["nowhere", "No such file"]),
    "an output below a file": (["transfer", "t", "g", "s", "-o", "file/out"], 4, ["file", "Not a directory"]),
}  # fmt: skip


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("case", CASES)
def test_an_error_is_one_sentence(case: str, here: Path) -> None:
    args, code, parts = CASES[case]
    before = sorted(here.rglob("*"))
    sentence = refused(call(args), code, *parts).removeprefix("taskvec: ").removesuffix("\n")
    assert sorted(here.rglob("*")) == before
    assert "internal error" not in sentence
    found, stdout, stderr = call([*args, "--json"])
    assert found == code
    assert json.loads(stdout) == {"schema": "taskvec/error/1", "error": sentence, "exit_code": code}
    assert stderr == f"taskvec: {sentence}\n"


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    "case", ["other names", "no such input", "a checkpoint as vector", "memory too small"]
)
def test_debug_shows_where(case: str, here: Path) -> None:
    args, code, parts = CASES[case]
    found, stdout, stderr = call([*args, "--debug"])
    assert (found, stdout) == (code, "")
    assert stderr.startswith("Traceback (most recent call last):\n")
    assert all(part in stderr.splitlines()[-1] for part in parts)


@pytest.mark.usefixtures("inside")
def test_a_simd_that_is_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKVEC_SIMD", "quantum")
    refused(call(TGS), 2, "TASKVEC_SIMD", "quantum")
    assert not (here / "o").exists()


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("args", [["verify", "made"], ["verify", "made", "--json"]])
def test_damage_found_by_verify_is_a_result(args: list[str], here: Path) -> None:
    assert call([*TGS[:-1], "made", "--overwrite"])[0] == 0
    assert call(args)[0] == 0
    path = here / "made" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, stdout, _ = call(args)
    assert code == 1
    assert "model.safetensors" in stdout


def test_check_names_the_tensor_of_every_problem(tmp_path: Path) -> None:
    for role, names in {"t": "ab", "g": "cd", "s": "cd"}.items():
        checkpoint(tmp_path / role, {f"{name}.weight": noise(1, 8) for name in names})
    code, out, _ = call(["check", *(tmp_path / role for role in "tgs")])
    lines = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert code == 1
    assert [f"`{name}.weight`" in line for name, line in zip("cd", lines, strict=True)] == [True, True]
    assert "alpha 0" not in out
