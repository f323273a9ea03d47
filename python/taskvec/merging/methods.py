"""mergekit's methods: which inputs they take and which parameters they have, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

Kind = Literal["number", "flag"]
Base = Literal["needed", "optional", "model"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a method."""

    kind: Kind
    required: bool = False
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """A method: formulas are in the core, beside their sources."""

    base: Base
    """Whether it needs a base, may have one, or takes it for one more model."""
    least: int
    """The least number of models beside a base."""
    most: int | None = None
    shared: dict[str, Parameter] = field(default_factory=dict[str, Parameter])
    """Parameters with one value for a tensor."""
    each: dict[str, Parameter] = field(default_factory=dict[str, Parameter])
    """Parameters with a value for every model."""


_NUMBER, _FLAG = Parameter("number"), Parameter("flag")
_WEIGHT = Parameter("number", required=True)
_SHARE = Parameter("number", least=0, most=1)
_FAMILY = {"normalize": _FLAG, "rescale": _FLAG, "lambda": _NUMBER, "int8_mask": _FLAG}
_SPARSE = {"weight": _WEIGHT, "density": _SHARE}

METHODS: dict[str, Method] = {
    "linear": Method("model", 1, None, {"normalize": _FLAG}, {"weight": _WEIGHT}),
    "passthrough": Method("model", 1, 1, {}, {"scale": _NUMBER}),
    "task_arithmetic": Method("needed", 0, None, _FAMILY, _SPARSE),
    "slerp": Method("needed", 1, 1, {"t": Parameter("number", required=True)}),
    "model_stock": Method("needed", 2, None, {"filter_wise": _FLAG}),
    "ties": Method("needed", 0, None, _FAMILY, _SPARSE),
    "dare_ties": Method("needed", 0, None, _FAMILY, _SPARSE),
    "dare_linear": Method("needed", 0, None, _FAMILY, _SPARSE),
    "della": Method("needed", 0, None, _FAMILY, {**_SPARSE, "epsilon": _SHARE}),
    "della_linear": Method("needed", 0, None, _FAMILY, {**_SPARSE, "epsilon": _SHARE}),
    "breadcrumbs": Method("needed", 0, None, _FAMILY, {**_SPARSE, "gamma": _SHARE}),
    "breadcrumbs_ties": Method("needed", 0, None, _FAMILY, {**_SPARSE, "gamma": _SHARE}),
    "nearswap": Method("needed", 1, 1, {"t": Parameter("number", required=True, least=0)}),
    "ram": Method("needed", 0, None, {"epsilon": Parameter("number", least=0)}),
    "ramplus_tl": Method(
        "needed",
        0,
        None,
        {"epsilon": Parameter("number", least=0), "r": _NUMBER, "alpha": Parameter("number", least=0)},
    ),
    "karcher": Method(
        "model", 1, None, {"max_iter": Parameter("number", least=0), "tol": Parameter("number", least=0)}
    ),
    "multislerp": Method(
        "optional",
        1,
        None,
        {"normalize_weights": _FLAG, "eps": Parameter("number", least=0)},
        {"weight": _WEIGHT},
    ),
    "nuslerp": Method(
        "optional",
        2,
        2,
        {"nuslerp_flatten": _FLAG, "nuslerp_row_wise": _FLAG},
        {"weight": _WEIGHT},
    ),
    "sce": Method("needed", 0, None, {"select_topk": _SHARE, "int8_mask": _FLAG}),
}

REFUSED = {
    "arcee_fusion": "its mask depends on rounding noise of softmaxes, and above a million elements on a"
    " random sample, so that no two programs agree on it; use ties or slerp",
}
"""Methods that mergekit has and taskvec refuses, and why."""

OTHERS = {
    "experts": "mixture-of-experts assembly (mergekit-moe) is not a merge of tensors; use mergekit for it",
    "gate_mode": "mixture-of-experts assembly (mergekit-moe) is not a merge of tensors; use mergekit for it",
    "genome": "evolution (mergekit-evolve) searches for a recipe; run it there, and what it finds here",
}
"""Keys of files that are for other programs of mergekit."""

WITHOUT_EFFECT = {"int8_mask", "density"}
"""What a method may have although it changes nothing: a way to save memory, and the density of plain sums."""

EVERY_PARAMETER = {name for one in METHODS.values() for name in (*one.shared, *one.each)} | {
    "embed_slerp", "allow_negative_weights", "smooth",
}  # fmt: skip
"""Parameters of any method, and what older versions knew."""


def nearest(word: str, known: set[str]) -> str:
    """The end of an error: the known word that is most like an unknown one, or all of them."""
    found = get_close_matches(word, sorted(known), 1, 0.6)
    return f"did you mean {found[0]!r}?" if found else f"known are {', '.join(sorted(known))}"
