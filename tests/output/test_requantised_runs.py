"""Large weights that are quantised again: within the budget, and as if nothing had interrupted the run."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hostile import PARTIAL, entry, finish, kill_midway, noise, peak_anonymous, refused, run, start, sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Trio = tuple[Path, Path, Path]

MIB = 1 << 20
ROWS, COLUMNS = 4096, 7168
STEM = "model.layers.0.mlp.down_proj.weight"
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
MXFP4 = {
    "quant_method": "compressed-tensors",
    "format": "mxfp4-pack-quantized",
    "config_groups": {
        "group_0": {"weights": {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}}
    },
}


def folder(
    path: Path, config: dict[str, Any], tensors: list[tuple[str, str, list[int], NDArray[Any]]]
) -> Path:
    """A checkpoint with a shard for each tensor."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    places: dict[str, str] = {}
    for at, (name, dtype, shape, values) in enumerate(tensors, 1):
        places[name] = f"model-{at:05}-of-{len(tensors):05}.safetensors"
        header = json.dumps({name: entry(dtype, shape, 0, values.nbytes)}).encode()
        with (path / places[name]).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.write(values.tobytes())
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


def make(root: Path, layout: str) -> Trio:
    """A weight whose scales are in another shard, and donors that are much larger than its steps."""
    rng = np.random.default_rng(3)
    if layout == "FP8":
        codes = rng.integers(0, 0x7F, (ROWS, COLUMNS), np.uint8)
        scales = np.full((ROWS // 128, COLUMNS // 128), 1e-5, np.float32)
        parts = [
            (STEM, "F8_E4M3", [ROWS, COLUMNS], codes),
            (f"{STEM}_scale_inv", "F32", list(scales.shape), scales),
        ]
    else:
        codes = rng.integers(0, 256, (ROWS, COLUMNS // 2), np.uint8)
        scales = rng.integers(105, 112, (ROWS, COLUMNS // 32), np.uint8)
        parts = [
            (f"{STEM}_packed", "U8", list(codes.shape), codes),
            (f"{STEM}_scale", "U8", list(scales.shape), scales),
        ]
    target = folder(root / "t", {"quantization_config": FP8 if layout == "FP8" else MXFP4}, parts)
    donors = [
        folder(root / role, {}, [(STEM, "BF16", [ROWS, COLUMNS], noise(seed, ROWS * COLUMNS))])
        for seed, role in ((1, "g"), (2, "s"))
    ]
    return target, donors[0], donors[1]


@pytest.fixture(scope="module")
def fp8(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    root = tmp_path_factory.mktemp("fp8")
    yield make(root, "FP8")
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def mxfp4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    root = tmp_path_factory.mktemp("mxfp4")
    yield make(root, "MXFP4")
    shutil.rmtree(root)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out"
    shutil.rmtree(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "options", [("--requantise",), ("--requantise", "--scales", "fresh"), ()], ids=" ".join
)
@pytest.mark.parametrize("layout", ["fp8", "mxfp4"])
def test_a_budget_holds(
    layout: str, options: tuple[str, ...], out: Path, request: pytest.FixtureRequest
) -> None:
    inputs: Trio = request.getfixturevalue(layout)
    args = ["transfer", *inputs, "-o", out, "--io", "pread", "--no-sync", *options]
    said = refused(run([*args, "--memory", "1MiB"]), 2, "the least that works is ")
    least = int(said.split("the least that works is ")[1].split("KiB")[0])
    for budget in (least, 96 << 10):
        peak, windows = peak_anonymous(
            [*args, "--memory", f"{budget}KiB", "--threads", "4", "--json", "--overwrite"]
        )
        assert windows == 1 if budget == least else windows > 1
        assert peak <= (budget << 10) + 64 * MIB


@pytest.fixture(scope="module")
def straight(fp8: Trio, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of a run that nothing interrupted."""
    path = tmp_path_factory.mktemp("straight") / "out"
    assert run([*command(fp8), "-o", path])[0] == 0
    found = sums(path)
    shutil.rmtree(path)
    return found


def command(inputs: Trio) -> list[Any]:
    return ["transfer", *inputs, "--requantise", "--alpha", "0.5", "--threads", "1", "--memory", "32MiB"]


@pytest.mark.parametrize("moment", [1, 2000])
def test_killed_among_the_windows(moment: int, fp8: Trio, straight: dict[str, str], out: Path) -> None:
    args = [*command(fp8), "-o", out, "--json"]
    kill_midway(args, out, 32 + moment)
    code, stdout, stderr = run([*args, "--threads", "3", "--memory", "200MiB"])
    assert code == 0, stderr
    assert 0 < json.loads(stdout)["engine"]["resumed_bytes"] < ROWS * COLUMNS
    assert sums(out) == straight


def scales_of(folder: Path) -> bytes:
    """The scales of an output that is not complete, but as long as it will be; nothing if it is not there."""
    path = folder / PARTIAL / "files" / "model-00002-of-00002.safetensors"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_killed_when_the_scales_are_written(fp8: Trio, straight: dict[str, str], out: Path) -> None:
    """The blocks of scales are no longer as their windows wrote them: the next run knows both forms."""
    own = (fp8[0] / "model-00002-of-00002.safetensors").read_bytes()
    own = own[8 + int.from_bytes(own[:8], "little") :]
    args = [*command(fp8), "-o", out, "--json"]
    # The run ends in SHA-256 of all files, long enough to be seen.
    process = start([*args, "--sha256"])
    while (found := scales_of(out)) in (b"", own, bytes(len(own))) or len(found) != len(own):
        assert process.poll() is None
    process.kill()
    finish(process)
    assert sorted(path.name for path in out.iterdir()) == [PARTIAL]
    assert scales_of(out) != own
    code, stdout, stderr = run(args)
    assert code == 0, stderr
    # All windows were done.
    assert json.loads(stdout)["engine"]["resumed_bytes"] > ROWS * COLUMNS
    assert json.loads(stdout)["requantised"]["blocks_rescaled"] > 0
    assert sums(out) == straight


@pytest.mark.parametrize("damage", ["own", "half", "other"])
def test_scales_that_are_half_written(damage: str, fp8: Trio, straight: dict[str, str], out: Path) -> None:
    """Whatever stands where scales belong, the windows are not computed again for it."""
    args = [*command(fp8), "-o", out, "--json"]
    process = start([*args, "--sha256"])
    while not (out / PARTIAL / "files" / "model.safetensors.index.json").exists():
        assert process.poll() is None
    process.kill()
    finish(process)
    path = out / PARTIAL / "files" / "model-00002-of-00002.safetensors"
    content, own = path.read_bytes(), (fp8[0] / path.name).read_bytes()
    data = 8 + int.from_bytes(own[:8], "little")
    middle = data + (len(own) - data) // 8 * 4
    mixed = {
        "own": own,
        "half": content[:middle] + own[middle:],
        "other": own[:data] + b"\x7f" * (len(own) - data),
    }
    path.write_bytes(mixed[damage])
    code, stdout, stderr = run(args)
    assert code == 0, stderr
    assert json.loads(stdout)["engine"]["resumed_bytes"] > ROWS * COLUMNS
    assert sums(out) == straight
