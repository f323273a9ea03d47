from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from families import generator, noise, write
from taskvec import MismatchError, apply, check, dry_run, extract, transfer
from taskvec.fit.compatibility import Findings, compare
from taskvec.inputs.refs import local

if TYPE_CHECKING:
    from pathlib import Path

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
    return [claim.message for claim in findings.claims]


def test_one_family_has_neither_problems_nor_notes(tmp_path: Path) -> None:
    findings = found(model(tmp_path / "t"), model(tmp_path / "g"))
    assert findings == Findings()


@pytest.mark.parametrize(
    "key",
    [
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
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
    assert (findings.claims[0].file, findings.claims[0].row) == (str(tmp_path / "g" / "config.json"), None)


@pytest.mark.parametrize("key", ["model_type", "hidden_size", "intermediate_size"])
def test_what_headers_show_better_is_a_warning(tmp_path: Path, key: str) -> None:
    findings = found(model(tmp_path / "t"), model(tmp_path / "g", {**CONFIG, key: 999}))
    assert findings.claims == []
    (warning,) = findings.warnings
    assert f"{key} is 999" in warning
    assert str(tmp_path / "g" / "config.json") in warning


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
    assert findings.claims == []
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
    assert findings == Findings()


def test_both_spellings_of_scaling_are_one(tmp_path: Path) -> None:
    old = {**CONFIG, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = {**CONFIG, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}
    findings = found(model(tmp_path / "t", old), model(tmp_path / "g", new))
    assert findings == Findings()


def test_tokens_with_another_id_are_counted(tmp_path: Path) -> None:
    donor = model(tmp_path / "g", vocab={"a": 1, "b": 0, "c": 2})
    (message,) = messages(found(model(tmp_path / "t"), donor))
    assert "2 tokens have another id than in t ('a': 1 here, 0 there)" in message


def test_added_tokens_count_too(tmp_path: Path) -> None:
    donor = model(tmp_path / "g", added=[{"id": 4, "content": "<s>"}, {"id": 3, "content": "</s>"}])
    (message,) = messages(found(model(tmp_path / "t"), donor))
    assert message.startswith(f"{tmp_path / 'g' / 'tokenizer.json'}: 2 tokens")


def test_tokens_of_one_side_alone_are_noted(tmp_path: Path) -> None:
    donor = model(tmp_path / "g", added=[*ADDED, {"id": 5, "content": "<think>"}])
    findings = found(model(tmp_path / "t"), donor)
    assert findings.claims == []
    assert findings.notes == ["tokens of g that t does not have: 1"]


def test_unigram_vocabularies_are_lists(tmp_path: Path) -> None:
    pieces = [["a", -1.0], ["b", -2.0], ["c", -3.0]]
    assert found(model(tmp_path / "t", vocab=pieces), model(tmp_path / "g")) == Findings()


@pytest.mark.parametrize(("rows", "problem"), [(4, True), (5, False), (8, False)])
def test_rows_against_ids(tmp_path: Path, rows: int, problem: bool) -> None:
    config = {**CONFIG, "vocab_size": rows}
    findings = found(model(tmp_path / "t", config), model(tmp_path / "g", config))
    assert messages(findings) == []
    assert any("vocab_size 4 is less than the 5 ids" in one for one in findings.warnings) == problem
    assert any("3 rows of padding" in note for note in findings.notes) == (rows == 8)


def test_missing_files_are_notes(tmp_path: Path) -> None:
    findings = found(model(tmp_path / "t"), model(tmp_path / "g", config=None, vocab=None))
    assert findings.claims == []
    assert len(findings.notes) == 2


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_malformed_files_are_said(tmp_path: Path, name: str, content: bytes) -> None:
    donor = model(tmp_path / "g")
    (donor / name).write_bytes(content)
    findings = found(model(tmp_path / "t"), donor)
    (message,) = findings.warnings
    assert str(donor / name) in message
    assert "not compared" in message


@pytest.mark.parametrize("vocab", [7, {"a": "x"}, [1], [["a"]], None])
def test_strange_vocabularies_are_said(tmp_path: Path, vocab: Any) -> None:
    donor = model(tmp_path / "g", vocab=None)
    (donor / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}))
    assert "vocabulary" in found(model(tmp_path / "t"), donor).warnings[0]


def test_a_vector_speaks_through_its_description(tmp_path: Path) -> None:
    vector = tmp_path / "v"
    vector.mkdir()
    (vector / "vector.json").write_text(json.dumps({"config": {**CONFIG, "head_dim": 32}}))
    target = model(tmp_path / "t", {**CONFIG, "head_dim": 64})
    (message,) = messages(found(target, vector))
    assert "head_dim is 32, but 64 in t" in message
    (vector / "vector.json").write_text("{}")
    findings = found(tmp_path / "t", vector)
    assert findings.claims == []
    assert len(findings.notes) == 2
    assert "holds no tokenizer" in findings.notes[1]


def test_the_language_model_of_a_nested_config_counts(tmp_path: Path) -> None:
    # A vision-language config has the whole's model_type at the top and the language model's own inside.
    ours = {"model_type": "vl", "text_config": CONFIG}
    theirs = {"model_type": "another_vl", "text_config": CONFIG}
    findings = found(model(tmp_path / "t", ours), model(tmp_path / "g", theirs))
    assert findings.claims == []


def deep(path: str, inner: Any, **above: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        inner = {key: inner}
    return {**above, **inner}


VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "intermediate_size": 64,
    "patch_size": 14,
}
NESTS = [
    "text_config",
    "llm_config",
    "language_config",
    "thinker_config.text_config",
    "decoder",
    "a.b.c.d",
    "parts.lm",
]


@pytest.mark.parametrize("path", NESTS)
def test_settings_are_found_wherever_they_are(tmp_path: Path, path: str) -> None:
    def nested(heads: int) -> Any:
        return deep(path, {**CONFIG, "num_attention_heads": heads}, model_type="vl", vision_config=VISION)

    target = model(tmp_path / "t", nested(4))
    (message,) = messages(found(target, model(tmp_path / "g", nested(2))))
    assert f"num_attention_heads is 2 in {path}, but 4 in t" in message
    # A plain language model against one with a vision tower, both ways round.
    assert found(target, model(tmp_path / "same", CONFIG)) == Findings()
    assert found(tmp_path / "same", target) == Findings()
    (message,) = messages(found(target, model(tmp_path / "other", {**CONFIG, "num_attention_heads": 2})))
    assert "num_attention_heads is 2, but 4 in t" in message


def test_of_several_language_models_that_of_the_same_sizes_counts(tmp_path: Path) -> None:
    talker = {**CONFIG, "hidden_size": 16, "num_attention_heads": 2}
    omni = {"thinker": {"text": CONFIG, "vision": VISION}, "talker": {"text": talker}}
    target = model(tmp_path / "t", omni)
    assert found(target, model(tmp_path / "g", CONFIG)) == Findings()
    (message,) = messages(found(target, model(tmp_path / "h", {**CONFIG, "num_attention_heads": 2})))
    assert "num_attention_heads is 2" in message
    # By path where both have several.
    other = {**omni, "talker": {"text": {**talker, "num_attention_heads": 4}}}
    (message,) = messages(found(target, model(tmp_path / "o", other)))
    assert "num_attention_heads is 4 in talker.text, but 2 in t" in message
    (warning,) = found(target, model(tmp_path / "x", {**CONFIG, "hidden_size": 8})).warnings
    assert "cannot be matched" in warning


def test_an_id_that_is_another_token_is_counted(tmp_path: Path) -> None:
    donor = model(tmp_path / "g", added=[{"id": 3, "content": "<think>"}, {"id": 4, "content": "<User>"}])
    (claim,) = found(model(tmp_path / "t"), donor).claims
    assert "2 ids are other tokens than in t (id 3: '<think>' here, '<s>' there)" in claim.message
    assert "--exclude" in claim.message
    assert claim.row == 3


def test_tokens_in_the_older_files(tmp_path: Path) -> None:
    donor = model(tmp_path / "g", vocab=None)
    (donor / "vocab.json").write_text(json.dumps(VOCAB))
    (donor / "added_tokens.json").write_text(json.dumps({"<think>": 3}))
    decoder = {"3": {"content": "<think>"}, "4": {"content": "</s>"}}
    (donor / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    (message,) = messages(found(model(tmp_path / "t"), donor))
    assert message.startswith(f"{donor / 'vocab.json'}: 1 ids are other tokens")


WEIGHTS = {"model.embed_tokens.weight": (8, 4), "model.layers.0.self_attn.q_proj.weight": (4, 4)}
BASE = {**CONFIG, "tie_word_embeddings": False, "vocab_size": 8}
RENAMED = [{"id": 3, "content": "<think>"}, ADDED[1]]
# Of the donors: what their config says otherwise, their added tokens, options, and whether it can be done.
JOBS: dict[str, tuple[Any, Any, Any, bool]] = {
    "one family": ({}, ADDED, {}, True),
    "another name": ({"model_type": "llama"}, ADDED, {}, True),
    "sizes that headers gainsay": ({"hidden_size": 8, "intermediate_size": 9}, ADDED, {}, True),
    "other heads": ({"num_attention_heads": 2}, ADDED, {}, False),
    "other heads, deeper": (deep("x.y", {**BASE, "num_key_value_heads": 1}), ADDED, {}, False),
    "other heads of nothing": ({"num_attention_heads": 2}, ADDED, {"alpha": 0}, True),
    "more layers": ({"num_hidden_layers": 9}, ADDED, {}, False),
    "another rope": ({"rope_theta": 5e5}, ADDED, {}, True),
    "other tokens": ({}, RENAMED, {}, False),
    "other tokens, excluded": ({}, RENAMED, {"exclude": ["embed"]}, True),
    "moved tokens": ({}, [{"id": 4, "content": "<s>"}, {"id": 3, "content": "</s>"}], {}, False),
    "a strange tokenizer": ({}, 7, {}, True),
}  # fmt: skip


@pytest.mark.parametrize("case", JOBS)
def test_check_and_the_writing_verbs_agree(case: str, tmp_path: Path) -> None:
    config, added, options, fits = JOBS[case]
    nested = any(isinstance(value, dict) for value in config.values())
    for role in "tgs":
        said = BASE if role == "t" else config if nested else {**BASE, **config}
        rng = generator(role)
        tensors = {name: noise(shape, torch.bfloat16, rng) for name, shape in WEIGHTS.items()}
        model(tmp_path / role, said, added=ADDED if role == "t" else added)
        write(tmp_path / role, tensors, config=said)
    t, g, s = (tmp_path / role for role in "tgs")
    plan = check(t, g, s, **options)
    assert plan.compatible == fits, plan.problems
    assert dry_run.transfer(t, g, s, tmp_path / "out", **options).compatible == fits
    if fits:
        transfer(t, g, s, tmp_path / "out", **options)
    else:
        with pytest.raises(MismatchError) as refused:
            transfer(t, g, s, tmp_path / "out", **options)
        assert str(refused.value).startswith(plan.problems[0].message)
        assert not (tmp_path / "out").exists()
    # A vector keeps its donors' config, but not their tokens.
    extract(g, s, tmp_path / "v")
    plan = check(t, tmp_path / "v", **options)
    assert any("holds no tokenizer" in note for note in plan.notes)
    if plan.compatible:
        apply(t, tmp_path / "v", tmp_path / "applied", **options)
    else:
        with pytest.raises(MismatchError):
            apply(t, tmp_path / "v", tmp_path / "applied", **options)


def test_claims_of_rows_that_are_not_combined(tmp_path: Path) -> None:
    for role, rows in (("t", 8), ("g", 3), ("s", 3)):
        rng = generator(role)
        model(tmp_path / role, BASE, added=ADDED if role == "t" else RENAMED)
        write(
            tmp_path / role, {"model.embed_tokens.weight": noise((rows, 4), torch.bfloat16, rng)}, config=BASE
        )
    t, g, s = (tmp_path / role for role in "tgs")
    plan = check(t, g, s, vocab="common")
    assert plan.compatible
    assert any("no such tensor is combined" in note for note in plan.notes)
    transfer(t, g, s, tmp_path / "out", vocab="common")
