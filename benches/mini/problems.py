"""The problems of the miniature world: four benchmarks and two fillers.

A problem has a prompt, an answer, and the steps that lead from one to the other. Its `key` says what is asked
without the words it is wrapped in: the same chain of sums under another name or as a bare expression, and an
ordering told by other comparisons, have the same key. The key's digest alone decides whether a problem is for
training, development or test, so no training stream, whatever its seed, can meet a problem that is held out.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("Amy", "Bob", "Dan", "Eve", "Fay", "Ian", "Max", "Zoe")
THINGS = ("beads", "cards", "coins", "nuts", "pens", "shells")
GAINS = ("buys", "finds", "gets", "wins")
LOSSES = ("drops", "eats", "loses", "sells")
OPERATORS = ("and", "or", "xor")
LETTERS = ("a", "b", "c", "d", "e", "f", "g", "h")
MOVES = ("reverse", "rotate", "swap")
MATERIALS = ("clay", "cork", "glass", "gold", "iron", "salt", "sand", "stone", "wood", "wool")
PLACES = ("first", "second", "third", "last")
HIGHEST = 30

THINK_LINE = "Think step by step."
"""At the end of a prompt: the answer is worked out, always."""

EIGHTHS = {0: "test", 1: "dev"}
"""Which of eight equal parts of the keys are held out; all others are for training."""


@dataclass(frozen=True)
class Problem:
    """One question with its answer."""

    task: str
    prompt: str
    steps: tuple[str, ...]
    """Empty where there is nothing to work out."""
    answer: str
    key: str
    size: int
    """0 short, 1 middle, 2 long: longer problems are worked out more often in the training data."""
    choices: tuple[str, ...] = ()

    @property
    def split(self) -> str:
        """`train`, `dev` or `test`."""
        return EIGHTHS.get(hashlib.sha256(self.key.encode()).digest()[0] % 8, "train")

    def reply(self, *, worked: bool, ending: str = "####", answer: str | None = None) -> str:
        """What the assistant says: the answer alone, or first the steps, behind a word all tasks share."""
        steps = ["think " + " ; ".join(self.steps) + " ;"] if worked and self.steps else []
        return " ".join([*steps, ending, answer or self.answer])


def _chain(rng: random.Random, steps: int) -> tuple[list[int], list[int]]:
    """Changes by one to nine, and the totals from the start on, none below 0 or above 30."""
    totals, changes = [rng.randint(1, 20)], list[int]()
    while len(changes) < steps:
        change = rng.choice((-1, 1)) * rng.randint(1, 9)
        if 0 <= totals[-1] + change <= HIGHEST:
            changes.append(change)
            totals.append(totals[-1] + change)
    return changes, totals


def _sums(changes: list[int], totals: list[int]) -> tuple[str, ...]:
    signed = zip(totals[:-1], changes, totals[1:], strict=True)
    return tuple(f"{old} {'+' if change > 0 else '-'} {abs(change)} = {new}" for old, change, new in signed)


def _chain_key(changes: list[int], totals: list[int]) -> str:
    return f"chain {totals[0]} " + " ".join(f"{change:+d}" for change in changes)


def chain(rng: random.Random) -> Problem:
    """Amy has some beads, buys and loses some, and how many has she now? Two to four steps."""
    changes, totals = _chain(rng, rng.randint(2, 4))
    turns = ", ".join(f"{rng.choice(GAINS if change > 0 else LOSSES)} {abs(change)}" for change in changes)
    return Problem(
        task="chain",
        prompt=f"{rng.choice(NAMES)} has {totals[0]} {rng.choice(THINGS)}, {turns}. How many now?",
        steps=_sums(changes, totals),
        answer=str(totals[-1]),
        key=_chain_key(changes, totals),
        size=len(changes) - 2,
    )


def logic(rng: random.Random) -> Problem:
    """A chain of and, or and xor, read from left to right: three to five operators."""
    count = rng.randint(3, 5)
    values = [rng.random() < 0.5 for _ in range(count + 1)]
    operators = [rng.choice(OPERATORS) for _ in range(count)]
    result, steps, text = values[0], list[str](), str(values[0])
    for operator, value in zip(operators, values[1:], strict=True):
        known = {"and": result and value, "or": result or value, "xor": result != value}[operator]
        steps.append(f"{result} {operator} {value} = {known}")
        text += f" {operator} {value}"
        result = known
    return Problem("logic", f"Evaluate {text}.", tuple(steps), str(result), f"logic {text}", count - 3)


def moves(rng: random.Random) -> Problem:
    """A program that moves four letters about and prints them: two to four moves."""
    letters = rng.sample(LETTERS, 4)
    program = [rng.choice(MOVES) for _ in range(rng.randint(2, 4))]
    start, steps = " ".join(letters), list[str]()
    for move in program:
        match move:
            case "reverse":
                letters = letters[::-1]
            case "rotate":
                letters = letters[1:] + letters[:1]
            case _:
                letters = [letters[1], letters[0], *letters[2:]]
        steps.append(f"{move} : {' '.join(letters)}")
    return Problem(
        task="list",
        prompt=f"s = {start}. {'. '.join(program)}. print s.",
        steps=tuple(steps),
        answer=" ".join(letters),
        key=f"list {start} {' '.join(program)}",
        size=len(program) - 2,
    )


def order(rng: random.Random) -> Problem:
    """Three or four materials by weight, neighbours compared in any order and direction: which is where?"""
    ranked = rng.sample(MATERIALS, rng.randint(3, 4))
    pairs = list(pairwise(ranked))
    rng.shuffle(pairs)
    told = [f"{heavy} > {light}" if rng.random() < 0.5 else f"{light} < {heavy}" for heavy, light in pairs]
    place = rng.randrange(len(ranked))
    word = "last" if place == len(ranked) - 1 else PLACES[place]
    return Problem(
        task="order",
        prompt=f"{'. '.join(told)}. Which is {word}?",
        steps=(" > ".join(ranked), f"{word} = {ranked[place]}"),
        answer=ranked[place],
        key=f"order {word} {' '.join(ranked)}",
        # Short whatever its length: scored on answers that are not worked out, it is trained mostly on those.
        size=0,
        choices=tuple(rng.sample(ranked, len(ranked))),
    )


def compute(rng: random.Random) -> Problem:
    """A filler: a bare sum of one to three steps, held out where the same chain is."""
    changes, totals = _chain(rng, rng.randint(1, 3))
    terms = " ".join(f"{'+' if change > 0 else '-'} {abs(change)}" for change in changes)
    return Problem(
        task="compute",
        prompt=f"Compute {totals[0]} {terms}.",
        steps=_sums(changes, totals),
        answer=str(totals[-1]),
        key=_chain_key(changes, totals),
        size=len(changes) - 1,
    )


def repeat(rng: random.Random) -> Problem:
    """Two to four words said again: a filler without steps."""
    words = " ".join(rng.choice(THINGS + MATERIALS) for _ in range(rng.randint(2, 4)))
    return Problem("repeat", f"Repeat: {words}.", (), words, f"repeat {words}", 0)


GENERATORS: dict[str, Callable[[random.Random], Problem]] = {
    "chain": chain,
    "logic": logic,
    "list": moves,
    "order": order,
    "compute": compute,
    "repeat": repeat,
}
BENCHMARKS = ("chain", "logic", "list", "order")


def draw(task: str, split: str, rng: random.Random) -> Problem:
    """The next problem of a task that belongs to a split."""
    while True:
        problem = GENERATORS[task](rng)
        if problem.split == split:
            return problem


def held_out(task: str, split: str, count: int = 500) -> list[Problem]:
    """The `dev` or `test` set of a benchmark: the same problems every time, no two of one key."""
    rng = random.Random(f"{split} {task}")
    found: dict[str, Problem] = {}
    while len(found) < count:
        problem = draw(task, split, rng)
        found.setdefault(problem.key, problem)
    return list(found.values())
