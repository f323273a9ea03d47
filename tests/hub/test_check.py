"""What the preflight of a very large checkpoint moves and asks: headers, indexes and configs, no more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hubserver.huge import SHARDS, write_huge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer
    from hubserver import Hub, Request


def test_a_671b_check_moves_little(hub: Hub, taskvec: Callable[..., Answer], tmp_path: Path) -> None:
    sizes = []
    for number, name in enumerate(("target", "minuend", "subtrahend")):
        sizes.append(write_huge(tmp_path / name, salt=number))
        hub.publish(f"big/{name}", tmp_path / name, digests="made up")
    assert sum(sizes) > 3.5e12
    hub.clear_log()
    answer = taskvec(
        "check", "big/target", "big/minuend", "big/subtrahend", "--json", **hub.env(tmp_path / "home")
    )
    asked = hub.requests()
    plan = json.loads(answer.stdout)
    # The tokenizers differ in five tokens, and the disk is too small; the shapes fit.
    assert [one["bytes"] for one in plan["inputs"]] == sizes
    assert plan["download"]["bytes"] > sum(sizes)
    for name in ("target", "minuend", "subtrahend"):
        ours = [one for one in asked if f"big/{name}/" in one.path]
        assert sum(one.sent for one in ours) < 50e6
        shards = [one for one in ours if one.path.endswith(".safetensors")]
        assert len(shards) <= 2 * SHARDS
        assert len(ours) - len(shards) <= 12
    assert threads_at_once(asked) <= 16


def threads_at_once(asked: list[Request]) -> int:
    """The most requests under way at one moment."""
    moments = sorted(
        [(one.begun, 1) for one in asked] + [(one.ended, -1) for one in asked if one.ended is not None]
    )
    most = now = 0
    for _, step in moments:
        now += step
        most = max(most, now)
    return most
