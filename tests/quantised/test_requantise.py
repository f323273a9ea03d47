"""Quantised targets that are quantised again, against the tests' own arithmetic: bytes and figures."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import Tensors, assert_tensors, files, generator, least_memory, read, weights, write
from quantised.layouts import KINDS, large, made
from quantised.maker import Maker, freed
from quantised.outcome import assert_outcome, outcome
from quantised.shared import BLOCKS, base
from taskvec import (
    MismatchError,
    UsageError,
    apply,
    check,
    diff,
    extract,
    sweep_apply,
    sweep_transfer,
    transfer,
    verify,
)

if TYPE_CHECKING:
    from pathlib import Path

REFUSED = {
    "ModelOpt NVFP4": "two scales", "NVFP4": "two scales", "FP8 and NVFP4": "two scales",
    "gpt-oss": "transposed",
}  # fmt: skip
AGAIN = [kind for kind in KINDS if kind not in REFUSED]
BIG = ["blocks", "blocks of three dimensions", "blocks of a row", "rows", "a whole tensor", "MXFP4", "INT4"]


def donors(make: Maker, share: float = 1.0, size: float = 1.0) -> tuple[Tensors, Tensors]:
    """Minuend and subtrahend that differ in a share of all runs of 40 elements."""
    g, s = make.plainly("g"), make.plainly("s")
    rng = generator("where")
    for name, one in s.items():
        runs = torch.rand(-(-one.numel() // 40), generator=rng) < share
        moved = runs.repeat_interleave(40)[: one.numel()].reshape(one.shape)
        s[name] = torch.where(moved, g[name] - size * (g[name] - one), g[name])
    return g, s


def plain(folder: Path, make: Maker, tensors: Tensors) -> Path:
    return write(folder, tensors, config=freed(make.config))


def trio(
    root: Path, make: Maker, share: float = 1.0, size: float = 1.0
) -> tuple[list[Path], Tensors, Tensors]:
    """The three folders, and what the donors hold."""
    g, s = donors(make, share, size)
    return [make.save(root / "t"), plain(root / "g", make, g), plain(root / "s", make, s)], g, s


def assert_beside(out: Path, target: Path) -> None:
    """Everything but the values is the target's own."""
    mine, its = files(out), files(target)
    assert its.keys() - mine.keys() == set()
    for name, content in its.items():
        if name.endswith(".safetensors"):
            data = 8 + int.from_bytes(content[:8], "little")
            assert mine[name][:data] == content[:data], name
            assert len(mine[name]) == len(content), name
        else:
            assert mine[name] == content, name
    assert verify(out).ok


JOBS: list[tuple[float, float, float, dict[str, Any]]] = [
    (0.7, 0.02, 1.0, {}),
    (0.7, 1.0, 1.0, {}),
    (-1.0, 1.0, 1e-3, {"scales": "fresh"}),
    (0.02, 0.5, 1.0, {"rounding": "stochastic", "seed": 7}),
    (0.3, 1.0, 1.0, {"rounding": "stochastic", "seed": 8, "scales": "fresh"}),
]


@pytest.mark.parametrize("kind", AGAIN)
def test_codes_scales_and_figures(kind: str, tmp_path: Path) -> None:
    make = made(kind)
    blocks: list[tuple[int, int, int]] = []
    for at, (alpha, share, size, options) in enumerate(JOBS):
        paths, g, s = trio(tmp_path / str(at), make, share, size)
        out = tmp_path / str(at) / "out"
        result = transfer(*paths, out, alpha=alpha, requantise=True, sync=False, **options)
        wanted = outcome(make, [(g, s, alpha)], mode=options.get("scales", "keep"), seed=options.get("seed"))
        assert_outcome(out, wanted, options)
        assert_beside(out, paths[0])
        assert any("quantised again" in one for one in result.warnings)
        assert result.requantised is not None
        said = json.loads((out / "taskvec.json").read_text())
        assert said["requantised"]["bf16"]["gain"] == result.requantised.bf16.gain
        done = result.requantised
        blocks.append((done.blocks_copied, done.blocks_kept, done.blocks_rescaled))
        # What is compared is what the codes mean.
        changed = {one.name for one in diff(paths[0], out).tensors if one.changed}
        assert changed <= {*wanted.figures, *wanted.plain}
        shutil.rmtree(tmp_path / str(at))
    # The jobs differ in what they touch.
    whole = any(way.whole for way in make.ways.values())
    assert whole or blocks[0][0] > 0
    assert blocks[1][0] == 0
    assert whole or blocks[1][2] > 0


@pytest.mark.parametrize("kind", AGAIN)
def test_nothing_asked_nothing_changed(kind: str, tmp_path: Path) -> None:
    """Special codes and scales among them: α of 0, or donors that are equal."""
    make = made(kind, special=True)
    paths, _, _ = trio(tmp_path, make)
    jobs = [(0.0, paths), (1.0, [paths[0], paths[1], paths[1]])]
    for alpha, (target, minuend, subtrahend) in jobs:
        for scales in ("keep", "fresh"):
            out = tmp_path / "out"
            result = transfer(
                target, minuend, subtrahend, out, alpha=alpha, requantise=True, scales=scales, overwrite=True
            )
            found = weights(out)
            if alpha:
                # Of plain tensors, −0 + 0 is 0, as it always was.
                codes = {*make.coded.values(), *(way.scale for way in make.ways.values())}
                stored = read(out)
                assert_tensors({name: stored[name] for name in codes}, {n: make.stored[n] for n in codes})
            else:
                assert found == weights(target)
            assert any("quantised again" in one for one in result.warnings)
            assert_beside(out, target)


@pytest.mark.parametrize("kind", REFUSED)
def test_layouts_that_are_not_quantised_again_are_named(kind: str, tmp_path: Path) -> None:
    make = made(kind)
    paths, g, s = trio(tmp_path, make)
    with pytest.raises(MismatchError, match=REFUSED[kind]) as refusal:
        transfer(*paths, tmp_path / "out", requantise=True)
    name = next(name for name in make.coded if name not in make.ways)
    assert "not quantised again" in str(refusal.value)
    assert not (tmp_path / "out").exists()
    plan = check(*paths, requantise=True)
    assert name in {problem.tensor for problem in plan.problems}
    # Left out, they are copied.
    left = [name for name in make.coded if name not in make.ways]
    only = {name: one for name, one in g.items() if name not in left}
    transfer(*paths, tmp_path / "out", requantise=True, alpha=0.5, exclude=[f"^{name}$" for name in left])
    assert_outcome(tmp_path / "out", outcome(make, [(only, s, 0.5)]))


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    make = made("Qwen3 under BF16")
    paths, _, _ = trio(tmp_path, make)
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="dtype"):
        transfer(*paths, out, requantise=True, dtype="bf16")
    with pytest.raises(UsageError, match="scales is for requantise"):
        transfer(*paths, out, scales="fresh")
    wrong: Any = "new"
    with pytest.raises(UsageError, match="'new' is not one of keep, fresh"):
        transfer(*paths, out, requantise=True, scales=wrong)
    with pytest.raises(UsageError, match="not quantised"):
        transfer(paths[1], *paths[1:], out, requantise=True)
    with pytest.raises(UsageError):
        extract(*paths[1:], out, requantise=True)
    assert not out.exists()


def test_padded_rows_of_integers_are_refused(tmp_path: Path) -> None:
    make = made("Kimi-K2")
    make.int4("model.layers.0.mlp.odd", [4, 44])
    with pytest.raises(MismatchError, match="padded"):
        transfer(*trio(tmp_path, make)[0], tmp_path / "out", requantise=True)


def wide() -> Maker:
    """Rows of blocks are larger than blocks of the file, and some windows have several of them."""
    make = Maker("wide")
    make.plain("model.norm.weight", [161])
    make.fp8("model.layers.0.mlp.down_proj.weight", [2112, 3000], torch.float32)
    make.config = base("qwen3", 1, quantization_config=BLOCKS)
    return make


@pytest.mark.parametrize("kind", [*BIG, "wide"])
def test_any_budget_threads_and_way_to_read(kind: str, tmp_path: Path) -> None:
    """Blocks cross the edges of windows, and no tensor lies where its type would want to."""
    make = wide() if kind == "wide" else large(kind)
    names = list(make.stored)
    g, s = donors(make, 0.3)
    # The scales are in another shard than their codes.
    target = write(tmp_path / "t", make.stored, pad=3, shards=[names[:2], names[2:]], config=make.config)
    paths = [target, plain(tmp_path / "g", make, g), plain(tmp_path / "s", make, s)]
    out = tmp_path / "out"
    recipe: dict[str, Any] = {"alpha": 0.7, "requantise": True, "overwrite": True, "sync": False}
    transfer(*paths, out, **recipe)
    assert_outcome(out, outcome(make, [(g, s, 0.7)]))
    first, said = weights(out), (out / "taskvec.json").read_bytes()
    with pytest.raises(UsageError) as refusal:
        transfer(*paths, out, **recipe, memory="1KiB", io="pread")
    options: list[dict[str, Any]] = [
        {"threads": 1, "memory": least_memory(str(refusal.value)), "io": "pread"},
        {"threads": 3, "memory": "64MiB", "io": "mmap"},
        {"threads": 2, "io": "direct"},
    ]
    for one in options:
        transfer(*paths, out, **recipe, **one)
        assert weights(out) == first, one
        # The figures too, to the last place.
        assert (out / "taskvec.json").read_bytes() == said, one


def test_several_vectors_and_sweeps(tmp_path: Path) -> None:
    make = made("DeepSeek-V4")
    paths, g, s = trio(tmp_path, make, 0.3)
    extract(*paths[1:], tmp_path / "v", sync=False)
    again: dict[str, Any] = {"requantise": True, "sync": False}
    transfer(*paths, tmp_path / "one", alpha=0.5, **again)
    apply(paths[0], tmp_path / "v", tmp_path / "two", alpha=0.5, **again)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    # The second vector takes part of the first one back.
    apply(paths[0], [tmp_path / "v", tmp_path / "v"], tmp_path / "both", alpha=[0.5, -0.375], **again)
    assert_outcome(tmp_path / "both", outcome(make, [(g, s, 0.5), (g, s, -0.375)]))
    alphas = [0.0, 0.5, -2.0]
    for scales in ("keep", "fresh"):
        sweep_transfer(*paths, tmp_path / f"a-{scales}", alphas=alphas, scales=scales, **again)
        sweep_apply(paths[0], tmp_path / "v", tmp_path / f"b-{scales}", alphas=alphas, scales=scales, **again)
        for alpha in alphas:
            transfer(*paths, tmp_path / "out", alpha=alpha, scales=scales, overwrite=True, **again)
            for sweep in "ab":
                found = tmp_path / f"{sweep}-{scales}" / f"alpha-{alpha}"
                assert weights(found) == weights(tmp_path / "out"), found
            a = tmp_path / f"a-{scales}" / f"alpha-{alpha}" / "taskvec.json"
            assert a.read_bytes() == (tmp_path / "out" / "taskvec.json").read_bytes()


@pytest.mark.parametrize("kind", ["DeepSeek-V3", "Kimi-K2", "Kimi-K3"])
def test_quantised_donors(kind: str, tmp_path: Path) -> None:
    target, g, s = made(kind, "t"), made(kind, "g"), made(kind, "s")
    paths = [one.save(tmp_path / name, 2) for name, one in zip("tgs", (target, g, s), strict=True)]
    transfer(*paths, tmp_path / "out", alpha=0.25, requantise=True, sync=False)
    assert_outcome(tmp_path / "out", outcome(target, [(g.logical, s.logical, 0.25)]))


def test_an_adapter_as_a_donor(tmp_path: Path) -> None:
    make = made("Qwen3 under BF16")
    target, stem = make.save(tmp_path / "t"), "model.layers.0.self_attn.q_proj"
    rng = generator("adapter")
    # Products of two whole numbers, so that no order of the sums matters.
    parts = {
        "A": torch.randint(-3, 4, (2, 160), generator=rng),
        "B": torch.randint(-3, 4, (200, 2), generator=rng),
    }
    one = {f"base_model.model.{stem}.lora_{name}.weight": part.float() for name, part in parts.items()}
    base, adapter = plain(tmp_path / "base", make, make.plainly("base")), tmp_path / "adapter"
    write(adapter, one, config=None)
    (adapter / "model.safetensors").rename(adapter / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps({**said, "base_model_name_or_path": str(base)}))
    transfer(target, adapter, base, tmp_path / "out", alpha=0.01, requantise=True)
    product = {f"{stem}.weight": (parts["B"] @ parts["A"]).float()}
    nothing = {name: torch.zeros_like(one) for name, one in product.items()}
    assert_outcome(tmp_path / "out", outcome(make, [(product, nothing, 0.01)]))


def test_chance_is_fair_and_repeats(tmp_path: Path) -> None:
    make = large("blocks")
    paths, g, s = trio(tmp_path, make, 1.0, 1e-3)
    found: list[dict[str, bytes]] = []
    for at, seed in enumerate((1, 1, 2)):
        result = transfer(
            *paths, tmp_path / str(at), requantise=True, rounding="stochastic", seed=seed, sync=False
        )
        assert result.effect.gain == pytest.approx(1, abs=0.1)
        found.append(weights(tmp_path / str(at)))
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert_outcome(tmp_path / "0", outcome(make, [(g, s, 1.0)], seed=1))
    result = transfer(*paths, tmp_path / "nearest", requantise=True, sync=False)
    assert (result.effect.gain or 0) < 0.9
