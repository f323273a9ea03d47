"""What must hold of a perturbed text, checked without the code that perturbs."""

from __future__ import annotations

import ast
import re

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen"
)
_UNITS = {word: value for value, word in enumerate(re.findall(r"\w+", _ONES))}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2
    )
}
_WORD = "|".join(sorted([*_UNITS, *_TENS, "hundred", "thousand"], key=len, reverse=True))
_RUN = re.compile(rf"\b(?:{_WORD})(?:[ -](?:{_WORD}))*\b")
_DIGITS = re.compile(r"\d[\d,]*\d|\d")
FORBIDDEN_IN_LINES = re.compile(
    rf"\d|\b(?:{_WORD}|first|second|third|step|steps|think|thinking|thought|answer|answers|reason|solve)\b",
    re.I,
)


def read(words: str) -> list[int]:
    """The numbers that a run of number words says: "twelve hundred five" is [1205], "two three" [2, 3]."""
    found: list[int] = []
    thousands = group = None
    last = ""
    for word in re.split("[ -]", words):
        if word in ("hundred", "thousand"):
            assert group is not None, words
            if word == "hundred":
                group *= 100
            else:
                thousands, group = group * 1000, 0
        else:
            value = _UNITS.get(word, _TENS.get(word, 0))
            joins = last in ("hundred", "thousand") or (last in _TENS and 0 < value < 10)
            if group is not None and not joins:
                found.append((thousands or 0) + group)
                thousands = group = None
            group = (group or 0) + value
        last = word
    return [*found, (thousands or 0) + (group or 0)]


def as_digits(text: str) -> str:
    """A text in lower case with every number in plain digits, whether it was in words or had commas."""
    text = _RUN.sub(lambda match: " ".join(map(str, read(match[0]))), text.lower())
    return _DIGITS.sub(lambda match: match[0].replace(",", ""), text)


def inserted(before: str, after: str) -> str:
    """The one stretch that `after` has more than `before`, which must be all that differs."""
    assert len(after) > len(before)
    more = len(after) - len(before)
    start = next(at for at in range(len(before) + 1) if at == len(before) or before[at] != after[at])
    # Where the stretch ends as it begins, it can be moved; take the place where it is a sentence.
    for at in range(start, -1, -1):
        if after[:at] + after[at + more :] == before and re.match(r"[A-Z]", after[at:]):
            return after[at : at + more]
    raise AssertionError(f"more than one stretch differs:\n{before}\n{after}")


def check_distractor(before: str, after: str, document: str, *, number: bool) -> None:
    """One sentence more, about people and places that the document does not name, before some of the text."""
    sentence = inserted(before, after)
    assert re.fullmatch(r"[A-Z][^.?!\n]*\.\s+", sentence), sentence
    assert not after.endswith(sentence)
    named = re.findall(r"\b[A-Z][a-z]+", sentence)
    assert len(named) == 2, sentence
    for name in named:
        assert not re.search(rf"\b{name}\b", document, re.I), (name, document)
    numbers = [int(one) for one in re.findall(r"\d+", sentence)]
    if number:
        assert len(numbers) == 1
        assert 11 <= numbers[0] <= 97
        assert str(numbers[0]) not in re.findall(r"\d+", document)
    else:
        assert not numbers
        assert not _RUN.search(sentence.lower())


def check_typos(before: str, after: str, vocabulary: set[str]) -> None:
    """Words differ by a swap or a doubling within, and are words of no document."""
    old, new = re.split(r"(\s+)", before), re.split(r"(\s+)", after)
    assert len(old) == len(new)
    changed = [(one, other) for one, other in zip(old, new, strict=True) if one != other]
    assert 1 <= len(changed) <= max(1, round(0.06 * len(old)))
    for one, other in changed:
        word, made = one.strip("(.,;:?!)"), other.strip("(.,;:?!)")
        assert re.fullmatch("[a-z]{5,}", word), one
        assert made not in vocabulary, made
        assert (made[0], made[-1]) == (word[0], word[-1])
        if len(made) == len(word):
            at = next(at for at in range(len(word)) if word[at] != made[at])
            assert made == word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        else:
            at = next((at for at in range(len(word)) if word[at] != made[at]), len(word))
            assert made == word[:at] + word[at - 1] + word[at:]


def check_number_words(before: str, after: str) -> None:
    """Read back, the words say the numbers that were there, and nothing else changed."""
    assert before != after
    assert as_digits(before) == as_digits(after)


def check_instruction(before: str, after: str) -> None:
    """A line of its own that asks for nothing."""
    line, rest = after.split("\n", 1)
    assert rest == before
    assert line.endswith(".")
    assert not FORBIDDEN_IN_LINES.search(line), line


def tidied(text: str) -> str:
    """A text without what `surface` may add."""
    return re.sub(r" ,", ",", re.sub(r" +", " ", text)).casefold()


def check_surface(before: str, after: str) -> None:
    """The same words, marks and line breaks."""
    assert before != after
    assert tidied(before) == tidied(after)
    # Letters differ at most in the case of the first one.
    old, new = re.sub(r"\s", "", before), re.sub(r"\s", "", after)
    assert old[1:] == new[1:]
    assert old[0].lower() == new[0].lower()


def check_code(before: str, after: str) -> None:
    """Two prompts that differ within the docstring of the last function alone, and show the same examples."""
    shown = [one[one.rindex("\ndef ") :].partition(">>>")[1:] for one in (before, after)]
    assert shown[0] == shown[1]
    old, new = (ast.parse(one + "\n    pass\n") for one in (before, after))
    for one in (old, new):
        function = one.body[-1]
        assert isinstance(function, ast.FunctionDef)
        assert isinstance(function.body[0], ast.Expr)
        del function.body[0]
    assert ast.dump(old) == ast.dump(new)


def options_of(text: str) -> list[str]:
    """The lines after "Options:"."""
    return text.partition("\nOptions:\n")[2].splitlines()
