"""Small families that fit together or not, and what must be true of either."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import (
    CONFIG,
    Tensors,
    assert_tensors,
    generator,
    noise,
    read,
    write,
)
from taskvec import MismatchError, check, dry_run, transfer

if TYPE_CHECKING:
    from pathlib import Path

HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"
Config = dict[str, Any]


def tensors(seed: object, *extra: str, dtype: torch.dtype = torch.bfloat16) -> Tensors:
    rng = generator(seed)
    names = [EMBED, "model.layers.0.mlp.weight", "model.norm.weight", *extra]
    return {name: noise([6, 5] if name.endswith("d.weight") else [4, 3], dtype, rng) for name in names}


def tied(one: Tensors, first: bool = False) -> Tensors:
    """With the embedding's copy as a head, after or before it."""
    head = {HEAD: one[EMBED].clone()}
    return {**head, **one} if first else {**one, **head}


def place(tmp_path: Path, *family: Tensors, configs: tuple[Config | None, ...] = (CONFIG,) * 3) -> list[Path]:
    return [
        write(tmp_path / role, one, config=config)
        for role, one, config in zip("tgs", family, configs, strict=True)
    ]


def assert_refused(
    paths: list[Path], tmp_path: Path, tensor: str | None, says: str, file: str, **options: Any
) -> None:
    """`check`, a dry run and the writing verb all name the same file and tensor, and nothing is written."""
    before = sorted(tmp_path.rglob("*"))
    plan = check(*paths, **options)
    assert not plan.compatible
    assert (plan.problems[0].tensor, plan.problems[0].file) == (tensor, str(tmp_path / file))
    assert re.search(says, plan.problems[0].message), plan.problems[0].message
    out = tmp_path / "out"
    assert not dry_run.transfer(*paths, out, **options).compatible
    with pytest.raises(MismatchError, match=says) as raised:
        transfer(*paths, out, **options)
    message = str(raised.value)
    assert str(tmp_path / file) in message
    assert tensor is None or f"`{tensor}`" in message
    assert "\n" not in message
    assert sorted(tmp_path.rglob("*")) == before


def assert_fits(paths: list[Path], tmp_path: Path, wanted: Tensors, note: str = "", **options: Any) -> None:
    """`check` agrees, the output is what torch makes of it, and the report says what was passed through."""
    plan = check(*paths, **options)
    assert plan.compatible, plan.problems
    result = transfer(*paths, tmp_path / "out", **options)
    assert_tensors(read(tmp_path / "out"), wanted)
    for notes in (plan.notes, result.notes):
        assert not note or any(re.search(note, one) for one in notes), notes
    counts = result.tensors
    assert counts == plan.tensors
    assert counts.combined + counts.copied + counts.converted == len(wanted)
