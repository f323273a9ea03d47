"""Study files: what is read, and the line of everything that is not as it must be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from taskvec.errors import StorageError, TaskvecError, UsageError
from taskvec.study import load
from taskvec.study.spec import study_file as file

TEXT = """\
schema: taskvec/study/1
name: small
about: Does it help?
target: ./instruct
donors:
  minuend: ../grpo
  subtrahend: /models/sft
alpha: 0.7
arms:
  random: [4, 5, 6]
  sweep: [0.25, -1]
backend: hf
benchmarks:
  - id: chain
    task: some_chain
    max_new_tokens: 80
  - id: order
    task: some_order
    sweep: false
"""


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def test_what_is_given_and_what_is_not(tmp_path: Path) -> None:
    study = load(write(tmp_path))
    assert (study.name, study.about, study.alpha) == ("small", "Does it help?", 0.7)
    assert (study.arms.random, study.arms.sweep) == ([4, 5, 6], [0.25, -1])
    assert (study.arms.think, study.arms.minus, study.arms.donors) == (True, True, None)
    assert (study.think, study.offline, study.device, study.dtype) == (
        "Think step by step.",
        False,
        "auto",
        "auto",
    )
    chain, order = study.benchmarks
    assert (chain.id, chain.name, chain.max_new_tokens, chain.shots, chain.sweep) == (
        "chain",
        "chain",
        80,
        None,
        True,
    )
    assert order.sweep is False
    assert study.to_json()["schema"] == "taskvec/study/1"


def test_folders_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    study = load(write(tmp_path, TEXT + "tasks: tasks\n"))
    assert study.target == str(tmp_path / "instruct")
    assert study.donors is not None
    assert study.donors.minuend == str(tmp_path.parent / "grpo")
    assert study.donors.subtrahend == "/models/sft"
    assert study.tasks == str(tmp_path / "tasks")
    hub = load(write(tmp_path, TEXT.replace("./instruct", "Qwen/Qwen2.5-1.5B")))
    assert hub.target == "Qwen/Qwen2.5-1.5B"


WRONG = {
    # What stands in its place, the line of the error, what it says.
    "an unknown key": ("alpha: 0.7", "alhpa: 0.7", 8, "no key 'alhpa' here; did you mean 'alpha'?"),
    "an unknown key far from all": ("alpha: 0.7", "frob: 1", 8, "the keys here are schema, name"),
    "an unknown key in a section": ("  sweep: [", "  swoop: [", 11, "did you mean 'sweep'?"),
    "an unknown key of a benchmark": ("    sweep: false", "    sweeps: no", 19, "did you mean 'sweep'?"),
    "a missing key": ("about: Does it help?\n", "", 1, "'about' is missing"),
    "a missing key of a section": ("  subtrahend: /models/sft\n", "", 5, "donors has no 'subtrahend'"),
    "a missing key of a benchmark": ("    task: some_chain\n", "", 14, "benchmarks.0 has no 'task'"),
    "a text for a number": ("alpha: 0.7", "alpha: much", 8, "should be a valid number (it is 'much')"),
    "a number for a text": ("about: Does it help?", "about: 7", 3, "should be a valid string (it is 7)"),
    "a yes for a number": ("max_new_tokens: 80", "max_new_tokens: yes", 16, "should be a valid integer"),
    "a fraction for a count": ("max_new_tokens: 80", "max_new_tokens: 8.5", 16, "should be a valid integer"),
    "no tokens": ("max_new_tokens: 80", "max_new_tokens: 0", 16, "greater than or equal to 1"),
    "no α": ("alpha: 0.7", "alpha: 0", 8, "α must be a finite number other than 0"),
    "an infinite α": ("alpha: 0.7", "alpha: .inf", 8, "α must be a finite number other than 0"),
    "too few seeds": ("[4, 5, 6]", "[4, 5]", 9, "random needs at least 3 seeds, or none at all: []"),
    "a seed twice": ("[4, 5, 6]", "[4, 5, 4]", 9, "random holds a value twice"),
    "the same α twice": ("[0.25, -1]", "[0.25, 0.25]", 9, "sweep holds a value twice"),
    "+v in the sweep": ("[0.25, -1]", "[0.25, 0.7]", 1, "arms.sweep holds 0.7, which is already the α of +v"),
    "an odd id": ("id: chain", "id: Chain!", 14, "'Chain!' is not of the form"),
    "an id twice": ("id: order", "id: chain", 1, "two benchmarks have the id 'chain'"),
    "no benchmark": (TEXT[TEXT.index("  - id") :], "  []\n", 13, "at least 1 item"),
    "no v": ("donors:\n  minuend: ../grpo\n  subtrahend: /models/sft\n", "", 1, "give either donors"),
    "both": ("alpha: 0.7", "vector: ./v", 1, "give either donors"),
    "another schema": ("study/1", "study/2", 1, "(it is 'taskvec/study/2')"),
    "an unknown backend": ("backend: hf", "backend: gpu", 12, "backend: should be 'hf'"),
    "a backend half named": ("backend: hf", "backend: {vllm: {}}", 12, "backend.vllm has no 'python'"),
    "a device of no number": ("backend: hf", "device: cuda:x", 12, "device: 'cuda:x' is not of the form"),
    "−v in the sweep": ("[0.25, -1]", "[-0.7]", 1, "arms.sweep holds -0.7, which is already the α of −v"),
    "α that share a name": ("[0.25, -1]", "[0.25, 0.2500000000000001]", 9, "sweep holds a value twice"),
    "an α that is text": ("alpha: 0.7", "alpha: 1e-1", 8, "'1e-1'); YAML reads it as text, write 0.1"),
    "a small one": ("alpha: 0.7", "alpha: 1e-9", 8, "write 1.0e-09"),
    "nobody's home": ("target: ./instruct", "target: ~nosuchuser/x", 4, "(it is '~nosuchuser/x')"),
    "nobody's tasks": ("backend: hf", "tasks: ~nosuchuser/x", 12, "tasks: "),
    "a NUL": ("target: ./instruct", 'target: "./a\\0b"', 4, "target: give one line of text"),
    "half a character": ("about: Does it help?", 'about: "\\ud800"', 3, "about: give one line of text"),
    "no bool": ("alpha: 0.7", "alpha: !!bool maybe", 8, "'maybe' cannot be read as a bool"),
    "no time": ("alpha: 0.7", "alpha: !!timestamp x", 8, "'x' cannot be read as a timestamp"),
    "no number at all": ("alpha: 0.7", 'alpha: !!int ""', 8, "'' cannot be read as a int"),
    "an argument that is the study's": (
        "backend: hf", "backend: {vllm: {python: p, args: {dtype: float16}}}", 12, "args must not hold dtype"
    ),
    "no argument": ("backend: hf", "backend: {vllm: {python: p, args: {a: !!binary /w==}}}", 12, "args"),
    "an odd device": ("backend: hf", "device: gpu", 12, "device: 'gpu' is not of the form"),
    "a key twice": ("alpha: 0.7", "name: other", 8, "'name' is given twice"),
    "a key of a benchmark twice": ("    sweep: false", "    task: x", 19, "'task' is given twice"),
    "a merge": ("alpha: 0.7", "<<: {alpha: 1}", 8, "a key must be a plain word"),
    "a key that is a list": ("alpha: 0.7", "? [alpha]\n: 1", 8, "a key must be a plain word"),
    "no YAML": ("about: Does it help?", "about: [Does", 4, "not valid YAML"),
    "an unknown tag": ("alpha: 0.7", "alpha: !frob 1", 8, "not valid YAML"),
    "an impossible date": ("about: Does it help?", "about: 2020-02-31", 3, "day"),
    "two lines to think": ("backend: hf", 'think: "a\\nb"', 12, "one line of text"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_and_where(wrong: str, tmp_path: Path) -> None:
    old, new, line, says = WRONG[wrong]
    assert old in TEXT
    path = write(tmp_path, TEXT.replace(old, new, 1))
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n", "a: " + "[" * 5000])
def test_what_is_no_mapping_at_all(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"small\.yaml") as caught:
        load(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00schema", b"a: \x00\x01"])
def test_what_is_no_text(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"small\.yaml"):
        load(path)


@pytest.mark.parametrize("path", ["~nosuchuser/small.yaml", "a\0b.yaml"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be a path"):
        load(path)


def test_minus_v_may_be_in_a_sweep_that_has_no_such_arm(tmp_path: Path) -> None:
    text = TEXT.replace("[0.25, -1]", "[-0.7]").replace("arms:", "arms:\n  minus: false")
    assert load(write(tmp_path, text)).arms.sweep == [-0.7]


def test_a_vector_brings_no_donor_arms(tmp_path: Path) -> None:
    text = TEXT.replace(TEXT[TEXT.index("donors") : TEXT.index("alpha")], "vector: ./v\n")
    assert load(write(tmp_path, text)).vector == str(tmp_path / "v")
    with pytest.raises(UsageError, match=r"arms\.donors needs donors"):
        load(write(tmp_path, text.replace("arms:", "arms:\n  donors: true")))


def test_a_study_by_name_by_path_and_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "SHIPPED", tmp_path)
    monkeypatch.chdir("/")
    write(tmp_path)
    assert file.shipped() == ["small"]
    assert load("small").name == "small"
    with pytest.raises(UsageError, match="there is no study 'big'; those that ship with taskvec are small"):
        load("big")
    with pytest.raises(StorageError, match="No such file") as caught:
        load(tmp_path / "none.yaml")
    assert isinstance(caught.value, TaskvecError)
    # Names may hold a dot; a file is told by its end.
    with pytest.raises(StorageError, match="No such file"):
        load("none.yaml")
    with pytest.raises(StorageError, match="directory"):
        load(tmp_path)


@pytest.mark.parametrize("name", file.shipped())
def test_what_ships_can_be_read(name: str) -> None:
    study = load(name)
    assert study.name == name
    folders: list[Any] = [study.target, study.tasks, study.vector]
    folders += [study.donors.minuend, study.donors.subtrahend] if study.donors else []
    assert all(Path(folder).is_dir() for folder in folders if folder and Path(folder).is_absolute())
