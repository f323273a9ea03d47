"""Scores answers to questions that have no answer: an answer is right if it says so."""

from __future__ import annotations

import re

# English phrases, for text in lower case with straight apostrophes; docs/benchmarks.md describes them.
_SAYS_SO = (
    r"(?:\bnot|n't|\bno)\s+(?:\w+\s+){0,2}?(?:enough|sufficient)\b",
    r"\binsufficient\b",
    r"\b(?:cannot|can't|can not|could not|couldn't|unable to|impossible to|not possible to|no way to)\s+"
    r"(?:be\s+)?(?:\w+ly\s+)?"
    r"(?:determine|answer|calculate|solve|compute|find|found|say|said|know|tell|work(?:ed)? out|figure)",
    r"\bno (?:\w+ )?answer (?:can|could) be\b",
    r"\bneeds? (?:more|additional|further) (?:information|data|details)",
    r"\b(?:missing|lacks?|lacking|without) (?:the |some |any )?(?:necessary |needed |required )?"
    r"(?:information|data|details?)\b",
    r"\b(?:problem|question|text|statement|it) (?:does not|doesn't|did not|didn't) "
    r"(?:state|give|say|mention|specify|provide|tell)",
    r"\b(?:is|are|was|were)(?: not|n't) (?:stated|given|specified|mentioned|provided|known|told)",
    r"\b(?:is|are|remains?) (?:unknown|missing|unanswerable|undetermined)\b",
    r"####\s*none\b",
)
_SAID = re.compile("|".join(_SAYS_SO))
# An answer that gives a final number is wrong, whatever it says before.
_NUMBER = re.compile(r"####\s*[-$]*\d")


def says_so(answer: str) -> bool:
    """Whether an answer says that its question cannot be answered, and gives no final number either."""
    text = answer.casefold().replace("\u2019", "'")
    return _SAID.search(text) is not None and _NUMBER.search(text) is None
