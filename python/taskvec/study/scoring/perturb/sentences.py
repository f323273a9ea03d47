"""Perturbations that add a sentence: one about somebody else, with a number or without, or an idle line.

All sentences are from closed lists, so that they can be read before they are used.
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

# Each with the beginnings of words that the text must not hold, so that it has another subject. They name
# nothing in the plural and nothing that is counted, so that "how many of them are left?" after them can mean
# only what it meant before.
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
# A number that names or measures one thing cannot be added to a count.
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
# "This" and "that" by themselves, which mean what was said before: "Why is that?", "What does this cause?"
_POINTS_BACK = re.compile(
    r"\b(?:this|that|these|those)(?=\s*[.?!,;:]|\s+(?:is|was|are|were|would|will|do|does|did|means?|happens?|makes?"
    r"|causes?|so)\b)",
    re.IGNORECASE,
)
# Questions about everything that is counted or written, and about "that number": one more could be meant.
_COUNTS_ALL = re.compile(
    r"\b(?:how many|number of|count(?: up)?|list|sum of|all(?: of)? the)\s+(?:\w+\s+){0,3}?"
    r"(?:things?|objects?|items?|articles?|numbers?|digits?|people|persons?|individuals|names?|characters?"
    r"|words?|letters?|sentences?|lines?|places?|cities)\b",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"\b(?:numbers?|digits?|integers?)\b(?! of\b)", re.IGNORECASE)


def distractor(text: str, rng: Random, around: Around) -> str | None:
    """Puts a sentence about somebody else before the sentence that asks.

    Where that sentence points back ("Why did he tell her?", "What makes you say that?"), the new one would
    come between it and what it means; it then comes before the whole text.

    Args:
        text: the question, or its context.
        rng: draws the sentence and its names.
        around: what stands beside the text.

    Returns:
        The text with one sentence more; None where no sentence of the list fits.
    """
    return _insert(text, rng, around, DISTRACTORS)


def distractor_with_number(text: str, rng: Random, around: Around) -> str | None:
    """As `distractor`, with a number from 11 to 97 that is not yet in the document.

    None also where the question asks for all things that are counted, or is about numbers themselves.
    """
    end = prose(text)
    asks = f"{text[asking(text[:end]) or 0 : end]}\n{around.after}"
    if _COUNTS_ALL.search(f"{text[:end]}\n{around.after}") or _NUMBERS.search(asks):
        return None
    return _insert(text, rng, around, DISTRACTORS_WITH_NUMBER)


def instruction(text: str, rng: Random, around: Around) -> str | None:
    """Puts a line before the text that asks for nothing; None where all lines touch on its subject."""
    whole = f"{text}\n{around.document}"
    fitting = [line for line, subject in LINES if not _about(whole, subject)]
    return f"{rng.choice(fitting)}\n{text}" if fitting and text.strip() else None


def sentence_about(whole: str, after: str, rng: Random, closed: Sequence[tuple[str, str]]) -> str | None:
    """A sentence about a person, a place and a subject of which `whole` says nothing.

    Args:
        whole: all text of the document.
        after: what follows the sentence. A pronoun in it must not be taken for the person of the sentence,
            who is a woman where "he" follows and a man where "she" does.
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
    # On the line of the sentence that asks, since a line of its own could be read as the last row of a table;
    # a sentence with a label keeps its line to itself.
    gap = before[len(before.rstrip()) :] if within(at, quoted(text)) and before.strip() else " "
    return f"{before}{sentence}{gap}{text[at:]}"


def _about(text: str, subject: str) -> bool:
    return re.search(rf"\b(?:{'|'.join(subject.split())})", text, re.IGNORECASE) is not None
