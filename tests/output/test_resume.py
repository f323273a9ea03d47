"""An output survives whatever interrupts it: the same command goes on and gives the same bytes."""

from __future__ import annotations

import json
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hostile import (
    PARTIAL,
    SLOW,
    SLOW_EXTRACT,
    await_journal,
    checkpoint,
    finish,
    freeze_midway,
    kill_midway,
    noise,
    run,
    start,
    sums,
    trio,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ELEMENTS = 36 << 20
ENCODINGS = ("packed", "dense")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    root = tmp_path_factory.mktemp("trio")
    yield trio(root, ELEMENTS)
    shutil.rmtree(root)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out"
    shutil.rmtree(tmp_path)


def command(kind: str, inputs: tuple[Path, Path, Path]) -> tuple[str | Path, ...]:
    """A transfer, or an extraction in an encoding."""
    if kind == "transfer":
        return "transfer", *inputs, *SLOW
    return "extract", *inputs[1:], "--encoding", kind, *SLOW_EXTRACT


@pytest.fixture(scope="module")
def straight(
    inputs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, str]]:
    """The digests of runs that nothing interrupted."""
    root = tmp_path_factory.mktemp("straight")
    found = {}
    for kind in ("transfer", *ENCODINGS):
        assert run([*command(kind, inputs), "-o", root / kind])[0] == 0
        found[kind] = sums(root / kind)
    shutil.rmtree(root)
    return found


def done(answer: tuple[int, str, str]) -> dict[str, Any]:
    assert answer[0] == 0, answer
    return json.loads(answer[1])


def resumed(answer: tuple[int, str, str]) -> int:
    return done(answer)["engine"]["resumed_bytes"]


# Journal sizes: a record of one 1 MiB block takes some 200 bytes, so these are moments all over the run.
@pytest.mark.parametrize("moment", [1, 300, 2000, 6000])
def test_killed_at_some_point(
    moment: int, inputs: tuple[Path, Path, Path], straight: dict[str, dict[str, str]], out: Path
) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW, "--json")
    kill_midway(args, out, 32 + moment)
    names = {path.name for path in (out / PARTIAL).iterdir()}
    assert names == {"files", "journal", "lock"}
    got = resumed(run(args))
    assert 0 < got < 2 * ELEMENTS
    assert sums(out) == straight["transfer"]


def test_killed_twice(
    inputs: tuple[Path, Path, Path], straight: dict[str, dict[str, str]], out: Path
) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW, "--json")
    kill_midway(args, out, 400)
    before = (out / PARTIAL / "journal").stat().st_size
    kill_midway(args, out, before + 1000)
    assert resumed(run(args)) > (4 << 20)
    assert sums(out) == straight["transfer"]


@pytest.mark.parametrize(
    "other",
    [
        ("--threads", "3"),
        ("--memory", "64MiB"),
        ("--io", "pread"),
        ("--io", "direct"),
        ("--no-sync",),
        ("--threads", "2", "--memory", "7MiB", "--io", "mmap"),
    ],
    ids=" ".join,
)
def test_how_the_work_is_done_may_change(
    other: tuple[str, ...],
    inputs: tuple[Path, Path, Path],
    straight: dict[str, dict[str, str]],
    out: Path,
) -> None:
    kill_midway(("transfer", *inputs, "-o", out, *SLOW, "--io", "mmap"), out)
    again = ("transfer", *inputs, "-o", out, "--rounding", "stochastic", "--json", *other)
    assert resumed(run(again)) > 0
    assert sums(out) == straight["transfer"]


@pytest.mark.parametrize("kind", ["transfer", *ENCODINGS])
def test_no_resume_starts_anew(
    kind: str, inputs: tuple[Path, Path, Path], straight: dict[str, dict[str, str]], out: Path
) -> None:
    args = (*command(kind, inputs), "-o", out, "--json")
    kill_midway(args, out)
    assert resumed(run([*args, "--no-resume"])) == 0
    assert sums(out) == straight[kind]


def test_other_options_start_anew(inputs: tuple[Path, Path, Path], out: Path, tmp_path: Path) -> None:
    kill_midway(("transfer", *inputs, "-o", out, *SLOW), out)
    other = ("transfer", *inputs, *SLOW, "--alpha", "0.5", "--json")
    assert resumed(run([*other, "-o", out])) == 0
    assert resumed(run([*other, "-o", tmp_path / "fresh"])) == 0
    assert sums(out) == sums(tmp_path / "fresh")


def test_changed_inputs_start_anew(inputs: tuple[Path, Path, Path], out: Path, tmp_path: Path) -> None:
    target = shutil.copytree(inputs[0], tmp_path / "target")
    args = ("transfer", target, *inputs[1:], *SLOW, "--json")
    kill_midway((*args, "-o", out), out)
    path = target / "model-00001-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert resumed(run([*args, "-o", out])) == 0
    done(run([*args, "-o", tmp_path / "fresh"]))
    assert sums(out) == sums(tmp_path / "fresh")


def test_a_changed_config_starts_anew(tmp_path: Path, out: Path) -> None:
    """Whether the head is tied decides the head's bytes, so a run must not go on over a change of it."""
    embedding = noise(1, 1 << 20)
    tensors = {"model.embed_tokens.weight": embedding.reshape(1024, 1024), "model.body": noise(2, 24 << 20)}
    target = checkpoint(tmp_path / "t", {"lm_head.weight": embedding.reshape(1024, 1024), **tensors})
    donors = [
        checkpoint(
            tmp_path / role,
            {
                "lm_head.weight": noise(seed, 1 << 20).reshape(1024, 1024),
                "model.embed_tokens.weight": noise(seed + 1, 1 << 20).reshape(1024, 1024),
                "model.body": noise(seed + 2, 24 << 20),
            },
        )
        for role, seed in (("g", 10), ("s", 20))
    ]
    args = ("transfer", target, *donors, *SLOW, "--json")
    kill_midway((*args, "-o", out), out, 1000)
    for folder in (target, *donors):
        (folder / "config.json").write_text('{"tie_word_embeddings": false}')
    assert resumed(run([*args, "-o", out])) == 0
    done(run([*args, "-o", tmp_path / "fresh"]))
    assert sums(out) == sums(tmp_path / "fresh")


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["torn", "garbage", "flipped", "early", "head", "empty", "long", "gone"])
def test_a_damaged_journal(
    damage: str, inputs: tuple[Path, Path, Path], straight: dict[str, dict[str, str]], out: Path
) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW, "--json")
    kill_midway(args, out, 2000)
    journal = out / PARTIAL / "journal"
    content = journal.read_bytes()
    if damage == "torn":
        journal.write_bytes(content[:-7])
    elif damage == "garbage":
        journal.write_bytes(content + b"\xff" * 1000)
    elif damage == "flipped":
        flip(journal, len(content) - 5)
    elif damage == "early":
        flip(journal, 60)
    elif damage == "head":
        flip(journal, 3)
    elif damage == "empty":
        journal.write_bytes(b"")
    elif damage == "long":
        # A record that claims as much as a length can say, over and over.
        journal.write_bytes(content + (b"\xff\xff\xff\x3f" + bytes(8)) * 3)
    else:
        journal.unlink()
    got = resumed(run(args))
    assert (got > 0) == (damage in ("torn", "garbage", "flipped", "long"))
    assert sums(out) == straight["transfer"]


@pytest.mark.parametrize("damage", ["first", "later", "short", "gone"])
def test_a_damaged_block(
    damage: str, inputs: tuple[Path, Path, Path], straight: dict[str, dict[str, str]], out: Path
) -> None:
    args = ("transfer", *inputs, "-o", out, *SLOW, "--json")
    kill_midway(args, out, 2500)
    shard = out / PARTIAL / "files" / "model-00001-of-00002.safetensors"
    if damage == "first":
        flip(shard, 12345)
    elif damage == "later":
        flip(shard, (3 << 20) + 5)
    elif damage == "short":
        shard.write_bytes(shard.read_bytes()[: (2 << 20) + 100])
    else:
        shard.unlink()
    got = resumed(run(args))
    assert got == {"first": 0, "later": 3 << 20, "short": 2 << 20, "gone": 0}[damage]
    assert sums(out) == straight["transfer"]


@pytest.mark.parametrize("damage", [None, "spool.index", "spool.value", "short"])
def test_exceptions_resume(
    damage: str | None, inputs: tuple[Path, Path, Path], straight: dict[str, dict[str, str]], out: Path
) -> None:
    """Unrelated donors: a third of all elements goes through the spool."""
    args = (*command("dense", inputs), "-o", out, "--json")
    kill_midway(args, out, 1500)
    scratch = out / PARTIAL
    assert (scratch / "spool.index").stat().st_size > 1 << 20
    if damage == "short":
        (scratch / "spool.value").write_bytes(b"1234567")
    elif damage:
        flip(scratch / damage, 1000)
    answer = done(run(args))
    assert answer["exceptions"] > ELEMENTS // 10
    assert (answer["engine"]["resumed_bytes"] > 0) == (damage is None)
    assert sums(out) == straight["dense"]


def test_nothing_to_open_before_the_end(inputs: tuple[Path, Path, Path], out: Path) -> None:
    process = start(("transfer", *inputs, "-o", out, *SLOW))
    seen = set()
    while process.poll() is None:
        names = {path.name for path in out.iterdir()} if out.exists() else set()
        if (out / PARTIAL / "commit.json").exists() or "taskvec.json" in names:
            break
        seen |= names
    assert finish(process)[0] == 0
    assert seen == {PARTIAL}


def plan_of(out: Path) -> str:
    """The plan's identity, as the journal's head has it."""
    head = (out / PARTIAL / "journal").read_bytes()[:32]
    return f"{int.from_bytes(head[16:], 'little'):032x}"


@pytest.fixture
def half_committed(inputs: tuple[Path, Path, Path], out: Path) -> dict[str, Any]:
    """An output stopped when everything was built and nothing renamed; `order` is that of the renames."""
    args = ("transfer", *inputs, "-o", out, *SLOW, "--json")
    kill_midway(args, out)
    plan = plan_of(out)
    done(run(args))
    staged = out / PARTIAL / "files"
    order = [entry["name"] for entry in json.loads((out / "taskvec.json").read_bytes())["files"]]
    order.append("taskvec.json")
    staged.mkdir(parents=True)
    for name in order:
        (out / name).rename(staged / name)
    (out / PARTIAL / "commit.json").write_text(json.dumps({"plan": plan, "job": plan, "files": order}))
    return {"args": args, "order": order, "staged": staged}


@pytest.mark.parametrize("moved", [0, 1, 3, -1, None])
def test_killed_among_the_renames(
    moved: int | None, half_committed: dict[str, Any], straight: dict[str, dict[str, str]], out: Path
) -> None:
    order = half_committed["order"]
    for name in order[:moved]:
        (half_committed["staged"] / name).rename(out / name)
    if moved != -1 and moved is not None:
        assert not (out / "model.safetensors.index.json").exists()
    answer = done(run(half_committed["args"]))
    assert answer["engine"]["resumed_bytes"] > 2 * ELEMENTS
    assert answer["bytes"]["read"] == 0
    assert sums(out) == straight["transfer"]


def test_another_command_does_not_end_a_commit(half_committed: dict[str, Any], out: Path) -> None:
    name = half_committed["order"][0]
    (half_committed["staged"] / name).rename(out / name)
    code, _, stderr = run([*half_committed["args"][:-1], "--alpha", "2"])
    assert code == 2
    assert "--overwrite" in stderr
    assert resumed(run([*half_committed["args"], "--alpha", "2", "--overwrite"])) == 0
    assert json.loads((out / "taskvec.json").read_bytes())["recipe"]["alpha"][0]["text"] == "2"
    assert not (out / PARTIAL).exists()


def test_a_real_kill_among_the_renames(tmp_path: Path) -> None:
    """Many small files beside the weights, so that the renames take long enough to be caught."""
    folders = trio(tmp_path, 6 << 10)
    for number in range(3000):
        (folders[0] / f"extra-{number:04}.txt").write_text(str(number))
    args = ("transfer", *folders, "--no-sync", "--json")
    done(run([*args, "-o", tmp_path / "whole"]))
    for attempt in range(10):
        out = tmp_path / f"out{attempt}"
        process = start((*args, "-o", out))
        commit = out / PARTIAL / "commit.json"
        while not commit.exists() and process.poll() is None:
            time.sleep(0.0002)
        process.send_signal(signal.SIGKILL)
        finish(process)
        moved = sum(1 for path in out.iterdir() if path.name != PARTIAL)
        if commit.exists() and 0 < moved < 3006:
            break
    else:
        pytest.skip("the renames were too quick to be caught")
    assert not (out / "taskvec.json").exists()
    assert done(run([*args, "-o", out]))["bytes"]["read"] == 0
    assert sums(out) == sums(tmp_path / "whole")


def test_overwriting_survives_a_kill(
    inputs: tuple[Path, Path, Path], straight: dict[str, dict[str, str]], out: Path
) -> None:
    """The old output stays whole until the new one is."""
    old = checkpoint(out, {"x": np.zeros(9, np.float32)}, shards=1)
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    args = ("transfer", *inputs, "-o", out, *SLOW, "--overwrite", "--json")
    process = freeze_midway(args, out)
    process.kill()
    finish(process)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    assert resumed(run(args)) > 0
    assert sums(out) == straight["transfer"]


def test_await_journal_notices_an_early_end(tmp_path: Path) -> None:
    process = start(("inspect", tmp_path))
    with pytest.raises(AssertionError, match="ended too early"):
        await_journal(process, tmp_path)
