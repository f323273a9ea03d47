"""What the tests of crashes and bad inputs share: raw safetensors files, runs that are caught half-way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taskvec.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

Answer = tuple[int, str, str]
"""Exit code, standard output, standard error."""
PARTIAL = ".taskvec-partial"
COMMAND = (sys.executable, "-W", "ignore", "-m", "taskvec")
# A quarter of the usual speed, so that a run can be caught half-way without gigabytes.
SLOW = ("--threads", "1", "--memory", "16MiB", "--rounding", "stochastic")
# The same for a vector: a packer needs more memory.
SLOW_EXTRACT = ("--threads", "1", "--memory", "24MiB")
SLOW_ENV = {"TASKVEC_SIMD": "scalar"}


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def raw(header: bytes | str | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """A file whose header is these very bytes; `length` lies about how many they are."""
    if isinstance(header, dict):
        header = json.dumps(header)
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def shard(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """A sound file: uint16 arrays stand for bfloat16, float32 for themselves."""
    header, parts, at = dict[str, Any](), list[bytes](), 0
    for name, values in tensors.items():
        dtype = {"uint16": "BF16", "float32": "F32", "int64": "I64"}[str(values.dtype)]
        header[name] = entry(dtype, list(values.shape), at, at + values.nbytes)
        parts.append(values.tobytes())
        at += values.nbytes
    return raw(header, b"".join(parts))


def checkpoint(folder: Path, tensors: Mapping[str, NDArray[Any]], shards: int = 1) -> Path:
    """A folder with a config and the tensors, cut into so many shards."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "none"}')
    if shards == 1:
        (folder / "model.safetensors").write_bytes(shard(tensors))
        return folder
    names, places = list(tensors), dict[str, str]()
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = names[len(names) * number // shards : len(names) * (number + 1) // shards]
        (folder / file).write_bytes(shard({name: tensors[name] for name in part}))
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def donors(root: Path, tensors: dict[str, Any], count: int = 3) -> list[Path]:
    """Target, minuend and subtrahend of the same content."""
    return [checkpoint(root / role, tensors) for role in ("t", "g", "s")[:count]]


def noise(seed: int, count: int) -> NDArray[np.uint16]:
    """bfloat16 patterns of every sign and of magnitudes below 2, never infinite."""
    return np.random.default_rng(seed).integers(0, 1 << 16, count, dtype=np.uint16) & np.uint16(0xBFFF)


def trio(root: Path, elements: int, tensors: int = 6) -> tuple[Path, Path, Path]:
    """Target (two shards), minuend and subtrahend, unrelated to each other."""
    each = elements // tensors
    made = (
        checkpoint(
            root / role,
            {f"layer.{at}.weight": noise(100 * seed + at, each) for at in range(tensors)},
            shards=2 if role == "target" else 1,
        )
        for seed, role in enumerate(("target", "minuend", "subtrahend"))
    )
    target, minuend, subtrahend = made
    return target, minuend, subtrahend


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by name; fails if anything but files is left at the top."""
    assert not (folder / PARTIAL).exists()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def start(args: Iterable[str | Path], **options: Any) -> subprocess.Popen[str]:
    """Starts a command and returns at once."""
    environment = {**os.environ, "PYTHONUTF8": "1", **SLOW_ENV}
    return subprocess.Popen(
        [*COMMAND, *map(str, args)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen[str]) -> Answer:
    """Waits for the end, though not for ever."""
    try:
        stdout, stderr = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise AssertionError(f"does not end; said so far: {stdout}{stderr}") from None
    return process.returncode, stdout, stderr


def run(args: Iterable[str | Path], **options: Any) -> Answer:
    """A command from start to end, in a process of its own."""
    return finish(start(args, **options))


def call(args: Iterable[str | Path]) -> Answer:
    """A command from start to end, in this process: for the many that fail before they do anything."""
    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
        code = main([str(arg) for arg in args])
    return code, stdout.getvalue(), stderr.getvalue()


def peak_anonymous(args: list[Any]) -> tuple[int, int]:
    """The most anonymous memory of a run, Python included, and how many windows it had in flight."""
    process = start(args, preexec_fn=lambda: os.environ.pop("TASKVEC_SIMD", None))
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                peak = max(peak, int(line.split()[1]) << 10)
        time.sleep(0.004)
    code, stdout, stderr = finish(process)
    assert code == 0, stderr
    found = json.loads(stdout)
    return peak, found.get("results", [found])[0]["engine"]["windows"]


def await_journal(process: subprocess.Popen[str], out: Path, size: int = 400) -> None:
    """Waits until the run has journalled some windows; fails if it ends before."""
    journal = out / PARTIAL / "journal"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        try:
            if journal.stat().st_size >= size:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.0005)
    raise AssertionError("no journal")


def freeze_midway(args: Iterable[str | Path], out: Path, size: int = 400) -> subprocess.Popen[str]:
    """A run stopped (SIGSTOP) with some of its windows done and most of them not."""
    process = start(args)
    await_journal(process, out, size)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert not (out / PARTIAL / "commit.json").exists(), "too late: the test's inputs are too small"
    return process


def kill_midway(args: Iterable[str | Path], out: Path, size: int = 400) -> None:
    """kill −9 with some of the windows done."""
    process = start(args)
    await_journal(process, out, size)
    process.kill()
    finish(process)
    assert sorted(path.name for path in out.iterdir()) == [PARTIAL]


def refused(answer: Answer, code: int, *parts: str) -> str:
    """One sentence on standard error with all of `parts` in it, and nothing on standard output."""
    found, stdout, stderr = answer
    assert (found, stdout) == (code, ""), answer
    assert stderr.startswith("taskvec: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    for part in parts:
        assert part in stderr, f"{part!r} is not in {stderr!r}"
    return stderr


def unwarned(stderr: str) -> str:
    """What a command said, but for the warning that equal donors get: their vector is 0."""
    return "\n".join(line for line in stderr.splitlines() if "the vector is 0 everywhere" not in line)


def accepted(inputs: list[Path], out: Path) -> dict[str, Any]:
    """The manifest of a transfer that went well and wrote the target's own header."""
    code, _, stderr = call(["transfer", *inputs, "-o", out])
    assert code == 0
    assert unwarned(stderr) == ""
    for path in out.glob("*.safetensors"):
        before, after = (inputs[0] / path.name).read_bytes(), path.read_bytes()
        data = 8 + int.from_bytes(before[:8], "little")
        assert after[:data] == before[:data]
        assert len(after) == len(before)
    assert call(["verify", out])[0] == 0
    return json.loads((out / "taskvec.json").read_bytes())
