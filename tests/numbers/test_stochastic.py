"""Stochastic rounding through the verbs: unbiased, between neighbours, the same wherever the work is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import (
    TIED,
    Tensors,
    anything,
    assert_same,
    assert_tensors,
    combined,
    generator,
    noise,
    patterns,
    raw,
    read,
    weights,
    write,
)
from taskvec import UsageError, transfer

if TYPE_CHECKING:
    from pathlib import Path

NARROW = [torch.bfloat16, torch.float16]


def neighbours(value: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of `dtype` around each f32, the one towards zero first."""
    inner = value.to(dtype)
    # Rounded away from zero: one step back, which is one bit pattern less on either side of zero.
    over = inner.float().abs() > value.abs()
    inner = (patterns(inner) - over.to(torch.int16)).view(dtype)
    exact = inner.float() == value
    return inner, (patterns(inner) + (~exact).to(torch.int16)).view(dtype)


def write_all(tmp_path: Path, family: list[Tensors], **options: Any) -> list[Path]:
    return [write(tmp_path / role, one, **options) for role, one in zip("tgs", family, strict=True)]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("alpha", [0.7, 0.01, -0.3])
def test_only_neighbours_and_no_bias(dtype: torch.dtype, alpha: float, tmp_path: Path) -> None:
    rng = generator((dtype, alpha))
    count = 1 << 19
    family = [{"w": noise([count], dtype, rng)} for _ in "tgs"]
    # Enough steps of a half's subnormals to see them rounded too.
    family[0]["w"][: count // 8] *= 1e-5
    for tensors in family[1:]:
        tensors["w"][: count // 8] *= 1e-5
    paths = write_all(tmp_path, family)
    result = transfer(*paths, tmp_path / "out", alpha=alpha, rounding="stochastic", seed=1)
    found = read(tmp_path / "out")["w"]
    wanted = combined(*(one["w"] for one in family), alpha, torch.float32)
    inner, outer = neighbours(wanted, dtype)
    up = patterns(found) == patterns(outer)
    assert (up | (patterns(found) == patterns(inner))).all()
    # Each element is a coin of its own probability; the sum of what they are off by has a known spread.
    low, high = inner.double(), outer.double()
    step = high - low
    exact = step == 0
    assert int(exact.sum()) < count // 2
    chance = torch.where(exact, 0.0, (wanted.double() - low) / torch.where(exact, 1.0, step))
    # Both ends of a step, and the middle, turn up as often as they should.
    for begin, end in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        these = (chance > begin) & (chance <= end) & ~exact
        expected, spread = chance[these].sum(), (chance[these] * (1 - chance[these])).sum().sqrt()
        assert abs(float(up[these].sum() - expected)) < 5 * float(spread) + 1
    assert result.effect.gain == pytest.approx(1, abs=0.02)


def test_each_seed_and_tensor_draws_its_own(tmp_path: Path) -> None:
    rng = generator("seeds")
    one = [noise([4000], torch.bfloat16, rng) for _ in "tgs"]
    paths = write_all(tmp_path, [{"a": tensor, "b": tensor} for tensor in one])
    found: dict[Any, Tensors] = {}
    for seed in (0, 1, 2**64 - 1, None):
        options = {} if seed is None else {"seed": seed}
        transfer(*paths, tmp_path / str(seed), alpha=0.01, rounding="stochastic", **options)
        found[seed] = read(tmp_path / str(seed))
    assert_tensors(found[None], found[0])
    assert not torch.equal(found[0]["a"], found[1]["a"])
    assert not torch.equal(found[0]["a"], found[2**64 - 1]["a"])
    assert not torch.equal(found[0]["a"], found[0]["b"])
    differs = (found[0]["a"] != found[1]["a"]).float().mean()
    assert 0.05 < float(differs) < 0.6


def test_reproducible_by_position(tmp_path: Path) -> None:
    # Another sharding, order, alignment and split of the work: element i of a tensor draws the same number.
    rng = generator("position")
    shapes = {"a": (700_001,), "b": (13,), "c": (600_003,)}
    family = [{name: noise(shape, torch.bfloat16, rng) for name, shape in shapes.items()} for _ in "tgs"]
    recipe: dict[str, Any] = {"alpha": 0.3, "rounding": "stochastic", "seed": 9, "sync": False}
    transfer(*write_all(tmp_path / "0", family), tmp_path / "first", threads=1, **recipe)
    wanted = read(tmp_path / "first")
    splits: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"shards": 3, "pad": 1}, {"threads": 2, "memory": "16MiB"}),
        ({"shards": [["c", "b"], ["a"]], "pad": 6}, {"threads": 7, "io": "pread"}),
        ({"shards": [["b", "c", "a"]], "pad": 3}, {"threads": 2, "io": "direct"}),
    ]
    for at, (layout, split) in enumerate(splits, 1):
        transfer(*write_all(tmp_path / str(at), family, **layout), tmp_path / f"out{at}", **recipe, **split)
        assert_tensors(read(tmp_path / f"out{at}"), wanted, layout)


@pytest.mark.parametrize("dtype", NARROW)
def test_what_needs_no_rounding_is_not_rounded(dtype: torch.dtype, tmp_path: Path) -> None:
    rng = generator(("exact", dtype))
    # Powers of two of one size: every sum is a number of the type.
    family = [{"w": torch.randint(-8, 9, (5000,), generator=rng).to(dtype)} for _ in "tgs"]
    paths = write_all(tmp_path, family)
    transfer(*paths, tmp_path / "out", rounding="stochastic")
    assert_same(read(tmp_path / "out")["w"], combined(*(one["w"] for one in family), 1.0))


def test_chance_alone_makes_no_infinity(tmp_path: Path) -> None:
    largest = float(torch.finfo(torch.bfloat16).max)
    # A quarter of a step beyond the largest number: to nearest it stays, by chance it must not leave.
    step = 2.0 ** (127 - 7)
    count = 4000
    t = {"w": torch.full([count], largest)}
    g, s = {"w": torch.full([count], step / 4)}, {"w": torch.zeros(count)}
    paths = write_all(tmp_path, [t, g, s])
    result = transfer(*paths, tmp_path / "out", dtype="bf16", rounding="stochastic")
    assert (read(tmp_path / "out")["w"].double() == largest).all()
    assert result.effect.overflowed == 0


def test_alpha_zero_is_left_alone(tmp_path: Path) -> None:
    rng = generator("untouched")
    family = [
        {"a": anything([3000], torch.bfloat16, rng), "b": noise([9], torch.float16, rng)} for _ in "tgs"
    ]
    paths = write_all(tmp_path, family)
    transfer(*paths, tmp_path / "out", alpha=0, rounding="stochastic")
    assert weights(tmp_path / "out") == weights(paths[0])
    # A widened bfloat16 is one again, with nothing to draw for.
    wide = write(tmp_path / "wide", {name: tensor.float() for name, tensor in family[0].items()})
    transfer(wide, *paths[1:], tmp_path / "back", alpha=0, rounding="stochastic", dtype="bf16")
    assert_same(read(tmp_path / "back")["a"], family[0]["a"])


def test_f32_has_nothing_to_round(tmp_path: Path) -> None:
    rng = generator("f32")
    family = [{"a": noise([30], torch.float32, rng)} for _ in "tgs"]
    paths = write_all(tmp_path, family)
    for options in ({"dtype": "f32"}, {}):
        with pytest.raises(UsageError, match="stochastic"):
            transfer(*paths, tmp_path / "out", rounding="stochastic", **options)
    assert not (tmp_path / "out").exists()


def test_f32_tensors_among_others_are_rounded_to_nearest(tmp_path: Path) -> None:
    rng = generator("among")
    family = [{"a": noise([3000], torch.float32, rng), "b": noise([50], torch.bfloat16, rng)} for _ in "tgs"]
    transfer(*write_all(tmp_path, family), tmp_path / "out", alpha=0.7, rounding="stochastic")
    assert_same(read(tmp_path / "out")["a"], combined(*(one["a"] for one in family), 0.7))


@pytest.mark.parametrize("order", [["embed", "head"], ["head", "embed"]])
def test_a_tied_head_is_the_embedding_once_more(order: list[str], tmp_path: Path) -> None:
    rng = generator("tied")
    names = {"embed": "model.embed_tokens.weight", "head": "lm_head.weight"}
    embeddings = [noise([600, 1000], torch.bfloat16, rng) for _ in "tgs"]
    t = {names[one]: embeddings[0] for one in order}
    paths = [write(tmp_path / "t", t, config=TIED)]
    for role, tensor in zip("gs", embeddings[1:], strict=True):
        paths.append(write(tmp_path / role, {names["embed"]: tensor}, config=TIED))
    transfer(*paths, tmp_path / "out", alpha=0.1, rounding="stochastic", seed=4)
    found = read(tmp_path / "out")
    assert raw(found[names["head"]]) == raw(found[names["embed"]])
    nearest = combined(*embeddings, 0.1)
    assert not torch.equal(found[names["head"]], nearest)
