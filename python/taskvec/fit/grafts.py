"""The options and donors of a graft."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..options import Options
from ..text import texts

if TYPE_CHECKING:
    from collections.abc import Iterable

_OF_VALUES = (
    "dtype", "encoding", "rounding", "requantise", "seed", "vocab", "include", "exclude", "alpha_rules",
    "schedule", "prefixes", "map", "base",
)  # fmt: skip
"""Options on values and on how tensors are matched."""


def graft_options(options: Options) -> Options:
    """The same options, for a verb that copies bytes; `UsageError` if one of them would change values."""
    plain = Options()
    for name in _OF_VALUES:
        if getattr(options, name) != getattr(plain, name):
            shown = {"prefixes": "strip_prefix"}.get(name, name)
            raise UsageError(f"{shown} is not an option of graft, which copies tensors as they are")
    return options


def grafts(
    donor: str | os.PathLike[str],
    take: object,
    more: Iterable[tuple[str | os.PathLike[str], object]],
) -> list[tuple[str | os.PathLike[str], tuple[str, ...]]]:
    """Donors, each with what is taken from it; `UsageError` if it is nothing."""
    found = [(one, texts("take", patterns)) for one, patterns in [(donor, take), *more]]
    for one, patterns in found:
        if not patterns:
            raise UsageError(f"nothing is taken from {os.fspath(one)}; name its tensors with --take")
    return found
