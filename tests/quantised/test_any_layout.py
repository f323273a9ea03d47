"""Any shapes, blocks, orders and places: each input quantised in a way of its own, or not at all."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from families import FLOATS, OUTPUTS, Tensors, assert_tensors, combined, read, write
from quantised.maker import BF16, E8M0, U8, Maker
from quantised.shared import FP8, INT4, MXFP4, NVFP4, base, compressed
from taskvec import transfer

if TYPE_CHECKING:
    import torch

ALPHAS = (1.0, 0.7, 1e-3, 0.0)
# Layouts, and what the columns of a row are a multiple of.
LAYOUTS = {
    "plain": 1, "blocks": 1, "rows": 1, "tensor": 1, "gpt-oss": 1,
    "NVFP4": 16, "INT4": 32, "MX": 32, "MXFP4": 32,
}  # fmt: skip
# Those that can have three dimensions.
DEEP = ("plain", "blocks", "rows", "MX", "MXFP4", "gpt-oss")


def code(
    make: Maker, layout: str, name: str, shape: list[int], block: tuple[int, int], scale: torch.dtype
) -> None:
    """One tensor of a layout."""
    stem = name.removesuffix(".weight")
    match layout:
        case "plain":
            make.plain(name, shape, scale)
        case "blocks":
            make.fp8(name, shape, scale, block=block)
        case "rows":
            make.channel(name, shape, scale)
        case "tensor":
            make.tensor(name, shape, scale, "_scale", [1])
        case "MX":
            make.fp8(name, shape, scale, block=(1, 32))
        case "MXFP4":
            make.mxfp4(name, shape, f"{name}_packed", f"{name}_scale")
        case "NVFP4":
            make.nvfp4(stem, shape, divides=True)
        case "INT4":
            make.int4(stem, shape)
        case _:
            make.gpt_oss(name, shape[0], shape[2], shape[1])


def said(layout: str, block: tuple[int, int]) -> dict[str, Any]:
    """What a config says of a layout."""
    match layout:
        case "blocks":
            return {"quant_method": "fp8", "weight_block_size": [*block]}
        case "rows":
            return compressed("float-quantized", {**FP8, "strategy": "channel"})
        case "tensor":
            return compressed("float-quantized", {**FP8, "strategy": "tensor"})
        case "MX":
            return {"quant_method": "mxfp8"}
        case "MXFP4":
            return compressed("mxfp4-pack-quantized", MXFP4)
        case "NVFP4":
            return compressed("nvfp4-pack-quantized", NVFP4)
        case "INT4":
            return compressed("pack-quantized", INT4)
        case _:
            return {"quant_method": "mxfp4"}


@st.composite
def checkpoints(draw: st.DrawFn) -> dict[str, Any]:
    """Three inputs of the same logical tensors."""
    layouts = [draw(st.sampled_from(sorted(LAYOUTS))) for _ in "tgs"]
    if deep := "gpt-oss" in layouts:
        layouts = [layout if layout in DEEP else "plain" for layout in layouts]
    unit = max(LAYOUTS[layout] for layout in layouts)
    shapes: list[list[int]] = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 129, 300])))
        columns = draw(st.one_of(st.integers(1, 9), st.sampled_from([40, 41]))) * (unit if unit > 1 else 7)
        # Blocks of gpt-oss run along what becomes the rows.
        shapes.append([2, 32 * (1 + rows % 5), columns] if deep else [rows, columns])
    if draw(st.booleans()):
        # Beyond the end of a window.
        large = [draw(st.integers(500, 600)), 32 * draw(st.integers(33, 36))]
        shapes.append([3, 544, large[1]] if deep else large)
    inputs: list[dict[str, Any]] = []
    for role, layout in zip("tgs", layouts, strict=True):
        block = draw(st.tuples(st.sampled_from([1, 5, 32, 64, 128]), st.sampled_from([16, 32, 48, 128])))
        scales = {"MX": (U8, E8M0), "blocks": (*FLOATS, U8, E8M0)}.get(layout, FLOATS)
        scale = draw(st.sampled_from(scales))
        make = Maker(layout, (role, draw(st.integers(0, 99))), special=draw(st.booleans()))
        make.config = base("qwen3", 1)
        if layout != "plain":
            make.config["quantization_config"] = said(layout, block)
        for at, shape in enumerate(shapes):
            code(make, layout, f"model.layers.0.mlp.w{at}.weight", shape, block, scale)
        make.plain("model.norm.weight", [13])
        names = draw(st.permutations(list(make.stored)))
        ends = sorted(draw(st.sets(st.integers(1, len(names) - 1), max_size=2)))
        parts = [list(names[a:b]) for a, b in itertools.pairwise([0, *ends, len(names)])]
        inputs.append({"make": make, "shards": parts, "pad": draw(st.integers(0, 7))})
    options = {
        "alpha": draw(st.sampled_from(ALPHAS)),
        "dtype": draw(st.sampled_from([None, *OUTPUTS])),
        "threads": draw(st.integers(1, 3)),
        "io": draw(st.sampled_from(["mmap", "pread", "direct"])),
    }
    return {"inputs": inputs, "options": options}


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(checkpoints())
def test_any_shape_in_any_layout(drawn: dict[str, Any]) -> None:
    options = drawn["options"]
    with tempfile.TemporaryDirectory() as name:
        paths: list[Path] = []
        for at, one in enumerate(drawn["inputs"]):
            make: Maker = one["make"]
            where = {"shards": one["shards"], "pad": one["pad"]}
            paths.append(write(Path(name) / str(at), make.stored, config=make.config, **where))
        transfer(*paths, Path(name) / "out", sync=False, **options)
        t, g, s = (one["make"] for one in drawn["inputs"])
        wanted: Tensors = {}
        for key, values in t.logical.items():
            out = OUTPUTS.get(options["dtype"]) or (BF16 if key in t.coded else values.dtype)
            wanted[key] = combined(values, g.logical[key], s.logical[key], options["alpha"], out)
        assert_tensors(read(Path(name) / "out"), wanted)
