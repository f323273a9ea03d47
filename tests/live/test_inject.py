"""A vector in a live model: the bits of the written checkpoint, and afterwards the model's own again."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import LlamaConfig, Qwen2Config

import families
import taskvec
from families import TIED, generator, least_memory, noise, nudged, raw, write
from livemodels import (
    BUFFERS,
    SIZES,
    assert_state,
    enter,
    holder,
    load,
    odd_trio,
    save_family,
    state,
    written,
)
from taskvec import MismatchError, UsageError
from taskvec.live import inject

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_bits_of_the_written_checkpoint(
    qwen: Path, tmp_path: Path, dtype: torch.dtype, rounding: Any
) -> None:
    root = tmp_path / "family"
    shutil.copytree(qwen, root)
    assert len(list(root.glob("t/*.safetensors"))) > 2
    model = load(root / "t", dtype)
    before, vector = state(model), taskvec.Vector(root / "v")
    options = {"rounding": rounding, "seed": 5}
    for alpha in (1.0, -0.7, "0.25"):
        wanted = written(root, dtype, alpha, **options)
        with vector.applied(model, alpha, **options) as done:
            assert_state(model, wanted, alpha)
        assert_state(model, before, alpha)
        with taskvec.transferred(model, root / "g", root / "s", alpha, originals="cpu", **options) as fused:
            assert_state(model, wanted, alpha)
        assert_state(model, before, alpha)
        assert fused.effect == done.effect
        assert done.to_json()["effect"] == families.manifest(root / "out")["effect"]
    assert any(raw(wanted[name]) != raw(before[name]) for name in before)


@pytest.mark.parametrize(
    ("config", "stored"),
    [
        (Qwen2Config(**SIZES, tie_word_embeddings=False), torch.float32),
        (LlamaConfig(**SIZES, tie_word_embeddings=False), torch.float16),
        (LlamaConfig(**SIZES, tie_word_embeddings=True), torch.bfloat16),
    ],
    ids=["qwen2-f32", "llama-f16", "llama-tied"],
)
def test_other_families_and_files(tmp_path: Path, config: Any, stored: torch.dtype) -> None:
    root = save_family(tmp_path, config, stored)
    for dtype in (torch.bfloat16, torch.float32):
        model = load(root / "t", dtype)
        before, wanted = state(model), written(root, dtype, 1.5)
        assert inject.unlike(model, root / "t") == ()
        with taskvec.Vector(root / "v").applied(model, 1.5):
            assert_state(model, wanted)
            names = set(inject.unlike(model, root / "t"))
            assert names <= {name for name, _ in model.named_parameters()}
            assert "model.layers.0.mlp.up_proj.weight" in names
        assert_state(model, before)


@pytest.mark.parametrize("originals", ["folder", "cpu"])
def test_rules_and_selections(qwen: Path, tmp_path: Path, model: PreTrainedModel, originals: Any) -> None:
    root = tmp_path / "family"
    shutil.copytree(qwen, root)
    options: dict[str, Any] = {
        "include": ["mlp", "self_attn"],
        "exclude": ["q_norm"],
        "alpha_rules": ["layers\\.1\\.=0", ("down_proj", 2)],
    }
    before, wanted = state(model), written(root, torch.bfloat16, 0.5, **options)
    with taskvec.Vector(root / "v").applied(model, 0.5, originals=originals, **options) as done:
        assert_state(model, wanted)
        alphas = {tensor.name: tensor.alpha for tensor in done.tensors}
        assert alphas["model.layers.0.mlp.up_proj.weight"] == (0.5,)
        assert alphas["model.layers.1.mlp.down_proj.weight"] == (2.0,)
        assert not any("embed" in name or "layers.1.mlp.up" in name for name in alphas)
    assert_state(model, before)


def test_alpha_0_changes_nothing(qwen: Path, model: PreTrainedModel) -> None:
    before = state(model)
    with taskvec.Vector(qwen / "v").applied(model, 0) as done:
        assert_state(model, before)
    assert done.tensors == ()
    assert "no tensor was combined" in done.warnings[0]


def test_the_record(qwen: Path, tmp_path: Path, model: PreTrainedModel) -> None:
    with taskvec.Vector(qwen / "v").applied(model, 0.3, rounding="stochastic") as done:
        names = [tensor.name for tensor in done.tensors]
    assert len(names) == len(set(names)) == len(list(model.parameters()))
    total = sum((tensor.norm_v or 0) ** 2 for tensor in done.tensors)
    assert total == pytest.approx((done.effect.norm_v or 0) ** 2)
    g, s = (families.read(qwen / role) for role in "gs")
    for tensor in done.tensors:
        norm = (g[tensor.name].double() - s[tensor.name].double()).norm().item()
        assert tensor.norm_v == pytest.approx(norm)
        assert tensor.dtype == "BF16"
    result = taskvec.apply(qwen / "t", qwen / "v", tmp_path / "out", alpha=0.3, rounding="stochastic")
    assert (done.effect, done.warnings, done.notes) == (result.effect, result.warnings, result.notes)
    entries = {entry["name"]: entry for entry in families.manifest(tmp_path / "out")["tensors"]}
    for tensor in done.to_json()["tensors"]:
        entry = entries[tensor["name"]]
        assert tensor == {key: entry[key] for key in ("name", "dtype", "alpha")} | entry["effect"]
    assert done.to_json()["schema"] == "taskvec/applied/1"
    assert pickle.loads(pickle.dumps(done)) == done


def test_twenty_applications_leave_no_trace(qwen: Path, model: PreTrainedModel) -> None:
    before, vector = state(model), taskvec.Vector(qwen / "v")
    for number in range(20):
        with vector.applied(model, 0.1 * number - 1, originals="cpu" if number % 3 == 2 else "folder"):
            pass
    assert_state(model, before)
    assert inject.unlike(model, qwen / "t") == ()


def test_the_model_answers_as_the_written_one(qwen: Path, tmp_path: Path, model: PreTrainedModel) -> None:
    root = tmp_path / "family"
    shutil.copytree(qwen, root)
    taskvec.apply(root / "t", root / "v", root / "out", alpha=3)
    other, ids = load(root / "out", torch.bfloat16), torch.arange(40)[None]
    with torch.no_grad():
        own = model(ids).logits
        with taskvec.Vector(root / "v").applied(model, 3):
            changed = model(ids).logits
        assert torch.equal(changed, other(ids).logits)
        assert torch.equal(own, model(ids).logits)
        assert not torch.equal(own, changed)


@pytest.mark.parametrize("memory", [None, "least", "24MiB"])
@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_every_kind_of_tensor(tmp_path: Path, memory: str | None, io: Any) -> None:
    t, g, s = odd_trio(tmp_path, shards=2)
    model = holder(t, buffers=BUFFERS)
    donors, target = (tmp_path / "g", tmp_path / "s"), tmp_path / "t"
    if memory == "least":
        with pytest.raises(UsageError) as refused:
            taskvec.transferred(model, *donors, target=target, io=io, memory="1MiB")
        memory = least_memory(str(refused.value))
    options: dict[str, Any] = {"memory": memory, "io": io, "threads": 3}
    before = state(model)
    wanted = {
        name: families.combined(tensor, g[name], s[name], 0.7)
        if name in s and name not in BUFFERS
        else tensor
        for name, tensor in t.items()
    }
    with taskvec.transferred(model, *donors, 0.7, target=target, **options) as done:
        for name, tensor in model.state_dict().items():
            families.assert_same(tensor, wanted[name], name)
        nonfinite = done.effect.nonfinite_inputs
        assert nonfinite is not None
        assert nonfinite > 100
    assert_state(model, before)


def test_a_head_stored_twice_is_written_once(tmp_path: Path) -> None:
    rng = generator("tied")
    table = noise((3000, 40), torch.bfloat16, rng)
    t = {"model.embed_tokens.weight": table, "lm_head.weight": table}
    g = {"model.embed_tokens.weight": nudged(table, rng)}
    write(tmp_path / "t", t, config=TIED)
    write(tmp_path / "g", g, config=TIED)
    write(tmp_path / "s", {"model.embed_tokens.weight": table}, config=TIED)
    donors = (tmp_path / "g", tmp_path / "s")
    options: dict[str, Any] = {"target": tmp_path / "t", "rounding": "stochastic", "seed": 1}
    taskvec.transfer(tmp_path / "t", *donors, tmp_path / "out", alpha=0.5, rounding="stochastic", seed=1)
    wanted = families.read(tmp_path / "out")["model.embed_tokens.weight"]
    tied, untied = holder(t), holder(t)
    tied.lm_head.weight = tied.model.embed_tokens.weight
    for model in (tied, untied):
        with taskvec.transferred(model, *donors, 0.5, **options):
            assert raw(model.lm_head.weight.data) == raw(model.model.embed_tokens.weight.data) == raw(wanted)
        assert raw(model.lm_head.weight.data) == raw(table)
    # The folder says that they are two.
    for role, tensors in (("t", t), ("g", g | {"lm_head.weight": g["model.embed_tokens.weight"]}), ("s", t)):
        write(tmp_path / role, tensors)
    with pytest.raises(MismatchError, match=r"`lm_head.weight` shares its memory with `model.embed_tokens"):
        enter(taskvec.transferred(tied, *donors, target=tmp_path / "t"))


def test_parameters_of_every_kind_are_written(tmp_path: Path) -> None:
    """Leaves that ask for gradients, and those of a model that was made in inference mode."""
    t, _, _ = odd_trio(tmp_path)
    donors = (tmp_path / "g", tmp_path / "s")
    with torch.inference_mode():
        model = holder(t, buffers=BUFFERS)
    assert model.get_parameter("big.weight").is_inference()
    before = state(model)
    with taskvec.transferred(model, *donors, target=tmp_path / "t"):
        assert raw(model.get_parameter("big.weight").data) != raw(before["big.weight"])
    assert_state(model, before)

    model = holder(t, buffers=BUFFERS)
    big = model.get_parameter("big.weight").requires_grad_()
    big.grad = torch.ones_like(big)
    pending = (big * big).sum()
    with taskvec.transferred(model, *donors, target=tmp_path / "t"):
        assert big.requires_grad
        assert big.is_leaf
        assert not big.is_inference()
        (big * 2).sum().backward()
    assert torch.equal(big.grad, torch.full_like(big, 3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pending.backward()
    with torch.inference_mode(), taskvec.transferred(model, *donors, target=tmp_path / "t"):
        pass
    assert_state(model, state(holder(t, buffers=BUFFERS)))


def test_prefixes_in_the_folder(tmp_path: Path) -> None:
    rng = generator("prefix")
    t = {f"module.{name}.weight": noise((50, 3), torch.bfloat16, rng) for name in "ab"}
    for role, tensors in (
        ("t", t),
        ("s", t),
        ("g", {name: nudged(tensor, rng) for name, tensor in t.items()}),
    ):
        write(tmp_path / role, tensors)
    model = holder({name.removeprefix("module."): tensor for name, tensor in t.items()})
    options: dict[str, Any] = {"target": tmp_path / "t", "strip_prefix": ["module."]}
    with taskvec.transferred(model, tmp_path / "g", tmp_path / "s", **options):
        assert raw(model.get_parameter("a.weight").data) != raw(t["module.a.weight"])
    assert raw(model.get_parameter("a.weight").data) == raw(t["module.a.weight"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_memory_grows_by_windows_not_by_the_model(tmp_path: Path, dtype: str) -> None:
    rng = generator("memory")
    for at, role in enumerate("tgs"):
        write(tmp_path / role, {"big.weight": noise((40 << 20,), torch.bfloat16, rng, 0.01 * (at + 1))})
    code = f"""
        import threading, time
        from pathlib import Path
        import torch, taskvec
        from safetensors.torch import load_file
        torch.set_num_threads(1)

        class Big(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.big = torch.nn.Module()
                # A clone: a mapped file would become anonymous memory page by page as it is written to.
                values = load_file("t/model.safetensors")["big.weight"]
                self.big.weight = torch.nn.Parameter(values.to(torch.{dtype}).clone())

        def anonymous():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10

        def sample():
            global peak
            while not done.wait(0.002):
                peak = max(peak, anonymous())

        model, done = Big(), threading.Event()
        before = peak = anonymous()
        thread = threading.Thread(target=sample)
        thread.start()
        for _ in range(2):
            with taskvec.transferred(model, "g", "s", target="t", memory="32MiB"):
                pass
        done.set()
        thread.join()
        print(peak - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=100)
    # The budget, the casts of one window, what torch and Python load on the way; the model is 80 MiB or more.
    assert int(done.stdout) < 56 << 20
