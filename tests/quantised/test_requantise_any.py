"""Any shapes, blocks, scales and places of a target that is quantised again: bytes, figures, and refusals."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from families import FLOATS, generator, noise, write
from quantised.again import Unfit
from quantised.maker import BF16, E8M0, F32, U8, Maker, freed
from quantised.outcome import assert_outcome, outcome
from quantised.shared import FP8, INT4, MXFP4, base, compressed
from taskvec import TaskvecError, transfer

LAYOUTS: dict[str, Any] = {
    "blocks": {"quant_method": "fp8"},
    "rows": compressed("float-quantized", {**FP8, "strategy": "channel"}),
    "tensor": compressed("float-quantized", {**FP8, "strategy": "tensor"}),
    "MX": {"quant_method": "mxfp8"},
    "MXFP4": compressed("mxfp4-pack-quantized", MXFP4),
    "INT4": compressed("pack-quantized", INT4),
}


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    """A target, donors that are plain, and how to do it."""
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    unit = {"INT4": 8, "MX": 32, "MXFP4": 32}.get(layout, 1)
    make = Maker(layout, draw(st.integers(0, 99)), special=draw(st.booleans()))
    block = draw(st.tuples(st.sampled_from([1, 5, 32, 128]), st.sampled_from([16, 48, 128])))
    said = {"weight_block_size": [*block]} if layout == "blocks" else {}
    make.config = base("qwen3", 1, quantization_config={**LAYOUTS[layout], **said})
    scale = draw(st.sampled_from((*FLOATS, U8, E8M0) if layout == "blocks" else FLOATS))
    for at in range(draw(st.integers(1, 3))):
        rows = draw(st.one_of(st.integers(1, 70), st.sampled_from([128, 129, 300])))
        shape = [rows, unit * draw(st.integers(1, 9)) if unit > 1 else draw(st.integers(1, 300))]
        if not at and draw(st.integers(0, 3)) == 0:
            # Beyond the end of a window, with 4 bits too.
            shape = [draw(st.integers(1100, 1200)), unit * (2080 // unit) if unit > 1 else 1907]
        stem = f"model.layers.0.mlp.w{at}"
        deep = [2, *shape] if draw(st.booleans()) else shape
        match layout:
            case "blocks":
                make.fp8(f"{stem}.weight", deep, scale, block=block)
            case "rows":
                make.channel(f"{stem}.weight", deep, scale)
            case "tensor":
                make.tensor(f"{stem}.weight", shape, scale, "_scale", [1])
            case "MX":
                make.fp8(f"{stem}.weight", deep, draw(st.sampled_from([U8, E8M0])), block=(1, 32))
            case "MXFP4":
                make.mxfp4(f"{stem}.weight", deep, f"{stem}.weight_packed", f"{stem}.weight_scale")
            case _:
                make.int4(stem, shape)
    make.plain("model.norm.weight", [13])
    names = draw(st.permutations(list(make.stored)))
    ends = sorted(draw(st.sets(st.integers(1, len(names) - 1), max_size=2)))
    return {
        "make": make,
        "shards": [list(names[a:b]) for a, b in itertools.pairwise([0, *ends, len(names)])],
        # Rows of four-bit codes begin at whole bytes wherever the tensor does.
        "pad": draw(st.integers(0, 7)),
        "share": draw(st.sampled_from([0.0, 1e-3, 0.05, 1.0])),
        "size": draw(st.sampled_from([1e-4, 0.05, 10.0])),
        "alpha": draw(st.sampled_from([1.0, 0.7, -1e-3])),
        "scales": draw(st.sampled_from(["keep", "fresh"])),
        "seed": draw(st.sampled_from([None, 0, 5])),
        "how": {
            "threads": draw(st.integers(1, 3)),
            "io": draw(st.sampled_from(["mmap", "pread", "direct"])),
            "memory": draw(st.sampled_from(["64MiB", "1GiB"])),
        },
    }


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(jobs())
def test_any_target_is_quantised_again(job: dict[str, Any]) -> None:
    make: Maker = job["make"]
    rng = generator(("any", job["share"], job["size"]))
    g, s = make.plainly("g"), make.plainly("s")
    for name, one in g.items():
        some = torch.rand(one.shape, generator=rng) < job["share"]
        s[name] = torch.where(some, one + noise(one.shape, F32, rng, job["size"]).to(BF16), one)
    seed = job["seed"]
    chance: dict[str, Any] = {} if seed is None else {"rounding": "stochastic", "seed": seed}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths = [
            write(root / "t", make.stored, config=make.config, shards=job["shards"], pad=job["pad"]),
            *(write(root / role, one, config=freed(make.config)) for role, one in (("g", g), ("s", s))),
        ]

        def run() -> None:
            transfer(
                *paths, root / "out", alpha=job["alpha"], requantise=True, scales=job["scales"],
                sync=False, **chance, **job["how"],
            )  # fmt: skip

        try:
            wanted = outcome(make, [(g, s, job["alpha"])], mode=job["scales"], seed=seed)
        except Unfit:
            with pytest.raises(TaskvecError):
                run()
            return
        run()
        assert_outcome(root / "out", wanted)
