"""Multi-token prediction keeps copies of embedding and head: where they are copies, they follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from families import read, write
from taskvec import MismatchError, check, transfer

if TYPE_CHECKING:
    from pathlib import Path

    from families import Tensors

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
COPIES = {
    "model.layers.2.embed_tokens.weight": EMBEDDING,
    "model.layers.2.shared_head.head.weight": HEAD,
}
ROWS, COLUMNS = 3000, 64
CONFIG = {"model_type": "deepseek_v3", "num_hidden_layers": 2, "num_nextn_predict_layers": 1}


def values(seed: int) -> Tensors:
    torch.manual_seed(seed)
    names = [EMBEDDING, HEAD, "model.layers.1.mlp.up_proj.weight"]
    return {name: torch.randn(ROWS, COLUMNS).bfloat16() for name in names}


def trio(root: Path, changed: str | None = None, at: int = 0) -> list[Path]:
    target, g, s = values(0), values(1), values(2)
    target |= {copy: target[of].clone() for copy, of in COPIES.items()}
    if changed is not None:
        target[changed].view(-1)[at] += 1
    target["model.layers.2.eh_proj.weight"] = torch.randn(8, 8).bfloat16()
    return [write(root / name, one, config=CONFIG) for name, one in (("t", target), ("g", g), ("s", s))]


def test_copies_follow_what_they_repeat(tmp_path: Path) -> None:
    folders = trio(tmp_path)
    assert any("that repeat the embedding or the head" in note for note in check(*folders).notes)
    transfer(*folders, tmp_path / "o", alpha=0.7)
    out, own = read(tmp_path / "o"), read(folders[0])
    for copy, of in COPIES.items():
        assert torch.equal(out[copy], out[of])
        assert not torch.equal(out[copy], own[copy])
    assert torch.equal(out["model.layers.2.eh_proj.weight"], own["model.layers.2.eh_proj.weight"])


@pytest.mark.parametrize("copy", COPIES)
def test_what_differs_is_copied_and_said(copy: str, tmp_path: Path) -> None:
    folders = trio(tmp_path, copy)
    assert any("that differ from the embedding or the head" in note for note in check(*folders).notes)
    transfer(*folders, tmp_path / "o", alpha=0.7)
    out, own = read(tmp_path / "o"), read(folders[0])
    assert torch.equal(out[copy], own[copy])
    (other,) = COPIES.keys() - {copy}
    assert torch.equal(out[other], out[COPIES[other]])


def test_what_differs_in_the_middle_alone_stops_the_run(tmp_path: Path) -> None:
    copy = next(iter(COPIES))
    folders = trio(tmp_path, copy, ROWS * COLUMNS // 2)
    with pytest.raises(MismatchError, match=f"tensor `{copy}` differs from `{EMBEDDING}`, .* leave it out"):
        transfer(*folders, tmp_path / "o", alpha=0.7)
    assert not (tmp_path / "o").exists()
    transfer(*folders, tmp_path / "o", alpha=0.7, exclude=[copy])
    assert torch.equal(read(tmp_path / "o")[copy], read(folders[0])[copy])


def test_copies_that_donors_have_get_their_own(tmp_path: Path) -> None:
    target, g, s = trio(tmp_path)
    copy = next(iter(COPIES))
    for donor, seed in ((g, 3), (s, 4)):
        write(donor, {**read(donor), copy: values(seed)[EMBEDDING]}, config=CONFIG)
    transfer(target, g, s, tmp_path / "o", alpha=0.7)
    wanted = values(0)[EMBEDDING].float() + 0.7 * (
        values(3)[EMBEDDING].float() - values(4)[EMBEDDING].float()
    )
    assert torch.equal(read(tmp_path / "o")[copy], wanted.bfloat16())
