"""The random control: noise of v's norms, as an ordinary vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import taskvec
from families import write
from taskvec import randomize
from vectors import exact

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def vector(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("control") / "v"
    taskvec.extract(family / "grpo", family / "sft", out)
    return out


def test_each_tensor_has_the_norm_of_v_and_nothing_else_of_it(vector: Path, tmp_path: Path) -> None:
    made = randomize(vector, tmp_path / "r", seed=1)
    ours, theirs = exact(vector), exact(tmp_path / "r")
    dtypes = [{one.name: one.dtype for one in taskvec.inspect(one).tensors} for one in (vector, made)]
    assert dtypes[0] == dtypes[1]
    assert made.path == str(tmp_path / "r")
    assert list(ours) == list(theirs)
    for name, v in ours.items():
        r = theirs[name]
        assert r.shape == v.shape
        v, r = v.double().flatten(), r.double().flatten()
        assert float(r.norm()) == pytest.approx(float(v.norm()), rel=3e-3), name
        if v.norm():
            # Independent directions: the cosine's standard deviation is 1 / sqrt(n).
            assert abs(float(v @ r / v.norm() / r.norm())) < 5 / len(v) ** 0.5, name
    embedding = theirs["model.embed_tokens.weight"].double().flatten()
    bell = torch.sort(embedding / embedding.std()).values
    normal = torch.distributions.Normal(0.0, 1.0)
    wanted = normal.icdf((torch.arange(len(bell), dtype=torch.float64) + 0.5) / len(bell))
    assert float((bell - wanted)[100:-100].abs().max()) < 0.1


def test_a_seed_gives_the_same_bytes_and_another_seed_others(vector: Path, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        randomize(vector, tmp_path / folder, seed=seed)
    a, b, c = ((tmp_path / folder / "vector.safetensors").read_bytes() for folder in "abc")
    assert a == b
    assert a != c


def test_it_is_a_vector_like_any_other(vector: Path, family: Path, tmp_path: Path) -> None:
    control = randomize(vector, tmp_path / "r", seed=3)
    assert taskvec.verify(control).ok
    assert taskvec.check(family / "instruct", control).compatible
    done = taskvec.apply(family / "instruct", control, tmp_path / "out")
    assert done.effect.norm_v == pytest.approx(taskvec.Vector(vector).info["effect"]["norm_v"], rel=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "r"]


def test_f32_vectors_and_tensors_that_v_leaves_alone(tmp_path: Path) -> None:
    base = {"a": torch.zeros(40, 30), "same": torch.ones(50), "empty": torch.zeros(0, 4)}
    moved = {**base, "a": torch.linspace(-1, 1, 1200).reshape(40, 30)}
    write(tmp_path / "s", base)
    write(tmp_path / "g", moved)
    taskvec.extract(tmp_path / "g", tmp_path / "s", tmp_path / "v")
    randomize(tmp_path / "v", tmp_path / "r", seed=0)
    control = exact(tmp_path / "r")
    assert {one.dtype for one in taskvec.inspect(tmp_path / "r").tensors} == {"F32"}
    assert float(control["a"].double().norm()) == pytest.approx(float(moved["a"].double().norm()), rel=1e-6)
    assert not control["same"].any()
    assert control["empty"].shape == (0, 4)


def test_what_cannot_be_matched_is_refused(tmp_path: Path, vector: Path) -> None:
    write(tmp_path / "s", {"a": torch.zeros(4)})
    write(tmp_path / "g", {"a": torch.tensor([1.0, float("nan"), 0.0, 0.0])})
    taskvec.extract(tmp_path / "g", tmp_path / "s", tmp_path / "v")
    with pytest.raises(taskvec.MismatchError, match=r"tensor a of .* comes from NaN or Inf"):
        randomize(tmp_path / "v", tmp_path / "r", seed=0)
    with pytest.raises(taskvec.UsageError, match="seed -1 is not a whole number"):
        randomize(vector, tmp_path / "r", seed=-1)
    assert not (tmp_path / "r").exists()
