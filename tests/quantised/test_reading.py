"""Quantised targets and donors of every layout against torch's own arithmetic, bit for bit."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import Tensors, assert_same, assert_tensors, combined, files, raw, read, weights, write
from quantised.layouts import KINDS, LARGE, large, made
from quantised.maker import GONE_FILES, freed
from taskvec import apply, check, extract, transfer, verify
from vectors import exact

if TYPE_CHECKING:
    from pathlib import Path

    from quantised.maker import Maker

ALPHA = 0.7


def wanted(make: Maker, g: Tensors, s: Tensors, alpha: float, dtype: torch.dtype | None = None) -> Tensors:
    """What torch makes of a quantised target; what the donors lack or leave out stays as it is."""
    found: Tensors = {}
    for name, t in make.logical.items():
        out = dtype or (torch.bfloat16 if name in make.coded else t.dtype)
        found[name] = combined(t, g[name], s[name], alpha, out) if name in g else t.to(out)
    return found


def plain(folder: Path, make: Maker, seed: str, without: str = "no such name") -> tuple[Path, Tensors]:
    """A checkpoint in bfloat16 with the same logical tensors, but for those with a word in their names."""
    tensors = {name: one for name, one in make.plainly(seed).items() if without not in name}
    return write(folder / seed, tensors, config=freed(make.config)), tensors


def assert_sound(out: Path, target: Path, make: Maker) -> None:
    """Names, order, index and all other files are those of a checkpoint that never was quantised."""
    found, order = read(out), make.order(target)
    assert {path.name for path in out.glob("*.safetensors")} == {*order}
    for file, names in order.items():
        assert list(read(out, file)) == names, file
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: file for file, names in order.items() for name in names}
    assert index["metadata"]["total_size"] == sum(len(raw(one)) for one in found.values())
    config, before = (out / "config.json").read_text(), (target / "config.json").read_text()
    assert json.dumps(json.loads(config)) == json.dumps(freed(make.config))
    # Every line is one of the target's, but for commas and for a type that is no longer true.
    lines = iter(
        line.strip().rstrip(",") for line in before.replace("float8_e4m3fn", "bfloat16").splitlines()
    )
    for line in config.splitlines():
        assert line.strip().rstrip(",") in lines, line
    assert not any((out / name).exists() for name in GONE_FILES)
    assert verify(out).ok


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_target_is_combined_and_written_as_bf16(kind: str, tmp_path: Path) -> None:
    make = made(kind)
    target = make.save(tmp_path / "t")
    (minuend, g), (subtrahend, s) = (plain(tmp_path, make, seed) for seed in "gs")
    paths, out = (target, minuend, subtrahend), tmp_path / "out"
    before = files(target)
    plan = check(*paths)
    assert plan.compatible, plan.problems
    for alpha in (ALPHA, 0.0):
        result = transfer(*paths, out, alpha=alpha, overwrite=True, sync=False)
        assert_tensors(read(out), wanted(make, g, s, alpha), alpha)
        assert_sound(out, target, make)
        # Whoever reads the report sees weights, not the parts that they are stored in.
        counts = result.tensors
        assert counts.combined + counts.copied + counts.converted == len(make.logical)
        assert counts.combined == (len(make.logical) if alpha else 0)
        transfer(*paths, out, alpha=alpha, dtype="f32", overwrite=True, sync=False)
        assert_tensors(read(out), wanted(make, g, s, alpha, torch.float32), ("f32", alpha))
    assert files(target) == before


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_scales_that_mean_no_number_are_read_exactly(kind: str, tmp_path: Path) -> None:
    """Among the scales are zero, negative ones, subnormals, and NaN; −0 keeps its sign."""
    make = made(kind, special=True)
    paths = [make.save(tmp_path / "t"), *(plain(tmp_path, make, seed)[0] for seed in "gs")]
    g, s = make.plainly("g"), make.plainly("s")
    for alpha in (0.0, ALPHA):
        for dtype in (None, torch.float32):
            option: Any = "f32" if dtype else None
            transfer(*paths, tmp_path / "out", alpha=alpha, dtype=option, overwrite=True, sync=False)
            assert_tensors(read(tmp_path / "out"), wanted(make, g, s, alpha, dtype), (alpha, dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_donors_are_subtracted_exactly(kind: str, tmp_path: Path) -> None:
    minuend, subtrahend, target = made(kind, "g"), made(kind, "s"), made(kind, "t")
    g, s = minuend.save(tmp_path / "g", 1), subtrahend.save(tmp_path / "s", 2)
    t, tensors = plain(tmp_path, minuend, "t")
    transfer(t, g, s, tmp_path / "out", alpha=ALPHA, sync=False)
    both = minuend.logical, subtrahend.logical
    assert_tensors(
        read(tmp_path / "out"),
        {name: combined(one, both[0][name], both[1][name], ALPHA) for name, one in tensors.items()},
    )
    extract(g, s, tmp_path / "v", sync=False)
    v = exact(tmp_path / "v")
    assert v.keys() == tensors.keys()
    for name, one in v.items():
        assert_same(one, both[0][name].float() - both[1][name].float(), name)
    # All three are quantised; a vector in between changes no byte.
    coded = target.save(tmp_path / "coded")
    for at, one in enumerate((t, coded)):
        out = tmp_path / f"applied-{at}"
        apply(one, tmp_path / "v", out, alpha=ALPHA, sync=False)
        if one is coded:
            transfer(coded, g, s, tmp_path / "out", alpha=ALPHA, overwrite=True, sync=False)
            assert_tensors(read(out), wanted(target, *both, ALPHA))
            assert_sound(out, coded, target)
        assert weights(out) == weights(tmp_path / "out")


@pytest.mark.parametrize("kind", LARGE)
def test_windows_may_end_within_a_block_a_row_or_a_pair(kind: str, tmp_path: Path) -> None:
    """Whatever the budget, the threads and the way to read; no tensor lies where its type would want to."""
    make = large(kind)
    names = list(make.stored)
    target = write(tmp_path / "t", make.stored, pad=3, shards=[names[::2], names[1::2]], config=make.config)
    (minuend, g), (subtrahend, s) = (plain(tmp_path, make, seed) for seed in "gs")
    transfer(target, minuend, subtrahend, tmp_path / "out", alpha=ALPHA, sync=False)
    assert_tensors(read(tmp_path / "out"), wanted(make, g, s, ALPHA))
    first = weights(tmp_path / "out")
    options: list[dict[str, Any]] = [
        {"threads": 1, "memory": "32MiB", "io": "pread"},
        {"threads": 3, "memory": "64MiB", "io": "mmap"},
        {"threads": 2, "io": "direct"},
    ]
    for one in options:
        transfer(
            target, minuend, subtrahend, tmp_path / "out", alpha=ALPHA, overwrite=True, sync=False, **one
        )
        assert weights(tmp_path / "out") == first, one
    # As the minuend, too.
    shutil.rmtree(tmp_path / "out")
    transfer(minuend, target, subtrahend, tmp_path / "out", alpha=ALPHA, sync=False)
    found = {name: combined(g[name], make.logical[name], s[name], ALPHA) for name in g}
    assert_tensors(read(tmp_path / "out"), found)


def test_what_the_donors_lack_or_a_pattern_leaves_out_is_dequantised(tmp_path: Path) -> None:
    """No code stays behind, be it in the layer beyond the last one or in what a plain name excludes."""
    make = made("DeepSeek-V3")
    target = make.save(tmp_path / "t")
    (minuend, g), (subtrahend, s) = (plain(tmp_path, make, seed, "layers.2.") for seed in "gs")
    transfer(
        target, minuend, subtrahend, tmp_path / "out", alpha=ALPHA, exclude=[r"experts\.1\."], sync=False
    )
    left = {name for name in g if "experts.1." in name}
    assert left
    for name in left:
        del g[name], s[name]
    assert_tensors(read(tmp_path / "out"), wanted(make, g, s, ALPHA))
    assert_sound(tmp_path / "out", target, make)
    assert read(tmp_path / "out")["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == torch.float32


ODD = """{
    "architectures":["MadeForCausalLM"] , "model_type"  : "qwen3",
  "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128],
      "activation_scheme": "dynamic", "note": "a } and a \\" in a string"},   "hidden_size":160,
\t"num_hidden_layers":  1, "tie_word_embeddings":   false,"expert_dtype" :"fp8",
  "torch_dtype": "float8_e4m3fn"}
"""
REST = (
    '"architectures":["MadeForCausalLM"] , "model_type"  : "qwen3"',
    '"hidden_size":160,\n\t"num_hidden_layers":  1, "tie_word_embeddings":   false',
    '"torch_dtype": "bfloat16"}\n',
)


def test_a_config_in_a_form_of_its_own_keeps_it(tmp_path: Path) -> None:
    make = made("Qwen3 under BF16")
    make.files |= {name: {"quant_method": "fp8"} for name in GONE_FILES} | {
        "generation_config.json": {"top_k": 7}
    }
    target = make.save(tmp_path / "t", config=ODD)
    donors = [plain(tmp_path, make, seed)[0] for seed in "gs"]
    transfer(target, *donors, tmp_path / "out", alpha=ALPHA)
    text = (tmp_path / "out" / "config.json").read_text()
    assert json.loads(text) == freed(json.loads(ODD))
    for part in REST:
        assert part in text
    assert not any((tmp_path / "out" / name).exists() for name in GONE_FILES)
    kept = "generation_config.json"
    assert (tmp_path / "out" / kept).read_bytes() == (target / kept).read_bytes()
