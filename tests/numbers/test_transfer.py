"""The fused form against torch's own arithmetic, bit for bit: every mix of types, any shape, any layout."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from families import (
    BLOCK,
    FLOATS,
    NAMES,
    OUTPUTS,
    Tensors,
    all_combined,
    anything,
    assert_same,
    assert_tensors,
    combined,
    generator,
    manifest,
    noise,
    patterns,
    read,
    weights,
    write,
)
from taskvec import UsageError, transfer

ALPHAS = (1.0, -1.0, 0.7, 0.3, 1e-3, 0.0)
CANONICAL = {torch.bfloat16: 0x7FC0, torch.float16: 0x7E00, torch.float32: 0x7FC00000}


def mixed(count: int, dtype: torch.dtype, rng: torch.Generator) -> torch.Tensor:
    """Weights first, then any bit patterns."""
    return torch.cat([noise([count // 2], dtype, rng), anything([count - count // 2], dtype, rng)])


def every_mix() -> tuple[Tensors, Tensors, Tensors]:
    """One tensor for each of the 27 ways to choose the types of target, minuend and subtrahend."""
    family: tuple[Tensors, Tensors, Tensors] = ({}, {}, {})
    count = itertools.count()
    for types in itertools.product(FLOATS, repeat=3):
        name = ".".join(NAMES[dtype] for dtype in types)
        for tensors, dtype in zip(family, types, strict=True):
            # An odd length: the next tensor's bytes are aligned to nothing.
            tensors[name] = mixed(801, dtype, generator((name, next(count))))
    return family


@pytest.mark.parametrize("dtype", [None, *OUTPUTS])
def test_every_mix_of_types_at_every_alpha(dtype: Any, tmp_path: Path) -> None:
    t, g, s = every_mix()
    paths = [write(tmp_path / name, tensors) for name, tensors in (("t", t), ("g", g), ("s", s))]
    for alpha in ALPHAS:
        result = transfer(*paths, tmp_path / "out", alpha=alpha, dtype=dtype, overwrite=True, sync=False)
        wanted = all_combined(t, g, s, alpha, OUTPUTS.get(dtype))
        found = read(tmp_path / "out")
        assert_tensors(found, wanted, alpha)
        if alpha:
            assert result.tensors.combined == 27
            for name, tensor in found.items():
                nan = patterns(tensor)[tensor.isnan()]
                assert (nan == CANONICAL[tensor.dtype]).all(), name
        else:
            kept = sum(1 for name in t if dtype is None or t[name].dtype == OUTPUTS[dtype])
            assert (result.tensors.copied, result.tensors.converted) == (kept, 27 - kept)


def test_alpha_zero_keeps_every_bit(tmp_path: Path) -> None:
    # Through arithmetic a NaN would lose its payload and −0 its sign.
    rng = generator("zero")
    t = {"a": anything([5000], torch.bfloat16, rng), "b": anything([5000], torch.float32, rng)}
    paths = [write(tmp_path / "t", t, shards=2), write(tmp_path / "g", t), write(tmp_path / "s", t)]
    transfer(*paths, tmp_path / "out", alpha=0)
    assert weights(tmp_path / "out") == weights(paths[0])


def test_a_vector_of_zeros_still_is_arithmetic(tmp_path: Path) -> None:
    t = {"a": torch.tensor([-0.0, 0.0, -1.0, 1.0], dtype=torch.bfloat16)}
    paths = [write(tmp_path / name, t) for name in "tgs"]
    transfer(*paths, tmp_path / "out")
    assert patterns(read(tmp_path / "out")["a"]).tolist() == [0, 0, -0x4080, 0x3F80]


@pytest.mark.parametrize(
    ("dtype", "largest", "smallest"),
    [
        (torch.bfloat16, 3.3895313892515355e38, 2.0**-133),
        (torch.float16, 65504.0, 2.0**-24),
        (torch.float32, 3.4028234663852886e38, 2.0**-149),
    ],
)
def test_the_ends_of_the_range(dtype: torch.dtype, largest: float, smallest: float, tmp_path: Path) -> None:
    inf, nan = math.inf, math.nan
    # target, minuend, subtrahend, result, whether an input is not finite, whether the result alone is not
    cases = [
        (largest, largest, 0.0, inf, False, True),
        (-largest, -largest, 0.0, -inf, False, True),
        (largest, 0.0, largest, 0.0, False, False),
        (inf, 1.0, 0.0, inf, True, False),
        (inf, 0.0, inf, nan, True, False),
        (1.0, inf, inf, nan, True, False),
        (1.0, nan, 0.0, nan, True, False),
        (smallest, smallest, 0.0, 2 * smallest, False, False),
        (smallest, 0.0, smallest, 0.0, False, False),
        (0.0, 0.0, smallest, -smallest, False, False),
        (-0.0, -0.0, 0.0, -0.0, False, False),
        (-0.0, 0.0, 0.0, 0.0, False, False),
    ]
    columns = list(zip(*cases, strict=True))
    t, g, s, wanted = (torch.tensor(column, dtype=dtype) for column in columns[:4])
    paths = [write(tmp_path / name, {"a": one}) for name, one in (("t", t), ("g", g), ("s", s))]
    result = transfer(*paths, tmp_path / "out")
    assert_same(read(tmp_path / "out")["a"], wanted)
    assert_same(wanted, combined(t, g, s, 1.0))
    assert result.effect.nonfinite_inputs == sum(columns[4])
    assert result.effect.overflowed == sum(columns[5])
    assert len([warning for warning in result.warnings if "Inf or NaN" in warning]) == 2


def test_alpha_is_rounded_to_f32_once(tmp_path: Path) -> None:
    rng = generator("alpha")
    t, g, s = ({"a": noise([3000], torch.float32, rng)} for _ in range(3))
    paths = [write(tmp_path / name, one) for name, one in (("t", t), ("g", g), ("s", s))]
    for at, text in enumerate(("0.1", " 1e-3", "-0.30000000000000004", "16777217", "1.1754943e-38")):
        transfer(*paths, tmp_path / str(at), alpha=text)
        assert_tensors(read(tmp_path / str(at)), all_combined(t, g, s, float(text)), text)
        (alpha,) = manifest(tmp_path / str(at))["recipe"]["alpha"]
        assert alpha["text"] == text.strip()
        bits = torch.tensor(float(text), dtype=torch.float32).view(torch.int32).item() & 0xFFFFFFFF
        assert alpha["bits"] == f"0x{bits:08x}"
    for text in ("nan", "inf", "-inf", "1e39", "1e-50"):
        with pytest.raises(UsageError, match="alpha"):
            transfer(*paths, tmp_path / "refused", alpha=text)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("pad", range(8))
def test_elements_cut_by_a_block_are_computed_whole_and_counted_once(pad: int, tmp_path: Path) -> None:
    rng = generator(("edge", pad))
    family: list[Tensors] = [{}, {}, {}]
    for number, dtype in enumerate(FLOATS):
        for tensors in family:
            # A tail of bytes shifts the next tensor by one, and with it where the edges fall.
            tensors[f"w{number}"] = mixed(BLOCK // dtype.itemsize + 40_001, dtype, rng)
            tensors[f"x{number}"] = torch.zeros(1, dtype=torch.uint8)
    names = list(family[0])
    t, g, s = family
    paths = [
        write(tmp_path / "t", t, pad=pad),
        write(tmp_path / "g", g, pad=pad * 3 % 8, shards=[names[::-1]]),
        write(tmp_path / "s", s, pad=pad * 5 % 8, shards=2),
    ]
    options: dict[str, Any] = {"alpha": 0.7, "sync": False, "overwrite": True}
    floats = [name for name in names if name.startswith("w")]
    wanted = {name: combined(t[name], g[name], s[name], 0.7) for name in floats}
    transfer(*paths, tmp_path / "out", threads=2, io=("mmap", "pread", "direct")[pad % 3], **options)
    found = read(tmp_path / "out")
    assert_tensors({name: found[name] for name in floats}, wanted, pad)
    by_name = {entry["name"]: entry for entry in manifest(tmp_path / "out")["tensors"]}
    for name in floats:
        finite = t[name].isfinite() & g[name].isfinite() & s[name].isfinite()
        effect = by_name[name]["effect"]
        assert effect["nonfinite_inputs"] == int((~finite).sum())
        assert effect["overflowed"] == int((finite & ~wanted[name].isfinite()).sum())
        both = finite & wanted[name].isfinite()
        changed = both & (wanted[name] != t[name]) | both & (wanted[name] == 0) & (
            torch.signbit(wanted[name]) != torch.signbit(t[name])
        )
        v_finite = (g[name].float() - s[name].float()).isfinite()
        assert effect["changed"] * t[name].numel() == pytest.approx(int((changed & v_finite).sum()), abs=1e-3)


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
near_edges = st.tuples(st.integers(1, 2), st.sampled_from([2, 4]), st.integers(-400, 400)).map(
    lambda edge: (edge[0] * BLOCK // edge[1] + edge[2],)
)


@st.composite
def families(draw: st.DrawFn) -> dict[str, Any]:
    """Tensors of any shape and type, each input sharded, ordered and aligned in its own way."""
    drawn = draw(st.lists(shapes, min_size=1, max_size=5)) + draw(st.lists(near_edges, max_size=1))
    names = draw(st.permutations([f"layer.{at}.w" for at in range(len(drawn))]))
    types = st.sampled_from(FLOATS)
    inputs: list[dict[str, Any]] = []
    for role in "tgs":
        order = draw(st.permutations(names))
        ends = sorted(draw(st.sets(st.integers(1, len(names) - 1), max_size=2))) if len(names) > 1 else []
        parts = [list(order[a:b]) for a, b in itertools.pairwise([0, *ends, len(names)])]
        tensors: Tensors = {}
        for name, shape in zip(names, drawn, strict=True):
            dtype = draw(types)
            rng = generator((role, name, draw(st.integers(0, 99))))
            tensors[name] = (noise if draw(st.booleans()) else anything)(shape, dtype, rng)
        inputs.append({"tensors": tensors, "shards": parts, "pad": draw(st.integers(0, 7))})
    options = {
        "alpha": draw(st.sampled_from(ALPHAS)),
        "dtype": draw(st.sampled_from([None, *OUTPUTS])),
        "threads": draw(st.integers(1, 3)),
        "io": draw(st.sampled_from(["mmap", "pread", "direct"])),
    }
    return {"inputs": inputs, "options": options}


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(families())
def test_any_shape_order_and_sharding(drawn: dict[str, Any]) -> None:
    options = drawn["options"]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths = [write(root / str(at), **one) for at, one in enumerate(drawn["inputs"])]
        transfer(*paths, root / "out", sync=False, **options)
        wanted = all_combined(
            *(one["tensors"] for one in drawn["inputs"]), options["alpha"], OUTPUTS.get(options["dtype"])
        )
        assert_tensors(read(root / "out"), wanted)


def test_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    rng = generator("library")
    family = [{"b": noise([7, 3], torch.bfloat16, rng), "a": noise([9], torch.float32, rng)} for _ in "tgs"]
    for role, tensors in zip("tgs", family, strict=True):
        (tmp_path / role).mkdir()
        save_file(tensors, tmp_path / role / "model.safetensors", metadata={"format": "pt"})
    transfer(*(tmp_path / role for role in "tgs"), tmp_path / "out", alpha=0.3)
    assert_tensors(read(tmp_path / "out"), all_combined(*family, 0.3))
