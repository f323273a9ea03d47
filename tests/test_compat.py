from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from taskvec.compat import compare
from taskvec.refs import local

if TYPE_CHECKING:
    from pathlib import Path

    from taskvec.compat import Findings

CONFIG: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 192,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "vocab_size": 5,
}
VOCAB = {"a": 0, "b": 1, "c": 2}
ADDED = [{"id": 3, "content": "<s>"}, {"id": 4, "content": "</s>"}]


def model(folder: Path, config: Any = CONFIG, vocab: Any = VOCAB, added: Any = ADDED) -> Path:
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    if vocab is not None:
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": added}))
    return folder


def found(target: Path, donor: Path) -> Findings:
    return compare(local(target), [local(donor)])


def messages(findings: Findings) -> list[str]:
    return [problem["message"] for problem in findings.problems]


def test_one_family_has_neither_problems_nor_notes(tmp_path: Path) -> None:
    findings = found(model(tmp_path / "t"), model(tmp_path / "g"))
    assert (findings.problems, findings.notes) == ([], [])


@pytest.mark.parametrize(
    "key",
    [
        "model_type",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_another_structure_is_a_problem(tmp_path: Path, key: str, nested: bool) -> None:
    config = {**CONFIG, "head_dim": 16}
    other = {**config, key: 999}
    if nested:
        config, other = {"text_config": config}, {"text_config": other}
    findings = found(model(tmp_path / "t", config), model(tmp_path / "g", other))
    (message,) = messages(findings)
    assert f"{key} is 999" in message
    assert str(tmp_path / "g" / "config.json") in message
    assert findings.problems[0]["tensor"] is None


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("rope_theta", 1e6, "rope"),
        ("rope_scaling", {"type": "yarn", "factor": 4.0}, "rope"),
        ("tie_word_embeddings", False, "tie_word_embeddings"),
        ("vocab_size", 8, "vocab_size"),
    ],
)
def test_what_a_policy_deals_with_is_a_note(tmp_path: Path, key: str, value: Any, name: str) -> None:
    findings = found(model(tmp_path / "t"), model(tmp_path / "g", {**CONFIG, key: value}))
    assert findings.problems == []
    (note,) = findings.notes
    assert note.startswith(f"g: {name} is ")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 10000.0, "rope_scaling": None},
        {"rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    ],
)
def test_both_spellings_of_rope_are_one(tmp_path: Path, rope: dict[str, Any]) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "rope_theta"}
    findings = found(model(tmp_path / "t"), model(tmp_path / "g", {**config, **rope}))
    assert (findings.problems, findings.notes) == ([], [])


def test_both_spellings_of_scaling_are_one(tmp_path: Path) -> None:
    old = {**CONFIG, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = {**CONFIG, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}
    findings = found(model(tmp_path / "t", old), model(tmp_path / "g", new))
    assert (findings.problems, findings.notes) == ([], [])


def test_tokens_with_another_id_are_counted(tmp_path: Path) -> None:
    donor = model(tmp_path / "g", vocab={"a": 1, "b": 0, "c": 2})
    (message,) = messages(found(model(tmp_path / "t"), donor))
    assert "2 tokens have another id than in t ('a': 1, there 0)" in message


def test_added_tokens_count_too(tmp_path: Path) -> None:
    donor = model(tmp_path / "g", added=[{"id": 4, "content": "<s>"}, {"id": 3, "content": "</s>"}])
    (message,) = messages(found(model(tmp_path / "t"), donor))
    assert message.startswith(f"{tmp_path / 'g' / 'tokenizer.json'}: 2 tokens")


def test_tokens_of_one_side_alone_are_noted(tmp_path: Path) -> None:
    donor = model(tmp_path / "g", added=[*ADDED, {"id": 5, "content": "<think>"}])
    findings = found(model(tmp_path / "t"), donor)
    assert findings.problems == []
    assert findings.notes == ["tokens of g that t lacks: 1"]


def test_unigram_vocabularies_are_lists(tmp_path: Path) -> None:
    pieces = [["a", -1.0], ["b", -2.0], ["c", -3.0]]
    assert found(model(tmp_path / "t", vocab=pieces), model(tmp_path / "g")).problems == []


@pytest.mark.parametrize(("rows", "problem"), [(4, True), (5, False), (8, False)])
def test_rows_against_ids(tmp_path: Path, rows: int, problem: bool) -> None:
    config = {**CONFIG, "vocab_size": rows}
    findings = found(model(tmp_path / "t", config), model(tmp_path / "g", config))
    assert any("vocab_size 4 is less than the 5 ids" in one for one in messages(findings)) == problem
    assert any("3 rows of padding" in note for note in findings.notes) == (rows == 8)


def test_missing_files_are_notes(tmp_path: Path) -> None:
    findings = found(model(tmp_path / "t"), model(tmp_path / "g", config=None, vocab=None))
    assert findings.problems == []
    assert len(findings.notes) == 2


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_malformed_files_are_problems(tmp_path: Path, name: str, content: bytes) -> None:
    donor = model(tmp_path / "g")
    (donor / name).write_bytes(content)
    (message,) = messages(found(model(tmp_path / "t"), donor))
    assert str(donor / name) in message


@pytest.mark.parametrize("vocab", [7, {"a": "x"}, [1], [["a"]], None])
def test_strange_vocabularies_are_problems(tmp_path: Path, vocab: Any) -> None:
    donor = model(tmp_path / "g", vocab=None)
    (donor / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}))
    assert "vocabulary" in messages(found(model(tmp_path / "t"), donor))[0]


def test_a_vector_speaks_through_its_description(tmp_path: Path) -> None:
    vector = tmp_path / "v"
    vector.mkdir()
    (vector / "vector.json").write_text(json.dumps({"config": {**CONFIG, "hidden_size": 32}}))
    (message,) = messages(found(model(tmp_path / "t"), vector))
    assert "hidden_size is 32 where t has 64" in message
    (vector / "vector.json").write_text("{}")
    findings = found(tmp_path / "t", vector)
    assert findings.problems == []
    assert len(findings.notes) == 1


def test_the_language_model_of_a_nested_config_counts(tmp_path: Path) -> None:
    # A vision-language config has the whole's model_type at the top and the language model's own inside.
    ours = {"model_type": "vl", "text_config": CONFIG}
    theirs = {"model_type": "another_vl", "text_config": CONFIG}
    findings = found(model(tmp_path / "t", ours), model(tmp_path / "g", theirs))
    assert findings.problems == []
