"""Several α in one read: every output is that of a run with this α alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import taskvec
from families import CONFIG, files, generator, noise, write
from hostile import call, refused, trio
from hostile import run as start_to_end
from taskvec import UsageError, dry_run, sweep_apply, sweep_transfer

if TYPE_CHECKING:
    from adapters import Adapted

ALPHAS = ("0.25", "-1.50", "0", "1e0")
MIB = 1 << 20


def donors(family: Path) -> list[Path]:
    return [family / name for name in ("instruct", "grpo", "sft")]


def assert_same_as_alone(args: list[Any], out: Path, alphas: tuple[str, ...] = ALPHAS) -> dict[str, Any]:
    """Runs a verb with all α at once and with each alone, and compares every byte; returns the sweep."""
    code, stdout, stderr = call([*args, "-o", out, "--alphas", ",".join(alphas), "--json"])
    assert code == 0, stderr
    assert {path.name for path in out.iterdir()} == {f"alpha-{alpha}" for alpha in alphas}
    for alpha in alphas:
        alone = out.with_name(f"{out.name}-alone{alpha}")
        code, _, stderr = call([*args, "-o", alone, "--alpha", alpha])
        assert code == 0, stderr
        assert files(out / f"alpha-{alpha}") == files(alone)
    return json.loads(stdout)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--schedule", "linear:0,1", "--alpha-rule", "mlp=0.5"],
        ["--dtype", "f32"],
        ["--dtype", "f16", "--rounding", "stochastic", "--seed", "7"],
        ["--rounding", "stochastic", "--threads", "1"],
        ["--sha256", "--no-sync"],
        ["--include", "layers", "--exclude", "norm", "--io", "direct"],
    ],
    ids=" ".join,
)
def test_every_output_is_that_of_its_own_run(options: list[str], family: Path, tmp_path: Path) -> None:
    found = assert_same_as_alone(["transfer", *donors(family), *options], tmp_path / "out")
    assert (found["schema"], found["verb"], found["out"]) == (
        "taskvec/sweep/1", "transfer", str(tmp_path / "out"),
    )  # fmt: skip
    assert [Path(one["out"]).name for one in found["results"]] == [f"alpha-{alpha}" for alpha in ALPHAS]
    assert all(one["schema"] == "taskvec/result/1" for one in found["results"])
    assert found["bytes"]["read"] == max(one["bytes"]["read"] for one in found["results"])
    assert found["bytes"]["written"] == sum(one["bytes"]["written"] for one in found["results"])


@pytest.mark.parametrize("encoding", ["dense", "packed"])
def test_a_vector(encoding: str, tmp_path: Path) -> None:
    """Of unrelated donors and of several windows, so that many of them have exceptions."""
    target, minuend, subtrahend = trio(tmp_path, 6 * MIB)
    assert call(["extract", minuend, subtrahend, "-o", tmp_path / "v", "--encoding", encoding])[0] == 0
    for number, options in enumerate(([], ["--memory", "40MiB", "--io", "pread"])):
        args = ["apply", target, tmp_path / "v", *options]
        assert_same_as_alone(args, tmp_path / f"out{number}", ("0.3", "0", "-1"))


def test_an_adapter_as_donor(adapted: Adapted, tmp_path: Path) -> None:
    args = ["transfer", adapted.target, adapted.adapter, adapted.base]
    assert_same_as_alone(args, tmp_path / "out", ("0.5", "1"))


def test_rows_that_only_the_target_has(tmp_path: Path) -> None:
    """Where the donors' rows end, figures begin anew; with α = 0 the tensor has no such place."""
    rng = generator("rows")
    tensors = [
        {
            "model.embed_tokens.weight": noise([rows, 700], torch.float32, rng),
            "a": noise([5], torch.float32, rng),
        }
        for rows in (900, 800, 850)
    ]
    paths = [write(tmp_path / role, one, config=CONFIG) for role, one in zip("tgs", tensors, strict=True)]
    args = ["transfer", *paths, "--vocab", "common", "--dtype", "bf16"]
    assert_same_as_alone(args, tmp_path / "out", ("0", "1", "0.5"))


def test_a_factor_that_becomes_zero_for_one_alpha_only(family: Path, tmp_path: Path) -> None:
    """The smallest α times the schedule's first factor is 0 in float32, and those tensors are copied."""
    args = ["transfer", *donors(family), "--schedule", "linear:1e-10,1"]
    found = assert_same_as_alone(args, tmp_path / "out", ("1e-40", "1"))
    first, second = (one["tensors"] for one in found["results"])
    assert 0 < first["combined"] < second["combined"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_inputs_are_read_once(tmp_path: Path) -> None:
    paths = trio(tmp_path, 6 * MIB)

    def bytes_read() -> int:
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("rchar")).split()[1])

    before = bytes_read()
    done = sweep_transfer(*paths, tmp_path / "out", alphas=[0.25, 0.5, 0.75, 1], io="pread")
    assert bytes_read() - before < 3 * 12 * MIB + MIB
    assert done.bytes.read < 3 * 12 * MIB + MIB
    assert done.bytes.written > 4 * 12 * MIB


def test_in_python(family: Path, tmp_path: Path) -> None:
    target, grpo, sft = donors(family)
    seen: list[tuple[str, int, int]] = []
    done = sweep_transfer(
        target, grpo, sft, tmp_path / "t", alphas=[0.5, 1], progress=lambda *state: seen.append(state)
    )
    assert isinstance(done, taskvec.SweepResult)
    assert [Path(one.out).name for one in done.results] == ["alpha-0.5", "alpha-1.0"]
    assert all(taskvec.verify(one.out).ok for one in done.results)
    assert all(count <= total for _, count, total in seen)
    vector = taskvec.extract(grpo, sft, tmp_path / "v")
    applied = sweep_apply(target, [vector], tmp_path / "a", alphas="0.5,1")
    assert [Path(one.out).name for one in applied.results] == ["alpha-0.5", "alpha-1"]
    for mine, other in (("alpha-0.5", "alpha-0.5"), ("alpha-1.0", "alpha-1")):
        for path in (tmp_path / "t" / mine).glob("*.safetensors"):
            assert path.read_bytes() == (tmp_path / "a" / other / path.name).read_bytes()


@pytest.mark.parametrize("verb", ["transfer", "apply"])
def test_a_dry_run_writes_nothing(verb: str, family: Path, tmp_path: Path) -> None:
    target, grpo, sft = donors(family)
    inputs: list[Any] = [target, grpo, sft]
    if verb == "apply":
        inputs = [target, taskvec.extract(grpo, sft, tmp_path / "v").path]
    code, stdout, _ = call(
        [verb, *inputs, "-o", tmp_path / "out", "--alphas", "0,0.5,1", "--dry-run", "--json"]
    )
    assert code == 0
    assert not (tmp_path / "out").exists()
    plan = json.loads(stdout)
    alone = getattr(dry_run, verb)(*inputs, tmp_path / "out")
    assert (plan["schema"], plan["verb"], plan["compatible"]) == ("taskvec/plan/1", verb, True)
    assert plan["bytes"] == {"read": alone.bytes.read, "write": 3 * alone.bytes.write}
    assert plan["disk"]["needed"] == 3 * alone.disk.needed
    assert plan["memory"]["least"] > alone.memory.least


def test_the_table_and_what_is_said(family: Path, tmp_path: Path) -> None:
    args = ["transfer", *donors(family), "-o", tmp_path / "out", "--alphas", "0.25,1"]
    code, stdout, stderr = call([*args, "--verbose"])
    assert code == 0
    lines = stdout.splitlines()
    assert "2 checkpoints" in lines[0]
    assert [line.split()[0] for line in lines[-3:]] == ["folder", "alpha-0.25", "alpha-1"]
    gains = [line for line in stderr.splitlines() if "the effective gain" in line]
    assert len(gains) == 1, "what concerns one α names it"
    assert gains[0].startswith("taskvec: warning: alpha-0.25: because of rounding")
    notes = [line for line in stderr.splitlines() if line.startswith("taskvec: note: ")]
    assert notes, "what concerns all is said once"
    assert len(set(notes)) == len(notes)
    assert not any("alpha-" in note for note in notes)


def test_folders_of_other_factors_stay(family: Path, tmp_path: Path) -> None:
    args = ["transfer", *donors(family), "-o", tmp_path / "out", "--alphas"]
    assert call([*args, "0.5"])[0] == 0
    before = files(tmp_path / "out" / "alpha-0.5")
    assert call([*args, "0.25,1"])[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"alpha-0.5", "alpha-0.25", "alpha-1"}
    refused(call([*args, "2,1"]), 2, "alpha-1", "exists and is not empty", "--overwrite")
    assert not (tmp_path / "out" / "alpha-2").exists(), "nothing is begun"
    assert call([*args, "0.5,1", "--overwrite"])[0] == 0
    assert files(tmp_path / "out" / "alpha-0.5") == before


LISTS = {
    "twice": ("0.5,1,0.5", "alphas 0.5 and 0.5 are the same number"),
    "in two ways": ("0.5,0.50", "alphas 0.5 and 0.50 are the same number"),
    "two zeros": ("0,-0", "are the same number"),
    "equal in float32": ("0.1,0.10000000001", "are the same number in f32"),
    "not finite": ("0.5,inf", "alpha is `inf`; it has to be a finite number"),
    "not a number": ("0.5,nan", "alpha is `nan`; it has to be a finite number"),
    "too large": ("1e39", "too large for f32"),
    "no number": ("0.5,x", "'x' is not a number"),
    "a gap": ("0.5,,1", "'' is not a number"),
    "nothing": ("", "'' is not a number"),
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_that_are_refused(case: str, family: Path, tmp_path: Path) -> None:
    text, says = LISTS[case]
    refused(call(["transfer", *donors(family), "-o", tmp_path / "out", "--alphas", text]), 2, says)
    assert not (tmp_path / "out").exists()


def test_no_factor_at_all(family: Path, tmp_path: Path) -> None:
    for verb in (sweep_transfer, dry_run.sweep_transfer):
        with pytest.raises(UsageError, match="the list of alphas is empty"):
            verb(*donors(family), tmp_path / "out", alphas=[])


def test_with_alpha_or_with_several_vectors(family: Path, tmp_path: Path) -> None:
    target, grpo, sft = donors(family)
    assert call(["extract", grpo, sft, "-o", tmp_path / "v"])[0] == 0
    out = ["-o", tmp_path / "out", "--alphas", "0.5,1"]
    for args in (["transfer", target, grpo, sft], ["apply", target, tmp_path / "v"]):
        refused(call([*args, *out, "--alpha", "1"]), 2, "--alpha and --alphas exclude each other")
    args = ["apply", target, tmp_path / "v", tmp_path / "v", *out]
    refused(call(args), 2, "--alphas works with one vector only")
    refused(call([*args, "--dry-run"]), 2, "--alphas works with one vector only")
    assert not (tmp_path / "out").exists()


def test_places_that_are_refused(family: Path, tmp_path: Path) -> None:
    target, grpo, sft = donors(family)
    args = ["transfer", target, grpo, sft, "--alphas", "0.5,1", "--overwrite", "-o"]
    refused(call([*args, target]), 2, "is the input")
    refused(call([*args, target / "deep"]), 2, "is inside the input")
    refused(call([*args, family]), 2, "contains the input")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    refused(call([*args, other]), 2, str(other), "contains config.json", "alpha-… folders only")
    assert [path.name for path in other.iterdir()] == ["config.json"]
    (tmp_path / "file").write_text("")
    refused(call([*args, tmp_path / "file"]), 2, "is a file")


def test_the_least_memory_is_named_and_works(tmp_path: Path) -> None:
    """Each further α takes an output buffer of a worker more, and next to nothing else."""
    paths = trio(tmp_path, 6 * MIB)

    def least(alphas: str) -> int:
        args = ["transfer", *paths, "-o", tmp_path / "out", "--alphas", alphas, "--memory"]
        said = refused(call([*args, "1MiB"]), 2, "the least that works is")
        kib = int(said.split()[-1].removesuffix("KiB"))
        refused(call([*args, f"{kib - 1}KiB"]), 2, "the least that works is")
        code, _, stderr = start_to_end([*args, f"{kib}KiB", "--overwrite"])
        assert code == 0, stderr
        return kib << 10

    one, three, five = least("1"), least("0,1,2"), least("5,0.25,0.5,0.75,1")
    assert three - one == pytest.approx(2 * MIB, rel=0.02)
    assert five - three == pytest.approx(2 * MIB, rel=0.02)
