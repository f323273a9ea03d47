"""Donors that hold the same weights under other names or in other tensors than the target."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from families import (
    CONFIG,
    Tensors,
    all_combined,
    assert_tensors,
    files,
    generator,
    manifest,
    noise,
    read,
    weights,
    write,
)
from fitting import assert_refused
from moe import MOE, fused, renamed, separate
from taskvec import MismatchError, UsageError, advise, apply, check, combine, dry_run, extract, transfer

if TYPE_CHECKING:
    from pathlib import Path

ALPHA = 0.7
CUT = "{}: 4 fused tensors of experts, read as one for each expert"
JOINED = "{}: 18 tensors of single experts, read as 4 fused ones"


def family(tmp_path: Path, **sizes: Any) -> dict[str, Tensors]:
    """Target, minuend and subtrahend with experts one by one (`t`, `g`, `s`) and fused (`ft`, `fg`, `fs`)."""
    found: dict[str, Tensors] = {}
    for role in "tgs":
        one = separate(role, **sizes)
        found |= {role: one, f"f{role}": fused(one)}
    for name, tensors in found.items():
        write(tmp_path / name, tensors, shards=2, config=MOE)
    return found


class TestExperts:
    """Fused or one by one."""

    @pytest.mark.parametrize("target", ["t", "ft"])
    def test_each_input_may_have_its_own_layout(self, target: str, tmp_path: Path) -> None:
        all_of = family(tmp_path)
        fuse = target != "t"
        g, s = (all_of[f"f{role}" if fuse else role] for role in "gs")
        wanted, out = all_combined(all_of[target], g, s, ALPHA), tmp_path / "out"
        first: dict[str, bytes] = {}
        for roles in product(("g", "fg"), ("s", "fs")):
            paths = [tmp_path / target, *(tmp_path / role for role in roles)]
            before = {path: files(path) for path in paths}
            plan = check(*paths)
            assert plan.compatible, plan.problems
            result = transfer(*paths, out, alpha=ALPHA, overwrite=True)
            assert_tensors(read(out), wanted, roles)
            note = JOINED if fuse else CUT
            for name, role in zip(("minuend", "subtrahend"), roles, strict=True):
                differs = role.startswith("f") != fuse
                for notes in (plan.notes, result.notes, manifest(out)["notes"]):
                    assert (note.format(name) in notes) == differs
            assert result.tensors == plan.tensors
            first = first or weights(out)
            assert weights(out) == first
            assert {path: files(path) for path in paths} == before

    @pytest.mark.parametrize("encoding", ["packed", "dense"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_a_vector_may_have_either_layout(self, dtype: Any, encoding: Any, tmp_path: Path) -> None:
        # Large enough for several frames that end within an expert, and for several windows.
        all_of = family(tmp_path, inner=300, hidden=701, dtype=dtype)
        for target, pair in product(("t", "ft"), (("g", "s"), ("fg", "fs"), ("fg", "s"), ("g", "fs"))):
            vector, out = tmp_path / "v", tmp_path / "out"
            donors = [tmp_path / role for role in pair]
            extract(*donors, vector, encoding=encoding, overwrite=True)
            # The vector has the names of its minuend.
            names = {name for name in read(vector) if ".index" not in name and ".value" not in name}
            assert names == set(all_of[pair[0]])
            transfer(tmp_path / target, *donors, out, alpha=ALPHA, overwrite=True)
            one = weights(out)
            apply(tmp_path / target, vector, out, alpha=ALPHA, overwrite=True, memory="24MB")
            assert weights(out) == one, (target, pair)

    def test_vectors_of_both_layouts_are_added(self, tmp_path: Path) -> None:
        all_of = family(tmp_path)
        for name, (g, s) in {"v1": ("g", "s"), "v2": ("fs", "fg")}.items():
            extract(tmp_path / g, tmp_path / s, tmp_path / name)
        for target in ("t", "ft"):
            out = tmp_path / "out"
            apply(tmp_path / target, [tmp_path / "v1", tmp_path / "v2"], out, overwrite=True)
            assert_tensors(read(out), all_of[target])

    def test_vectors_of_both_layouts_are_combined(self, tmp_path: Path) -> None:
        family(tmp_path)
        for name, (g, s) in {"v1": ("g", "s"), "v2": ("fg", "fs"), "same": ("g", "s")}.items():
            extract(tmp_path / g, tmp_path / s, tmp_path / name)
        combine([tmp_path / "v1", tmp_path / "v2"], tmp_path / "out", alpha=[1, 0.5])
        combine([tmp_path / "v1", tmp_path / "same"], tmp_path / "wanted", alpha=[1, 0.5])
        assert weights(tmp_path / "out") == weights(tmp_path / "wanted")

    def test_all_ways_to_look_at_a_job_agree(self, tmp_path: Path) -> None:
        family(tmp_path)
        paths = [tmp_path / role for role in ("t", "fg", "fs")]
        plan = dry_run.transfer(*paths, tmp_path / "out")
        assert plan.compatible
        assert CUT.format("minuend") in plan.notes
        advised = advise(*paths, alphas=[0.7])
        same = advise(tmp_path / "t", tmp_path / "g", tmp_path / "s", alphas=[0.7])
        assert advised.variants == same.variants

    def test_rules_and_patterns_see_the_names_of_the_target(self, tmp_path: Path) -> None:
        all_of = family(tmp_path)
        paths = [tmp_path / role for role in ("t", "fg", "fs")]
        options: dict[str, Any] = {"exclude": ["up_proj"], "alpha_rules": [r"experts\.1\.=0.25"]}
        transfer(*paths, tmp_path / "out", alpha=ALPHA, **options)
        transfer(tmp_path / "t", tmp_path / "g", tmp_path / "s", tmp_path / "same", alpha=ALPHA, **options)
        assert weights(tmp_path / "out") == weights(tmp_path / "same")
        up = "model.layers.1.mlp.experts.2.up_proj.weight"
        assert torch.equal(read(tmp_path / "out")[up], all_of["t"][up])

    @pytest.mark.parametrize("float32", ["all", "one"])
    def test_types_may_be_mixed(self, float32: str, tmp_path: Path) -> None:
        all_of = family(tmp_path)
        g = all_of["g"]
        for name in g:
            if float32 == "all" or "experts.1.up" in name:
                g[name] = g[name].float() + 2.0**-20
        write(tmp_path / "mixed", g, config=MOE)
        transfer(tmp_path / "ft", tmp_path / "mixed", tmp_path / "s", tmp_path / "out", alpha=ALPHA)
        f32 = [fused({name: one.float() for name, one in role.items()}) for role in (g, all_of["s"])]
        wanted = all_combined(all_of["ft"], f32[0], f32[1], ALPHA)
        assert_tensors(read(tmp_path / "out"), wanted)

    @pytest.mark.parametrize("roles", ["t fg fs", "ft g s", "t fg s", "t g fs"])
    @pytest.mark.parametrize(
        "kind", ["count", "transposed", "interleaved", "biases", "square", "square and transposed"]
    )
    def test_what_is_almost_a_view_is_refused(self, kind: str, roles: str, tmp_path: Path) -> None:
        says = {
            "count": "but there are (2 in the one and 3|3 in the one and 2) in the other",
            "transposed": "but the fused tensor is transposed",
            "interleaved": "rows of gate and up in turn",
            "biases": "rows of gate and up in turn",
            "square": "the matrices are square, and config.json does not tell",
            "square and transposed": "but the fused tensor is transposed",
        }[kind]
        types = {"interleaved": "gpt_oss", "square": "unknown_moe", "square and transposed": "qwen3_vl_moe"}
        config = {**MOE, "model_type": types.get(kind, MOE["model_type"])}
        flips = kind in ("transposed", "interleaved")
        for role in roles.split():
            experts = 2 if kind == "count" and role.startswith("f") else 3
            one = separate(role[-1], experts, inner=6 if kind.startswith("square") else 4)
            # The routers would not fit either.
            one = {name: tensor for name, tensor in one.items() if "mlp.gate." not in name}
            if role.startswith("f"):
                one = fused(one, lambda one: one.transpose(1, 2) if flips else one)
                if kind == "biases":
                    for layer in range(2):
                        for name in ("gate_up_proj", "down_proj"):
                            bias = one[f"model.layers.{layer}.mlp.experts.{name}"][:, :, 0].clone()
                            one[f"model.layers.{layer}.mlp.experts.{name}_bias"] = bias
            write(tmp_path / role, one, config=config)
        paths = [tmp_path / role for role in roles.split()]
        problem, *others = check(*paths).problems
        # Biases have no counterpart.
        assert not others or kind == "biases", others
        assert "experts" in str(problem.tensor)
        assert_refused(paths, tmp_path, problem.tensor, says, problem.file[len(str(tmp_path)) + 1 :])
        transfer(*paths, tmp_path / "out", exclude=["experts"])

    def test_the_model_type_tells_how_square_matrices_lie(self, tmp_path: Path) -> None:
        # Down is square, and gate and up together are too.
        for inner in (6, 3):
            all_of = family(tmp_path, inner=inner)
            transfer(*(tmp_path / role for role in ("t", "fg", "fs")), tmp_path / "out", overwrite=True)
            assert_tensors(read(tmp_path / "out"), all_combined(all_of["t"], all_of["g"], all_of["s"], 1.0))

    def test_a_vector_knows_its_model_type(self, tmp_path: Path) -> None:
        all_of = family(tmp_path, inner=6)
        extract(tmp_path / "fg", tmp_path / "fs", tmp_path / "v")
        apply(tmp_path / "t", tmp_path / "v", tmp_path / "out")
        assert_tensors(read(tmp_path / "out"), all_combined(all_of["t"], all_of["g"], all_of["s"], 1.0))

    def test_experts_that_lack_a_matrix_are_not_fused(self, tmp_path: Path) -> None:
        all_of = family(tmp_path)
        del all_of["g"]["model.layers.1.mlp.experts.2.up_proj.weight"]
        write(tmp_path / "less", all_of["g"], config=MOE)
        assert not check(tmp_path / "ft", tmp_path / "less", tmp_path / "s").compatible


VISION = {"model.visual.blocks.0.weight": torch.ones(3, 2), "model.visual.merger.weight": torch.ones(2)}
FRONTS = {
    "alone": ("model.", "lm_head."),
    "nested": ("model.language_model.", "lm_head."),
    "outer": ("language_model.model.", "language_model.lm_head."),
}


def language(seed: object) -> Tensors:
    """A language model with experts and an output head."""
    head = noise([8, 6], torch.bfloat16, generator(("head", seed)))
    return {**separate(seed), "lm_head.weight": head}


class TestNested:
    """A language model alone, or within a model that sees."""

    @pytest.mark.parametrize(("there", "here"), list(product(FRONTS, FRONTS)))
    @pytest.mark.parametrize("fuse", [False, True])
    def test_fronts_are_exchanged(self, there: str, here: str, fuse: bool, tmp_path: Path) -> None:
        t, g, s = (language(role) for role in "tgs")
        wanted = all_combined(t, g, s, ALPHA)
        vision = VISION if there == "nested" else {}
        target = write(tmp_path / "t", {**renamed(t, *FRONTS[there]), **vision})
        donors = [
            write(tmp_path / role, renamed(fused(one) if fuse else one, *FRONTS[here]), config=MOE)
            for role, one in (("g", g), ("s", s))
        ]
        plan = check(target, *donors)
        assert plan.compatible, plan.problems
        note = f"minuend: names read with {FRONTS[there][0]} for {FRONTS[here][0]}"
        assert (note in plan.notes) == (there != here)
        transfer(target, *donors, tmp_path / "out", alpha=ALPHA)
        assert_tensors(read(tmp_path / "out"), {**renamed(wanted, *FRONTS[there]), **vision})
        for encoding in ("packed", "dense"):
            extract(*donors, tmp_path / "v", encoding=encoding, overwrite=True)
            apply(target, tmp_path / "v", tmp_path / "applied", alpha=ALPHA, overwrite=True)
            assert weights(tmp_path / "applied") == weights(tmp_path / "out")

    def test_donors_may_differ_from_each_other(self, tmp_path: Path) -> None:
        t, g, s = (language(role) for role in "tgs")
        paths = [
            write(tmp_path / role, renamed(one, *FRONTS[front]))
            for role, one, front in zip("tgs", (t, g, s), FRONTS, strict=True)
        ]
        transfer(*paths, tmp_path / "out", alpha=ALPHA)
        assert_tensors(read(tmp_path / "out"), all_combined(t, g, s, ALPHA))
        extract(*paths[1:], tmp_path / "v")
        assert set(read(tmp_path / "v")) == set(renamed(g, *FRONTS["nested"]))

    @pytest.mark.parametrize("old", ["t", "gs", "g"])
    def test_other_senses_lost_or_got_a_front(self, old: str, tmp_path: Path) -> None:
        """Qwen2.5-VL before and after transformers 4.52: `visual.` and `model.visual.`."""
        wanted: Tensors = {}
        paths: list[Path] = []
        all_of: dict[str, Tensors] = {}
        for role in "tgs":
            rng = generator(("senses", role))
            one = language(role)
            seen = {name: noise(x.shape, torch.bfloat16, rng) for name, x in VISION.items()}
            new = {**renamed(one, *FRONTS["nested"]), **seen}
            all_of[role] = new
            if role in old:
                new = {**one, **{name.removeprefix("model."): x for name, x in seen.items()}}
            paths.append(write(tmp_path / role, new))
            wanted = new if role == "t" else wanted
        transfer(*paths, tmp_path / "out", alpha=ALPHA)
        combined = all_combined(all_of["t"], all_of["g"], all_of["s"], ALPHA)
        new = zip(wanted, reorder(wanted), strict=True)
        assert_tensors(read(tmp_path / "out"), {name: combined[other] for name, other in new})

    def test_two_fronts_that_fit_are_refused(self, tmp_path: Path) -> None:
        t, g, s = (language(role) for role in "tgs")
        both = {**t, **renamed(t, *FRONTS["nested"])}
        paths = [write(tmp_path / "t", both)]
        paths += [
            write(tmp_path / role, renamed(one, *FRONTS["outer"])) for role, one in (("g", g), ("s", s))
        ]
        says = (
            r"meet those of the target in two ways, with model\. for language_model\.model\. and with"
            r" model\.language_model\. for language_model\.model\."
        )
        first = next(iter(renamed(g, *FRONTS["outer"])))
        assert_refused(paths, tmp_path, first, says, "g/model.safetensors")
        assert len(check(*paths).problems) == 1
        pairs = re.findall(r"--map '([^']*)'", check(*paths).problems[0].message)
        assert pairs == [r"^language_model\.model\.=model.", r"^language_model\.lm_head\.=lm_head."]
        assert check(*paths, map=pairs).compatible

    def test_one_name_more_is_named(self, tmp_path: Path) -> None:
        t, g, s = (language(role) for role in "tgs")
        extra = {"mtp.layers.0.weight": torch.ones(2)}
        paths = [write(tmp_path / "t", t)]
        paths += [
            write(tmp_path / role, {**renamed(one, *FRONTS["nested"]), **extra})
            for role, one in (("g", g), ("s", s))
        ]
        first = next(iter(renamed(g, *FRONTS["nested"])))
        says = r"model\. for model\.language_model\., but 1 of them would not, such as `mtp\.layers\.0"
        assert_refused(paths, tmp_path, first, says, "g/model.safetensors")
        assert len(check(*paths).problems) == 1
        transfer(*paths, tmp_path / "out", exclude=["mtp"])
        assert_tensors(read(tmp_path / "out"), all_combined(t, g, s, 1.0))

    def test_donors_that_see_need_to_leave_that_out(self, tmp_path: Path) -> None:
        t, g, s = (language(role) for role in "tgs")
        paths = [write(tmp_path / "t", t)]
        for role, one in (("g", g), ("s", s)):
            paths.append(write(tmp_path / role, {**renamed(one, *FRONTS["nested"]), **VISION}))
        assert {one.tensor for one in check(*paths).problems} == set(VISION)
        transfer(*paths, tmp_path / "out", exclude=["visual"])
        assert_tensors(read(tmp_path / "out"), all_combined(t, g, s, 1.0))


def reorder(names: Tensors) -> list[str]:
    """The names after the change, in the order of those before it."""
    new = []
    for name in names:
        if name.startswith(("model.visual.", "model.language_model.", "lm_head.")):
            new.append(name)
        elif name.startswith("visual."):
            new.append(f"model.{name}")
        else:
            new.append("model.language_model." + name.removeprefix("model."))
    return new


V4 = {"gate": "w1", "down": "w2", "up": "w3"}
PAIRS = [
    r"^model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.gate_proj\.weight$=layers.$1.ffn.experts.$2.w1.weight",
    r"^model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.down_proj\.weight$=layers.${1}.ffn.experts.$2.w2.weight",
    r"^model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.up_proj\.weight$=layers.$1.ffn.experts.$2.w3.weight",
    r"^model\.(layers\.\d+)\.mlp\.gate\.=$1.ffn.gate.",
    r"^model\.=",
]


def v4(tensors: Tensors) -> Tensors:
    """With the names that DeepSeek-V4 has."""
    found: Tensors = {}
    for name, one in tensors.items():
        new = name.removeprefix("model.").replace(".mlp.", ".ffn.")
        for old, short in V4.items():
            new = new.replace(f"{old}_proj", short)
        found[new] = one
    return found


class TestMap:
    """`--map`."""

    def test_names_of_another_family(self, tmp_path: Path) -> None:
        t, g, s = (separate(role) for role in "tgs")
        paths = [write(tmp_path / "t", v4(t))]
        for role, one in (("g", g), ("s", s)):
            paths.append(write(tmp_path / role, {f"module.{name}": x for name, x in one.items()}))
        options: dict[str, Any] = {"map": PAIRS, "strip_prefix": ["module."]}
        plan = check(*paths, **options)
        assert plan.compatible, plan.problems
        assert f"minuend: {len(g)} names changed by --map" in plan.notes
        transfer(*paths, tmp_path / "out", alpha=ALPHA, **options)
        assert_tensors(read(tmp_path / "out"), v4(all_combined(t, g, s, ALPHA)))
        assert manifest(tmp_path / "out")["recipe"]["map"] == PAIRS
        # A vector keeps the names of its minuend, and is read under those of the target later.
        for encoding in ("packed", "dense"):
            extract(*paths[1:], tmp_path / "v", encoding=encoding, overwrite=True)
            apply(paths[0], tmp_path / "v", tmp_path / "applied", alpha=ALPHA, overwrite=True, **options)
            assert weights(tmp_path / "applied") == weights(tmp_path / "out")
        file = tmp_path / "pairs"
        file.write_text("\n\n".join(PAIRS) + "\n")
        transfer(*paths, tmp_path / "again", alpha=ALPHA, **{**options, "map": [f"@{file}"]})
        assert files(tmp_path / "again") == files(tmp_path / "out")

    def test_of_donors_one_by_one(self, tmp_path: Path) -> None:
        t, g, s = (separate(role) for role in "tgs")
        write(tmp_path / "s", v4(s))
        back = [
            r"^layers=model.layers",
            r"^(norm|embed)=model.$1",
            r"\.ffn\.=.mlp.",
            r"\.w1\.=.gate_proj.",
            r"\.w2\.=.down_proj.",
            r"\.w3\.=.up_proj.",
        ]
        paths = [write(tmp_path / "t", fused(t)), write(tmp_path / "g", g), tmp_path / "s"]
        transfer(*paths, tmp_path / "out", alpha=ALPHA, map=back)
        assert_tensors(read(tmp_path / "out"), fused(all_combined(t, g, s, ALPHA)))
        extract(*paths[1:], tmp_path / "v", map=back)
        assert set(read(tmp_path / "v")) == set(g)

    @pytest.mark.parametrize(
        ("pairs", "says"),
        [
            (["nowhere=x"], "`nowhere=x` matches no name"),
            (["weight"], "FROM=TO"),
            (["=weight"], "FROM=TO"),
            (["(=x"], "is not a regular expression"),
            (["(w)eight=$2"], "has no group 2"),
            (["(w)eight=$x"], "the number of a group"),
            (["(w)eight=${1"], "the number of a group"),
            (["@nowhere"], "cannot be read"),
            ([r"norm\.weight$=embed_tokens.weight"], "model.norm.weight` one name"),
            ([r"embed_tokens=a", "a=b", "norm=b"], "one name, `model.b.weight`"),
        ],
    )
    def test_pairs_that_make_no_sense(self, pairs: list[str], says: str, tmp_path: Path) -> None:
        for role in "tgs":
            write(tmp_path / role, separate(role))
        paths = [tmp_path / role for role in "tgs"]
        before = sorted(tmp_path.rglob("*"))
        for verb in (lambda: check(*paths, map=pairs), lambda: transfer(*paths, tmp_path / "out", map=pairs)):
            with pytest.raises(UsageError, match=re.escape(says)) as raised:
                verb()
            assert "\n" not in str(raised.value)
        assert sorted(tmp_path.rglob("*")) == before

    def test_of_names_that_become_equal_one_may_be_left_out(self, tmp_path: Path) -> None:
        for role in "tgs":
            write(tmp_path / role, separate(role))
        paths = [tmp_path / role for role in "tgs"]
        pairs = [r"norm=embed_tokens"]
        assert check(*paths, map=pairs, exclude=["embed_tokens"]).compatible

    def test_it_is_not_for_vectors_alone(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="map is not an option"):
            combine([tmp_path / "v"], tmp_path / "out", map=["a=b"])


_PLAIN = st.text("abx.1_", min_size=1, max_size=3)
_ATOMS = st.one_of(
    _PLAIN.map(re.escape),
    st.sampled_from(
        [r"\d+", r"[ab]", r"[^.]+", r"(a|b)", r"(x+)", r"([a-z]+)", r"(\d)", r"(b)?a", "^", r"\."]
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(_ATOMS, min_size=1, max_size=3).map("".join),
    st.lists(st.one_of(_PLAIN, st.sampled_from(["$1", "${1}", "$$", "$0"])), max_size=3).map("".join),
    st.lists(st.text("abx.1_", min_size=1, max_size=8), min_size=1, max_size=6, unique=True),
)
def test_a_map_does_what_pythons_does(tmp_path: Path, pattern: str, to: str, names: list[str]) -> None:
    """One pair on any names, against `re.sub`: either refuses, or both give the same names."""
    template = re.sub(r"\$(\$|\d+|\{\d+\})", lambda m: "$" if m[1] == "$" else rf"\g<{m[1].strip('{}')}>", to)
    groups = re.compile(pattern).groups
    # Python takes an empty match beside another one for a match, and so would join what stays apart here.
    values = {name: torch.full((2,), float(at)) for at, name in enumerate(names, 1)}
    donor = write(tmp_path / "g", values, config=CONFIG)
    base = write(tmp_path / "s", {name: torch.zeros(2) for name in names}, config=CONFIG)
    asks = any(int(number) > groups for number in re.findall(r"(?<!\$)(?:\$\$)*\$\{?(\d+)", to))
    if asks or not any(re.search(pattern, name) for name in names):
        with pytest.raises(UsageError):
            check(donor, donor, base, map=[f"{pattern}={to}"])
        return
    new = {name: re.sub(pattern, template, name) for name in names}
    if len(set(new.values())) < len(names):
        with pytest.raises(UsageError, match="one name"):
            check(donor, donor, base, map=[f"{pattern}={to}"])
        return
    if "" in new.values():
        return
    target = write(tmp_path / "t", {name: torch.zeros(2) for name in new.values()}, config=CONFIG)
    out = tmp_path / "out"
    transfer(target, donor, base, out, map=[f"{pattern}={to}"], overwrite=True)
    assert_tensors(read(out), {new[name]: value for name, value in values.items()})
    assert json.loads((out / "taskvec.json").read_text())["recipe"]["map"] == [f"{pattern}={to}"]


def test_nothing_is_renamed_that_meets(tmp_path: Path) -> None:
    """A model whose names could also be read otherwise, but need not be."""
    t = {**language("t"), **renamed(language("n"), *FRONTS["nested"])}
    paths = [write(tmp_path / role, t) for role in "tgs"]
    assert not [note for note in check(*paths).notes if "names read" in note]
    with pytest.raises(MismatchError, match=r"model\.extra"):
        transfer(*paths[:2], write(tmp_path / "x", {**t, "model.extra": torch.ones(1)}), tmp_path / "out")
