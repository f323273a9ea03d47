"""α over the layers: the factor of every tensor, what is shown of it, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from families import Tensors, assert_same, combined, generator, manifest, noise, read, write
from taskvec import UsageError, apply, check, extract, transfer

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [
    "embed.weight", *(f"model.layers.{layer}.mlp.experts.{one}.up" for layer in range(5) for one in (0, 7)),
    "vision.blocks.0.qkv", "vision.blocks.2.qkv", "only.0.x", "lm_head.3",
]  # fmt: skip
DEPTH = {"model.layers": 5, "vision.blocks": 3, "only": 1}


def layer_of(name: str) -> tuple[str, int] | None:
    """The definition once more, word by word."""
    parts = name.split(".")
    for at in range(1, len(parts) - 1):
        if parts[at].isdecimal():
            return ".".join(parts[:at]), int(parts[at])
    return None


def factor(kind: str, a: float, b: float, name: str) -> float:
    layer = layer_of(name)
    if layer is None:
        return 1.0 if kind == "linear" else a
    stack, number = layer
    share = number / (DEPTH[stack] - 1) if DEPTH[stack] > 1 else 0.0
    return a + (b - a if kind == "linear" else b) * share


@pytest.fixture
def family(tmp_path: Path) -> tuple[list[Path], list[Tensors]]:
    rng = generator("schedule")
    tensors = [{name: noise([40], torch.float32, rng) for name in NAMES} for _ in range(3)]
    return [write(tmp_path / role, one) for role, one in zip("tgs", tensors, strict=True)], tensors


@pytest.mark.parametrize(
    ("schedule", "alpha"),
    [("linear:0.2,1", 0.7), ("linear:1,-1", -1), ("lines:0.3,0.7", 1), ("lines: 1 , 0", 0.1)],
)
def test_the_factor_of_every_tensor(
    schedule: str, alpha: float, family: tuple[list[Path], list[Tensors]], tmp_path: Path
) -> None:
    paths, (t, g, s) = family
    kind, _, numbers = schedule.partition(":")
    a, b = map(float, numbers.split(","))
    transfer(*paths, tmp_path / "out", alpha=alpha, schedule=schedule)
    found = read(tmp_path / "out")
    entries = {one["name"]: one.get("alpha") for one in manifest(tmp_path / "out")["tensors"]}
    for name in NAMES:
        expected = float(np.float32(alpha * factor(kind, a, b, name)))
        assert_same(found[name], combined(t[name], g[name], s[name], expected), name)
        assert entries[name] == ([pytest.approx(expected)] if expected else None), name
    assert manifest(tmp_path / "out")["recipe"]["schedule"] == schedule
    # The same bytes by way of a vector.
    apply(paths[0], extract(*paths[1:], tmp_path / "v"), tmp_path / "two", alpha=alpha, schedule=schedule)
    for name in NAMES:
        assert_same(read(tmp_path / "two")[name], found[name], name)


def test_a_rule_keeps_its_own_factor(family: tuple[list[Path], list[Tensors]], tmp_path: Path) -> None:
    paths, (t, g, s) = family
    transfer(*paths, tmp_path / "out", schedule="linear:0,1", alpha_rules=[r"layers\.[03]\.=0.5"])
    found = read(tmp_path / "out")
    for name in NAMES:
        ruled = "layers.0." in name or "layers.3." in name
        alpha = 0.5 if ruled else float(np.float32(factor("linear", 0, 1, name)))
        assert_same(found[name], combined(t[name], g[name], s[name], alpha), name)


def test_check_shows_every_layer(family: tuple[list[Path], list[Tensors]], taskvec: Any) -> None:
    paths, _ = family
    found = check(*paths, schedule="linear:0.2,1")
    shown = {(one.stack, one.layer): one.factor for one in found.layers}
    assert shown == {
        (stack, layer): pytest.approx(0.2 + 0.8 * (layer / (depth - 1) if depth > 1 else 0))
        for stack, depth in DEPTH.items()
        for layer in range(depth)
    }
    assert check(*paths).layers == ()
    printed = taskvec("check", *paths, "--schedule", "linear:0.2,1").stdout
    assert "model.layers: 0.2, 0.4, 0.6, 0.8, 1\n" in printed
    assert json.loads(taskvec("check", *paths, "--json").stdout)["layers"] == []


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "linear",
        "linear:1",
        "linear:1,2,3",
        "linear:a,1",
        "cosine:0,1",
        "lines:inf,1",
        "linear:0,nan",
        ":1,2",
    ],
)
def test_what_is_no_schedule(schedule: str, family: tuple[list[Path], list[Tensors]]) -> None:
    with pytest.raises(UsageError, match="is not a schedule; write it as linear:A,B"):
        check(*family[0], schedule=schedule)


def test_what_makes_no_sense(family: tuple[list[Path], list[Tensors]], tmp_path: Path) -> None:
    paths, _ = family
    flat = [write(tmp_path / f"flat-{at}", {"a": torch.ones(3), "b.c": torch.ones(3)}) for at in range(3)]
    with pytest.raises(UsageError, match="no tensor of the target has a number in its name"):
        check(*flat, schedule="linear:0,1")
    with pytest.raises(UsageError, match="too large for f32"):
        check(*paths, schedule="linear:0,1e300", alpha=1e10)
    with pytest.raises(UsageError, match="schedule to apply instead"):
        extract(*paths[1:], tmp_path / "v", schedule="linear:0,1")
    with pytest.raises(UsageError, match="schedule 1 is not text"):
        check(*paths, schedule=1)  # type: ignore[arg-type]
    assert not (tmp_path / "v").exists()


def test_another_schedule_is_another_job(family: tuple[list[Path], list[Tensors]], tmp_path: Path) -> None:
    paths, _ = family
    transfer(*paths, tmp_path / "out", schedule="linear:0,1")
    with pytest.raises(UsageError, match="exists and is not empty"):
        transfer(*paths, tmp_path / "out", schedule="linear:1,0")
