"""Streamed donors whose experts are stored otherwise than the target's: their ranges jump to and fro."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from families import read, weights, write
from moe import MOE, fused, separate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer
    from hubserver import Hub


@pytest.mark.parametrize("target", ["one by one", "fused"])
def test_streamed_experts(target: str, hub: Hub, taskvec: Callable[..., Answer], tmp_path: Path) -> None:
    for role in "tgs":
        one = separate(role, experts=4, inner=500, hidden=601)
        one = fused(one) if (role == "t") == (target == "fused") else one
        write(tmp_path / role, one, shards=2, config=MOE)
    for role in "gs":
        hub.publish(f"lab/{role}", tmp_path / role)
    answer = taskvec("transfer", "t", "g", "s", "-o", "local", "--alpha", "0.5", "--no-sync")
    assert answer.code == 0, answer.stderr
    for at, more in enumerate(((), ("--memory", "36MiB", "--threads", "1"))):
        words = ("transfer", "t", "lab/g", "lab/s", "--stream", "--alpha", "0.5", "--no-sync", *more)
        answer = taskvec(*words, "-o", f"streamed-{at}", **hub.env(tmp_path / "home"))
        assert answer.code == 0, answer.stderr
        assert weights(tmp_path / f"streamed-{at}") == weights(tmp_path / "local")
    assert read(tmp_path / "local").keys() == read(tmp_path / "t").keys()
