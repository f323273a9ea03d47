"""Small checkpoints, merged by the core as documents say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from taskvec import _core
from taskvec.options import Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from merge_formulas import Array

Tensors = dict[str, torch.Tensor]
SHAPES: dict[str, tuple[int, ...]] = {"a.37": (37,), "b.64x48": (64, 48), "c.96x257": (96, 257), "d.1": (1,)}


def write(folder: Path, tensors: Mapping[str, torch.Tensor], shards: int = 1, **config: Any) -> Path:
    """A checkpoint folder with a config, in one file or in shards."""
    folder.mkdir(parents=True)
    whole = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "torch_dtype": "bfloat16", **config})
    )
    if shards == 1:
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = list(whole)
    where: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        mine = names[shard::shards]
        save_file({name: whole[name] for name in mine}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(mine, file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def models(
    root: Path,
    count: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    kept: float = 0.0,
    size: float = 1e-3,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
) -> tuple[list[Path], list[Tensors]]:
    """A base and `count` models near to it; the base comes last. `kept` is the share of unchanged weights."""
    rng = torch.Generator().manual_seed(seed)

    def random(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=rng)

    base = {name: (random(shape) * 0.02).to(dtype) for name, shape in shapes.items()}
    made: list[Tensors] = []
    for _ in range(count):
        model = {}
        for name, tensor in base.items():
            change = random(tensor.shape) * size
            change[torch.rand(tensor.shape, generator=rng) < kept] = 0
            model[name] = (tensor.float() + change).to(dtype)
        made.append(model)
    made.append(base)
    return [write(root / f"in{number}", tensors) for number, tensors in enumerate(made)], made


def document(
    method: str,
    inputs: Sequence[Tensors],
    *,
    base: int | None = None,
    shared: Mapping[str, Any] | None = None,
    each: Sequence[Mapping[str, Any] | None] | None = None,
    tensors: Sequence[Mapping[str, Any]] | None = None,
    **members: Any,
) -> dict[str, Any]:
    """A document that merges the tensors of the last input under their own names."""
    whole = [{"name": name, "from": [True] * len(inputs), "settings": 0} for name in inputs[-1]]
    return {
        "method": method,
        "base": base,
        "work_dtype": None,
        "out_dtype": None,
        "seed": 0,
        "settings": [{"shared": dict(shared or {}), "each": list(each or [None] * len(inputs))}],
        "tensors": whole if tensors is None else list(tensors),
        "sidecars_from": len(inputs) - 1,
        "config_edits": None,
        **members,
    }


def check(folders: Sequence[Path], doc: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    return json.loads(_core.check_merge(folders, json.dumps(doc), None, Options(**options)))


def merge(folders: Sequence[Path], doc: Mapping[str, Any], out: Path, **options: Any) -> dict[str, Any]:
    """Writes the merge and returns the core's answer."""
    options.setdefault("sync", False)
    return json.loads(_core.merge(folders, json.dumps(doc), str(out), Options(**options), "card", None))


def loaded(out: Path) -> Tensors:
    """All tensors of a folder, as safetensors reads them."""
    return {name: t for file in sorted(out.glob("*.safetensors")) for name, t in load_file(file).items()}


def values(tensor: torch.Tensor) -> Array:
    return tensor.float().numpy()


def close(ours: torch.Tensor, right: Array, scale: Array, relative: float) -> None:
    """Compared with the largest of the values that went in, because a result near 0 says nothing."""
    assert ours.shape == right.shape
    error = np.abs(values(ours).astype(np.float64) - right.astype(np.float64))
    assert (error <= relative * np.abs(scale) + 1e-30).all(), (error / np.abs(scale)).max()


_SCRIPT = """
import json, sys
from taskvec import _core
from taskvec.options import Options
folders, document, out, options = json.loads(sys.stdin.read())
print(_core.merge(folders, json.dumps(document), out, Options(**options), "card", None))
"""


def started(
    folders: Sequence[Path], doc: Mapping[str, Any], out: Path, **options: Any
) -> subprocess.Popen[str]:
    """A merge in a process of its own, at a quarter of the usual speed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TASKVEC_SIMD": "scalar"},
    )
    assert process.stdin
    job = [[str(folder) for folder in folders], doc, str(out), {"sync": False, **options}]
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    process.stdin = None
    return process
