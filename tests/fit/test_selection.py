"""Which tensors take part, and with which α: rules, patterns and prefixes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import (
    Tensors,
    all_combined,
    assert_same,
    assert_tensors,
    combined,
    generator,
    manifest,
    noise,
    read,
    write,
)
from taskvec import UsageError, check, transfer

if TYPE_CHECKING:
    from pathlib import Path


def small(tmp_path: Path, names: list[str], prefix: str = "") -> tuple[list[Path], list[Tensors]]:
    """A family of f32 tensors with these names; the donors' begin with `prefix`."""
    rng = generator(names)
    t, g, s = ({name: noise([40], torch.float32, rng) for name in names} for _ in range(3))
    paths = [write(tmp_path / "t", t)]
    for role, tensors in (("g", g), ("s", s)):
        paths.append(write(tmp_path / role, {prefix + name: one for name, one in tensors.items()}))
    return paths, [t, g, s]


@pytest.mark.parametrize(
    ("rules", "alphas"),
    [
        (["mlp=0.5"], [1.0, 0.5, 0.5]),
        ([("mlp", -2), r"\.1\.mlp=0"], [1.0, -2.0, 0.0]),
        ([r"\.1\.=0", "mlp=0.25"], [1.0, 0.25, 0.25]),
        ([".=3"], [3.0, 3.0, 3.0]),
    ],
)
def test_the_last_rule_that_matches_wins(rules: list[Any], alphas: list[float], tmp_path: Path) -> None:
    names = ["model.0.attn", "model.0.mlp", "model.1.mlp"]
    paths, (t, g, s) = small(tmp_path, names)
    result = transfer(*paths, tmp_path / "out", alpha_rules=rules)
    found = read(tmp_path / "out")
    for name, alpha in zip(names, alphas, strict=True):
        assert_same(found[name], combined(t[name], g[name], s[name], alpha), name)
    assert result.tensors.combined == sum(1 for alpha in alphas if alpha)
    entries = {entry["name"]: entry.get("alpha", []) for entry in manifest(tmp_path / "out")["tensors"]}
    assert entries == {name: [alpha] if alpha else [] for name, alpha in zip(names, alphas, strict=True)}


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"include": ["mlp"]}, [False, True, True]),
        ({"exclude": ["mlp"]}, [True, False, False]),
        ({"include": ["mlp"], "exclude": [r"\.1\."]}, [False, True, False]),
        ({"include": ["attn", r"1\.mlp$"]}, [True, False, True]),
    ],
)
def test_what_is_not_selected_stays(options: dict[str, Any], taken: list[bool], tmp_path: Path) -> None:
    names = ["model.0.attn", "model.0.mlp", "model.1.mlp"]
    paths, (t, g, s) = small(tmp_path, names)
    result = transfer(*paths, tmp_path / "out", alpha=0.7, **options)
    found = read(tmp_path / "out")
    for name, chosen in zip(names, taken, strict=True):
        assert_same(found[name], combined(t[name], g[name], s[name], 0.7 if chosen else 0.0), name)
    assert (result.tensors.combined, result.tensors.copied) == (sum(taken), 3 - sum(taken))
    assert any("not selected" in note for note in result.notes)


def test_wrapper_prefixes_are_matched_on_request_alone(tmp_path: Path) -> None:
    names = ["model.0.attn", "lm_head.weight"]
    paths, (t, g, s) = small(tmp_path, names, prefix="_orig_mod.")
    with pytest.raises(ValueError, match=r"_orig_mod\.model\.0\.attn"):
        transfer(*paths, tmp_path / "out")
    transfer(*paths, tmp_path / "out", strip_prefix=["_orig_mod."])
    assert_tensors(read(tmp_path / "out"), all_combined(t, g, s, 1.0))
    assert json.loads((tmp_path / "out" / "taskvec.json").read_text())["recipe"]["strip_prefix"] == [
        "_orig_mod."
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"include": ["nothing"]},
        {"exclude": ["nothing"]},
        {"alpha_rules": ["nothing=1"]},
        {"strip_prefix": ["module."]},
    ],
)
def test_what_matches_nothing_is_a_slip(options: dict[str, Any], tmp_path: Path) -> None:
    paths, _ = small(tmp_path, ["a", "b"])
    with pytest.raises(UsageError, match=r"nothing|module\."):
        transfer(*paths, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrappers", "given"),
    [
        (("", "module.", "module."), ["module."]),
        (("model.inner_model.", "model.", "model."), ["model.inner_model.", "model."]),
        (("", "module._orig_mod.", "_orig_mod.module."), ["_orig_mod.", "module."]),
        (("module.", "", "_orig_mod."), ["_orig_mod.", "module."]),
    ],
)
def test_the_prefixes_to_strip_are_named(wrappers: Any, given: list[str], tmp_path: Path) -> None:
    plain = [
        {f"layers.{at}.weight": torch.full((3, 2), float(seed + at)) for at in (0, 1)} for seed in (1, 5, 2)
    ]
    paths = [
        write(tmp_path / role, {wrapper + name: value for name, value in one.items()})
        for role, wrapper, one in zip("tgs", wrappers, plain, strict=True)
    ]
    says = "give " + " ".join(f"--strip-prefix {prefix}" for prefix in given)
    problems = check(*paths).problems
    assert problems
    assert all(problem.message.endswith(says) for problem in problems)
    # What is suggested works.
    transfer(*paths, tmp_path / "out", strip_prefix=given)
    wanted = {wrappers[0] + name: value for name, value in all_combined(*plain, 1.0).items()}
    assert_tensors(read(tmp_path / "out"), wanted)


INNER = "_fsdp_wrapped_module."


@pytest.mark.parametrize(
    ("outer", "inner", "given"),
    [
        ("", INNER, [INNER]),
        (INNER, INNER, [INNER]),
        ("", INNER + INNER, [INNER]),
        ("", INNER + "_checkpoint_wrapped_module.", ["_checkpoint_wrapped_module.", INNER]),
        ("module.", INNER, [INNER, "module."]),
        ("_orig_mod.module.", INNER, [INNER, "_orig_mod.", "module."]),
    ],
)
def test_wrappers_within_a_name(outer: str, inner: str, given: list[str], tmp_path: Path) -> None:
    names = ["model.{}layers.{}.{}attn.weight", "model.{}norm.weight"]
    plain = [name.replace("{}layers.{}.{}", "layers.0.").replace("{}", "") for name in names]
    wrapped = {name: outer + name.format(inner, 0, inner) for name in names}
    paths, family = small(tmp_path, plain)
    for role, one in zip("gs", family[1:], strict=True):
        write(tmp_path / role, {wrapped[names[at]]: one[name] for at, name in enumerate(plain)})
    (first, *_) = check(*paths).problems
    assert first.message.endswith("give " + " ".join(f"--strip-prefix {one}" for one in given))
    # In any order, and only where a part of the name is called so.
    for at, order in enumerate((given, given[::-1])):
        transfer(*paths, tmp_path / f"out{at}", strip_prefix=order)
        assert_tensors(read(tmp_path / f"out{at}"), all_combined(*family, 1.0))
    with pytest.raises(UsageError, match="occurs in no tensor's name"):
        transfer(*paths, tmp_path / "none", strip_prefix=["_wrapped_module."])


@pytest.mark.parametrize("order", [["module.", "_orig_mod."], ["_orig_mod.", "module."]])
@pytest.mark.parametrize("wrapper", ["module._orig_mod.", "_orig_mod.module.", "module.", "_orig_mod."])
def test_two_wrappers_in_any_order(wrapper: str, order: list[str], tmp_path: Path) -> None:
    # Of `module.module.` only the wrapper goes.
    names = ["module.0.attn", "lm_head.weight"]
    paths, family = small(tmp_path, names)
    for role, one in zip("gs", family[1:], strict=True):
        write(tmp_path / role, {wrapper + name: value for name, value in one.items()})
    write(tmp_path / "t", {f"module._orig_mod.{name}": value for name, value in family[0].items()})
    if wrapper.count(".") == 2:
        transfer(*paths, tmp_path / "out", strip_prefix=order)
        found = read(tmp_path / "out")
        wanted = all_combined(*family, 1.0)
        assert_tensors({name.removeprefix("module._orig_mod."): one for name, one in found.items()}, wanted)
    else:
        assert not check(*paths).compatible


def test_names_of_another_model_suggest_no_prefix(tmp_path: Path) -> None:
    one = {"layers.0.weight": torch.ones(2), "other.bias": torch.ones(2)}
    other = {"model.layers.0.weight": torch.ones(2), "model.norm.bias": torch.ones(2)}
    paths = [
        write(tmp_path / role, tensors) for role, tensors in zip("tgs", (one, other, other), strict=True)
    ]
    assert not any("--strip-prefix" in problem.message for problem in check(*paths).problems)
