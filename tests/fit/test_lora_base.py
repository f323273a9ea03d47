"""`--base`: which checkpoint adapters are on; and adapters on what a base does not store."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save

from adapters import change, deltas, moved, write_adapter, write_base
from families import assert_tensors, manifest, read, weights, write
from livemodels import load
from moe import renamed
from taskvec import MismatchError, UsageError, apply, check, extract, transfer, transferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters import Adapted
    from command import Answer


@pytest.fixture(params=["unsloth/x-unsloth-bnb-4bit", "/srv/models/base", "org/base", None])
def elsewhere(request: pytest.FixtureRequest, adapted: Adapted, tmp_path: Path) -> Path:
    """An adapter that names its base as it was called where it was trained."""
    copy = Path(shutil.copytree(adapted.adapter, tmp_path / "elsewhere"))
    return change(copy, base_model_name_or_path=request.param)


def test_the_base_is_said(
    base: Path, target: Path, elsewhere: Path, adapted: Adapted, tmp_path: Path
) -> None:
    named = json.loads((elsewhere / "adapter_config.json").read_text())["base_model_name_or_path"]
    said = f"this adapter's base is `{named}`" if named else "does not name the base model"
    with pytest.raises(MismatchError, match=f"{said}.*; give --base {base} if it is"):
        transfer(target, elsewhere, base, tmp_path / "out")
    assert check(target, elsewhere, base, base=base).compatible
    transfer(target, elsewhere, base, tmp_path / "out", base=base, alpha=0.5)
    assert_tensors(read(tmp_path / "out"), moved(target, deltas(base, adapted.adapter), {}, 0.5))
    assert manifest(tmp_path / "out")["recipe"]["base"] == str(base)
    extract(base, elsewhere, tmp_path / "v", base=f"{base}/../base")
    apply(target, tmp_path / "v", tmp_path / "two", alpha=-0.5)
    assert weights(tmp_path / "two") == weights(tmp_path / "out")


def test_nothing_is_recorded_where_it_is_not_given(
    base: Path, target: Path, adapted: Adapted, tmp_path: Path
) -> None:
    transfer(target, adapted.adapter, base, tmp_path / "out")
    assert "base" not in manifest(tmp_path / "out")["recipe"]
    assert "--base" not in (tmp_path / "out" / "README.md").read_text()


def test_two_adapters_that_name_one_base_in_two_ways(
    base: Path, target: Path, elsewhere: Path, adapted: Adapted, tmp_path: Path
) -> None:
    other = write_adapter(tmp_path / "other", base, "other", r=2, target_modules=["q_proj"])
    with pytest.raises(MismatchError, match="or name it with --base"):
        transfer(target, elsewhere, other, tmp_path / "out")
    transfer(target, elsewhere, other, tmp_path / "out", base=base)
    found = moved(target, deltas(base, adapted.adapter), deltas(base, other), 1.0)
    assert_tensors(read(tmp_path / "out"), found)


def test_the_cards_command_makes_the_same_again(
    base: Path, target: Path, elsewhere: Path, tmp_path: Path, taskvec: Callable[..., Answer]
) -> None:
    for name, folder in {"target": target, "base": base, "adapter": elsewhere}.items():
        (tmp_path / name).symlink_to(folder)
    done = taskvec("transfer", "target", "adapter", "base", "--base", "base", "-o", "out")
    assert done.code == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    command = next(line for line in card.splitlines() if line.startswith("    taskvec transfer"))
    assert "--base base" in command
    words = [str(tmp_path / "again") if word == "OUT" else word for word in shlex.split(command)[1:]]
    # The card calls folders by their own names.
    known = {target.name: target, elsewhere.name: elsewhere}
    words = [str(known.get(word, word)) for word in words]
    assert taskvec(*words).code == 0
    assert weights(tmp_path / "again") == weights(tmp_path / "out")


def test_it_must_be_the_donor_beside_the_adapter(
    base: Path, target: Path, elsewhere: Path, tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match="which is not that model; use the base as the other donor"):
        transfer(target, elsewhere, base, tmp_path / "out", base=target)
    assert not (tmp_path / "out").exists()


def test_shapes_still_have_to_fit(target: Path, elsewhere: Path, base: Path, tmp_path: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(2, 48, dtype=torch.bfloat16)
    small = tmp_path / "small"
    small.mkdir()
    (small / "model.safetensors").write_bytes(save(tensors))
    with pytest.raises(MismatchError, match=r"which has shape \[2, 48\] in .*small"):
        transfer(target, elsewhere, small, tmp_path / "out", base=small)


def test_without_an_adapter_it_means_nothing(
    base: Path, target: Path, adapted: Adapted, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="--base is for adapters, but no donor is an adapter"):
        transfer(target, base, base, tmp_path / "out", base=base)
    extract(adapted.adapter, base, tmp_path / "v")
    with pytest.raises(UsageError, match="--base is for adapters"):
        apply(target, tmp_path / "v", tmp_path / "out", base=base)
    with pytest.raises(UsageError, match="base is empty"):
        check(target, adapted.adapter, base, base="")


def test_in_a_live_model(base: Path, target: Path, elsewhere: Path, tmp_path: Path) -> None:
    transfer(target, elsewhere, base, tmp_path / "out", base=base)
    model = load(target, torch.bfloat16)
    with transferred(model, elsewhere, base, target=target, base=base):
        written = load(tmp_path / "out", torch.bfloat16).state_dict()
        assert all(torch.equal(value, written[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"exclude": ["lm_head"]}, {"include": ["q_proj"]}])
def test_an_adapted_head_that_the_base_ties(
    options: dict[str, list[str]], target: Path, tmp_path: Path
) -> None:
    tied = write_base(tmp_path / "tied", tied=True)
    adapter = write_adapter(tmp_path / "adapter", tied, "one", r=4, target_modules=["q_proj", "lm_head"])
    if not options:
        with pytest.raises(MismatchError, match=r"ties to its embedding .* leave it out with --exclude"):
            transfer(target, adapter, tied, tmp_path / "out")
        return
    transfer(target, adapter, tied, tmp_path / "out", **options)
    found = {name: one for name, one in deltas(tied, adapter).items() if "q_proj" in name}
    assert_tensors(read(tmp_path / "out"), moved(target, found, {}, 1.0))


def test_a_base_whose_names_have_a_wrappers_prefix(
    base: Path, target: Path, adapted: Adapted, tmp_path: Path
) -> None:
    renamed = Path(shutil.copytree(base, tmp_path / "renamed"))
    tensors = load_file(base / "model.safetensors")
    (renamed / "model.safetensors").write_bytes(
        save({f"module.{name}": one for name, one in tensors.items()})
    )
    with pytest.raises(MismatchError, match="give --strip-prefix"):
        transfer(target, adapted.adapter, renamed, tmp_path / "out", base=renamed)
    transfer(target, adapted.adapter, renamed, tmp_path / "out", base=renamed, strip_prefix=["module."])
    assert_tensors(read(tmp_path / "out"), moved(target, deltas(base, adapted.adapter), {}, 1.0))
    assert json.loads((tmp_path / "out" / "taskvec.json").read_text())["recipe"]["strip_prefix"] == [
        "module."
    ]


def test_the_adapters_model_may_be_within_another(
    base: Path, target: Path, adapted: Adapted, tmp_path: Path
) -> None:
    """The names of ΔW change as those of the base would."""
    nested = write(tmp_path / "nested", renamed(read(target), "model.language_model."))
    transfer(nested, adapted.adapter, base, tmp_path / "out")
    transfer(target, adapted.adapter, base, tmp_path / "plain")
    assert_tensors(read(tmp_path / "out"), renamed(read(tmp_path / "plain"), "model.language_model."))
