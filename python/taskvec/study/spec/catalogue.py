"""Benchmarks that a study calls by name: what they are called, and the settings that a study may leave out.

A name here comes before lm-eval's own task of that name. How each is built from lm-eval's configuration is
in `scoring.known`; this file needs no library, so that `taskvec study show` works without the extra `eval`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SEEDS = "gsm_plus_seed"
CRITICAL = "gsm_plus_critical"
"""What `gsm_plus` brings with it: the questions it was made from, and those that cannot be answered."""


@dataclass(frozen=True, slots=True)
class Known:
    """One benchmark by name."""

    title: str
    cap: int | None
    """Tokens to generate at most, unless the study says otherwise; None where nothing is generated."""
    filter: str | None = None
    """The reading that is the score; None for the task's first."""
    also: tuple[str, ...] = ()
    """Further readings of the same answers."""
    code: bool = False
    """Whether scoring runs code that the model wrote."""


CATALOGUE: dict[str, Known] = {
    # The last number of the answer is the score. Whether it stands after "####" is a matter of form, which an
    # arm can change without reasoning better.
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
"""Changes of a question that leave its answer as it is; `scoring.perturb.kinds` makes them."""
