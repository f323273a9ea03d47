"""extract and apply: nothing is lost on the way through a vector, whatever the donors are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from families import (
    CONFIG,
    FLOATS,
    Tensors,
    anything,
    assert_same,
    assert_tensors,
    combined,
    files,
    generator,
    manifest,
    noise,
    nudged,
    read,
    weights,
    write,
)
from taskvec import CorruptError, MismatchError, UsageError, Vector, apply, extract, inspect, transfer
from vectors import ENCODINGS, exact

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.options import Encoding

# A few blocks in all, one tensor of more than one, names out of order.
SHAPES = {"z.w": (700, 1100), "b.w": (33, 7), "a.norm": (5,), "scalar": (), "none": (3, 0), "m.w": (901,)}


def donors(kind: str) -> tuple[Tensors, Tensors]:
    """Minuend and subtrahend that are close, unrelated, of other types, or of any bit pattern."""
    rng = generator(kind)
    g: Tensors = {}
    s: Tensors = {}
    for at, (name, shape) in enumerate(SHAPES.items()):
        one, other = torch.bfloat16, torch.bfloat16
        if kind in ("f16", "f32"):
            one = other = {"f16": torch.float16, "f32": torch.float32}[kind]
        elif kind == "mixed":
            one, other = FLOATS[at % 3], FLOATS[(at // 2 + 1) % 3]
        if kind == "anything":
            g[name], s[name] = anything(shape, one, rng), anything(shape, other, rng)
        else:
            s[name] = noise(shape, other, rng)
            g[name] = nudged(s[name], rng) if kind == "close" else noise(shape, one, rng)
    return g, s


KINDS = ("close", "unrelated", "f16", "f32", "mixed", "anything")


def family(tmp_path: Path, kind: str, types: tuple[torch.dtype, ...] = FLOATS) -> list[Path]:
    g, s = donors(kind)
    rng = generator("target")
    t = {name: noise(shape, types[at % len(types)], rng) for at, (name, shape) in enumerate(SHAPES.items())}
    return [
        write(tmp_path / "t", t, shards=3, pad=1),
        write(tmp_path / "g", g, shards=2, pad=6),
        write(tmp_path / "s", s, shards=[sorted(SHAPES)], pad=3),
    ]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_apply_is_transfer_byte_for_byte(kind: str, encoding: Encoding, tmp_path: Path) -> None:
    t, g, s = family(tmp_path, kind)
    vector = extract(g, s, tmp_path / "v", encoding=encoding)
    recipes: list[dict[str, Any]] = [
        {"alpha": 1},
        {"alpha": -1},
        {"alpha": 0.7, "memory": "16MiB", "threads": 3, "io": "pread"},
        {"alpha": 0.3, "dtype": "f32"},
        {"alpha": 0.7, "dtype": "f16", "rounding": "stochastic", "seed": 5},
        {"alpha": 1e-3, "rounding": "stochastic", "io": "direct"},
        {"alpha": 2, "alpha_rules": ["w$=0.5", "z=-1"]},
        {"alpha": 0.7, "include": ["w$"], "exclude": ["^m"]},
        {"alpha": 0},
    ]
    for at, recipe in enumerate(recipes):
        fused = transfer(t, g, s, tmp_path / f"fused{at}", sync=False, **recipe)
        two = apply(t, vector, tmp_path / f"two{at}", sync=False, **recipe)
        assert weights(tmp_path / f"two{at}") == weights(tmp_path / f"fused{at}"), recipe
        if kind != "anything":
            # A difference beyond f32 is no finite input for apply, though its donors were for transfer.
            assert two.effect == fused.effect, recipe
            figures = [manifest(tmp_path / f"{verb}{at}")["tensors"] for verb in ("two", "fused")]
            assert figures[0] == figures[1], recipe


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_difference_comes_back_without_taskvec(
    kind: str, encoding: Encoding, tmp_path: Path
) -> None:
    _, g_path, s_path = family(tmp_path, kind)
    g, s = donors(kind)
    vector = extract(g_path, s_path, tmp_path / "v", encoding=encoding)
    wanted = {name: g[name].float() - s[name].float() for name in g}
    assert_tensors(exact(tmp_path / "v"), wanted)
    # The donors' types decide how it is stored: numpy counts what bfloat16 loses.
    stored = {one.name: one.dtype for one in inspect(vector).tensors}
    lost = 0
    for name, d in wanted.items():
        bf16 = g[name].dtype == s[name].dtype == torch.bfloat16
        assert stored[name] == ("BF16" if bf16 else "F32"), name
        if bf16:
            value = d.numpy()
            finite = ~np.isnan(value)
            # Odd multiples of less than half a bfloat16 step have low bits that it has no room for.
            lost += int(((value.view(np.uint32) & 0xFFFF) != 0)[finite].sum())
    assert vector.written is not None
    assert vector.written.exceptions == lost
    described = manifest(tmp_path / "v")
    assert described["vector"]["exceptions"] == lost
    assert sum(described["vector"]["exceptions_by_tensor"].values()) == lost
    beside = encoding == "dense" and lost > 0
    assert (tmp_path / "v" / "vector-exceptions.safetensors").exists() == beside
    if kind in ("unrelated", "anything"):
        assert lost > 100_000


def test_a_vector_in_shards_has_an_index(tmp_path: Path) -> None:
    t, g, s = family(tmp_path, "close")
    extract(g, s, tmp_path / "v")
    names = [path.name for path in (tmp_path / "v").glob("vector-0*.safetensors")]
    assert sorted(names) == ["vector-00001-of-00002.safetensors", "vector-00002-of-00002.safetensors"]
    index = (tmp_path / "v" / "vector.safetensors.index.json").read_text()
    assert all(f'"{name}"' in index for name in SHAPES)
    # From one file to one file, and the sum does not care.
    extract(s, g, tmp_path / "negative")
    assert (tmp_path / "negative" / "vector.safetensors").is_file()
    apply(t, tmp_path / "v", tmp_path / "a", alpha=0.5)
    apply(t, tmp_path / "negative", tmp_path / "b", alpha=-0.5)
    assert_tensors(read(tmp_path / "b"), read(tmp_path / "a"))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["close", "unrelated", "mixed"])
def test_one_vector_however_the_work_is_split(
    kind: str, encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, g, s = family(tmp_path, kind)
    extract(g, s, tmp_path / "first", encoding=encoding)
    wanted = files(tmp_path / "first")
    variants: list[dict[str, Any]] = [
        {"threads": 1},
        {"threads": 7, "memory": "64MiB"},
        {"threads": 2, "io": "pread", "memory": "256MiB"},
        {"threads": 2, "io": "direct", "sync": False},
        {"simd": "scalar"},
    ]
    for variant in variants:
        monkeypatch.setenv("TASKVEC_SIMD", variant.pop("simd", ""))
        extract(g, s, tmp_path / "again", encoding=encoding, overwrite=True, **variant)
        found = files(tmp_path / "again")
        assert found.keys() == wanted.keys(), variant
        assert not [name for name in found if found[name] != wanted[name]], variant


def test_several_vectors_are_added_in_their_order(tmp_path: Path) -> None:
    rng = generator("several")
    t = {"a": noise([4000], torch.float32, rng), "b": noise([60], torch.bfloat16, rng)}
    target = write(tmp_path / "t", t)
    differences: list[Tensors] = []
    for at, dtype in enumerate((torch.bfloat16, torch.float32, torch.bfloat16)):
        g, s = ({name: noise(one.shape, dtype, rng) for name, one in t.items()} for _ in "gs")
        write(tmp_path / f"g{at}", g)
        write(tmp_path / f"s{at}", s)
        encoding = ENCODINGS[at % 2]
        extract(tmp_path / f"g{at}", tmp_path / f"s{at}", tmp_path / f"v{at}", encoding=encoding)
        differences.append({name: g[name].float() - s[name].float() for name in t})
    vectors = [tmp_path / f"v{at}" for at in range(3)]

    def oracle(order: list[int], alphas: list[float]) -> Tensors:
        sums = {name: one.float() for name, one in t.items()}
        for at, alpha in zip(order, alphas, strict=True):
            for name in sums:
                sums[name] = sums[name] + alpha * differences[at][name]
        return {name: one.to(t[name].dtype) for name, one in sums.items()}

    outcomes: list[dict[str, bytes]] = []
    for number, order in enumerate(([0, 1, 2], [2, 1, 0])):
        alphas = [0.7, -0.3, 1.0]
        out = tmp_path / f"out{number}"
        result = apply(target, [vectors[at] for at in order], out, alpha=alphas)
        assert_tensors(read(out), oracle(order, alphas), order)
        assert result.effect.norm_v is None
        outcomes.append(weights(out))
    # In f32 the order shows: had it not, the test would not have told the orders apart.
    assert outcomes[0] != outcomes[1]

    dropped = apply(target, vectors, tmp_path / "dropped", alpha=[0.7, 0, 0])
    apply(target, vectors[0], tmp_path / "alone", alpha=0.7)
    assert weights(tmp_path / "dropped") == weights(tmp_path / "alone")
    assert dropped.effect.norm_v is not None
    apply(target, vectors, tmp_path / "none", alpha=0)
    assert weights(tmp_path / "none") == weights(target)
    apply(target, [vectors[0], vectors[0]], tmp_path / "twice", alpha=[1, -1])
    assert_tensors(read(tmp_path / "twice"), oracle([0, 0], [1.0, -1.0]))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("ours", "theirs"), [(9, 7), (7, 9), (7, 7)])
def test_common_vocabulary_rows(ours: int, theirs: int, encoding: Encoding, tmp_path: Path) -> None:
    rng = generator((ours, theirs))
    name, width = "model.embed_tokens.weight", 11
    t = {name: noise([ours, width], torch.bfloat16, rng), "w": noise([6], torch.bfloat16, rng)}
    g = {name: noise([theirs, width], torch.bfloat16, rng), "w": noise([6], torch.bfloat16, rng)}
    s = {name: noise([theirs - 1, width], torch.bfloat16, rng), "w": noise([6], torch.bfloat16, rng)}
    paths = [write(tmp_path / role, one) for role, one in (("t", t), ("g", g), ("s", s))]
    with pytest.raises(MismatchError, match=r"embed_tokens\.weight.*--vocab common"):
        transfer(*paths, tmp_path / "fused")
    with pytest.raises(MismatchError, match=r"embed_tokens\.weight.*--vocab common"):
        extract(*paths[1:], tmp_path / "v")
    extract(*paths[1:], tmp_path / "v", vocab="common", encoding=encoding)
    rows = min(ours, theirs - 1)
    assert exact(tmp_path / "v")[name].shape == (theirs - 1, width)
    transfer(*paths, tmp_path / "fused", vocab="common", alpha=0.7)
    apply(paths[0], tmp_path / "v", tmp_path / "two", vocab="common", alpha=0.7)
    assert weights(tmp_path / "two") == weights(tmp_path / "fused")
    found = read(tmp_path / "two")[name]
    assert_same(found[:rows], combined(t[name][:rows], g[name][:rows], s[name][:rows], 0.7))
    assert_same(found[rows:], t[name][rows:])


def test_several_vectors_over_different_vocabularies(tmp_path: Path) -> None:
    rng = generator("rows")
    name, width = "lm_head.weight", 200_000
    t = {name: noise([5, width], torch.bfloat16, rng)}
    wanted = t[name].float()
    target = write(tmp_path / "t", t)
    for rows, alpha, encoding in ((3, 0.5, "packed"), (5, -1.0, "dense"), (4, 2.0, "packed")):
        g, s = ({name: noise([rows, width], torch.bfloat16, rng)} for _ in "gs")
        pair = write(tmp_path / f"g{rows}", g), write(tmp_path / f"s{rows}", s)
        extract(*pair, tmp_path / f"v{rows}", encoding=encoding)
        wanted[:rows] = wanted[:rows] + alpha * (g[name].float() - s[name].float())
    vectors = [tmp_path / f"v{rows}" for rows in (3, 5, 4)]
    apply(target, vectors, tmp_path / "out", alpha=[0.5, -1, 2], vocab="common")
    assert_same(read(tmp_path / "out")[name], wanted.bfloat16())


def test_a_vector_of_some_tensors(tmp_path: Path) -> None:
    t, g, s = family(tmp_path, "close")
    selection: dict[str, Any] = {"include": ["w$"], "exclude": ["^b"]}
    extract(g, s, tmp_path / "v", **selection)
    assert sorted(exact(tmp_path / "v")) == ["m.w", "z.w"]
    two = apply(t, tmp_path / "v", tmp_path / "two", alpha=0.7)
    transfer(t, g, s, tmp_path / "fused", alpha=0.7, **selection)
    assert weights(tmp_path / "two") == weights(tmp_path / "fused")
    assert any("only in the target" in note for note in two.notes)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_vector_is_its_own_description(encoding: Encoding, tmp_path: Path) -> None:
    _, g, s = family(tmp_path, "unrelated")
    vector = extract(g, s, tmp_path / "v", encoding=encoding)
    assert vector.info["config"] == CONFIG
    assert [one["role"] for one in vector.info["inputs"]] == ["minuend", "subtrahend"]
    assert Vector(tmp_path / "v").info == vector.info
    card = (tmp_path / "v" / "README.md").read_text()
    assert ("rounded to bfloat16" in card) == (encoding == "dense")
    one, other = donors("unrelated")
    wanted = {name: one[name].float() - other[name].float() for name in one}
    norm = math.sqrt(sum(float((one.double() ** 2).sum()) for one in wanted.values()))
    assert vector.written is not None
    assert vector.written.effect.norm_v == pytest.approx(norm, rel=1e-5)
    share = sum(int((one != 0).sum()) for one in wanted.values()) / sum(
        one.numel() for one in wanted.values()
    )
    assert vector.written.effect.changed == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("option", [{"dtype": "f32"}, {"rounding": "stochastic"}, {"alpha_rules": ["w=1"]}])
def test_options_that_change_values_belong_to_apply(option: dict[str, Any], tmp_path: Path) -> None:
    _, g, s = family(tmp_path, "close")
    with pytest.raises(UsageError, match="apply"):
        extract(g, s, tmp_path / "v", **option)


def test_exceptions_that_are_missing_or_too_few_are_corrupt(tmp_path: Path) -> None:
    t, g, s = family(tmp_path, "unrelated")
    extract(g, s, tmp_path / "v", encoding="dense")
    path = tmp_path / "v" / "vector-exceptions.safetensors"
    whole = read(tmp_path / "v", path.name)
    short = {name: one[:-1] if name.startswith("z.w") else one for name, one in whole.items()}
    write(tmp_path / "short", short, config=None)
    path.write_bytes((tmp_path / "short" / "model.safetensors").read_bytes())
    with pytest.raises(CorruptError, match="exceptions"):
        apply(t, tmp_path / "v", tmp_path / "out")
    path.unlink()
    with pytest.raises(CorruptError, match="exceptions"):
        apply(t, tmp_path / "v", tmp_path / "out")
    assert not (tmp_path / "out").exists()
