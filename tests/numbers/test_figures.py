"""The figures of every write against numpy's, in f64: what rounding did to the request, tensor by tensor."""

from __future__ import annotations

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
    manifest,
    noise,
    nudged,
    patterns,
    read,
    to_f64,
    weights,
    write,
)
from taskvec import apply, extract, transfer

if TYPE_CHECKING:
    from pathlib import Path


class Sums:
    """What the figures of one or more tensors are made of, in f64 by numpy."""

    def __init__(self) -> None:
        self.counts = np.zeros(6)
        self.v2 = self.requested2 = self.e2 = self.product = 0.0

    def add(self, t: torch.Tensor, g: torch.Tensor, s: torch.Tensor, alpha: float, o: torch.Tensor) -> None:
        d = g.float() - s.float()
        bad = ~(t.isfinite() & g.isfinite() & s.isfinite()).reshape(-1).numpy()
        over = ~bad & ~o.isfinite().reshape(-1).numpy()
        fine = ~bad & ~over & d.isfinite().reshape(-1).numpy()
        asked = fine & (torch.tensor(alpha) * d != 0).reshape(-1).numpy()
        changed = fine & (patterns(o) != patterns(t.to(o.dtype))).numpy()
        self.counts += [x.sum() for x in (bad, over, asked, changed, asked & changed)] + [d.numel()]
        v, e = to_f64(d)[fine], to_f64(o)[fine] - to_f64(t)[fine]
        m = float(torch.tensor(alpha)) * v
        self.v2 += float(v @ v)
        self.requested2 += float(m @ m)
        self.e2 += float(e @ e)
        self.product += float(e @ m)

    def effect(self) -> dict[str, Any]:
        bad, over, asked, changed, survived, count = self.counts

        def ratio(above: float, below: float) -> float | None:
            return above / below if below > 0 else None

        return {
            "norm_v": math.sqrt(self.v2),
            "norm_requested": math.sqrt(self.requested2),
            "norm_effective": math.sqrt(self.e2),
            "gain": ratio(self.product, self.requested2),
            "cosine": ratio(self.product, math.sqrt(self.e2 * self.requested2)),
            "changed": ratio(changed, count),
            "survival": ratio(survived, asked),
            "grid_noise": None,
            "nonfinite_inputs": bad,
            "overflowed": over,
        }


def assert_effect(found: dict[str, Any], wanted: dict[str, Any], what: object) -> None:
    assert found.keys() == wanted.keys(), what
    for key, value in wanted.items():
        assert found[key] == (None if value is None else pytest.approx(value, rel=2e-6, abs=1e-300)), (
            what,
            key,
        )


@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.01])
@pytest.mark.parametrize(
    "options", [{}, {"dtype": "bf16"}, {"dtype": "f16"}, {"dtype": "f32"}, {"rounding": "stochastic"}]
)
def test_figures_against_numpy(alpha: float, options: dict[str, Any], tmp_path: Path) -> None:
    rng = generator(("figures", alpha))
    t: Tensors = {}
    g: Tensors = {}
    s: Tensors = {}
    for at, dtype in enumerate(FLOATS):
        for kind in ("close", "apart", "same", "wild", "tiny", "empty", "rule", "kept"):
            name = f"{kind}.{NAMES[dtype]}"
            shape = [0] if kind == "empty" else [9001 + at]
            draw = anything if kind == "wild" else noise
            scale = {"scale": 1e-30 if dtype != torch.float16 else 1e-7} if kind == "tiny" else {}
            s[name] = draw(shape, dtype, rng, **scale)
            t[name] = draw(shape, dtype, rng, **scale)
            if kind == "apart":
                g[name] = noise(shape, FLOATS[at - 1], rng)
            elif kind == "same":
                g[name] = s[name].clone()
            else:
                g[name] = draw(shape, dtype, rng) if kind == "wild" else nudged(s[name], rng)
    t["alone"] = noise([50], torch.float32, rng)
    paths = [write(tmp_path / role, one, shards=2) for role, one in (("t", t), ("g", g), ("s", s))]
    result = transfer(*paths, tmp_path / "out", alpha=alpha, alpha_rules=["^rule=-2", "^kept=0"], **options)
    found = read(tmp_path / "out")
    total = Sums()
    entries = {one["name"]: one for one in manifest(tmp_path / "out")["tensors"]}
    assert list(entries) == [
        name for path in sorted(weights(tmp_path / "out")) for name in read(tmp_path / "out", path)
    ]
    for name, tensor in t.items():
        converted = found[name].dtype != tensor.dtype
        factor = {"rule": -2.0, "kept": 0.0}.get(name.split(".")[0], alpha)
        if name == "alone" or factor == 0:
            # Without a vector v is nothing; a change of dtype is an effect all the same.
            if not converted:
                assert "effect" not in entries[name]
                continue
            factor, minuend = 1.0, torch.zeros_like(tensor)
            other = minuend
        else:
            minuend, other = g[name], s[name]
        if not tensor.numel():
            assert "effect" not in entries[name]
            continue
        one = Sums()
        for sums in (one, total):
            sums.add(tensor, minuend, other, factor, found[name])
        assert_effect(entries[name]["effect"], one.effect(), name)
    said = manifest(tmp_path / "out")["effect"]
    assert_effect(said, total.effect(), "total")
    assert result.to_json()["effect"] == said
    assert said["nonfinite_inputs"] > 0


@pytest.mark.parametrize("several", [False, True])
def test_figures_of_vectors(several: bool, tmp_path: Path) -> None:
    rng = generator("vectors")
    t = {"w": noise([20_000], torch.bfloat16, rng)}
    target = write(tmp_path / "t", t)
    d: list[torch.Tensor] = []
    for at in range(2):
        s = noise([20_000], torch.bfloat16, rng)
        g = nudged(s, rng)
        extract(
            write(tmp_path / f"g{at}", {"w": g}), write(tmp_path / f"s{at}", {"w": s}), tmp_path / f"v{at}"
        )
        d.append(g.float() - s.float())
    alphas = [0.7, -2.0]
    if several:
        # With several vectors the request is their sum, and there is no one ‖v‖.
        request = alphas[0] * d[0] + alphas[1] * d[1]
        found = apply(target, [tmp_path / "v0", tmp_path / "v1"], tmp_path / "out", alpha=alphas)
        wanted = Sums()
        out = (t["w"].float() + alphas[0] * d[0] + alphas[1] * d[1]).bfloat16()
        wanted.add(t["w"], request, torch.zeros_like(request), 1.0, out)
        expected = {**wanted.effect(), "norm_v": None}
    else:
        found = apply(target, tmp_path / "v0", tmp_path / "out", alpha=0.7)
        wanted = Sums()
        wanted.add(t["w"], d[0], torch.zeros_like(d[0]), 0.7, (t["w"].float() + 0.7 * d[0]).bfloat16())
        expected = wanted.effect()
    assert_effect(found.to_json()["effect"], expected, several)


def test_a_gain_that_is_off_is_said_with_the_ways_out(tmp_path: Path) -> None:
    rng = generator("gain")
    s = {"w": noise([50_000], torch.bfloat16, rng)}
    family = [s, {"w": nudged(s["w"], rng)}, s]
    paths = [write(tmp_path / role, one) for role, one in zip("tgs", family, strict=True)]
    lost = transfer(*paths, tmp_path / "lost", alpha=0.25)
    assert lost.effect.gain is not None
    assert abs(lost.effect.gain - 1) > 0.05
    (warning,) = lost.warnings
    assert "--rounding stochastic" in warning
    assert "--dtype f32" in warning
    for options in ({"rounding": "stochastic"}, {"dtype": "f32"}, {"alpha": 1.0}):
        kept = transfer(*paths, tmp_path / "kept", overwrite=True, **{"alpha": 0.25, **options})
        assert kept.warnings == (), options
        assert kept.effect.gain == pytest.approx(1, abs=0.03)
