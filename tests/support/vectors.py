"""What a vector holds, read without taskvec from either encoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from families import Tensors, assert_same, manifest
from packed.reader import read_packed

if TYPE_CHECKING:
    from pathlib import Path

ENCODINGS = ("packed", "dense")


def exact(folder: Path) -> Tensors:
    """Every tensor in float32, without loss."""
    if manifest(folder)["vector"]["encoding"] == "packed":
        return {name: torch.from_numpy(values) for name, values in read_packed(folder).items()}
    return exact_of_dense(folder)


def exact_of_dense(folder: Path) -> Tensors:
    """The vector as a reader of plain safetensors gets it back, exceptions put in their places."""
    found: Tensors = {}
    for file in sorted(folder.glob("vector*.safetensors")):
        if not file.name.startswith("vector-exceptions"):
            found |= load_file(file)
    values = {name: tensor.float() for name, tensor in found.items()}
    if (folder / "vector-exceptions.safetensors").exists():
        exceptions = load_file(folder / "vector-exceptions.safetensors")
        for name in {name.rpartition(".")[0] for name in exceptions}:
            index, value = exceptions[name + ".index"], exceptions[name + ".value"]
            assert (index.dtype, value.dtype) == (torch.int64, torch.float32)
            assert (index[1:] > index[:-1]).all()
            # Only what bfloat16 cannot hold is an exception.
            assert (value.bfloat16().float() != value).all()
            flat = values[name].reshape(-1)
            assert_same(value.bfloat16().float(), flat[index])
            flat[index] = value
    return values
