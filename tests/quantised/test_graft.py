"""A graft copies weights of any type, byte for byte, and with everything that belongs to them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open

from families import generator, noise, write
from hostile import call, refused
from quantised.layouts import KINDS, made
from quantised.maker import freed
from taskvec import MismatchError, UsageError, dry_run, graft, inspect, transfer, verify

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def stored(folder: Path) -> dict[str, Tensor]:
    """Every tensor as the safetensors library reads it."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict)
                found[name] = file.get_tensor(name)
    return found


def same(a: Tensor, b: Tensor) -> bool:
    def octets(one: Tensor) -> bytes:
        return one.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()

    return a.dtype == b.dtype and a.shape == b.shape and octets(a) == octets(b)


def assert_chimera(out: Path, target: Path, donors: dict[Path, set[str]]) -> None:
    """These tensors are the donors', all others the target's; headers, index and config are the target's."""
    found, own = stored(out), stored(target)
    origin = {name: stored(donor)[name] for donor, names in donors.items() for name in names}
    assert found.keys() == own.keys()
    for name, value in found.items():
        assert same(value, origin.get(name, own[name])), name
    for path in target.iterdir():
        if path.suffix == ".safetensors":
            length = 8 + int.from_bytes(path.read_bytes()[:8], "little")
            assert (out / path.name).read_bytes()[:length] == path.read_bytes()[:length]
        elif path.name not in ("README.md", "taskvec.json"):
            assert (out / path.name).read_bytes() == path.read_bytes()
    assert verify(out).ok


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_weights_come_with_all_of_their_parts(kind: str, tmp_path: Path) -> None:
    target, donor = made(kind, 1).save(tmp_path / "t"), made(kind, 2).save(tmp_path / "d")
    names = [one.name for one in inspect(target).tensors if one.format is not None]
    chosen = [name for name in names if "layers" in name][::2] or names[:1]
    graft(target, donor, tmp_path / "out", take=[f"^{name}$" for name in chosen])
    stems = {name.removesuffix(".weight") for name in chosen}
    ends = (
        "",
        "_packed",
        "_scale",
        "_scale_inv",
        "_scale_2",
        "_global_scale",
        "_shape",
        "_blocks",
        "_scales",
    )
    taken = {f"{name}{end}" for name in chosen for end in ends}
    more = ("scale", "input_scale", "activation_scale", "input_global_scale", "k_scale", "v_scale")
    taken |= {f"{stem}.{end}" for stem in stems for end in more}
    taken |= {f"{name}_input_scale" for name in chosen}
    taken &= stored(target).keys()
    assert_chimera(tmp_path / "out", target, {donor: taken})
    tensors = json.loads((tmp_path / "out" / "taskvec.json").read_text())["tensors"]
    assert {one["name"] for one in tensors if one["action"] == "grafted"} == taken
    assert all(one.get("from") == ("donor" if one["name"] in taken else None) for one in tensors)


@pytest.fixture
def plain(tmp_path: Path) -> list[Path]:
    """Three models of plain weights, in which a layer has many MiB."""
    shapes = {f"model.layers.{at}.{part}.weight": (700, 1024) for at in range(3) for part in ("attn", "mlp")}
    shapes |= {"model.embed_tokens.weight": (64, 16), "model.norm.bias": (3,)}
    folders = []
    for seed in range(3):
        rng = generator(seed)
        one = {name: noise(shape, torch.bfloat16, rng) for name, shape in shapes.items()}
        folders.append(write(tmp_path / f"m{seed}", one, shards=3, pad=3 * seed))
    return folders


def test_several_donors_each_with_patterns_of_its_own(plain: list[Path], tmp_path: Path) -> None:
    target, first, second = plain
    out = tmp_path / "out"
    words = ["graft", target, first, "-o", out, "--take", r"layers\.0\.", "--take", r"1\.attn"]
    words += ["--from", second, "--take", r"1\.mlp", "--take", "norm", "--memory", "8MiB"]
    assert call(words)[0] == 0
    names = stored(target)
    of_first = {name for name in names if "layers.0" in name or "1.attn" in name}
    of_second = {name for name in names if "1.mlp" in name or "norm" in name}
    assert_chimera(out, target, {first: of_first, second: of_second})
    recipe = json.loads((out / "taskvec.json").read_text())["recipe"]
    wanted = [[r"layers\.0\.", r"1\.attn"], [r"1\.mlp", "norm"]]
    assert [one["take"] for one in recipe["grafts"]] == wanted
    again = graft(
        target, first, tmp_path / "again", take=wanted[0], more=[(second, wanted[1])], threads=1, io="mmap"
    )
    assert again.tensors.grafted == len(of_first | of_second)
    for path in out.glob("*.safetensors"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_a_tied_head_follows_its_embedding(tmp_path: Path) -> None:
    folders = []
    for seed in range(2):
        embedding = noise((64, 16), torch.bfloat16, generator(seed))
        one = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding.clone()}
        config = {"model_type": "qwen2", "tie_word_embeddings": True}
        folders.append(write(tmp_path / f"m{seed}", one, config=config))
    graft(*folders, tmp_path / "out", take=["embed"])
    assert_chimera(
        tmp_path / "out", folders[0], {folders[1]: {"model.embed_tokens.weight", "lm_head.weight"}}
    )


def bf16_of(kind: str, folder: Path) -> Path:
    make = made(kind, 3)
    return write(
        folder, {n: x.to(torch.bfloat16) for n, x in make.logical.items()}, config=freed(make.config)
    )


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "a pattern that matches nothing": ({"take": ["q_proj", "absent"]}, 2, "absent"),
    "a pattern that is none": ({"take": ["("]}, 2, "regular expression"),
    "no pattern at all": ({"take": []}, 2, "--take"),
    "options of arithmetic": ({"take": ["q_proj"], "dtype": "f32"}, 2, "dtype"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_requests_that_make_no_sense_are_refused(case: str, tmp_path: Path) -> None:
    options, _, says = REFUSED[case]
    target, donor = (
        made("Qwen3 under BF16", 1).save(tmp_path / "t"),
        made("Qwen3 under BF16", 2).save(tmp_path / "d"),
    )
    with pytest.raises(UsageError, match=says):
        graft(target, donor, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    kind = "Qwen3 under BF16"
    target, plain = made(kind, 1).save(tmp_path / "t"), bf16_of(kind, tmp_path / "plain")
    cut = made(kind, 2)
    name = next(name for name in cut.coded if name.endswith("q_proj.weight"))
    for one in (name, f"{name}_scale_inv"):
        del cut.stored[one]
    cases = [
        (plain, ["q_proj"], "not quantised"),
        (made("rows", 2).save(tmp_path / "rows"), ["q_proj"], "q_proj"),
        (cut.save(tmp_path / "cut"), ["_proj"], "q_proj"),
    ]
    for donor, take, says in cases:
        answer = call(
            ["graft", target, donor, "-o", tmp_path / "out", *(w for t in take for w in ("--take", t))]
        )
        message = refused(answer, 1, str(target), says)
        plan = dry_run.graft(target, donor, tmp_path / "out", take=take)
        assert not plan.compatible
        assert plan.problems[0].message in message
        assert not (tmp_path / "out").exists()
    other = made(kind, 4).save(tmp_path / "other")
    with pytest.raises(MismatchError, match="both donor 1 and donor 2"):
        graft(target, other, tmp_path / "out", take=["q_proj"], more=[(other, ["q_proj"])])


def test_methods_that_are_not_read_are_grafted_by_module(tmp_path: Path) -> None:
    folders = []
    for seed in range(2):
        rng = generator(seed)
        one = {
            f"model.layers.{at}.q_proj.{part}": torch.randint(0, 9, shape, dtype=dtype, generator=rng)
            if not dtype.is_floating_point
            else noise(shape, dtype, rng)
            for at in range(2)
            for part, shape, dtype in (
                ("qweight", (4, 8), torch.int32),
                ("qzeros", (1, 1), torch.int32),
                ("scales", (1, 8), torch.float16),
            )
        }
        one["model.norm.weight"] = noise((8,), torch.bfloat16, rng)
        config = {"model_type": "qwen2", "quantization_config": {"quant_method": "gptq"}}
        folders.append(write(tmp_path / f"m{seed}", one, config=config))
    graft(*folders, tmp_path / "out", take=[r"layers\.1"])
    taken = {name for name in stored(folders[0]) if "layers.1" in name}
    assert_chimera(tmp_path / "out", folders[0], {folders[1]: taken})


def test_a_graft_is_a_target_like_any_other(tmp_path: Path) -> None:
    kind = "DeepSeek-V3"
    target, donor = made(kind, 1).save(tmp_path / "t"), made(kind, 2).save(tmp_path / "d")
    graft(target, donor, tmp_path / "chimera", take=[r"mlp\.experts\."])
    pair = bf16_of(kind, tmp_path / "g")
    transfer(tmp_path / "chimera", pair, pair, tmp_path / "out", alpha=0)
    shutil.rmtree(tmp_path / "out")
    transfer(tmp_path / "chimera", pair, pair, tmp_path / "out", requantise=True)
    assert_chimera(tmp_path / "out", tmp_path / "chimera", {})
