"""advise: the figures of every α are those of the run that it stands for, and the words follow from them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import generator, manifest, noise, write
from taskvec import (
    CorruptError,
    MismatchError,
    StorageError,
    UsageError,
    advise,
    apply,
    check,
    extract,
    transfer,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer

NAMES = [
    "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight",
    "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.experts.1.w", "something.else",
    "model.layers.0.input_layernorm.weight", "model.norm.weight",
]  # fmt: skip
GROUPS = {"embedding": 1, "attention": 1, "mlp": 2, "norm": 2, "head": 1, "other": 1}


@pytest.fixture
def trio(tmp_path: Path) -> list[Path]:
    """bf16 checkpoints of several windows, whose donors differ by few units of the last place."""
    rng = generator("advise")
    size = 300_000
    s = {name: noise([size], torch.float32, rng) * 0.02 for name in NAMES}
    g = {name: one * (1 + 0.004 * (torch.rand(size, generator=rng) < 0.3)) for name, one in s.items()}
    t = {name: noise([size], torch.float32, rng) * 0.02 for name in [*NAMES, "only.here"]}
    g["model.norm.weight"] = s["model.norm.weight"]
    return [
        write(tmp_path / role, {name: value.to(torch.bfloat16) for name, value in one.items()})
        for role, one in (("t", t), ("g", g), ("s", s))
    ]


@pytest.mark.parametrize(
    "options", [{}, {"dtype": "f16"}, {"exclude": ["mlp"], "memory": "16MiB", "threads": 1}]
)
def test_the_figures_are_those_of_the_runs(trio: list[Path], options: dict[str, Any], tmp_path: Path) -> None:
    found = advise(*trio, alphas=["0.3", -1, 2.5], seed=7, **options)
    assert [(one.alpha, one.rounding) for one in found.variants] == [
        (alpha, rounding) for alpha in ("0.3", "-1.0", "2.5") for rounding in ("nearest", "stochastic")
    ]
    for one in found.variants:
        out = tmp_path / f"out{one.alpha}{one.rounding}"
        transfer(*trio, out, alpha=one.alpha, rounding=one.rounding, seed=7, **options)  # type: ignore[arg-type]
        expected = manifest(out)["effect"]
        for name, figure in expected.items():
            ours = getattr(one.effect, name)
            # Sums of windows that are cut elsewhere, with another budget, round differently in f64.
            assert ours == (pytest.approx(figure, rel=1e-12) if isinstance(figure, float) else figure), name
    left = {name: count for name, count in GROUPS.items() if "exclude" not in options or name != "mlp"}
    if "dtype" not in options:
        assert {group.name: group.tensors for group in found.variants[0].groups} == left


def test_a_vector_gives_the_same(trio: list[Path], tmp_path: Path) -> None:
    vector = extract(*trio[1:], tmp_path / "v")
    one, two = (advise(trio[0], *donors, alphas="0.5,1") for donors in (trio[1:], [vector]))
    assert one.variants == two.variants
    apply(trio[0], vector, tmp_path / "out", alpha=0.5)
    assert manifest(tmp_path / "out")["effect"]["gain"] == pytest.approx(
        two.variants[0].effect.gain, rel=1e-12
    )


def test_in_f32_nothing_is_rounded(trio: list[Path]) -> None:
    found = advise(*trio, alphas=[0.01], dtype="f32")
    assert [one.rounding for one in found.variants] == ["nearest"]
    assert found.variants[0].effect.gain == pytest.approx(1, abs=1e-5)
    assert found.sentences == (
        "Rounded to nearest, the effective gain is within 5 % of 1 at each of these α (1.000).",
    )


def test_the_words(trio: list[Path], tmp_path: Path, taskvec: Callable[..., Answer]) -> None:
    # Steps of half a unit in the last place of the target, and less, are lost; whole ones are not.
    t = write(tmp_path / "ones", {"w": torch.full([4000], 1.0, dtype=torch.bfloat16)})
    g = write(tmp_path / "more", {"w": torch.full([4000], 1 + 2**-7, dtype=torch.bfloat16)})
    answer = taskvec("advise", t, g, t, "--alphas", "0.25,1,2")
    assert answer.code == 0
    lines = answer.stdout.splitlines()
    assert lines[1].split() == ["0.25", "nearest", "all", "0.000", "-", "0.00%", "0.00%"]
    assert (
        lines[-4]
        == "Rounded to nearest, the effective gain is more than 5 % off at 1 of 3 α: 0.000 at α = 0.25."
    )
    assert lines[-3] == (
        "Of the α tried, those from |α| = 1 on are within 5 %; others between them may not be."
    )
    assert lines[-2].startswith("--rounding stochastic brings the gain to ")
    assert lines[-1] == "--dtype f32 loses far less, at twice the size."
    groups = taskvec("advise", t, g, t, "--alphas", "1", "--verbose").stdout.splitlines()
    assert groups[2].split()[0] == "other"
    document = json.loads(taskvec("advise", t, g, t, "--json").stdout)
    assert (document["schema"], len(document["variants"])) == ("taskvec/advice/1", 12)
    zero = advise(t, t, t, alphas=[1])
    assert zero.sentences == ()
    assert "0 everywhere" in zero.warnings[0]


def test_nothing_is_written(trio: list[Path], tmp_path: Path) -> None:
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    advise(*trio)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("alphas", "options", "words"),
    [
        ([0], {}, "alpha 0.0 changes nothing; leave it out"),
        ("", {}, "alpha '' is not a number"),
        ([], {}, "the list of alphas is empty"),
        ("1,x", {}, "alpha 'x' is not a number"),
        ("1", {"rounding": "nearest"}, "rounding is for checkpoints that are written"),
        ("1", {"alpha_rules": ["w=1"]}, "alpha_rules is for checkpoints that are written"),
        ("1", {"include": ["nothing"]}, "matches no tensor"),
    ],
)
def test_what_makes_no_sense(trio: list[Path], alphas: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        advise(*trio, alphas=alphas, **options)


def test_donors_that_are_not_a_pair_or_a_vector(trio: list[Path], tmp_path: Path) -> None:
    vector = extract(*trio[1:], tmp_path / "v")
    for donors in ([], trio[1:2], [vector, vector], [*trio[1:], trio[1]], [trio[1], vector]):
        with pytest.raises(UsageError, match="give a target with a minuend and a subtrahend"):
            advise(trio[0], *donors)
    other = write(tmp_path / "other", {"w": torch.ones(3)})
    with pytest.raises(MismatchError):
        advise(other, *trio[1:])
    shard = trio[1] / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CorruptError):
        advise(*trio)


def test_the_figures_are_part_of_the_budget(tmp_path: Path) -> None:
    tensors = {f"t{number}": torch.ones(2) * number for number in range(2000)}
    paths = [write(tmp_path / role, tensors) for role in "tgs"]
    least = check(*paths).memory.least
    alphas = [1 + number / 64 for number in range(64)]
    with pytest.raises(UsageError, match="is too little for these inputs"):
        advise(*paths, alphas=alphas, memory=least)
    # Of 64 α with two roundings: some 18 MB more.
    assert len(advise(*paths, alphas=alphas, memory=least + (20 << 20)).variants) == 64


def test_what_is_not_finite_is_said(trio: list[Path], tmp_path: Path) -> None:
    found = advise(*trio, alphas=[0.5, 1e38], dtype="f16")
    assert found.sentences[0].startswith("There is no finite change to measure at α = 1e+38")
    assert "would overflow to Inf or NaN: " in found.warnings[0]
    assert " at α = 1e+38" in found.warnings[0]
    written = transfer(*trio, tmp_path / "out", alpha=1e38, dtype="f16").warnings
    assert not any("is 0 everywhere" in one for one in written)
    weights = {"w": torch.tensor([1.0, float("inf")])}
    odd = [
        write(tmp_path / f"odd-{role}", weights if role == "g" else {"w": torch.ones(2)}) for role in "tgs"
    ]
    assert advise(*odd, alphas=1).warnings == (
        "1 element(s) are Inf or NaN in an input; the figures are of the others",
    )


def test_a_wrong_path_and_odd_lists(trio: list[Path]) -> None:
    for verb in (advise, check):
        with pytest.raises(StorageError, match="nowhere"):
            verb(trio[0], "./nowhere")
    assert advise(*trio, alphas=2.0).variants[0].alpha == "2.0"
    for odd in ([None], [[1]]):
        with pytest.raises(UsageError, match="is not a number"):
            advise(*trio, alphas=odd)  # type: ignore[arg-type]
