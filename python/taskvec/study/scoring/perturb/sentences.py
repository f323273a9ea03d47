"""Perturbations that add a sentence: about somebody else, with or without a number, or about the page.

All sentences come from the fixed lists below, so that they can be reviewed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .text import Around, asking, prose, quoted, sentences, within, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

WOMEN = ("Marta", "Ingrid", "Leila", "Yuki", "Noor", "Amara")
MEN = ("Tomas", "Bjorn", "Kofi", "Mateo", "Emeka", "Ravi")
PLACES = ("Porto", "Bergen", "Tartu", "Galway", "Cusco", "Ghent", "Trieste", "Nantes", "Aarhus", "Hobart")
NUMBERS = range(11, 98)

# Each sentence comes with beginnings of words that the text must not contain, so that its subject is another.
# The sentences contain no plural and nothing countable, so that "how many of them are left?" after one of
# them keeps its meaning.
DISTRACTORS = (
    ("{name} likes to sing in {place}.", "sing sang song choir"),
    ("{name} teaches music in {place}.", "music teach taught instrument lesson piano violin artist band"),
    ("{name} has taken up painting in {place}.", "paint colo draw art picture"),
    ("{name} studies law in {place}.", "law stud court legal exam"),
    ("{name} is learning chess in {place}.", "chess game learn play board"),
    ("{name} runs a small bakery in {place}.", "bak bread cake run ran shop store small"),
    ("{name} writes poetry in {place}.", "poe writ wrote book"),
    ("{name} often goes fishing near {place}.", "fish boat river sea lake"),
    ("{name} repairs old furniture in {place}.", "furnitur repair chair table old"),
    ("{name} dances in a theatre in {place}.", "danc theat show stage ballet"),
)
# The numbers name or measure a single thing, so that they cannot be taken for a part of a count.
DISTRACTORS_WITH_NUMBER = (
    ("{name} lives in house {number} in {place}.", "hous home street address live"),
    ("{name} takes bus {number} to work in {place}.", "bus driv ride trip work"),
    ("{name} works in room {number} of an office in {place}.", "room offic work"),
    ("{name} wears shirt {number} in a team in {place}.", "shirt team play game wear"),
    ("{name} sits in seat {number} of a theatre in {place}.", "seat theat show ticket sit"),
    ("{name} waits at gate {number} of the airport in {place}.", "gate airport flight fly plane wait travel"),
    ("{name} reads page {number} of a novel in {place}.", "page read novel book chapter"),
    ("{name} is {number} years old and lives in {place}.", "year old age aging young birth born live"),
)
LINES = (
    ("The next question is on another page.", "page"),
    ("This page is printed in black and white.", "page print black white colo"),
    ("This text is set in a common typeface.", "text type letter"),
    ("The paper of this booklet is recycled.", "paper book recycl"),
    ("Spare sheets are kept at the front desk.", "sheet paper desk front"),
    ("This copy belongs to the reading room.", "copy copies read room librar"),
)

_MALE = re.compile(r"\b(?:he|him|his|himself|man|boy|mr)\b", re.IGNORECASE)
_FEMALE = re.compile(r"\b(?:she|her|hers|herself|woman|girl|mrs|ms)\b", re.IGNORECASE)
# "This" and "that" without a noun, which refer to the text before: "Why is that?", "What does this cause?"
_POINTS_BACK = re.compile(
    r"\b(?:this|that|these|those)(?=\s*[.?!,;:]|\s+(?:is|was|are|were|would|will|do|does|did|means?|happens?|makes?"
    r"|causes?|so)\b)",
    re.IGNORECASE,
)
# Questions about all things or all numbers in the text, to which an added number could belong.
_COUNTS_ALL = re.compile(
    r"\b(?:how many|number of|count(?: up)?|list|sum of|all(?: of)? the)\s+(?:\w+\s+){0,3}?"
    r"(?:things?|objects?|items?|articles?|numbers?|digits?|people|persons?|individuals|names?|characters?"
    r"|words?|letters?|sentences?|lines?|places?|cities)\b",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"\b(?:numbers?|digits?|integers?)\b(?! of\b)", re.IGNORECASE)


def distractor(text: str, rng: Random, around: Around) -> str | None:
    """Adds a sentence about somebody else before the question.

    If the question refers back ("Why did he tell her?", "What makes you say that?"), the new sentence would
    separate it from what it refers to. It is then added before the whole text.

    Args:
        text: the question or its context.
        rng: draws the sentence and its names.
        around: the surroundings of the text.

    Returns:
        The text with the added sentence; None if no sentence of the list fits.
    """
    return _insert(text, rng, around, DISTRACTORS)


def distractor_with_number(text: str, rng: Random, around: Around) -> str | None:
    """As `distractor`, with a number from 11 to 97 that does not occur in the document.

    Also None if the question asks for all things of a kind, or about numbers themselves.
    """
    end = prose(text)
    asks = f"{text[asking(text[:end]) or 0 : end]}\n{around.after}"
    if _COUNTS_ALL.search(f"{text[:end]}\n{around.after}") or _NUMBERS.search(asks):
        return None
    return _insert(text, rng, around, DISTRACTORS_WITH_NUMBER)


def instruction(text: str, rng: Random, around: Around) -> str | None:
    """Adds a line that asks for nothing before the text; None if the subject of every line is in the text."""
    whole = f"{text}\n{around.document}"
    fitting = [line for line, subject in LINES if not _about(whole, subject)]
    return f"{rng.choice(fitting)}\n{text}" if fitting and text.strip() else None


def sentence_about(whole: str, after: str, rng: Random, closed: Sequence[tuple[str, str]]) -> str | None:
    """A sentence about a person, a place and a subject that do not occur in `whole`; None if none fits.

    Args:
        whole: all text of the document.
        after: the text that follows. A pronoun in it must not seem to mean the person of the sentence, who is
            therefore a woman if "he" follows, and a man if "she" does.
        rng: draws sentence, person, place and number.
        closed: one of this module's lists.
    """
    words = words_of(whole)
    he, she = _MALE.search(after), _FEMALE.search(after)
    people = (() if he else MEN) + (() if she else WOMEN)
    names = [name for name in people if name.casefold() not in words]
    places = [place for place in PLACES if place.casefold() not in words]
    fitting = [sentence for sentence, subject in closed if not _about(whole, subject)]
    numbers = [number for number in NUMBERS if not re.search(rf"(?<!\d){number}(?!\d)", whole)]
    if not (names and places and fitting and numbers):
        return None
    return rng.choice(fitting).format(
        name=rng.choice(names), place=rng.choice(places), number=rng.choice(numbers)
    )


def _insert(text: str, rng: Random, around: Around, closed: Sequence[tuple[str, str]]) -> str | None:
    end = prose(text)
    starts, at = sentences(text[:end]), asking(text[:end])
    if at is None:
        return None
    follows = f"{text[at:end]}\n{around.after}"
    if _POINTS_BACK.search(follows) or (_MALE.search(follows) and _FEMALE.search(follows)):
        at, follows = starts[0], text[starts[0] : [*starts, end][1]]
    sentence = sentence_about(f"{text}\n{around.document}\n{around.after}", follows, rng, closed)
    if sentence is None:
        return None
    before = text[:at]
    # The sentence goes on the line of the question, since on its own line it could be read as the last row of
    # a table. Only a question with a label keeps a line of its own.
    gap = before[len(before.rstrip()) :] if within(at, quoted(text)) and before.strip() else " "
    return f"{before}{sentence}{gap}{text[at:]}"


def _about(text: str, subject: str) -> bool:
    return re.search(rf"\b(?:{'|'.join(subject.split())})", text, re.IGNORECASE) is not None
