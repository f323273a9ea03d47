"""What the tests of jobs in parts share: inputs of several files, and how outputs are compared."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import taskvec
from families import Tensors, files, generator, noise, nudged, read, write
from hostile import PARTIAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


SHARDS = 5
FIRST = "model-00001-of-00005.safetensors"
Inputs = tuple[Path, Path, Path]


def family(root: Path) -> tuple[Path, Path, Path]:
    """Target in five shards of different lengths, minuend and subtrahend cut in other ways."""
    rng = generator("parts")
    rows = (700, 30, 2000, 500, 1, 900, 1500, 64, 300, 1100, 250)
    target: Tensors = {
        f"model.layers.{at}.w": noise((count, 96), torch.bfloat16, rng) for at, count in enumerate(rows)
    }
    target["model.embed_tokens.weight"] = noise((4000, 96), torch.bfloat16, rng)
    target["model.ids"] = torch.arange(1000)
    s = {name: nudged(one, rng) for name, one in target.items() if one.is_floating_point()}
    g = {name: nudged(one, rng) for name, one in s.items()}
    donors = [write(root / "g", g, shards=2), write(root / "s", s, shards=1)]
    made = write(root / "t", target, shards=SHARDS)
    (made / "tokenizer.json").write_text('{"model": {}}')
    (made / "sub").mkdir()
    (made / "sub" / "code.py").write_text("pass\n")
    return made, donors[0], donors[1]


def assert_equal(out: Path, single: Path) -> None:
    """Every file of both folders is the same, and nothing else is there."""
    found, wanted = files(out), files(single)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert not (out / PARTIAL).exists()


def run_all(job: taskvec.Job, order: Iterable[int] | None = None, **how: Any) -> None:
    """Runs all parts, by default in an odd order that is always the same."""
    parts = list(range(job.parts))
    random.Random(job.parts).shuffle(parts)
    for part in order or parts:
        assert not job.run(part, **how).already


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a JSON file."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def record(job: taskvec.Job, part: int) -> Path:
    """The record of a part."""
    return Path(job.folder) / "parts" / f"part-{part:05}.json"


def staged(out: Path, name: str) -> Path:
    """A weight file that is not in place yet."""
    return out / PARTIAL / "files" / name


def all_of(*folders: Path) -> list[Tensors]:
    """The tensors of several folders."""
    return [read(folder) for folder in folders]


def planned(inputs: Inputs, root: Path, parts: int = SHARDS, **more: Any) -> taskvec.Job:
    return taskvec.plan("transfer", *inputs, out=root / "out", parts=parts, job=root / "job", **more)


def finish(job: taskvec.Job, tmp_path: Path, single: Path) -> None:
    """Whatever went wrong, the job can be brought to its end."""
    for part in job.status().missing_parts:
        job.run(part)
    job.commit()
    assert_equal(tmp_path / "out", single)
