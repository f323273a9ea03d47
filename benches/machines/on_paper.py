"""What one job on several machines would take, computed from the links alone: nothing here was measured.

A transfer reads three inputs and writes one output. Links send and receive at the same time, so the longer of
the two decides. A part is a run of whole files, and the node with the most files ends last. Left out: the
processor, the file system behind the links, starting up, and the commit, which reads headers only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PARAMETERS = 671e9
FILES = 163
NODES = (1, 8, 64)
LINKS = (12.5e9, 100e9)
"""Bits a second."""
BF16 = 2.0
"""Bytes for a parameter."""
FP8 = 1.03
"""The same with the scales, and with what is not quantised."""


@dataclass(frozen=True)
class Model:
    """What is read and written, in bytes for a parameter."""

    name: str
    read: float
    write: float


MODELS = (
    Model("BF16 in and out", 3 * BF16, BF16),
    Model("FP8 in, BF16 out", 3 * FP8, BF16),
)


def share(nodes: int) -> float:
    """The part of the output that the busiest node writes, where all files are equal."""
    return math.ceil(FILES / nodes) / FILES


def seconds(model: Model, nodes: int, link: float) -> float:
    """How long the busiest node reads or writes."""
    return max(model.read, model.write) * PARAMETERS * share(nodes) * 8 / link


def shown(time: float) -> str:
    """A time as a person says it."""
    return f"{time / 60:.1f} min" if time >= 90 else f"{time:.0f} s"


def table() -> str:
    """The table in Markdown."""
    heads = "".join(f" {nodes} node{'s' if nodes > 1 else ''} |" for nodes in NODES)
    lines = [f"| 671B in {FILES} files | link of each node |{heads}", "|---|---|" + "---|" * len(NODES)]
    for model in MODELS:
        for link in LINKS:
            times = "".join(f" {shown(seconds(model, nodes, link))} |" for nodes in NODES)
            lines.append(f"| {model.name} | {link / 1e9:g} Gbit/s |{times}")
    busy = "".join(f" {1 / (nodes * share(nodes)):.0%} |" for nodes in NODES)
    lines.append(f"| busy, on average | |{busy}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
