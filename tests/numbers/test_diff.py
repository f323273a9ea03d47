"""diff against numpy: shares, norms, cosines and distances in units of the last place."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from families import (
    FLOATS,
    NAMES,
    Tensors,
    anything,
    generator,
    noise,
    nudged,
    patterns,
    to_f64,
    write,
)
from taskvec import diff, extract, transfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer


def rank(tensor: torch.Tensor) -> np.ndarray:
    """The place of each number among all of its type; 0 and −0 share one."""
    bits = patterns(tensor).long().numpy()
    sign = -1 << (8 * tensor.element_size() - 1)
    return np.where(bits < 0, -(bits - sign), bits)


def ulps(a: torch.Tensor, b: torch.Tensor) -> dict[str, int]:
    """Elements by distance, in buckets named as people read them."""
    counts: dict[str, int] = {}
    nans = a.isnan().reshape(-1).numpy().astype(int) + b.isnan().reshape(-1).numpy()
    for distance, nan in zip(np.abs(rank(a) - rank(b)).tolist(), nans.tolist(), strict=True):
        bits = 0 if nan == 2 else distance.bit_length()
        low, high = 1 << max(bits - 1, 0), (1 << bits) - 1
        name = "nan" if nan == 1 else str(bits) if bits < 2 else f"{low}-{high}"
        counts[name] = counts.get(name, 0) + 1
    return counts


class Sums:
    """What figures are made of, in f64."""

    def __init__(self) -> None:
        self.elements = self.changed = self.nonfinite = 0
        self.a2 = self.b2 = self.ab = self.d2 = 0.0
        self.ulps: dict[str, int] = {}

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        same = a.dtype == b.dtype
        bits = [patterns(one if same else one.float()) for one in (a, b)]
        self.elements += a.numel()
        self.changed += int((bits[0] != bits[1]).sum())
        fine = (a.isfinite() & b.isfinite()).reshape(-1).numpy()
        self.nonfinite += int((~fine).sum())
        x, y = to_f64(a)[fine], to_f64(b)[fine]
        self.a2 += float(x @ x)
        self.b2 += float(y @ y)
        self.ab += float(x @ y)
        self.d2 += float((y - x) @ (y - x))
        if same:
            for name, count in ulps(a, b).items():
                self.ulps[name] = self.ulps.get(name, 0) + count

    def check(self, found: Any) -> None:
        assert found.elements == self.elements
        assert found.changed == pytest.approx(self.changed / self.elements if self.elements else 0, rel=1e-12)
        assert found.nonfinite == self.nonfinite
        assert found.norm == pytest.approx(math.sqrt(self.d2), rel=2e-6)
        length = math.sqrt(self.a2) * math.sqrt(self.b2)
        assert found.cosine == (pytest.approx(self.ab / length, rel=2e-6, abs=2e-6) if length else None)
        assert dict(found.ulps) == self.ulps


KINDS = ("close", "apart", "same", "wild", "tiny", "empty", "scalar", "zeros")


def pair(kind: str, one: torch.dtype, other: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    rng = generator((kind, one, other))
    shape = {"empty": [0, 3], "scalar": []}.get(kind, [70, 131])
    draw = anything if kind == "wild" else noise
    scale = {"scale": 1e-25} if kind == "tiny" else {}
    a = draw(shape, one, rng, **scale)
    if kind == "zeros":
        a = torch.zeros(shape, dtype=one)
        b = -a.to(other)
    elif kind == "same":
        b = a.to(other)
    elif kind == "close" and one == other:
        b = nudged(a, rng)
    else:
        b = draw(shape, other, rng, **scale)
    return a, b


def test_figures_against_numpy(tmp_path: Path) -> None:
    a: Tensors = {}
    b: Tensors = {}
    for one in FLOATS:
        for other in FLOATS:
            for kind in KINDS:
                name = f"{kind}.{NAMES[one]}.{NAMES[other]}"
                a[name], b[name] = pair(kind, one, other)
    names = list(a)
    paths = write(tmp_path / "a", a, shards=3, pad=1), write(tmp_path / "b", b, shards=[names[::-1]], pad=6)
    found = diff(*paths)
    assert not found.identical
    assert sorted(one.name for one in found.tensors) == sorted(names)
    total = Sums()
    for one in found.tensors:
        types = one.name.split(".")[1:]
        assert one.dtype == (types[0] if types[0] == types[1] else "/".join(types))
        sums = Sums()
        for each in (sums, total):
            each.add(a[one.name], b[one.name])
        sums.check(one)
    total.check(found.total)


@pytest.mark.parametrize("dtype", FLOATS)
def test_distances_at_the_ends(dtype: torch.dtype, tmp_path: Path) -> None:
    top, small = float(torch.finfo(dtype).max), {2: 2.0**-24, 4: 2.0**-149}[dtype.itemsize]
    small = 2.0**-133 if dtype == torch.bfloat16 else small
    inf, nan = math.inf, math.nan
    ends = [
        (inf, top),
        (-inf, inf),
        (nan, nan),
        (nan, 1.0),
        (0.0, -0.0),
        (small, -small),
        (-top, top),
        (1.0, nan),
    ]
    a, b = (torch.tensor(column, dtype=dtype) for column in zip(*ends, strict=True))
    found = diff(write(tmp_path / "a", {"w": a}), write(tmp_path / "b", {"w": b}))
    assert dict(found.total.ulps) == ulps(a, b)
    assert found.total.ulps["1"] == 1
    assert found.total.ulps["nan"] == 2
    assert found.total.ulps["0"] == 2
    assert found.total.ulps["2-3"] == 1


def test_the_same_however_the_work_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = generator("split")
    a = {"w": noise([900_001], torch.bfloat16, rng), "x": noise([400_003], torch.float32, rng)}
    b = {"w": nudged(a["w"], rng), "x": noise([400_003], torch.float16, rng)}
    paths = write(tmp_path / "a", a, pad=1), write(tmp_path / "b", b, shards=2, pad=2)
    wanted = diff(*paths)
    variants: list[dict[str, Any]] = [
        {"threads": 1},
        {"threads": 7},
        {"memory": "16MiB", "io": "pread"},
        {"io": "direct"},
        {"simd": "scalar"},
    ]
    for variant in variants:
        monkeypatch.setenv("TASKVEC_SIMD", variant.pop("simd", ""))
        assert diff(*paths, **variant) == wanted, variant


def test_identical_whatever_the_layout(tmp_path: Path) -> None:
    rng = generator("identical")
    a = {name: anything([50], torch.bfloat16, rng) for name in "abc"} | {"n": torch.arange(5)}
    one = write(tmp_path / "one", a, shards=2, pad=3)
    other = write(tmp_path / "other", a, shards=[["c", "n", "a", "b"]], config=None)
    found = diff(one, other)
    assert found.identical
    assert (found.a, found.b) == ("one", "other")
    assert found.total.changed == 0
    wider = write(tmp_path / "wider", {**a, "a": a["a"].float()})
    assert not diff(one, wider).identical


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    a = {"left": torch.ones(1), "shape": torch.ones(2, 3), "type": torch.ones(2), "both": torch.ones(3)}
    b = {
        "right": torch.ones(1),
        "shape": torch.ones(3, 2),
        "type": torch.ones(2).long(),
        "both": torch.ones(3),
    }
    found = diff(write(tmp_path / "a", a), write(tmp_path / "b", b))
    assert (found.only_a, found.only_b) == (("left",), ("right",))
    reasons = {one.name: one.reason for one in found.not_compared}
    assert reasons == {"shape": "shapes [2, 3] and [3, 2]", "type": "types F32 and I64"}
    assert [one.name for one in found.tensors] == ["both"]
    # What is the same is the same, yet the checkpoints are not.
    assert found.total.changed == 0
    assert not found.identical


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.float64, torch.float8_e4m3fn])
def test_other_types_are_compared_byte_by_byte(dtype: torch.dtype, tmp_path: Path) -> None:
    a = torch.tensor([0, 1, 1, 0]).to(dtype)
    b = torch.tensor([0, 1, 0, 0]).to(dtype)
    found = diff(write(tmp_path / "a", {"w": a}), write(tmp_path / "b", {"w": b}))
    (one,) = found.tensors
    assert (one.elements, one.changed, one.norm, one.cosine) == (4, 0.25, None, None)


def test_vectors_are_compared_too(tmp_path: Path) -> None:
    rng = generator("vectors")
    s = {"w": noise([500], torch.bfloat16, rng)}
    g = {"w": nudged(s["w"], rng)}
    paths = write(tmp_path / "g", g), write(tmp_path / "s", s)
    extract(*paths, tmp_path / "v")
    extract(*paths[::-1], tmp_path / "w")
    found = diff(tmp_path / "v", tmp_path / "w")
    assert found.total.cosine == pytest.approx(-1)
    assert diff(tmp_path / "v", tmp_path / "v").identical


def test_the_command_always_ends_well(taskvec: Callable[..., Answer], tmp_path: Path) -> None:
    rng = generator("command")
    family = [write(tmp_path / role, {"w": noise([64], torch.bfloat16, rng)}) for role in "tgs"]
    transfer(*family, tmp_path / "out")
    answer = taskvec("diff", family[0], tmp_path / "out", "--json")
    assert answer.code == 0
    assert json.loads(answer.stdout) == diff(family[0], tmp_path / "out").to_json()
    assert taskvec("diff", family[0], tmp_path / "nowhere").code == 4
