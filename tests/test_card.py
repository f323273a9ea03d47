from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from taskvec.card import merge_card, vector_card
from taskvec.options import Options, make_options
from taskvec.refs import Ref, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.card import Card


def card_of(target: Path, options: Options | None = None) -> Card:
    donors = [("minuend", Ref("g", "grpo", False)), ("subtrahend", Ref("s", "sft", False))]
    command = ["taskvec", "transfer", "instruct", "grpo", "sft", "--alpha", "0.7"]
    return merge_card(
        resolve(target), donors, command, "target + (0.7)·(minuend − subtrahend)", options or Options()
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


def test_base_model_is_named_only_where_the_hub_knows_it(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--instruct" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert front_of(card_of(snapshot))["base_model"] == ["org/instruct"]
    assert "base_model" not in front_of(card_of(tmp_path))


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
            "strip_prefix": ["module."],
            "memory": "64MiB",
            "threads": 2,
            "io": "pread",
            "sha256": True,
        }
    )
    assert (
        "    taskvec transfer instruct grpo sft --alpha 0.7 --alpha-rule mlp=0.5 --dtype bf16"
        " --rounding stochastic --seed 7 --vocab common --exclude 'a b' --strip-prefix module. -o OUT\n"
    ) in card_of(tmp_path, options).text


def test_no_path_and_no_chance_in_it(tmp_path: Path) -> None:
    texts: list[str] = []
    for place in ("one", "two"):
        folder = tmp_path / place / "instruct"
        folder.mkdir(parents=True)
        texts.append(card_of(folder).text)
    assert texts[0] == texts[1]
    assert str(tmp_path) not in texts[0]


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    odd = Ref("x", "a|b\n---\n# c", False)
    lines = vector_card(odd, odd, Options()).text.splitlines()
    assert lines.count("---") == 2
    assert sum(line.startswith("# ") for line in lines) == 1
    assert "| minuend | a&#124;b\\n---\\n# c |" in lines


def test_a_vector_says_how_to_use_it_and_what_other_readers_see(tmp_path: Path) -> None:
    card = vector_card(resolve(tmp_path), Ref("s", "sft", False), Options())
    assert "taskvec apply TARGET VEC -o OUT --alpha 1.0" in card.text
    assert "vector-exceptions.safetensors" in card.text
    assert front_of(card)["tags"] == ["taskvec", "task-vector", "task-arithmetic"]
