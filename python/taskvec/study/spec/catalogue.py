"""The benchmarks that taskvec knows by name, with titles and defaults.

A name listed here takes precedence over lm-eval's own task of that name. `scoring.known` builds each from
lm-eval's configuration; this file imports no library, so that `taskvec study show` works without the extra
`eval`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SEEDS = "gsm_plus_seed"
CRITICAL = "gsm_plus_critical"
"""Derived from `gsm_plus`: the seed questions it was made from, and the questions that have no answer."""


@dataclass(frozen=True, slots=True)
class Known:
    """The title and the defaults of one benchmark."""

    title: str
    cap: int | None
    """Default for the most tokens to generate; None if no text is generated."""
    filter: str | None = None
    """The reading (lm-eval filter) that gives the score; None for the task's first."""
    also: tuple[str, ...] = ()
    """Further readings of the same answers."""
    code: bool = False
    """Whether scoring runs code that the model wrote."""


CATALOGUE: dict[str, Known] = {
    # The score takes the last number of the answer. Requiring it after "####" would score the form, which an
    # arm can change without better reasoning; that is only a further reading.
    "gsm8k": Known("GSM8K", 512, "flexible-extract", ("strict-match",)),
    "gsm8k_platinum": Known("GSM8K-Platinum", 512, "flexible-extract", ("strict-match",)),
    "gsm_plus": Known("GSM-Plus", 512, "flexible-extract", ("strict-match",)),
    SEEDS: Known("GSM-Plus, seed questions", 512, "flexible-extract", ("strict-match",)),
    CRITICAL: Known("GSM-Plus, unanswerable", 512),
    "sciq": Known("SciQ", None, None, ("acc_norm",)),
    "bbh": Known("BIG-Bench Hard", 512, "flexible-extract", ("strict-match",)),
    "humaneval": Known("HumanEval", 1024, code=True),
    "humaneval_plus": Known("HumanEval+", 1024, code=True),
}

Perturbation = Literal[
    "distractor", "distractor-number", "typos", "number-words", "instruction", "surface", "options"
]
"""Changes of a question that do not change its answer; made by `scoring.perturb.kinds`."""
