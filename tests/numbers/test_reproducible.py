"""The same bytes for any thread count, budget, way of reading and instruction set."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import (
    BLOCK,
    FLOATS,
    OUTPUTS,
    all_combined,
    assert_tensors,
    files,
    generator,
    least_memory,
    noise,
    nudged,
    read,
    write,
)
from taskvec import UsageError, transfer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A family of several windows: a tensor of 9 blocks, many small ones, three types, three layouts."""
    rng = generator("wide")
    shapes = {"embed": (1 << 20, 5), "norm": (77,), "one": (), "none": (0, 4)}
    shapes |= {f"layers.{at}.w": (at * 37 % 101, 29) for at in range(60)}
    shapes |= {f"layers.{at}.up": (1 << 17, 3) for at in range(2)}
    types = dict(zip(shapes, itertools.cycle(FLOATS), strict=False)) | {"embed": torch.bfloat16}
    s = {name: noise(shape, types[name], rng) for name, shape in shapes.items()}
    g = {name: nudged(tensor, rng) for name, tensor in s.items()}
    t = {name: noise(shape, torch.bfloat16, rng) for name, shape in shapes.items()}
    for tensors in (t, g, s):
        tensors["embed"][::1000, 0] = math.nan
    root = tmp_path_factory.mktemp("wide")
    names = list(shapes)
    return [
        write(root / "t", t, shards=3, pad=3),
        write(root / "g", g, shards=[names[::-1]], pad=5),
        write(root / "s", s, shards=2),
    ]


VARIANTS: list[dict[str, Any]] = [
    {"threads": 1},
    {"threads": 2},
    {"threads": 7},
    {"io": "mmap", "threads": 2},
    {"io": "pread", "threads": 2},
    {"io": "direct", "threads": 2},
    {"memory": "16MiB", "threads": 7},
    {"memory": "64MiB", "threads": 1},
    {"memory": "1GiB", "threads": 2},
    {"memory": "least", "threads": 1},
    {"memory": "least", "threads": 7, "io": "pread"},
    {"memory": "least", "threads": 2, "io": "direct"},
    {"simd": "scalar"},
    {"simd": "scalar", "threads": 7, "memory": "least", "io": "pread"},
    {"sync": True},
    {"sync": True, "io": "direct", "memory": "16MiB"},
    {"sha256": False, "resume": False},
]


@pytest.mark.parametrize("recipe", [{}, {"rounding": "stochastic", "seed": 3}, {"dtype": "f32"}])
def test_the_same_bytes_however_the_work_is_split(
    recipe: dict[str, Any], wide: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"alpha": 0.7, "sync": False, **recipe}
    transfer(*wide, tmp_path / "first", **recipe)
    wanted = files(tmp_path / "first")
    assert "taskvec.json" in wanted
    if "rounding" not in recipe:
        family = [read(path) for path in wide]
        out = OUTPUTS.get(recipe.get("dtype", ""))
        assert_tensors(read(tmp_path / "first"), all_combined(*family, 0.7, out))
    for variant in VARIANTS:
        options = {**recipe, **variant}
        simd = options.pop("simd", "")
        monkeypatch.setenv("TASKVEC_SIMD", simd)
        least = options.get("memory") == "least"
        if least:
            with pytest.raises(UsageError, match="least that works") as refused:
                transfer(*wide, tmp_path / "again", **{**options, "memory": "64KiB"})
            options["memory"] = least_memory(str(refused.value))
        engine = transfer(*wide, tmp_path / "again", overwrite=True, **options).engine
        # That the run was another one, and not the same under another name.
        assert engine.simd == (simd or engine.simd)
        assert engine.io == options.get("io", engine.io)
        assert not least or (engine.windows, engine.window_bytes) == (1, BLOCK)
        found = files(tmp_path / "again")
        assert found.keys() == wanted.keys(), variant
        assert not [name for name in found if found[name] != wanted[name]], variant
