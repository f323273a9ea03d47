"""The demo, and the family it works on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors import safe_open

from taskvec import UsageError, demo
from taskvec.demo_family import ROLES, write_family

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Answer


def bits(folder: Path) -> dict[str, np.ndarray]:
    """Bit patterns of all tensors, as the safetensors library finds them."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:start])
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict)
                assert header[name]["dtype"] == "BF16"
                begin, end = header[name]["data_offsets"]
                shape = file.get_slice(name).get_shape()
                found[name] = np.frombuffer(raw[start + begin : start + end], "<u2").reshape(shape)
    return found


def test_the_family_is_what_it_says(family: Path) -> None:
    models = {role: bits(family / role) for role in ROLES}
    assert len({tuple(sorted(model)) for model in models.values()}) == 1
    for name in models["sft"]:
        sft, grpo = (models[role][name].astype(np.int32) for role in ("sft", "grpo"))
        steps = np.abs(grpo - sft)
        assert steps.max() <= 4
        assert np.isfinite((grpo.astype(np.uint32) << 16).view(np.float32)).all()
    sft, grpo = (np.concatenate([one.ravel() for one in models[role].values()]) for role in ("sft", "grpo"))
    assert 0.19 < (sft != grpo).mean() < 0.21
    for one, other in (("base", "sft"), ("base", "instruct"), ("sft", "instruct")):
        moved = np.concatenate([(models[one][name] != models[other][name]).ravel() for name in models[one]])
        assert moved.mean() > 0.5


def test_one_seed_one_family(family: Path, tmp_path: Path) -> None:
    write_family(tmp_path / "same", seed=0)
    write_family(tmp_path / "other", seed=1)
    for path in sorted(family.rglob("*")):
        if path.is_file():
            assert (tmp_path / "same" / path.relative_to(family)).read_bytes() == path.read_bytes()
    assert not np.array_equal(
        bits(tmp_path / "other" / "base")["model.norm.weight"], bits(family / "base")["model.norm.weight"]
    )


def test_the_target_is_sharded_with_an_index(family: Path) -> None:
    index = json.loads((family / "instruct" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 3
    assert set(index["weight_map"]) == set(bits(family / "instruct"))


def test_transformers_opens_the_family(family: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    for role in ("base", "grpo"):
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            family / role, dtype=torch.bfloat16, output_loading_info=True
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert not report["mismatched_keys"]
        tokenizer = transformers.AutoTokenizer.from_pretrained(family / role)
        text = "α = 1 is\n<|im_end|>"
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert ids[0].tolist() == [*"α = 1 is\n".encode(), 258]
        assert tokenizer.decode(ids[0]) == text
        assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[0] == 1


def test_the_whole_mission(taskvec: Callable[..., Answer], tmp_path: Path) -> None:
    answer = taskvec("demo")
    assert answer.code == 0, answer.stdout + answer.stderr
    for verb in ("check", "extract", "apply", "transfer", "diff", "verify"):
        assert f"$ taskvec {verb} " in answer.stdout
    assert "yes  apply and transfer agree byte for byte" in answer.stdout
    assert "yes  α = 0 gives the target's weights back, byte for byte" in answer.stdout
    assert "NO " not in answer.stdout
    out = tmp_path / "taskvec-demo"
    applied, moved = (bits(out / name) for name in ("applied", "transferred"))
    assert all(np.array_equal(applied[name], moved[name]) for name in moved)

    again = taskvec("demo")
    assert again.code == 2
    assert "--overwrite" in again.stderr
    assert taskvec("demo", "--overwrite", "--seed", "1").code == 0


def test_a_broken_promise_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = demo.verbs.transfer

    def forgetful(*args: str, **options: object) -> object:
        result = transfer(*args, **options)
        if options["alpha"] == "0.7":
            path = next((tmp_path / "demo" / "transferred").glob("*.safetensors"))
            path.write_bytes(path.read_bytes()[:-1] + b"\x07")
        return result

    monkeypatch.setattr(demo.verbs, "transfer", forgetful)
    said: list[str] = []
    assert not demo.run(str(tmp_path / "demo"), seed=0, overwrite=False, say=said.append)
    assert "NO   apply and transfer agree byte for byte" in said


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is there already"):
        demo.run(str(tmp_path), seed=0, overwrite=False, say=print)
    assert list(tmp_path.iterdir()) == []
