"""What commands print: results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..records import Json


@dataclass(frozen=True, slots=True)
class Talk:
    """How much to print, and in which form."""

    quiet: bool
    verbose: bool
    as_json: bool


def split(given: dict[str, Any]) -> tuple[Talk, dict[str, Any]]:
    """Splits the options of a command into how to print and the keyword options of the verb."""
    talk = Talk(given.pop("quiet"), given.pop("verbose", False), given.pop("as_json"))
    if "no_sync" in given:
        given["sync"] = not given.pop("no_sync")
    return talk, given


def show(talk: Talk, document: Json, lines: Iterable[str]) -> None:
    """Prints a result as one JSON document or as lines, whichever the options ask for."""
    if talk.as_json:
        put(json.dumps(document, indent=2))
    elif not talk.quiet:
        for line in lines:
            put(line)


def put(line: str) -> None:
    """Prints a line of the result."""
    sys.stdout.write(line + "\n")


def print_inspected(path: str, how: dict[str, Any]) -> int:
    """Prints what is in a folder as one JSON document, piece by piece: it may have very many tensors."""
    from ..verbs import inspect_to

    warnings = inspect_to(path, sys.stdout.write, **how)
    put("")
    for warning in warnings:
        say(f"warning: {warning}")
    return 0


def say(line: str) -> None:
    """Prints a message to the user, which is not part of the result."""
    sys.stderr.write(f"taskvec: {line}\n")
