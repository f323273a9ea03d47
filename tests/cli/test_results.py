"""The typed results against JSON as the core writes it, and how they are shown."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from taskvec import (
    CheckResult,
    DiffResult,
    InspectResult,
    VerifyResult,
    WriteResult,
    advise,
    check,
    diff,
    extract,
    inspect,
    sweep_transfer,
    transfer,
    verify,
)
from taskvec.cli import render
from taskvec.records import Record

if TYPE_CHECKING:
    from pathlib import Path

WRITTEN: dict[str, Any] = {
    "schema": "taskvec/result/1",
    "verb": "transfer",
    "out": "out",
    "files": 2,
    "tensors": {"combined": 3, "copied": 1, "converted": 0, "grafted": 0},
    "elements": 1000,
    "bytes": {"read": 6000, "written": 2000},
    "seconds": 0.5,
    "engine": {
        "threads": 2,
        "windows": 4,
        "window_bytes": 1 << 20,
        "io": "mmap",
        "simd": "avx2",
        "direct_writes": True,
        "resumed_bytes": 0,
    },
    "effect": {
        "norm_v": 2.0,
        "norm_requested": 1.4,
        "norm_effective": 1.5,
        "gain": 1.0625,
        "cosine": 0.99,
        "changed": 0.25,
        "survival": 0.5,
        "grid_noise": None,
        "nonfinite_inputs": 0,
        "overflowed": 1,
    },
    "notes": ["a note"],
    "warnings": ["a warning"],
}
PLAN: dict[str, Any] = {
    "schema": "taskvec/plan/1",
    "verb": "transfer",
    "compatible": False,
    "problems": [
        {"file": "g/model.safetensors", "tensor": "a", "message": "`a` is [2], not [3]"},
        {"file": None, "tensor": None, "message": "no room"},
        {"file": "s", "tensor": None, "message": "s: odd"},
    ],
    "notes": ["a note"],
    "warnings": ["a warning"],
    "inputs": [{"role": "target", "name": "t", "files": 1, "tensors": 4, "bytes": 2000, "remote": False}],
    "tensors": {"combined": 3, "copied": 1, "converted": 0, "grafted": 0},
    "bytes": {"read": 6000, "write": 2000},
    "memory": {
        "budget": 256 << 20,
        "planned": 16 << 20,
        "least": 3 << 20,
        "threads": 2,
        "windows": 4,
        "window_bytes": 1 << 20,
        "streaming": 0,
    },
    "disk": {"needed": 2000, "free": 5_000_000_000},
    "download": {"bytes": 0, "streamed": 0, "free": None},
    "io": "mmap",
    "io_reason": "local files",
    "alpha_rules": [{"pattern": "mlp", "alpha": "0.5", "tensors": 2}],
    "layers": [{"stack": "h", "layer": 0, "factor": 0.25}],
}
INSPECTED: dict[str, Any] = {
    "schema": "taskvec/inspect/1",
    "kind": "vector",
    "name": "v",
    "files": [{"name": "vector.safetensors", "size": 100, "tensors": 1}],
    "parameters": 6,
    "bytes": 12,
    "dtypes": {"BF16": {"tensors": 1, "elements": 6}},
    "tied": None,
    "quantized": None,
    "formats": {},
    "sidecars": ["README.md"],
    "left_out": [],
    "tensors": [
        {"name": "a", "dtype": "BF16", "shape": [2, 3], "file": "vector.safetensors", "format": None}
    ],
    "adapter": None,
    "vector": {"schema": "taskvec/vector/1"},
    "manifest": None,
    "warnings": [],
}
FIGURES = {
    "elements": 6,
    "changed": 0.5,
    "norm": 0.5,
    "cosine": 0.9,
    "nonfinite": 0,
    "ulps": {"0": 3, "2-3": 3},
}
COMPARED: dict[str, Any] = {
    "schema": "taskvec/diff/1",
    "a": "t",
    "b": "out",
    "identical": False,
    "total": FIGURES,
    "tensors": [{"name": "a", "dtype": "BF16", **FIGURES}],
    "only_a": ["x"],
    "only_b": [],
    "not_compared": [{"name": "y", "reason": "another shape"}],
    "warnings": [],
}
VERIFIED: dict[str, Any] = {
    "schema": "taskvec/verify/1",
    "ok": False,
    "files": 2,
    "tensors": 4,
    "bytes": 2000,
    "problems": [{"file": "model.safetensors", "message": "block 3 is not as written"}],
}

RESULTS = [
    (WriteResult, WRITTEN),
    (CheckResult, PLAN),
    (InspectResult, INSPECTED),
    (DiffResult, COMPARED),
    (VerifyResult, VERIFIED),
]


@pytest.mark.parametrize(("kind", "json"), RESULTS)
def test_json_goes_in_and_comes_out(kind: Any, json: dict[str, Any]) -> None:
    result = kind.from_json(json)
    assert result.to_json() == json
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert again == result
        assert again.to_json() == json


@pytest.mark.parametrize(("kind", "json"), RESULTS)
def test_what_a_newer_core_adds_does_no_harm_and_what_lacks_is_an_error(
    kind: Any, json: dict[str, Any]
) -> None:
    assert kind.from_json({**json, "later": 1}).to_json()["later"] == 1
    with pytest.raises(KeyError):
        kind.from_json({key: value for key, value in json.items() if key not in ("tensors", "bytes")})


def test_fields_are_typed_and_frozen() -> None:
    written = WriteResult.from_json(WRITTEN)
    assert (written.tensors.combined, written.bytes.read, written.effect.gain) == (3, 6000, 1.0625)
    assert (written.engine.simd, written.exceptions, written.warnings) == ("avx2", None, ("a warning",))
    assert WriteResult.from_json({**WRITTEN, "exceptions": 7}).exceptions == 7
    inspected = InspectResult.from_json(INSPECTED)
    assert inspected.tensors[0].shape == (2, 3)
    assert inspected.dtypes["BF16"].elements == 6
    compared = DiffResult.from_json(COMPARED)
    assert (compared.tensors[0].name, compared.total.ulps["2-3"]) == ("a", 3)
    for frozen in (compared.total.ulps, inspected.vector, inspected.dtypes):
        with pytest.raises(TypeError):
            frozen["x"] = 1  # type: ignore[index]
    with pytest.raises(AttributeError):
        written.out = "elsewhere"  # type: ignore[misc]


def test_a_written_table_leaves_out_what_was_not_measured() -> None:
    full = "\n".join(render.written(WriteResult.from_json(WRITTEN)))
    for part in ("2 files", "6 kB read", "16 kB/s", "1.0625", "25.00%", "50.00%", "1 element\n"):
        assert part in full + "\n"
    assert "non-finite" not in full
    empty = dict.fromkeys(WRITTEN["effect"])
    bare = "\n".join(render.written(WriteResult.from_json({**WRITTEN, "effect": empty})))
    assert "None" not in bare
    assert "gain" not in bare


def test_a_plan_names_every_problem_with_its_file_once() -> None:
    lines = list(render.checked(CheckResult.from_json(PLAN)))
    assert lines[0] == "transfer: the inputs do not fit together"
    assert lines[-3:] == [
        "problem: g/model.safetensors: `a` is [2], not [3]",
        "problem: no room",
        "problem: s: odd",
    ]
    assert "note: a note" in lines
    text = "\n".join(lines)
    for part in ("16 MiB of 256 MiB (least 3 MiB)", "5 GB free", "mlp = 0.5: 2 tensors", "mmap: local files"):
        assert part in text


def test_other_tables() -> None:
    inspected = InspectResult.from_json(INSPECTED)
    assert "  a  BF16 [2, 3]  vector.safetensors" in render.inspected(inspected, every=True)
    assert not any("[2, 3]" in line for line in render.inspected(inspected, every=False))
    compared = "\n".join(render.compared(DiffResult.from_json(COMPARED), every=False))
    for part in (
        "50.00% of 6 elements",
        "2-3 ulp",
        "only in a",
        "y: another shape",
        "a  BF16  changed 50.00%",
    ):
        assert part in compared
    verified = list(render.verified(VerifyResult.from_json(VERIFIED)))
    assert verified[1] == "problem: model.safetensors: block 3 is not as written"


def _untyped(value: Any, json: Any, where: str) -> list[str]:
    """Members that only one of the two has: a typed result, and the JSON it was made from."""
    names = {field.name for field in dataclasses.fields(value)} - {"_json"}
    found = [f"{where}.{name}" for name in sorted(names ^ (set(json) - {"schema"}))]
    for name in names & set(json):
        inner, of = getattr(value, name), json[name]
        if isinstance(inner, tuple) and inner:
            inner, of = inner[0], of[0]
        if isinstance(inner, Record):
            found += _untyped(inner, of, f"{where}.{name}")
    return found


def test_every_member_of_what_the_core_writes_is_typed(family: Path, tmp_path: Path) -> None:
    target, grpo, sft = (family / name for name in ("instruct", "grpo", "sft"))
    vector = extract(grpo, sft, tmp_path / "v")
    results = [
        vector.written,
        transfer(target, grpo, sft, tmp_path / "out"),
        check(target, grpo, sft),
        inspect(vector),
        inspect(tmp_path / "out"),
        diff(target, tmp_path / "out"),
        verify(tmp_path / "out"),
        advise(target, grpo, sft, alphas=1),
        sweep_transfer(target, grpo, sft, tmp_path / "sweep", alphas=[0.5, 1]),
    ]
    for result in results:
        assert result is not None
        assert _untyped(result, result.to_json(), type(result).__name__) == []
    spoilt = {**results[1].to_json(), "more": 1}
    assert _untyped(results[1], spoilt, "spoilt") == ["spoilt.more"]
