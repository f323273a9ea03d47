from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml
from huggingface_hub import ModelCard

from taskvec import StorageError
from taskvec.card import merge_card, vector_card
from taskvec.inputs.refs import Origin, Ref, local
from taskvec.options import Options, make_options

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.card import Card


def card_of(target: Path, options: Options | None = None) -> Card:
    donors = [("minuend", Ref("g", "grpo")), ("subtrahend", Ref("s", "sft"))]
    command = ["taskvec", "transfer", "instruct", "grpo", "sft", "--alpha", "0.7"]
    return merge_card(
        local(target), donors, command, "target + (0.7)·(minuend − subtrahend)", options or Options()
    )


def front_of(card: Card) -> dict[str, Any]:
    start, front, _ = card.text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front)


def test_licence_and_use_are_carried_over_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: tongyi\nlicense_link: LICENSE\nlanguage:\n- en\n- zh\n"
        "pipeline_tag: text-generation\nlibrary_name: transformers\nbase_model: a/b\ntags: [chat]\n---\n"
    )
    card = card_of(tmp_path)
    assert card.notes == ()
    assert front_of(card) == {
        "tags": ["taskvec", "merge", "task-arithmetic"],
        "license": "other",
        "license_name": "tongyi",
        "license_link": "LICENSE",
        "language": ["en", "zh"],
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
    }
    assert "README.target.md" in card.text


def on_hub(name: str) -> Ref:
    return Ref(name, name, Origin(name, "a" * 40, None))


def merged(target: Ref, *others: Ref) -> dict[str, Any]:
    donors = [(f"v{at}", one) for at, one in enumerate(others, 1)]
    return front_of(merge_card(target, donors, ["taskvec", "apply"], "target + (1)·v1", Options()))


def test_base_models_are_named_where_the_hub_knows_them(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--instruct" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    front = front_of(card_of(snapshot))
    assert (front["base_model"], front["base_model_relation"]) == (["org/instruct"], "merge")
    assert not {"base_model", "base_model_relation"} & set(front_of(card_of(tmp_path)))


def test_base_models_come_in_order_and_once(tmp_path: Path) -> None:
    one, other, here = on_hub("org/one"), on_hub("org/other"), Ref(str(tmp_path), "here")
    # Two subfolders of a repository are one model to the Hub.
    assert merged(one, other, here, other, one)["base_model"] == ["org/one", "org/other"]
    assert merged(here, other)["base_model"] == ["org/other"]
    assert "base_model" not in merged(here, here)


def test_a_vector_names_its_donors_and_is_no_merge() -> None:
    front = front_of(vector_card(on_hub("org/grpo"), on_hub("org/sft"), Options()))
    assert front["base_model"] == ["org/grpo", "org/sft"]
    assert "base_model_relation" not in front


def test_the_hubs_own_reader_takes_the_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n")
    target = Ref(str(tmp_path), "org/instruct", Origin("org/instruct", "a" * 40, None))
    card = merge_card(
        target, [("v1", on_hub("org/skill"))], ["taskvec", "apply"], "target + (1)·v1", Options()
    )
    read = ModelCard(card.text).data.to_dict()
    assert read == {
        "base_model": ["org/instruct", "org/skill"],
        "base_model_relation": "merge",
        "tags": ["taskvec", "merge", "task-arithmetic"],
        "license": "mit",
        "language": "en",
    }


@pytest.mark.parametrize(
    "front",
    [
        "---\nlicense: [unclosed\n---\n",
        "---\nlicense: mit\n",
        "---\n- a list\n---\n",
        "---\n" + "[" * 5000 + "\n---\n",
        "---\ndate: 2023-99-99\n---\n",
        "---\nlicense: !!python/object/apply:os.system ['true']\n---\n",
    ],
)
def test_malformed_metadata_is_noted_and_dropped(tmp_path: Path, front: str) -> None:
    (tmp_path / "README.md").write_text(front)
    card = card_of(tmp_path)
    assert list(front_of(card)) == ["tags"]
    assert len(card.notes) == 1
    assert "README.md" in card.notes[0]


def test_metadata_that_is_not_text_is_noted(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert len(card_of(tmp_path).notes) == 1


class Far:
    """A folder on the Hub, as far as a card looks."""

    streams = False

    def __init__(self, answer: bytes | Exception) -> None:
        self.files = [("README.md", 1)]
        self._answer = answer

    def read(self, name: str) -> bytes:
        assert name == "README.md"
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def far(answer: bytes | Exception) -> Card:
    target: Any = Ref("org/m", "org/m", Origin("org/m", "a" * 40, None), cast("Any", Far(answer)))
    return merge_card(target, [], ["taskvec", "apply"], "target", Options())


def test_the_card_of_a_target_on_the_hub_is_read_there() -> None:
    card = far(b"---\nlicense: mit\n---\n")
    assert front_of(card)["license"] == "mit"
    assert "README.target.md" in card.text
    assert len(far(b"---\nlicense: \xff\n---\n").notes) == 1


def test_a_card_that_cannot_be_had_is_no_card_without_licence() -> None:
    with pytest.raises(StorageError):
        far(StorageError(5, "org/m: the Hub could not be reached"))


@pytest.mark.parametrize("text", ["", "# A card without metadata\n", None])
def test_a_target_without_metadata_is_fine(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    card = card_of(tmp_path)
    assert card.notes == ()
    assert list(front_of(card)) == ["tags"]


def test_values_of_a_wrong_kind_are_not_carried_over(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: {a: b}\nlanguage: [en, 1]\nlibrary_name: x\n---\n")
    assert set(front_of(card_of(tmp_path))) == {"tags", "library_name"}


def test_the_recipe_names_what_decides_the_bytes_and_no_more(tmp_path: Path) -> None:
    options = make_options(
        {
            "dtype": "bf16",
            "rounding": "stochastic",
            "seed": 7,
            "vocab": "common",
            "exclude": ["a b"],
            "alpha_rules": ["mlp=0.5"],
            "schedule": "linear:0,1",
            "strip_prefix": ["module."],
            "map": ["^a=b"],
            "memory": "64MiB",
            "threads": 2,
            "io": "pread",
            "sha256": True,
        }
    )
    assert (
        "    taskvec transfer instruct grpo sft --alpha 0.7 --alpha-rule mlp=0.5"
        " --schedule linear:0,1 --dtype bf16"
        " --rounding stochastic --seed 7 --vocab common --exclude 'a b' --strip-prefix module."
        " --map '^a=b' -o OUT\n"
    ) in card_of(tmp_path, options).text
    varied = "on every tensor that the inputs share, with α varied and tensors left out as the options say:"
    assert varied in card_of(tmp_path, options).text
    assert "on every tensor that the inputs share:" in card_of(tmp_path, make_options({})).text


def test_no_path_and_no_chance_in_it(tmp_path: Path) -> None:
    texts: list[str] = []
    for place in ("one", "two"):
        folder = tmp_path / place / "instruct"
        folder.mkdir(parents=True)
        texts.append(card_of(folder).text)
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    odd = Ref("x", "a|b\n---\n# c")
    lines = vector_card(odd, odd, Options()).text.splitlines()
    assert lines.count("---") == 2
    assert sum(line.startswith("# ") for line in lines) == 1
    assert "| minuend | a&#124;b\\n---\\n# c |" in lines


def test_a_vector_says_how_to_use_it_and_what_other_readers_see(tmp_path: Path) -> None:
    for encoding, says in (("packed", "--encoding dense"), ("dense", "vector-exceptions.safetensors")):
        options = make_options({"encoding": encoding})
        card = vector_card(local(tmp_path), Ref("s", "sft"), options)
        assert "taskvec apply TARGET VEC -o OUT --alpha 1.0" in card.text
        assert says in card.text
        # The command that is shown writes these very bytes.
        assert f"--encoding {encoding} -o VEC" in card.text
    assert front_of(card)["tags"] == ["taskvec", "task-vector", "task-arithmetic"]
