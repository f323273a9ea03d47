from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskvec import UsageError
from taskvec.options import (
    Keywords,
    Options,
    make_options,
    parse_alpha,
    parse_rule,
    spread_alphas,
)
from taskvec.text import parse_size

UNITS = {
    "": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip


@given(
    count=st.integers(1, 2**20),
    unit=st.sampled_from(sorted(UNITS)),
    space=st.sampled_from(["", " "]),
    lower=st.booleans(),
)
def test_sizes_in_every_unit(count: int, unit: str, space: str, lower: bool) -> None:
    text = f" {count}{space}{unit} "
    assert parse_size(text.lower() if lower else text) == count * UNITS[unit]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0.5GiB", 2**29),
        ("1.5kB", 1500),
        (".25M", 2**18),
        ("64M", 64 * 2**20),
        ("0.0009765625KiB", 1),
        (7, 7),
    ],
)
def test_sizes_with_fractions_and_numbers(text: str | int, size: int) -> None:
    assert parse_size(text) == size


def test_no_size_stays_none() -> None:
    assert parse_size(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MiB",
        "-1",
        "0",
        "0.4B",
        "1e9",
        "12q",
        "1 2",
        "1,5GB",
        "1GBs",
        "0x10",
        "100iB",
        "nan",
        "٣MiB",
        "9" * 40,
        "1.",
        True,
        -5,
        0,
    ],
)
def test_what_is_not_a_size(text: str | int) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    try:
        size = parse_size(text)
    except UsageError:
        return
    assert isinstance(size, int)
    assert size > 0


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_alpha_keeps_its_number(alpha: float) -> None:
    text, number = parse_alpha(alpha)
    assert number == alpha
    assert float(text) == alpha
    assert math.copysign(1, number) == math.copysign(1, alpha)


def test_alpha_keeps_its_text() -> None:
    assert parse_alpha(" 0.70 ") == ("0.70", 0.7)
    assert parse_alpha("-1") == ("-1", -1.0)
    assert parse_alpha(2) == ("2.0", 2.0)


@pytest.mark.parametrize("alpha", ["", "one", "0,7", "1/2", "--1"])
def test_what_is_not_an_alpha(alpha: str) -> None:
    with pytest.raises(UsageError, match="is not a number"):
        parse_alpha(alpha)


def test_rules() -> None:
    assert parse_rule("mlp=0.5") == ("mlp", "0.5", 0.5)
    assert parse_rule("a=b=-1e-3") == ("a=b", "-1e-3", -0.001)
    assert parse_rule((r"layers\.\d+", 1)) == (r"layers\.\d+", "1.0", 1.0)


@pytest.mark.parametrize("rule", ["mlp", "=0.5", "mlp=", "mlp=x", ""])
def test_what_is_not_a_rule(rule: str) -> None:
    with pytest.raises(UsageError):
        parse_rule(rule)


def test_alphas_are_spread_over_vectors() -> None:
    assert spread_alphas((), 2) == [("1.0", 1.0)] * 2
    assert spread_alphas("0.5", 2) == [("0.5", 0.5)] * 2
    assert spread_alphas(0.5, 1) == [("0.5", 0.5)]
    assert spread_alphas(["1", "-1"], 2) == [("1", 1.0), ("-1", -1.0)]
    with pytest.raises(UsageError, match="2 alphas do not fit 3 vectors"):
        spread_alphas(["1", "2"], 3)


def test_defaults() -> None:
    assert make_options({}) == Options()


def test_every_option_reaches_the_core() -> None:
    options = make_options(
        {
            "memory": "64MiB",
            "threads": 3,
            "dtype": "f32",
            "rounding": "stochastic",
            "seed": 2**64 - 1,
            "vocab": "common",
            "include": ["a"],
            "exclude": ("b", "c"),
            "alpha_rules": ["mlp=0.5", ("attn", 2)],
            "strip_prefix": ["module."],
            "map": ["a=b"],
            "io": "pread",
            "sync": False,
            "sha256": True,
            "overwrite": True,
            "resume": False,
        }
    )
    assert options == Options(
        memory=2**26,
        threads=3,
        dtype="f32",
        rounding="stochastic",
        seed=2**64 - 1,
        vocab="common",
        include=("a",),
        exclude=("b", "c"),
        alpha_rules=(("mlp", "0.5", 0.5), ("attn", "2.0", 2.0)),
        prefixes=("module.",),
        map=("a=b",),
        io="pread",
        sync=False,
        sha256=True,
        overwrite=True,
        resume=False,
    )
    # One keyword for each attribute: an option added to one and forgotten in the other shows here.
    # `claims` is what configs and tokenizers say, and no user gives it; `requantise` has `scales` in it.
    assert len(Keywords.__annotations__) == len(Options.__dataclass_fields__)


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0},
        {"threads": 1.5},
        {"threads": True},
        {"seed": -1},
        {"seed": 2**64},
        {"dtype": "int8"},
        {"rounding": None},
        {"vocab": "loose"},
        {"io": "aio"},
        {"include": "layers"},
        {"exclude": [1]},
        {"alpha_rules": "mlp=0.5"},
        {"memry": "1GiB"},
    ],
)
def test_wrong_options_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        make_options(wrong)  # type: ignore[arg-type]


def test_options_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Options().seed = 1  # type: ignore[misc]
