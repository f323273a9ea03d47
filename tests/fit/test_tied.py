"""An output head that is the embedding once more: in the target, the donors or all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import (
    CONFIG,
    TIED,
    Tensors,
    all_combined,
    assert_tensors,
    generator,
    noise,
    raw,
    read,
    weights,
    write,
)
from fitting import EMBED, HEAD, Config, assert_fits, assert_refused, place, tensors, tied
from taskvec import MismatchError, apply, check, extract, transfer
from vectors import ENCODINGS, exact

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.options import Encoding


class TestTiedHead:
    def family(self) -> list[Tensors]:
        return [tensors(role) for role in "tgs"]

    @pytest.mark.parametrize("encoding", ENCODINGS)
    @pytest.mark.parametrize("first", [False, True])
    @pytest.mark.parametrize("stored", ["g", "s", "gs", "t", "tg", "tgs"])
    def test_stored_twice(self, stored: str, first: bool, encoding: Encoding, tmp_path: Path) -> None:
        plain = self.family()
        family = [tied(one, first) if role in stored else one for role, one in zip("tgs", plain, strict=True)]
        paths = place(tmp_path, *family, configs=(TIED,) * 3)
        wanted = all_combined(*plain, 0.7)
        if "t" in stored:
            wanted[HEAD] = wanted[EMBED]
        assert_fits(paths, tmp_path, wanted, "tied to the embedding", alpha=0.7)
        if "t" in stored:
            found = read(tmp_path / "out")
            assert raw(found[HEAD]) == raw(found[EMBED])
        # Through a vector, which has no head.
        extract(*paths[1:], tmp_path / "v", encoding=encoding)
        assert HEAD not in exact(tmp_path / "v")
        assert check(paths[0], tmp_path / "v").compatible
        apply(paths[0], tmp_path / "v", tmp_path / "two", alpha=0.7)
        assert weights(tmp_path / "two") == weights(tmp_path / "out")

    @pytest.mark.parametrize("role", ["t", "g", "s"])
    def test_an_unequal_copy_is_an_error(self, role: str, tmp_path: Path) -> None:
        family = [tied(one) for one in self.family()]
        family["tgs".index(role)][HEAD].view(torch.int16)[-1, -1] ^= 1
        paths = place(tmp_path, *family, configs=(TIED,) * 3)
        # Headers and configs alone cannot tell; a writing verb looks.
        assert check(*paths).compatible
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(MismatchError, match=f"{role}/model.safetensors.*`{HEAD}`.*tie_word_embeddings"):
            transfer(*paths, tmp_path / "out")
        if role != "t":
            with pytest.raises(MismatchError, match=f"{role}/model.safetensors.*`{HEAD}`"):
                extract(*paths[1:], tmp_path / "v")
        assert sorted(tmp_path.rglob("*")) == before

    def test_an_unequal_copy_leaves_an_old_output_as_it_was(self, tmp_path: Path) -> None:
        family = [tied(one) for one in self.family()]
        paths = place(tmp_path, *family, configs=(TIED,) * 3)
        transfer(*paths, tmp_path / "out")
        before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
        family[1][HEAD] += 1
        write(tmp_path / "g", family[1], config=TIED)
        with pytest.raises(MismatchError, match=HEAD):
            transfer(*paths, tmp_path / "out", overwrite=True)
        assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before

    def test_other_models_name_them_otherwise(self, tmp_path: Path) -> None:
        rng = generator("neox")
        family = []
        for _ in "tgs":
            one = noise([6, 5], torch.bfloat16, rng)
            family.append({"gpt_neox.embed_in.weight": one, "embed_out.weight": one.clone()})
        paths = place(tmp_path, *family, configs=(TIED,) * 3)
        assert_fits(paths, tmp_path, all_combined(*family, 1.0), "tied to the embedding")

    @pytest.mark.parametrize("config", [CONFIG, None, {"model_type": "qwen2"}])
    def test_without_the_flag_a_head_is_a_tensor_like_others(
        self, config: Config | None, tmp_path: Path
    ) -> None:
        family = [tensors(role, HEAD) for role in "tgs"]
        paths = place(tmp_path, *family, configs=(config,) * 3)
        assert_fits(paths, tmp_path, all_combined(*family, 0.7), alpha=0.7)

    @pytest.mark.parametrize("encoding", ENCODINGS)
    @pytest.mark.parametrize("config", [{"model_type": "qwen2"}, {**CONFIG, "tie_word_embeddings": False}])
    @pytest.mark.parametrize("stored", ["g", "s", "gs"])
    def test_a_copy_that_the_config_does_not_speak_of(
        self, stored: str, config: Config, encoding: Encoding, tmp_path: Path
    ) -> None:
        """Savers store the head of a tied model and leave the flag out, or set it to false."""
        plain = self.family()
        family = [tied(one) if role in stored else one for role, one in zip("tgs", plain, strict=True)]
        configs = tuple(config if role in stored else TIED for role in "tgs")
        paths = place(tmp_path, *family, configs=configs)
        assert_fits(paths, tmp_path, all_combined(*plain, 0.7), "must hold the same bytes", alpha=0.7)
        extract(*paths[1:], tmp_path / "v", encoding=encoding)
        vector = exact(tmp_path / "v")
        if stored != "gs":
            # The other donor shows that it is no tensor of the vector.
            assert HEAD not in vector
        else:
            # Nothing shows it before there is a target.
            assert raw(vector[HEAD]) == raw(vector[EMBED])

    @pytest.mark.parametrize("role", ["g", "s"])
    def test_a_head_of_one_donors_own_is_found_out(self, role: str, tmp_path: Path) -> None:
        plain = self.family()
        family = [tied(one) if at == role else one for at, one in zip("tgs", plain, strict=True)]
        family["tgs".index(role)][HEAD].view(torch.int16)[-1, -1] ^= 1
        configs = tuple(CONFIG if at == role else TIED for at in "tgs")
        paths = place(tmp_path, *family, configs=configs)
        before = sorted(tmp_path.rglob("*"))
        says = rf"{role}.model.safetensors.*`{HEAD}` differs .* a separate output head.*--exclude"
        for write_it in (
            lambda: transfer(*paths, tmp_path / "out"),
            lambda: extract(*paths[1:], tmp_path / "v"),
        ):
            with pytest.raises(MismatchError, match=says):
                write_it()
        assert sorted(tmp_path.rglob("*")) == before
        transfer(*paths, tmp_path / "out", exclude=["^lm_head"])
        assert_tensors(read(tmp_path / "out"), all_combined(*plain, 1.0))

    def test_heads_of_the_donors_own_in_the_embeddings_shape(self, tmp_path: Path) -> None:
        t, g, s = self.family()
        own = [tied(one) for one in (g, s)]
        own[1][HEAD] = own[1][HEAD] + 1
        paths = place(tmp_path, t, *own, configs=(TIED, CONFIG, CONFIG))
        # Headers and configs alone cannot tell that they are no copies; a writing verb looks.
        assert check(*paths).compatible
        with pytest.raises(
            MismatchError, match=r"s.model\.safetensors.*differs .* a separate output head.*--exclude"
        ):
            transfer(*paths, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_a_vectors_head_that_repeats_its_embedding(self, encoding: Encoding, tmp_path: Path) -> None:
        t, g, s = self.family()
        paths = place(tmp_path, t, tied(g), tied(s), configs=(TIED, CONFIG, CONFIG))
        extract(*paths[1:], tmp_path / "v", encoding=encoding)
        apply(paths[0], tmp_path / "v", tmp_path / "out", alpha=0.7)
        assert_tensors(read(tmp_path / "out"), all_combined(t, g, s, 0.7))

    def test_a_head_of_another_shape_is_no_copy(self, tmp_path: Path) -> None:
        t, g, s = self.family()
        g[HEAD] = torch.zeros(5, 5, dtype=torch.bfloat16)
        paths = place(tmp_path, t, g, s, configs=(TIED, {"model_type": "qwen2"}, TIED))
        assert_refused(
            paths, tmp_path, HEAD, "the minuend has this tensor but the subtrahend", "g/model.safetensors"
        )

    def test_a_head_of_the_targets_own_under_tied_donors(self, tmp_path: Path) -> None:
        t, g, s = tensors("t", HEAD), tensors("g"), tensors("s")
        paths = place(tmp_path, t, tied(g), s, configs=(CONFIG, TIED, TIED))
        assert_refused(paths, tmp_path, HEAD, "--exclude", "t/model.safetensors")
        extract(*paths[1:], tmp_path / "v")
        plan = check(paths[0], tmp_path / "v")
        assert [problem.tensor for problem in plan.problems] == [HEAD]
        with pytest.raises(MismatchError, match=HEAD):
            apply(paths[0], tmp_path / "v", tmp_path / "two")
        wanted = all_combined({**t, HEAD: t[EMBED]}, tied(g), tied(s), 1.0) | {HEAD: t[HEAD]}
        assert_fits(paths, tmp_path, wanted, exclude=["^lm_head"])

    def test_an_embedding_without_a_head_tells_where_no_config_does(self, tmp_path: Path) -> None:
        t, g, s = tied(tensors("t")), tensors("g"), tensors("s")
        silent: Config = {"model_type": "gemma"}
        paths = place(tmp_path, t, g, s, configs=(silent,) * 3)
        assert_refused(paths, tmp_path, HEAD, "tie_word_embeddings", "t/model.safetensors")
        # A vector of other tensors alone says nothing about heads.
        extract(*paths[1:], tmp_path / "v", include=["mlp"])
        assert check(paths[0], tmp_path / "v").compatible

    def test_donors_with_a_head_of_their_own_under_a_tied_target(self, tmp_path: Path) -> None:
        for number, t in enumerate((tensors("t"), tied(tensors("t")))):
            root = tmp_path / str(number)
            paths = place(root, t, tensors("g", HEAD), tensors("s", HEAD), configs=(TIED, CONFIG, CONFIG))
            assert_refused(
                paths, root, HEAD, "the target has no separate output head.*--exclude", "g/model.safetensors"
            )
            wanted = all_combined(*(({**one, HEAD: one[EMBED]}) for one in map(read, paths)), 1.0)
            if HEAD not in t:
                del wanted[HEAD]
            assert_fits(paths, root, wanted, exclude=[HEAD])

    def test_a_converted_copy_follows_the_embedding(self, tmp_path: Path) -> None:
        family = [tied(one, first=True) for one in self.family()]
        paths = place(tmp_path, *family, configs=(TIED,) * 3)
        wanted = all_combined(*family, 0.7, torch.float32)
        assert_fits(paths, tmp_path, wanted, alpha=0.7, dtype="f32")

    @pytest.mark.parametrize("options", [{"exclude": ["^lm_head"]}, {"include": ["mlp"]}])
    @pytest.mark.parametrize("roles", ["g", "s", "gs"])
    def test_a_donors_head_that_is_left_out_is_not_compared(
        self, roles: str, options: Any, tmp_path: Path
    ) -> None:
        plain = self.family()
        family = [
            {**one, HEAD: one[EMBED] + 1} if role in roles else one
            for role, one in zip("tgs", plain, strict=True)
        ]
        paths = place(tmp_path, *family, configs=(TIED,) * 3)
        wanted = all_combined(*plain, 1.0)
        if "include" in options:
            wanted = plain[0] | {name: wanted[name] for name in wanted if "mlp" in name}
        assert_fits(paths, tmp_path, wanted, "not compared", **options)
        extract(*paths[1:], tmp_path / "v", **options)
        apply(paths[0], tmp_path / "v", tmp_path / "two")
        assert weights(tmp_path / "two") == weights(tmp_path / "out")
