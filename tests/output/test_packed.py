"""Packed vectors lose nothing, whatever they hold, and every verb reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import (
    FLOATS,
    Tensors,
    anything,
    assert_tensors,
    generator,
    least_memory,
    manifest,
    noise,
    nudged,
    patterns,
    weights,
    write,
)
from livemodels import assert_state, load, state
from packed.reader import read_packed
from taskvec import UsageError, Vector, advise, apply, check, diff, extract, inspect, transfer, verify

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

# A frame has 2¹⁹ elements of a bfloat16 vector, and half as many of a float32 one.
FRAME = 1 << 19
SHAPES = {
    "one": (1,), "scalar": (), "none": (0, 7), "word": (64,), "few": (3, 43), "half": (FRAME // 2 + 1,),
    "below": (FRAME - 1,), "exactly": (1, FRAME), "above": (FRAME + 1,), "frames": (3, FRAME - 11),
}  # fmt: skip
SPECIAL = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1e-40, -1e-40, 3e38])


def moved(tensor: torch.Tensor, share: float, rng: torch.Generator) -> torch.Tensor:
    """The tensor with so many of its elements changed: most by a few steps, some to anything else."""
    chosen = torch.rand(tensor.shape, generator=rng) < share
    steps = torch.randint(1, 4, tensor.shape, generator=rng)
    near = (patterns(tensor) + steps.reshape(-1).to(patterns(tensor).dtype)).view(tensor.dtype)
    far = noise(tensor.shape, tensor.dtype, rng)
    wild = torch.rand(tensor.shape, generator=rng) < 0.1
    return torch.where(chosen, torch.where(wild, far, near.reshape(tensor.shape)), tensor)


def sprinkled(tensor: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """The tensor with every special value in a few places."""
    flat = tensor.clone().reshape(-1)
    if len(flat) > 500:
        at = torch.randint(0, len(flat), (4 * len(SPECIAL),), generator=rng)
        flat[at] = SPECIAL.repeat(4).to(tensor.dtype)
    return flat.reshape(tensor.shape)


def pair(kind: str, share: float) -> tuple[Tensors, Tensors]:
    """Minuend and subtrahend: of which so much differs, with special values in both."""
    rng = generator((kind, share))
    types = dict(zip(("bf16", "f16", "f32"), FLOATS, strict=True))
    g: Tensors = {}
    s: Tensors = {}
    for at, (name, shape) in enumerate(SHAPES.items()):
        one, other = (FLOATS[at % 3], FLOATS[at // 3 % 3]) if kind == "mixed" else (types[kind],) * 2
        s[name] = sprinkled(noise(shape, other, rng), rng)
        g[name] = moved(s[name], share, rng).to(one)
        if share:
            g[name] = sprinkled(g[name], rng)
    return g, s


def assert_reads(folder: Path, g: Tensors, s: Tensors) -> None:
    """An independent reader gets numpy's difference."""
    found = {name: torch.from_numpy(values) for name, values in read_packed(folder).items()}
    # Of infinities and of the largest numbers, what comes out is no less the difference.
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = {name: np.array(g[name].float().numpy() - s[name].float().numpy()) for name in g}
    assert_tensors(found, {name: torch.from_numpy(values) for name, values in wanted.items()})


CASES = [("bf16", share) for share in (0, 0.001, 0.02, 0.2, 0.9, 1)]
CASES += [("f32", 0.01), ("f32", 1), ("f16", 0.2), ("mixed", 0.02), ("mixed", 1)]


@pytest.mark.parametrize(("kind", "share"), CASES)
def test_nothing_is_lost(kind: str, share: float, tmp_path: Path) -> None:
    g, s = pair(kind, share)
    rng = generator("target")
    target = {name: noise(one.shape, FLOATS[at % 3], rng) for at, (name, one) in enumerate(g.items())}
    t, *donors = (write(tmp_path / role, one) for role, one in (("t", target), ("g", g), ("s", s)))
    vector = extract(*donors, tmp_path / "v", sync=False)
    assert manifest(tmp_path / "v")["vector"]["encoding"] == "packed"
    assert_reads(tmp_path / "v", g, s)
    transfer(t, *donors, tmp_path / "fused", alpha=0.7, sync=False)
    with pytest.raises(UsageError) as little:
        apply(t, vector, tmp_path / "two", memory="1MiB", threads=1)
    ways: list[dict[str, Any]] = [
        {"threads": 1, "memory": least_memory(str(little.value))},
        {"threads": 4, "io": "mmap"},
        {"io": "pread", "memory": "64MiB"},
        {"io": "direct"},
    ]
    # Each way of reading with some of the vectors.
    for way in (ways[0], ways[1 + CASES.index((kind, share)) % 3]):
        apply(t, vector, tmp_path / "two", alpha=0.7, sync=False, overwrite=True, **way)
        assert weights(tmp_path / "two") == weights(tmp_path / "fused"), way


SIZES = st.integers(0, 700)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(SIZES, min_size=1, max_size=4), seed=st.integers(0, 2**20), data=st.data())
def test_any_bit_pattern_comes_back(
    sizes: list[int], seed: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root, rng = tmp_path_factory.mktemp("any"), generator(seed)
    g: Tensors = {}
    s: Tensors = {}
    for at, size in enumerate(sizes):
        one, other = (data.draw(st.sampled_from(FLOATS)) for _ in "gs")
        share = data.draw(st.sampled_from([0, 0.01, 0.3, 1]))
        s[f"{at}"] = anything((size,), other, rng)
        chosen = torch.rand(size, generator=rng) < share
        g[f"{at}"] = torch.where(chosen, anything((size,), one, rng), s[f"{at}"].to(one))
    donors = write(root / "g", g), write(root / "s", s)
    target = {name: noise(one.shape, torch.bfloat16, rng) for name, one in g.items()}
    t = write(root / "t", target)
    extract(*donors, root / "v", sync=False)
    assert_reads(root / "v", g, s)
    alpha = data.draw(st.sampled_from([1, -1, 0.3, 0]))
    transfer(t, *donors, root / "fused", alpha=alpha, sync=False)
    apply(t, root / "v", root / "two", alpha=alpha, sync=False)
    assert weights(root / "two") == weights(root / "fused")


def test_regions_that_change_more_or_less(tmp_path: Path) -> None:
    """Gaps of every length, also those that no parameter foresees; runs of changes between them."""
    rng = generator("regions")
    s = {f"r{at}": noise((2 * FRAME,), torch.bfloat16, rng) for at in range(3)}
    g = {name: one.clone() for name, one in s.items()}
    for at, one in enumerate(g.values()):
        places = torch.randint(0, 2 * FRAME, (60,), generator=rng)
        for place in places.tolist():
            length = int(torch.randint(1, (3, 300, 700)[at], (1,), generator=rng))
            one[place : place + length] *= 2
        one[-1] *= 4
    donors = write(tmp_path / "g", g), write(tmp_path / "s", s)
    extract(*donors, tmp_path / "v", sync=False)
    assert_reads(tmp_path / "v", g, s)
    size = (tmp_path / "v" / "vector.safetensors").stat().st_size
    assert size < 2 * 3 * 2 * FRAME / 20
    transfer(tmp_path / "s", *donors, tmp_path / "fused", sync=False)
    apply(tmp_path / "s", tmp_path / "v", tmp_path / "two", sync=False)
    assert weights(tmp_path / "two") == weights(tmp_path / "fused")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders t, g and s; g − s in each encoding, and s − t, which bfloat16 can hold."""
    root, rng = tmp_path_factory.mktemp("both"), generator("both")
    shapes = {"a.weight": (FRAME + 70_000,), "b.weight": (40, 30), "b.bias": (5,), "none": (0,)}
    t = {name: noise(shape, torch.bfloat16, rng) for name, shape in shapes.items()}
    s = {name: nudged(one, rng) for name, one in t.items()}
    g = {name: moved(one, 0.1, rng) for name, one in s.items()}
    for role, one in (("t", t), ("g", g), ("s", s)):
        write(root / role, one, shards=2)
    for encoding in ("packed", "dense"):
        extract(root / "g", root / "s", root / encoding, encoding=encoding, sync=False)
        extract(root / "s", root / "t", root / f"{encoding}2", encoding=encoding, sync=False)
    return root


def test_vectors_of_either_encoding_together(both: Path, tmp_path: Path) -> None:
    outputs: list[dict[str, bytes]] = []
    for one in ("packed", "dense"):
        for other in ("packed2", "dense2"):
            out = tmp_path / f"{one}-{other}"
            apply(both / "t", [both / one, both / other], out, alpha=[0.7, -1], sync=False)
            outputs.append(weights(out))
    assert outputs[1:] == outputs[:1] * 3


def test_both_encodings_say_the_same(both: Path) -> None:
    packed, dense = both / "packed", both / "dense"
    assert diff(both / "packed2", both / "dense2").identical
    # Of a dense vector the values in the plain file are compared, without the exceptions.
    exceptions = manifest(dense)["vector"]["exceptions"]
    assert exceptions > 1000
    found = diff(packed, dense).total
    assert round(found.changed * found.elements) == exceptions
    looks = [inspect(folder) for folder in (packed, dense)]
    described = [[(one.name, one.dtype, one.shape) for one in look.tensors] for look in looks]
    assert described[0] == described[1]
    assert {(look.kind, look.parameters) for look in looks} == {("vector", found.elements)}
    documents = [manifest(folder) for folder in (packed, dense)]
    # Sums over blocks that are cut elsewhere are rounded differently.
    for name, figure in documents[1]["effect"].items():
        wanted = pytest.approx(figure, rel=1e-9) if isinstance(figure, float) else figure
        assert documents[0]["effect"][name] == wanted, name
    assert documents[0]["vector"].pop("encoding") == "packed"
    assert documents[1]["vector"].pop("encoding") == "dense"
    assert documents[0]["vector"] == documents[1]["vector"]
    for folder in (packed, dense):
        found = verify(folder)
        assert (found.ok, found.tensors) == (True, 4)
        assert check(both / "t", folder).compatible
    plans = [advise(both / "t", folder, alphas="0.5,1") for folder in (packed, dense)]
    assert plans[0].variants == plans[1].variants


def test_a_packed_vector_is_a_fraction_of_a_dense_one(both: Path) -> None:
    packed, dense = (sum(map(len, weights(both / one).values())) for one in ("packed", "dense"))
    # One element in ten: H(0.1) and some six bits for each value.
    assert packed < dense / 8


def test_a_live_model_takes_either(qwen: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    before, wanted = state(model), written_from(qwen, tmp_path)
    for encoding in ("packed", "dense"):
        vector = extract(qwen / "g", qwen / "s", tmp_path / encoding, encoding=encoding, sync=False)
        with Vector(vector.path).applied(model, 0.7):
            assert_state(model, wanted, encoding)
        assert_state(model, before, encoding)


def written_from(qwen: Path, root: Path) -> Tensors:
    """What loading the transfer's checkpoint gives."""
    transfer(qwen / "t", qwen / "g", qwen / "s", root / "out", alpha=0.7, sync=False)
    return state(load(root / "out", torch.bfloat16))
