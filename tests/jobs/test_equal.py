"""A job in parts writes what a single run writes, byte for byte, manifest included."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch

import taskvec
from families import all_combined, assert_tensors, generator, noise, read, write
from parted import SHARDS, all_of, assert_equal, family, run_all
from quantised.layouts import made
from quantised.maker import freed, in_file_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from adapters import Adapted
    from command import Answer
    from hubserver import Hub

COUNTS = (1, 2, 3, SHARDS)
TRANSFERS: dict[str, dict[str, Any]] = {
    "plain": {"alpha": 0.7},
    "stochastic": {"alpha": "0.3", "rounding": "stochastic", "seed": 2**64 - 1},
    "f32": {"alpha": -1, "dtype": "f32", "sha256": True},
    "rules": {"alpha": 0.5, "alpha_rules": ["layers.2=0"], "exclude": ["layers.5"], "sync": False},
    "schedule": {"alpha": 1, "schedule": "linear:0,1"},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    root = tmp_path_factory.mktemp("family")
    yield family(root)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def single(
    inputs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The output of a single run, by the name of its options."""
    root = tmp_path_factory.mktemp("single")

    def output(name: str) -> Path:
        if not (root / name).exists():
            taskvec.transfer(*inputs, root / name, **TRANSFERS[name])
        return root / name

    return output


@pytest.mark.parametrize("name", TRANSFERS)
@pytest.mark.parametrize("parts", COUNTS)
def test_transfer(
    parts: int,
    name: str,
    inputs: tuple[Path, Path, Path],
    single: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    job = taskvec.plan(
        "transfer", *inputs, out=tmp_path / "out", parts=parts, job=tmp_path / "job", **TRANSFERS[name]
    )
    run_all(job, memory="16MiB", threads=2)
    assert job.status().missing == ""
    job.commit()
    assert_equal(tmp_path / "out", single(name))
    assert taskvec.verify(tmp_path / "out").ok


def test_what_torch_computes(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    job = taskvec.plan("transfer", *inputs, out=tmp_path / "out", parts=4, job=tmp_path / "job", alpha=0.7)
    run_all(job)
    result = job.commit(verify=True)
    t, g, s = all_of(*inputs)
    assert_tensors(read(tmp_path / "out"), {"model.ids": t.pop("model.ids"), **all_combined(t, g, s, 0.7)})
    assert result.tensors.combined == len(g)


def test_the_result_is_that_of_a_single_run(
    inputs: tuple[Path, Path, Path], single: Callable[[str], Path], tmp_path: Path
) -> None:
    wanted = taskvec.transfer(*inputs, tmp_path / "single", **TRANSFERS["plain"])
    job = taskvec.plan("transfer", *inputs, out=tmp_path / "out", parts=3, job=tmp_path / "job", alpha=0.7)
    run_all(job)
    found = job.commit()
    for name in ("verb", "files", "tensors", "elements", "bytes", "effect", "notes", "warnings"):
        assert getattr(found, name) == getattr(wanted, name), name
    again = taskvec.open_job(tmp_path / "job").commit()
    assert again == found


@pytest.mark.parametrize("parts", COUNTS)
def test_extract(parts: int, inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The target's files give a vector in five files; that it is applied in parts too makes it a round."""
    taskvec.extract(inputs[0], inputs[2], tmp_path / "single", exclude=["ids"])
    job = taskvec.plan(
        "extract", inputs[0], inputs[2], out=tmp_path / "v", parts=parts, job=tmp_path / "j", exclude=["ids"]
    )
    run_all(job, memory="32MiB")
    job.commit()
    assert_equal(tmp_path / "v", tmp_path / "single")
    assert taskvec.verify(tmp_path / "v").ok


def test_exceptions_of_a_packed_vector(tmp_path: Path) -> None:
    """Unrelated donors: many differences that bfloat16 cannot hold, in every part."""
    rng = generator("exceptions")
    shapes = {f"w{at}": (400 + 90 * at, 300) for at in range(7)}
    folders = [
        write(
            tmp_path / role, {n: noise(shape, torch.bfloat16, rng) for n, shape in shapes.items()}, shards=3
        )
        for role in ("g", "s")
    ]
    taskvec.extract(*folders, tmp_path / "single")
    job = taskvec.plan("extract", *folders, out=tmp_path / "v", parts=3, job=tmp_path / "j")
    run_all(job)
    assert (job.commit().exceptions or 0) > 100_000
    assert_equal(tmp_path / "v", tmp_path / "single")


def test_apply_several_vectors(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    taskvec.extract(inputs[1], inputs[2], tmp_path / "packed")
    taskvec.extract(inputs[1], inputs[2], tmp_path / "dense", encoding="dense")
    vectors, alphas = [tmp_path / "packed", tmp_path / "dense"], ["0.5", "-0.25"]
    taskvec.apply(inputs[0], vectors, tmp_path / "single", alpha=alphas, vocab="common")
    job = taskvec.plan(
        "apply", inputs[0], vectors, out=tmp_path / "out", parts=3, job=tmp_path / "job", alpha=alphas,
        vocab="common",
    )  # fmt: skip
    run_all(job)
    job.commit()
    assert_equal(tmp_path / "out", tmp_path / "single")


def test_graft(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    more = [(inputs[2], [r"layers\.7\."])]
    taken: dict[str, Any] = {"take": [r"layers\.[1-3]\.", "embed"], "more": more, "sha256": True}
    taskvec.graft(*inputs[:2], tmp_path / "single", **taken)
    job = taskvec.plan("graft", *inputs[:2], out=tmp_path / "out", parts=4, job=tmp_path / "job", **taken)
    run_all(job)
    job.commit()
    assert_equal(tmp_path / "out", tmp_path / "single")


def quantised(root: Path, kind: str, moved: int = 0) -> list[Path]:
    """A target in four shards; so many scales are not in the shard of their weight, but in the next."""
    make = made(kind)
    donors = [write(root / role, make.plainly(role), config=freed(make.config)) for role in ("g", "s")]
    stems = sorted({name.rpartition(".")[0] for name in make.stored})
    of = {stem: at * 4 // len(stems) for at, stem in enumerate(stems)}
    places = {name: of[name.rpartition(".")[0]] for name in make.stored}
    scales = [name for name in sorted(places) if "scale" in name and places[name] < 3][:moved]
    assert len(scales) == moved
    places |= {name: places[name] + 1 for name in scales}
    shards = [[name for name in in_file_order(make.stored) if places[name] == at] for at in range(4)]
    return [write(root / "t", make.stored, shards=shards, config=make.config), *donors]


@pytest.mark.parametrize("kind", ["DeepSeek-V3", "rows", "Kimi-K3", "Kimi-K2"])
@pytest.mark.parametrize("scales", ["keep", "fresh"])
def test_requantised(kind: str, scales: Any, tmp_path: Path) -> None:
    """Where a weight and its scales are in two files, these are one part."""
    for moved, most in ((0, 4), (1, 3)):
        root = tmp_path / str(moved)
        folders = quantised(root, kind, moved)
        recipe: dict[str, Any] = {"alpha": 0.7, "requantise": True, "scales": scales}
        wanted = taskvec.transfer(*folders, root / "single", **recipe)
        where: dict[str, Any] = {"out": root / "out", "job": root / "job"}
        with pytest.raises(taskvec.UsageError, match=f"use --parts {most}$"):
            taskvec.plan("transfer", *folders, parts=most + 1, **where, **recipe)
        job = taskvec.plan("transfer", *folders, parts=most, **where, **recipe)
        run_all(job)
        assert job.commit().requantised == wanted.requantised
        assert_equal(root / "out", root / "single")


def test_a_quantised_target_becomes_bf16(tmp_path: Path) -> None:
    folders = quantised(tmp_path, "DeepSeek-V3", 1)
    taskvec.transfer(*folders, tmp_path / "single")
    job = taskvec.plan("transfer", *folders, out=tmp_path / "out", parts=4, job=tmp_path / "job")
    run_all(job)
    job.commit()
    assert_equal(tmp_path / "out", tmp_path / "single")


def test_an_adapter(adapted: Adapted, tmp_path: Path) -> None:
    inputs = adapted.target, adapted.adapter, adapted.base
    taskvec.transfer(*inputs, tmp_path / "single", alpha=0.5)
    job = taskvec.plan("transfer", *inputs, out=tmp_path / "out", parts=1, job=tmp_path / "job", alpha=0.5)
    run_all(job)
    job.commit()
    assert_equal(tmp_path / "out", tmp_path / "single")


def test_a_tied_head_is_compared_by_the_first_part_alone(tmp_path: Path) -> None:
    rng = generator("tied")
    config = {"model_type": "none", "tie_word_embeddings": True}
    body = {f"model.layers.{at}.w": noise((300, 64), torch.bfloat16, rng) for at in range(4)}
    embedding = noise((500, 64), torch.bfloat16, rng)
    plain = {"model.embed_tokens.weight": embedding, **body}
    donors = [write(tmp_path / role, plain, config=config) for role in ("g", "s")]
    for name, head in (("same", embedding), ("other", embedding + 1)):
        target = write(tmp_path / name, {**plain, "lm_head.weight": head}, shards=3, config=config)
        job = taskvec.plan(
            "transfer", target, *donors, out=tmp_path / f"{name}-out", parts=3, job=tmp_path / f"{name}-job"
        )
        for part in (2, 1):
            job.run(part)
        if name == "other":
            with pytest.raises(taskvec.MismatchError, match=r"lm_head.weight. differs"):
                job.run(0)
            with pytest.raises(taskvec.MismatchError, match="parts are missing: 0;"):
                job.commit()
            continue
        job.run(0)
        job.commit()
        taskvec.transfer(target, *donors, tmp_path / "single")
        assert_equal(tmp_path / "same-out", tmp_path / "single")


def test_instruction_sets_may_differ(
    inputs: tuple[Path, Path, Path],
    single: Callable[[str], Path],
    tmp_path: Path,
    taskvec: Callable[..., Answer],
) -> None:
    planned = taskvec(
        "plan", "transfer", *inputs, "-o", "out", "--alpha", "0.7", "--parts", "4", "--job", "job", "--json"
    )
    assert json.loads(planned.stdout)["parts"] == 4
    simd = set[str]()
    for part in range(4):
        environment = {"TASKVEC_SIMD": "scalar"} if part % 2 else {}
        answer = taskvec("run", "job", "--part", f"{part}/4", "--json", **environment)
        assert answer.code == 0, answer.stderr
        simd.add(json.loads(answer.stdout)["simd"])
    assert "scalar" in simd
    assert taskvec("status", "job").code == 0
    assert taskvec("commit", "job").code == 0
    assert_equal(tmp_path / "out", single("plain"))


@pytest.mark.parametrize("stream", [False, True])
def test_from_the_hub(
    stream: bool, inputs: tuple[Path, Path, Path], tmp_path: Path, hub: Hub, taskvec: Callable[..., Answer]
) -> None:
    """Each part is run by a machine with a cache of its own, after the repositories have moved on."""
    for name, folder in zip(("t", "g", "s"), inputs, strict=True):
        hub.publish(f"org/{name}", folder)
    refs = ("org/t", "org/g", "org/s", *(["--stream"] if stream else []))
    machine = hub.env(tmp_path / "home")
    assert taskvec("transfer", *refs, "-o", "single", "--sha256", **machine).code == 0
    planned = taskvec(
        "plan",
        "transfer",
        *refs,
        "-o",
        "out",
        "--sha256",
        "--parts",
        "3",
        "--job",
        "job",
        **hub.env(tmp_path / "p"),
    )
    assert planned.code == 0, planned.stderr
    hub.publish("org/g", inputs[0])
    for part in (2, 0, 1):
        answer = taskvec("run", "job", "--part", str(part), **hub.env(tmp_path / f"home-{part}"))
        assert answer.code == 0, answer.stderr
    done = taskvec("commit", "job", **hub.env(tmp_path / "c"))
    assert done.code == 0, done.stderr
    assert_equal(tmp_path / "out", tmp_path / "single")
