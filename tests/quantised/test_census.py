"""The miniatures of very large checkpoints have the tensors of the real ones, and are sound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from safetensors import safe_open

from families import read
from quantised.census import DeepSeek, Kimi, deepseek_v3, kimi_k3
from quantised.maker import E4M3, in_file_order
from quantised.miniature import header, shards, write_deepseek, write_kimi_k3
from quantised.values import e2m1, spread

if TYPE_CHECKING:
    from pathlib import Path

    from quantised.census import Entry


def sizes(entries: list[Entry]) -> tuple[int, int, int]:
    """The bytes of codes, of scales and of all else."""
    scales = sum(entry.size for entry in entries if entry.scale)
    codes = sum(entry.size for entry in entries if entry.dtype in ("F8_E4M3", "U8") and not entry.scale)
    return codes, scales, sum(entry.size for entry in entries) - codes - scales


def test_deepseek_v3_has_the_published_number_of_bytes() -> None:
    real = DeepSeek()
    stored = list(deepseek_v3(real))
    plain = list(deepseek_v3(real, plain=True))
    assert (len(stored), len(plain)) == (91_991, 46_183)
    assert sizes(stored) == (680_571_043_840, 166_161_984, 7_837_633_536)
    assert sum(entry.size for entry in plain) == 1_368_979_721_216
    assert sum(entry.size for entry in deepseek_v3(real, plain=True, mtp=False)) == 1_342_052_868_096
    # What the published weight files have beside the data is 163 headers.
    headers = sum(len(header(part)) for part in shards(stored, 163))
    assert headers == pytest.approx(688_586_727_753 - sum(sizes(stored)), rel=0.05)


def test_kimi_k3_has_the_published_number_of_tensors() -> None:
    stored = list(kimi_k3(Kimi()))
    assert len(stored) == 497_052
    assert sum(entry.scale for entry in stored) == 247_296
    assert len(list(kimi_k3(Kimi(), plain=True))) == 249_756


def test_names_are_told_apart_and_lie_as_the_library_writes_them() -> None:
    small = DeepSeek().small()
    for stored in (list(deepseek_v3(small)), list(kimi_k3(Kimi(layers=6, experts=5)))):
        parts = shards(stored, 7)
        assert len({entry.name for entry in stored}) == len(stored) == sum(map(len, parts))
        where = {entry.name: at for at, part in enumerate(parts) for entry in part}
        apart = [
            name
            for name, at in where.items()
            if (name.endswith("_scale_inv") and where[name.removesuffix("_scale_inv")] != at)
            or (name.endswith("_scale") and where[name.removesuffix("scale") + "packed"] != at)
        ]
        assert apart


def test_a_small_deepseek_is_sound(tmp_path: Path) -> None:
    small = DeepSeek(layers=4, experts=3).small()
    target, minuend, subtrahend = write_deepseek(tmp_path, small, count=5)
    for folder in (target, minuend, subtrahend):
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                assert {name for name, at in index["weight_map"].items() if at == path.name} == {*file.keys()}
            part = read(folder, path.name)
            assert list(part) == in_file_order(part)
    tensors, one, other = read(target), read(minuend), read(subtrahend)
    assert one.keys() == other.keys() == {entry.name for entry in deepseek_v3(small, plain=True, mtp=False)}
    assert any(".layers.4." in name for name in tensors)
    for name, codes in tensors.items():
        if codes.dtype == E4M3:
            values = codes.float() * spread(tensors[f"{name}_scale_inv"], (128, 128), codes.shape)
            assert values.isfinite().all()
            assert 0 < values.abs().max() < 1
        if name in one:
            assert one[name].shape == codes.shape
    # A fifth of the values moves, by one step.
    name = "model.layers.3.mlp.experts.2.up_proj.weight"
    assert 0.1 < (one[name] != other[name]).float().mean() < 0.3


@pytest.mark.parametrize("donors", ["bf16", "mxfp4"])
def test_a_small_kimi_is_sound(donors: str, tmp_path: Path) -> None:
    small = Kimi(layers=5, experts=3)
    target, minuend, subtrahend = write_kimi_k3(tmp_path, small, count=3, donors=donors)
    one, other = read(minuend), read(subtrahend)
    assert one.keys() == other.keys()
    assert (one.keys() == read(target).keys()) == (donors == "mxfp4")
    stem = "language_model.model.layers.4.block_sparse_moe.experts.2.w2.weight"
    if donors == "mxfp4":
        values = [e2m1(part[f"{stem}_packed"]) for part in (one, other)]
        scales = [part[f"{stem}_scale"] for part in (one, other)]
        assert (scales[0] == scales[1]).all()
        one[stem], other[stem] = (
            each * spread(scale, (1, 32), each.shape) for each, scale in zip(values, scales, strict=True)
        )
    assert one[stem].shape == (64, 32)
    assert 0.05 < (one[stem] != other[stem]).float().mean() < 0.3
    assert one[stem].abs().max() < 2


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    small = DeepSeek(layers=1, experts=1, dense=1, mtp=0).small()
    one, two, three = (
        write_deepseek(tmp_path / str(at), small, count=2, donors="fp8", seed=seed)
        for at, seed in enumerate((0, 0, 1))
    )
    for at, folder in enumerate(one):
        assert [path.read_bytes() for path in sorted(folder.iterdir())] == [
            path.read_bytes() for path in sorted(two[at].iterdir())
        ]
        assert any(
            path.read_bytes() != (three[at] / path.name).read_bytes() for path in folder.glob("*.safetensors")
        )
