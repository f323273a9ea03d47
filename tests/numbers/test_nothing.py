"""Vectors that are 0 everywhere: said aloud by every verb that meets one, also with --quiet."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save

from adapters import write_adapter, write_base
from families import write
from fitting import place, tensors
from taskvec import Vector, apply, check, dry_run, extract, inspect, transfer, transferred

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Answer

SAID = "the vector is 0 everywhere"


def zero(tmp_path: Path) -> list[Path]:
    """A target, and a donor twice, in files of its own each time."""
    target, donor = tensors("t"), tensors("g")
    return place(tmp_path, target, donor, donor)


def warned(warnings: tuple[str, ...]) -> bool:
    return [SAID in warning for warning in warnings] == [True]


def test_every_verb_says_so(tmp_path: Path) -> None:
    t, g, s = zero(tmp_path)
    assert warned(transfer(t, g, s, tmp_path / "out").warnings)
    vector = extract(g, s, tmp_path / "v")
    assert vector.written is not None
    assert warned(vector.written.warnings)
    assert warned(inspect(tmp_path / "v").warnings)
    assert warned(check(t, tmp_path / "v").warnings)
    assert warned(apply(t, tmp_path / "v", tmp_path / "applied").warnings)


def test_check_knows_it_of_one_folder_named_twice(tmp_path: Path) -> None:
    t, g, s = zero(tmp_path)
    (tmp_path / "link").symlink_to(g)
    assert warned(check(t, g, g).warnings)
    assert warned(check(t, g, tmp_path / "link").warnings)
    # Of equal files headers alone tell nothing.
    assert check(t, g, s).warnings == ()


def test_one_of_several_is_named(tmp_path: Path) -> None:
    t, g, s = zero(tmp_path)
    extract(g, s, tmp_path / "v")
    extract(g, t, tmp_path / "w")
    said = "vector 2 (v) is 0 everywhere and adds nothing"
    both = [tmp_path / "w", tmp_path / "v"]
    assert dry_run.apply(t, both, tmp_path / "out").warnings == (said,)
    assert apply(t, both, tmp_path / "out").warnings == (said,)
    # The sum of two that are both 0 is told as that too.
    assert len(apply(t, [tmp_path / "v", tmp_path / "v"], tmp_path / "none").warnings) == 3


def test_it_is_heard_with_quiet(tmp_path: Path, taskvec: Callable[..., Answer]) -> None:
    t, g, s = zero(tmp_path)
    extract(g, s, tmp_path / "v")
    for command in (
        ("transfer", t, g, s, "-o", "out"),
        ("extract", g, s, "-o", "again"),
        ("apply", t, "v", "-o", "applied"),
        ("check", t, "v"),
        ("check", t, g, g),
        ("inspect", "v"),
    ):
        answer = taskvec(*command, "--quiet")
        assert answer.code == 0
        assert answer.stderr.count(f"warning: {SAID}") == 1, command
        written = ["--overwrite"] if "-o" in command else []
        assert warned(json.loads(taskvec(*command, "--json", *written).stdout)["warnings"])


def test_a_run_that_only_had_to_be_ended_says_it_too(tmp_path: Path) -> None:
    t, g, s = zero(tmp_path)
    first = transfer(t, g, s, tmp_path / "out", overwrite=True)
    again = transfer(t, g, s, tmp_path / "out", overwrite=True)
    assert warned(first.warnings)
    assert warned(again.warnings)


def test_vectors_that_cancel(tmp_path: Path) -> None:
    t, g, s = place(tmp_path, tensors("t"), tensors("g"), tensors("s"))
    extract(g, s, tmp_path / "v")
    result = apply(t, [tmp_path / "v", tmp_path / "v"], tmp_path / "out", alpha=[1, -1])
    assert [warning for warning in result.warnings if "add up to 0" in warning]
    assert not [warning for warning in result.warnings if SAID in warning]


def test_an_adapter_that_was_never_trained(tmp_path: Path) -> None:
    base, target = write_base(tmp_path / "base"), write_base(tmp_path / "target", "target")
    adapter = write_adapter(tmp_path / "adapter", base, "one", r=2, target_modules=["q_proj"])
    file = adapter / "adapter_model.safetensors"
    factors = {
        name: torch.zeros_like(one) if "lora_B" in name else one for name, one in load_file(file).items()
    }
    file.write_bytes(save(factors))
    assert warned(transfer(target, adapter, base, tmp_path / "out").warnings)


def test_a_live_model_hears_of_it(tmp_path: Path) -> None:
    t, g, s = zero(tmp_path)
    module = torch.nn.Module()
    for name, value in tensors("t").items():
        part = module
        *path, last = name.split(".")
        for one in path:
            if not hasattr(part, one):
                part.add_module(one, torch.nn.Module())
            part = getattr(part, one)
        part.register_parameter(last, torch.nn.Parameter(value))
    with transferred(module, g, s, target=t) as applied:
        assert warned(applied.warnings)


def test_nothing_is_said_of_other_vectors(tmp_path: Path) -> None:
    donor = tensors("g")
    t, g, s = place(
        tmp_path, tensors("t"), donor, {**donor, "model.norm.weight": donor["model.norm.weight"] + 1}
    )
    assert not any(SAID in one for one in transfer(t, g, s, tmp_path / "out").warnings)
    # Nor of one whose only difference is not a number.
    odd = donor["model.norm.weight"].clone()
    odd.view(-1)[0] = math.nan
    other = write(tmp_path / "odd", {**donor, "model.norm.weight": odd})
    assert not any(SAID in one for one in transfer(t, other, g, tmp_path / "nan").warnings)
    shutil.rmtree(tmp_path / "out")
    # α·v may round to 0, which does not make v so.
    tiny = transfer(t, g, s, tmp_path / "out", alpha=1e-38)
    assert not any(SAID in one for one in tiny.warnings)
    assert isinstance(extract(g, s, tmp_path / "v"), Vector)
