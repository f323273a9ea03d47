"""The memory budget holds for merges, measured and written, whatever the size of a tensor."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hostile import entry, noise
from merging import merge, started
from taskvec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MIB = 1 << 20
ROWS, COLUMNS = 8 << 10, 4096


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Three checkpoints of one bfloat16 tensor of 64 MiB each, made without holding it."""
    root, size = tmp_path_factory.mktemp("big"), 2 * ROWS * COLUMNS
    header = json.dumps({"big": entry("BF16", [ROWS, COLUMNS], 0, size)}).encode()
    made = []
    for seed in range(3):
        folder = root / f"in{seed}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        part = noise(seed, 8 * MIB).tobytes()
        with (folder / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _ in range(size // len(part)):
                file.write(part)
        made.append(folder)
    yield made
    shutil.rmtree(root)


def doc_of(method: str, each: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "method": method,
        "base": 2,
        "work_dtype": None,
        "out_dtype": "float32" if method == "ties" else None,
        "seed": 0,
        "settings": [{"shared": {}, "each": [each, each, None]}],
        "tensors": [{"name": "big", "from": [True] * 3, "settings": 0}],
        "sidecars_from": 2,
        "config_edits": None,
    }


@pytest.mark.parametrize(
    ("method", "each", "io"),
    [
        ("ties", {"weight": 0.5, "density": 0.5}, "mmap"),
        ("breadcrumbs", {"weight": 0.5, "density": 0.5}, "pread"),
        ("della", {"weight": 0.5, "density": 0.5}, "mmap"),
        ("model_stock", None, "pread"),
    ],
)
def test_a_budget_holds(
    method: str, each: dict[str, Any] | None, io: str, folders: list[Path], tmp_path: Path
) -> None:
    doc, out = doc_of(method, each), tmp_path / "out"
    with pytest.raises(UsageError) as refused:
        merge(folders, doc, out, memory=1, threads=2, io=io)
    found = re.search(r"least that works is (\d+)KiB", str(refused.value))
    assert found
    assert int(found[1]) < 32 << 10
    for budget in (int(found[1]) << 10, 48 * MIB):
        process = started(folders, doc, out, threads=2, memory=budget, io=io, overwrite=True)
        status, peak = Path(f"/proc/{process.pid}/status"), 0
        while process.poll() is None:
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    peak = max(peak, int(line.split()[1]) << 10)
            time.sleep(0.004)
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        assert json.loads(stdout)["elements"] == ROWS * COLUMNS
        # What Python itself takes comes on top.
        assert 4 * MIB < peak <= budget + 24 * MIB
    shutil.rmtree(out)
