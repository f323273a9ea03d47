"""Word problems of one to three steps in plain English, made by templates, with the answer worked out.

What a problem asks, its operations and numbers without the words around them, is its `key`. The key's digest
alone decides whether a problem is for training, development or test: the same sums in another story are held
out too, and no training stream, whatever its seed, can meet them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

NAMES = ("Amy", "Ben", "Dan", "Eve", "Fay", "Ian", "Lea", "Max", "Sam", "Zoe")
THINGS = ("apples", "beads", "books", "cards", "coins", "marbles", "pens", "shells", "stamps", "stickers")
EIGHTHS = {0: "test", 1: "dev"}
"""Which of eight equal parts of the keys are held out; the other six are for training."""


@dataclass(frozen=True)
class Problem:
    """One question, the equations that lead to its answer, and the answer."""

    question: str
    steps: tuple[str, ...]
    answer: int

    @property
    def key(self) -> str:
        """What is asked, without the words."""
        return "; ".join(self.steps)

    @property
    def split(self) -> str:
        """`train`, `dev` or `test`."""
        return EIGHTHS.get(hashlib.sha256(self.key.encode()).digest()[0] % 8, "train")

    def reply(self, *, worked: bool) -> str:
        """What the assistant says: the answer alone, or first the equations."""
        shown = [f"{step}." for step in self.steps] if worked else []
        return " ".join([*shown, f"The answer is {self.answer}."])


class Writer:
    """Draws what a story is about, does its sums, and keeps them as equations."""

    def __init__(self, rng: random.Random) -> None:
        self.names = rng.sample(NAMES, 3)
        self.name, self.thing = self.names[0], rng.choice(THINGS)
        self.number = rng.randint
        self.steps: list[str] = []

    def do(self, left: int, sign: str, right: int) -> int:
        """The result of one operation."""
        result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[sign]
        self.steps.append(f"{left} {sign} {right} = {result}")
        return result


def gets(w: Writer) -> str:
    """One addition."""
    have, more = w.number(3, 40), w.number(2, 30)
    w.do(have, "+", more)
    return f"{w.name} has {have} {w.thing} and gets {more} more. How many {w.thing} does {w.name} have now?"


def gives(w: Writer) -> str:
    """One subtraction."""
    have, less = w.number(20, 60), w.number(2, 18)
    w.do(have, "-", less)
    return f"{w.name} has {have} {w.thing} and gives {less} to a friend. How many are left?"


def packs(w: Writer) -> str:
    """One multiplication."""
    boxes, each = w.number(2, 12), w.number(2, 12)
    w.do(boxes, "*", each)
    return f"There are {boxes} boxes with {each} {w.thing} in each. How many {w.thing} are there in all?"


def shares(w: Writer) -> str:
    """One division."""
    friends, each = w.number(2, 12), w.number(2, 12)
    w.do(friends * each, "/", friends)
    told = f"{w.name} shares {friends * each} {w.thing} equally among {friends} friends."
    return f"{told} How many does each get?"


def trades(w: Writer) -> str:
    """An addition, then a subtraction."""
    have, more, less = w.number(5, 40), w.number(3, 30), w.number(2, 8)
    w.do(w.do(have, "+", more), "-", less)
    asked = f"How many {w.thing} does {w.name} have now?"
    return f"{w.name} has {have} {w.thing}, gets {more} more and gives {less} to a friend. {asked}"


def bus(w: Writer) -> str:
    """A subtraction, then an addition."""
    riders, off, on = w.number(20, 45), w.number(3, 15), w.number(2, 20)
    w.do(w.do(riders, "-", off), "+", on)
    told = f"A bus has {riders} people on it. {off} people get off and {on} get on."
    return f"{told} How many are on the bus now?"


def boxes(w: Writer) -> str:
    """A multiplication, then a subtraction."""
    count, each, taken = w.number(3, 9), w.number(3, 12), w.number(2, 9)
    w.do(w.do(count, "*", each), "-", taken)
    told = f"There are {count} boxes with {each} {w.thing} in each."
    return f"{told} {w.name} takes out {taken}. How many {w.thing} are left in the boxes?"


def change(w: Writer) -> str:
    """A price, then what comes back."""
    count, price = w.number(2, 9), w.number(2, 9)
    paid = (count * price // 10 + w.number(1, 3)) * 10
    w.do(paid, "-", w.do(count, "*", price))
    told = f"{w.name} buys {count} {w.thing} that cost {price} dollars each and pays with {paid} dollars."
    return f"{told} How many dollars does {w.name} get back?"


def pages(w: Writer) -> str:
    """Two subtractions."""
    first, second, rest = w.number(5, 30), w.number(5, 30), w.number(3, 40)
    w.do(w.do(first + second + rest, "-", first), "-", second)
    told = f"A book has {first + second + rest} pages."
    return f"{told} {w.name} reads {first} on Monday and {second} on Tuesday. How many pages are left?"


def teams(w: Writer) -> str:
    """An addition, then a division."""
    size, count = w.number(2, 9), w.number(3, 9)
    boys = w.number(2, size * count - 2)
    girls = size * count - boys
    w.do(w.do(boys, "+", girls), "/", size)
    told = f"There are {boys} boys and {girls} girls in a class."
    return f"{told} They make teams of {size}. How many teams are there?"


def ages(w: Writer) -> str:
    """An addition and a subtraction, each about somebody else."""
    one, two, three = w.names
    age, older, younger = w.number(8, 40), w.number(2, 15), w.number(2, 7)
    w.do(w.do(age, "+", older), "-", younger)
    told = f"{one} is {age} years old. {two} is {older} years older than {one}."
    return f"{told} {three} is {younger} years younger than {two}. How old is {three}?"


def saves(w: Writer) -> str:
    """Three steps."""
    had, weekly, weeks, spent = w.number(4, 40), w.number(3, 12), w.number(2, 9), w.number(2, 9)
    w.do(w.do(w.do(weekly, "*", weeks), "+", had), "-", spent)
    told = f"{w.name} has {had} dollars, saves {weekly} dollars a week for {weeks} weeks,"
    return f"{told} then spends {spent} dollars. How many dollars are left?"


Template = Callable[[Writer], str]
SETS: dict[str, tuple[Template, ...]] = {
    "one-step": (gets, gives, packs, shares),
    "steps": (trades, bus, boxes, change, pages, teams, ages, saves),
}
"""The benchmarks by name, and what they draw from. Training draws from both."""


def draw(templates: tuple[Template, ...], split: str, rng: random.Random) -> Problem:
    """The next problem of some templates that belongs to a split."""
    while True:
        writer = Writer(rng)
        question = rng.choice(templates)(writer)
        answer = int(writer.steps[-1].rsplit(" ", 1)[1])
        problem = Problem(question, tuple(writer.steps), answer)
        if problem.split == split:
            return problem


def training(rng: random.Random) -> Problem:
    """The next problem to train on: one in three has a single step."""
    return draw(SETS["one-step" if rng.random() < 1 / 3 else "steps"], "train", rng)


def held_out(name: str, split: str, count: int) -> list[Problem]:
    """The `dev` or `test` set of a benchmark: the same problems every time, no two of one key."""
    rng = random.Random(f"{split} {name}")
    found: dict[str, Problem] = {}
    while len(found) < count:
        problem = draw(SETS[name], split, rng)
        found.setdefault(problem.key, problem)
    return list(found.values())
