"""A family on the tests' Hub, as people keep theirs: sharded differently, one repository with both donors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from families import TIED, Tensors, generator, write

if TYPE_CHECKING:
    from pathlib import Path

    from hubserver import Hub

TARGET, DONORS = "lab/instruct", "lab/donors"
REFS = (TARGET, f"{DONORS}:grpo", f"{DONORS}@main:sft")
"""Target, minuend and subtrahend."""
CARD = "---\nlicense: apache-2.0\nlanguage: en\n---\n\n# Instruct\n"


@dataclass(frozen=True)
class Published:
    """Where the folders lie here, and the commits under which the Hub has them."""

    target: Path
    minuend: Path
    subtrahend: Path
    commits: tuple[str, str]

    @property
    def folders(self) -> tuple[Path, Path, Path]:
        """Target, minuend and subtrahend."""
        return self.target, self.minuend, self.subtrahend


def tensors(seed: str, rows: int = 640) -> Tensors:
    """Some megabytes in tensors large and small; with an odd one."""
    made = generator(seed)
    shapes = {
        "model.embed_tokens.weight": (rows, 512), "model.layers.0.mlp.up_proj.weight": (2048, 512),
        "model.layers.0.mlp.down_proj.weight": (512, 2048), "model.layers.1.mlp.up_proj.weight": (2048, 512),
        "model.norm.weight": (511,), "model.layers.1.mlp.down_proj.weight": (512, 2048),
    }  # fmt: skip
    return {name: torch.randn(shape, generator=made).bfloat16() for name, shape in shapes.items()}


def publish(hub: Hub, root: Path, *, shards: tuple[int, int, int] = (3, 1, 2)) -> Published:
    """Writes the family below `root` and publishes it."""
    parts = [
        write(root / name, tensors(name), shards=count, config=TIED)
        for name, count in zip(("instruct", "donors/grpo", "donors/sft"), shards, strict=True)
    ]
    (parts[0] / "README.md").write_text(CARD)
    (parts[0] / "chat_template.jinja").write_text("{{ messages }}")
    (parts[0] / "pytorch_model.bin").write_bytes(b"\x80\x02stale")
    for part in parts:
        (part / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}')
    commits = hub.publish(TARGET, root / "instruct"), hub.publish(DONORS, root / "donors")
    return Published(*parts, commits)
