"""The same bytes however it is done: threads, memory, reads, instruction sets, kills in either phase."""

from __future__ import annotations

import json
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import merge_formulas as formulas
from hostile import PARTIAL, sums
from merging import close, document, loaded, merge, models, started, values
from taskvec import verify
from taskvec.errors import UsageError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from merging import Tensors

# Several blocks of 1 MiB each, whose edges cut rows, and elements of 4 bytes too: headers have odd lengths.
SHAPES = {"embed": (1500, 1003), "norm": (1003,), "up": (701, 1003), "down": (1003, 701), "bias": (900_001,)}
DRAWN = {"weight": 0.6, "density": 0.4}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ties": ("ties", {"rescale": True}, DRAWN),
    "breadcrumbs": ("breadcrumbs", {}, {**DRAWN, "gamma": 0.05}),
    "dare": ("dare_ties", {}, DRAWN),
    "della": ("della", {}, {**DRAWN, "epsilon": 0.1}),
    "stock": ("model_stock", {}, {}),
    "stock by rows": ("model_stock", {"filter_wise": True}, {}),
    "nuslerp by rows": ("nuslerp", {"nuslerp_flatten": False}, {"weight": 0.5}),
    "karcher": ("karcher", {}, {}),
    "ramplus": ("ramplus_tl", {}, {}),
    "sce": ("sce", {"select_topk": 0.2}, {}),
    "arithmetic": ("task_arithmetic", {}, {"weight": 0.5}),
}
Made = tuple[list["Path"], list["Tensors"]]


@pytest.fixture(scope="module")
def bf16(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("bf16")
    yield models(root, 2, dtype=torch.bfloat16, kept=0.5, shapes=SHAPES)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("f32")
    yield models(root, 2, shapes=SHAPES)
    shutil.rmtree(root)


def doc_of(kind: str, inputs: list[Tensors], **members: Any) -> dict[str, Any]:
    method, shared, each = KINDS[kind]
    base = None if kind == "karcher" else 2
    return document(
        method, inputs, base=base, shared=shared, each=[each or None, each or None, None], **members
    )


def least(made: Made, doc: Mapping[str, Any], tmp_path: Path, **options: Any) -> int:
    """The least budget, in bytes, as the refusal of too small a one names it."""
    with pytest.raises(UsageError) as refused:
        merge(made[0], doc, tmp_path / "least", memory=1, **options)
    found = re.search(r"least that works is (\d+)KiB", str(refused.value))
    assert found, refused.value
    return int(found[1]) << 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_the_same_bytes_however_it_is_done(
    kind: str, dtype: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Made = request.getfixturevalue(dtype)
    doc = doc_of(kind, made[1])
    smallest = least(made, doc, tmp_path, io="pread")
    ways: list[dict[str, Any]] = [
        {"threads": 1, "memory": smallest, "io": "pread"},
        {"threads": 3, "memory": 512 << 20, "io": "mmap"},
        {"threads": 2, "memory": 2 * smallest, "io": "direct"},
    ]
    found = []
    for number, way in enumerate(ways):
        monkeypatch.setenv("TASKVEC_SIMD", "scalar" if number == 1 else "")
        merge(made[0], doc, tmp_path / f"{number}", **way)
        found.append(sums(tmp_path / f"{number}"))
    assert found[0] == found[1] == found[2]
    assert verify(tmp_path / "0").ok


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_windows_of_a_large_tensor_agree_with_numpy(
    dtype: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Thresholds, ties and rows across blocks."""
    folders, inputs = made = request.getfixturevalue(dtype)
    for kind in ("ties", "breadcrumbs", "stock by rows", "sce"):
        doc = doc_of(kind, inputs, out_dtype="float32")
        merge(folders, doc, tmp_path / kind, threads=2, memory=least(made, doc, tmp_path))
        for name, out in loaded(tmp_path / kind).items():
            *xs, b = (values(tensors[name]) for tensors in inputs)
            if kind == "stock by rows":
                right = formulas.by_rows(formulas.stock, b, *xs)
            elif kind == "sce":
                right = formulas.sce(b, xs, 0.2)
            else:
                keep = formulas.largest if kind == "ties" else lambda d, p: formulas.band(d, p, 0.05)
                masks = [keep(x - b, 0.4) for x in xs]
                flags = {"election": True, "normalize": True, "rescale": True} if kind == "ties" else {}
                flags = flags or {"election": False, "normalize": False, "rescale": False}
                right = formulas.family(b, xs, [0.6, 0.6], masks, **flags)
            close(out, right, np.abs(np.stack([b, *xs])).max(0) + 1e-6, 1e-6)


def kill_when(process: subprocess.Popen[str], out: Path, size: int) -> None:
    """kill −9 once the journal has this length: 32 bytes are its head, so nothing is written then."""
    journal, deadline = out / PARTIAL / "journal", time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        if journal.exists() and journal.stat().st_size >= size:
            break
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    assert sorted(path.name for path in out.iterdir()) == [PARTIAL]


@pytest.mark.parametrize("kind", ["ties", "della", "stock"])
def test_killed_in_either_phase(kind: str, f32: Made, tmp_path: Path) -> None:
    doc = doc_of(kind, f32[1])
    slow = {"threads": 1, "memory": least(f32, doc, tmp_path)}
    merge(f32[0], doc, tmp_path / "straight", **slow)
    wanted = sums(tmp_path / "straight")
    # The first tensor of the file has several windows: killed while it is measured, then while it is written.
    out = tmp_path / "out"
    kill_when(started(f32[0], doc, out, **slow), out, 32)
    kill_when(started(f32[0], doc, out, **slow), out, 33)
    kill_when(started(f32[0], doc, out, **slow), out, 1200)
    done = merge(f32[0], doc, out, threads=2)
    assert done["engine"]["resumed_bytes"] > 0
    assert sums(out) == wanted


def test_another_document_starts_anew(f32: Made, tmp_path: Path) -> None:
    doc, out = doc_of("ties", f32[1]), tmp_path / "out"
    kill_when(started(f32[0], doc, out, threads=1, memory=least(f32, doc, tmp_path)), out, 300)
    other = doc_of("ties", f32[1], seed=1)
    assert merge(f32[0], other, out)["engine"]["resumed_bytes"] == 0


def test_the_manifest_says_how_to_make_it_again(bf16: Made, tmp_path: Path) -> None:
    doc = doc_of("dare", bf16[1])
    merge(bf16[0], doc, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "taskvec.json").read_text())
    assert manifest["verb"] == "merge"
    assert manifest["recipe"]["document"] == doc
    assert [one["role"] for one in manifest["inputs"]] == ["model 1", "model 2", "base"]
    merge(bf16[0], manifest["recipe"]["document"], tmp_path / "again", threads=1)
    assert sums(tmp_path / "again") == sums(tmp_path / "out")


def test_stochastic_rounding_is_unbiased_and_repeatable(bf16: Made, tmp_path: Path) -> None:
    doc = doc_of("arithmetic", bf16[1])
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        merge(bf16[0], doc, tmp_path / name, rounding="stochastic", seed=seed)
    a, b, c = (loaded(tmp_path / name)["embed"] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    x, y, base = (values(tensors["embed"]) for tensors in bf16[1])
    exact = formulas.family(base, [x, y], [0.5, 0.5], [None, None], election=False, normalize=False)
    error = values(a).astype(np.float64) - exact
    assert abs(error.mean()) < 5 * error.std() / error.size**0.5
