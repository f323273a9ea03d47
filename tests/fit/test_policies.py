"""What fits together: known differences have a policy, all else is refused before anything is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import (
    CONFIG,
    Tensors,
    all_combined,
    assert_same,
    assert_tensors,
    combined,
    generator,
    noise,
    nudged,
    raw,
    read,
    weights,
    write,
)
from fitting import EMBED, HEAD, Config, assert_fits, assert_refused, place, tensors
from taskvec import MismatchError, apply, check, extract, transfer

if TYPE_CHECKING:
    from pathlib import Path


class TestVocabulary:
    def family(self, rows: tuple[int, int, int], name: str = EMBED) -> list[Tensors]:
        rng = generator(rows)
        return [
            {name: noise([count, 4], torch.bfloat16, rng), "w": noise([3], torch.bfloat16, rng)}
            for count in rows
        ]

    @pytest.mark.parametrize("rows", [(8, 6, 6), (6, 8, 8), (8, 8, 6), (6, 8, 6)])
    @pytest.mark.parametrize("name", [EMBED, HEAD, "transformer.wte.weight"])
    def test_strict_refuses_and_common_combines_what_all_have(
        self, rows: tuple[int, int, int], name: str, tmp_path: Path
    ) -> None:
        t, g, s = self.family(rows, name)
        paths = place(tmp_path, t, g, s)
        assert_refused(paths, tmp_path, name, "--vocab common", "t/model.safetensors")
        wanted = all_combined({"w": t["w"]}, g, s, 0.3) | {name: t[name].clone()}
        least = min(rows)
        wanted[name][:least] = combined(*(one[name][:least] for one in (t, g, s)), 0.3)
        assert_fits(paths, tmp_path, wanted, "rows that all", vocab="common", alpha=0.3)

    def test_the_rows_that_stay_are_converted(self, tmp_path: Path) -> None:
        t, g, s = self.family((8, 6, 6))
        paths = place(tmp_path, t, g, s)
        wanted = {"w": combined(t["w"], g["w"], s["w"], 0.3, torch.float32), EMBED: t[EMBED].float()}
        wanted[EMBED][:6] = combined(*(one[EMBED][:6] for one in (t, g, s)), 0.3, torch.float32)
        assert_fits(paths, tmp_path, wanted, vocab="common", alpha=0.3, dtype="f32")

    @pytest.mark.parametrize("vocab", ["strict", "common"])
    @pytest.mark.parametrize("shape", [(6, 5), (6,), (4, 6), (6, 4, 1), ()])
    def test_another_width_is_no_padding(self, vocab: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
        t, g, s = self.family((6, 6, 6))
        g[EMBED] = torch.zeros(shape, dtype=torch.bfloat16)
        paths = place(tmp_path, t, g, s)
        assert_refused(paths, tmp_path, EMBED, "shape", "t/model.safetensors", vocab=vocab)

    def test_rows_of_anything_else_are_no_vocabulary(self, tmp_path: Path) -> None:
        paths = place(tmp_path, *self.family((8, 6, 6), "model.layers.0.mlp.up_proj.weight"))
        name = "model.layers.0.mlp.up_proj.weight"
        assert_refused(paths, tmp_path, name, "shape", "t/model.safetensors", vocab="common")


class TestTypes:
    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
    def test_integers_are_copied(self, dtype: torch.dtype, tmp_path: Path) -> None:
        family = [tensors(role) for role in "tgs"]
        for at, one in enumerate(family):
            one["model.position_ids"] = torch.tensor([[at, 1, 0, 1]]).to(dtype)
            one["steps"] = torch.tensor(at).to(dtype)
        paths = place(tmp_path, *family)
        wanted = all_combined(*(tensors(role) for role in "tgs"), 1.0)
        wanted |= {name: family[0][name] for name in ("model.position_ids", "steps")}
        assert_fits(paths, tmp_path, wanted, "2 integer tensor")
        extract(*paths[1:], tmp_path / "v")
        apply(paths[0], tmp_path / "v", tmp_path / "two")
        assert weights(tmp_path / "two") == weights(tmp_path / "out")

    def test_integers_against_floats_are_refused(self, tmp_path: Path) -> None:
        family = [tensors(role) for role in "tgs"]
        family[0]["steps"] = torch.tensor([1])
        family[1]["steps"] = family[2]["steps"] = torch.tensor([1.0])
        assert_refused(place(tmp_path, *family), tmp_path, "steps", "I64", "t/model.safetensors")

    def test_codes_of_a_quantised_format_are_refused(self, tmp_path: Path) -> None:
        name = "model.layers.0.mlp.qweight"
        family = [tensors(role) | {name: torch.ones([4, 4], dtype=torch.int32)} for role in "tgs"]
        paths = place(tmp_path, *family)
        assert_refused(paths, tmp_path, name, "codes of a quantised format", "t/model.safetensors")
        with pytest.raises(MismatchError, match=f"{name}.*quantised"):
            extract(*paths[1:], tmp_path / "v")

    @pytest.mark.parametrize("who", ["t", "g", "s", "tgs"])
    def test_f8_is_refused(self, who: str, tmp_path: Path) -> None:
        name = "model.norm.weight"
        family = [tensors(role) for role in "tgs"]
        for role, one in zip("tgs", family, strict=True):
            if role in who:
                one[name] = one[name].to(torch.float8_e4m3fn)
        paths = place(tmp_path, *family)
        assert_refused(paths, tmp_path, name, "F8_E4M3.*--exclude", f"{who[0]}/model.safetensors")
        if who != "t":
            with pytest.raises(MismatchError, match=f"{name}.*F8_E4M3"):
                extract(*paths[1:], tmp_path / "v")
        wanted = all_combined(*(tensors(role) for role in "tgs"), 1.0) | {name: family[0][name]}
        assert_fits(paths, tmp_path, wanted, exclude=[name])

    @pytest.mark.parametrize("method", [{"quant_method": "gptq"}, {"bits": 4}])
    @pytest.mark.parametrize("who", [0, 1, 2])
    def test_a_quantised_model_is_refused_as_a_whole(self, who: int, method: Config, tmp_path: Path) -> None:
        family = [tensors(role) for role in "tgs"]
        configs = [CONFIG] * 3
        configs[who] = {**CONFIG, "quantization_config": method}
        paths = place(tmp_path, *family, configs=tuple(configs))
        assert_refused(paths, tmp_path, None, "quantised", f"{'tgs'[who]}/config.json")

    def test_plain_parts_of_a_quantised_model_can_be_chosen(self, tmp_path: Path) -> None:
        config = {**CONFIG, "quantization_config": {"quant_method": "awq"}}
        coded = "model.layers.1.q_proj"
        extra = {
            f"{coded}.qweight": torch.ones(4, 3, dtype=torch.int32),
            f"{coded}.scales": torch.ones(4, 3, dtype=torch.float16),
        }
        family = [tensors(role) for role in "tgs"]
        paths = place(tmp_path, *({**one, **extra} for one in family), configs=(config,) * 3)
        # The scales of codes are no values of their own.
        for options in ({}, {"exclude": ["qweight"]}):
            assert not check(*paths, **options).compatible
        transfer(*paths, tmp_path / "out", include=["norm"])
        found, wanted = read(tmp_path / "out"), all_combined(*family, 1.0)
        assert raw(found["model.norm.weight"]) == raw(wanted["model.norm.weight"])
        assert raw(found[EMBED]) == raw(family[0][EMBED])

    def test_f64_is_copied_untouched_and_else_refused(self, tmp_path: Path) -> None:
        name = "model.inv_freq"
        family = [tensors(role) | {name: torch.rand(5, dtype=torch.float64)} for role in "tgs"]
        paths = place(tmp_path, *family)
        assert_refused(paths, tmp_path, name, "F64.*--exclude", "t/model.safetensors")
        wanted = all_combined(*(tensors(role) for role in "tgs"), 1.0) | {name: family[0][name]}
        assert_fits(paths, tmp_path, wanted, exclude=["inv_freq"])
        transfer(*paths, tmp_path / "zero", alpha_rules=["inv_freq=0"])
        assert_tensors(read(tmp_path / "zero"), wanted)
        alone = [paths[0], *(write(tmp_path / f"{role}2", tensors(role)) for role in "gs")]
        transfer(*alone, tmp_path / "alone")
        assert_tensors(read(tmp_path / "alone"), wanted)
        with pytest.raises(MismatchError, match=f"{name}.*F64.*--dtype"):
            transfer(*alone, tmp_path / "refused", dtype="bf16")
        assert not (tmp_path / "refused").exists()

    def test_f32_donors_for_a_bf16_target(self, tmp_path: Path) -> None:
        family = [tensors("t"), tensors("g", dtype=torch.float32), tensors("s", dtype=torch.float16)]
        assert_fits(place(tmp_path, *family), tmp_path, all_combined(*family, 0.7), alpha=0.7)


class TestNames:
    @pytest.mark.parametrize(("role", "other"), [("g", "subtrahend"), ("s", "minuend")])
    def test_one_donor_alone_has_it(self, role: str, other: str, tmp_path: Path) -> None:
        t, g, s = (tensors(one) for one in "tgs")
        {"g": g, "s": s}[role]["extra.weight"] = torch.ones(3)
        paths = place(tmp_path, t, g, s)
        assert_refused(paths, tmp_path, "extra.weight", f"{other} does not", f"{role}/model.safetensors")
        with pytest.raises(MismatchError, match=r"extra\.weight"):
            extract(*paths[1:], tmp_path / "v")
        assert not (tmp_path / "v").exists()
        assert_fits(paths, tmp_path, all_combined(t, g, s, 1.0), exclude=["extra"])

    def test_both_donors_have_it(self, tmp_path: Path) -> None:
        t, g, s = tensors("t"), tensors("g", "extra.weight"), tensors("s", "extra.weight")
        paths = place(tmp_path, t, g, s)
        assert_refused(paths, tmp_path, "extra.weight", "the target has no tensor", "g/model.safetensors")
        extract(*paths[1:], tmp_path / "v")
        with pytest.raises(MismatchError, match=r"v/vector\.safetensors.*extra\.weight"):
            apply(paths[0], tmp_path / "v", tmp_path / "two")
        assert_fits(paths, tmp_path, all_combined(t, g, s, 1.0), exclude=["extra"])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.float8_e4m3fn])
    def test_the_target_alone_has_it(self, dtype: torch.dtype, tmp_path: Path) -> None:
        t, g, s = (tensors(role) for role in "tgs")
        wanted = all_combined(t, g, s, 1.0)
        t["vision.weight"] = wanted["vision.weight"] = torch.arange(6).to(dtype)
        assert_fits(place(tmp_path, t, g, s), tmp_path, wanted, "only in the target.*vision")

    def test_one_of_a_pair_lacks_what_the_target_has(self, tmp_path: Path) -> None:
        t, g, s = (tensors(role) for role in "tgs")
        del s["model.norm.weight"]
        paths = place(tmp_path, t, g, s)
        assert_refused(paths, tmp_path, "model.norm.weight", "subtrahend does not", "g/model.safetensors")

    @pytest.mark.parametrize("role", ["t", "g", "s"])
    def test_another_shape(self, role: str, tmp_path: Path) -> None:
        family = [tensors(one) for one in "tgs"]
        name = "model.layers.0.mlp.weight"
        # As many elements in another arrangement are not the same weights.
        family["tgs".index(role)][name] = family["tgs".index(role)][name].T.contiguous()
        assert_refused(place(tmp_path, *family), tmp_path, name, "shape", "t/model.safetensors")

    @pytest.mark.parametrize("role", "tgs")
    def test_empty_weights_are_those_of_zero_3(self, role: str, tmp_path: Path) -> None:
        family = [tensors(one) for one in "tgs"]
        name = "model.layers.0.mlp.weight"
        family["tgs".index(role)][name] = torch.empty(0, dtype=torch.bfloat16)
        paths = place(tmp_path, *family)
        assert_refused(paths, tmp_path, name, r"ZeRO-3.*zero_to_fp32\.py", f"{role}/model.safetensors")
        transfer(*paths, tmp_path / "without", exclude=["mlp"])

    def test_what_has_a_problem_is_not_called_kept(self, tmp_path: Path) -> None:
        family = [tensors(one) for one in "tgs"]
        family[1]["model.layers.0.mlp.weight"] = family[1]["model.layers.0.mlp.weight"][:2].clone()
        plan = check(*place(tmp_path, *family))
        assert not plan.compatible
        assert not [note for note in plan.notes if "alpha 0" in note]

    @pytest.mark.parametrize("fused", ["t", "gs", "g"])
    @pytest.mark.parametrize("kind", ["experts", "attention", "mlp"])
    def test_fused_layers_are_said_once(self, kind: str, fused: str, tmp_path: Path) -> None:
        front, apart, together = {
            "experts": (
                "mlp.experts",
                [f"{at}.{name}_proj.weight" for at in range(3) for name in ("gate", "up", "down")],
                ["gate_up_proj", "down_proj"],
            ),
            "attention": (
                "self_attn",
                [f"{name}_proj.{leaf}" for name in "qkv" for leaf in ("weight", "bias")],
                ["qkv_proj.weight", "qkv_proj.bias"],
            ),
            "mlp": ("mlp", ["gate_proj.weight", "up_proj.weight"], ["gate_up_proj.weight"]),
        }[kind]
        elements = {name: 12 for name in apart}
        fusing = {name: 12 * len(apart) // len(together) for name in together}
        if kind == "experts":
            fusing = {"gate_up_proj": 72, "down_proj": 36}
        paths = []
        for role in "tgs":
            one, rng = tensors(role), generator(role)
            for layer in (0, 1):
                for name, count in (fusing if role in fused else elements).items():
                    one[f"model.layers.{layer}.{front}.{name}"] = noise([count], torch.bfloat16, rng)
            paths.append(write(tmp_path / role, one))
        (problem,) = check(*paths).problems
        assert "one of the two has fused them" in problem.message
        assert (
            f"{2 * len(apart)} tensors" in problem.message or f"stores in {2 * len(apart)}" in problem.message
        )
        assert f"in {2 * len(together)}" in problem.message
        with pytest.raises(MismatchError, match="the same version of transformers"):
            transfer(*paths, tmp_path / "out")
        # What is missing for another reason keeps its own problem.
        if fused == "t":
            other = tensors("g", "model.extra")
            for layer in (0, 1):
                for name in elements:
                    other[f"model.layers.{layer}.{front}.{name}"] = torch.zeros(12, dtype=torch.bfloat16)
            write(tmp_path / "g", other)
            write(tmp_path / "s", other)
            assert [one.tensor for one in check(*paths).problems if "fused" not in one.message] == [
                "model.extra"
            ]

    def test_every_problem_is_listed(self, tmp_path: Path) -> None:
        t, g, s = tensors("t"), tensors("g", "x"), tensors("s", "y")
        g["model.norm.weight"] = torch.zeros(7)
        paths = place(tmp_path, t, g, s)
        assert {one.tensor for one in check(*paths).problems} == {"x", "y", "model.norm.weight"}
        with pytest.raises(MismatchError, match="and 2 more"):
            transfer(*paths, tmp_path / "out")

    def test_prefixes_that_make_two_of_one(self, tmp_path: Path) -> None:
        t, g, s = (tensors(role) for role in "tgs")
        g["module.model.norm.weight"] = g["model.norm.weight"]
        paths = place(tmp_path, t, g, s)
        problems = check(*paths, strip_prefix=["module."]).problems
        assert [one.tensor for one in problems] == ["module.model.norm.weight"]
        with pytest.raises(MismatchError, match=r"module\.model\.norm\.weight"):
            transfer(*paths, tmp_path / "out", strip_prefix=["module."])

    def test_a_mixture_of_experts_has_many(self, tmp_path: Path) -> None:
        rng = generator("experts")
        names = [
            f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
            for layer in range(4)
            for expert in range(64)
            for part in ("gate", "up", "down")
        ]
        s = {name: noise([8, 6], torch.bfloat16, rng) for name in names}
        g = {name: nudged(one, rng) for name, one in s.items()}
        t = {name: noise([8, 6], torch.bfloat16, rng) for name in names}
        paths = [
            write(tmp_path / "t", t, shards=5),
            write(tmp_path / "g", g, shards=[names[::-1]]),
            write(tmp_path / "s", s, shards=2),
        ]
        result = transfer(*paths, tmp_path / "out", alpha=0.7, alpha_rules=[r"experts\.1\d\.=0.3"])
        found = read(tmp_path / "out")
        for name in names:
            alpha = 0.3 if re.search(r"experts\.1\d\.", name) else 0.7
            assert_same(found[name], combined(t[name], g[name], s[name], alpha), name)
        assert result.tensors.combined == len(names)
        del g[names[100]]
        write(tmp_path / "g", g)
        with pytest.raises(MismatchError, match=re.escape(f"`{names[100]}`")):
            transfer(*paths, tmp_path / "again")
