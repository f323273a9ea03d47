"""Parses YAML and records the line of every key and value, so that an error message can name the line."""

from __future__ import annotations

import math
from typing import Any, cast

import yaml

from ..errors import UsageError

Place = tuple[int | str, ...]
"""Keys and list positions from the top of the file."""


class Lines:
    """The line of each place in a file, counted from 1."""

    def __init__(self, file: str) -> None:
        """Starts with the top of the file only."""
        self.file = file
        self._lines: dict[Place, int] = {(): 1}

    def note(self, place: Place, node: yaml.Node) -> None:
        """Records the line of a place."""
        self._lines[place] = node.start_mark.line + 1

    def known(self, place: Place) -> Place:
        """The longest prefix of `place` that is in the file.

        pydantic adds parts that name an alternative of the schema; these are skipped.
        """
        found: Place = ()
        for part in place:
            if (*found, part) in self._lines:
                found = (*found, part)
        return found

    def at(self, place: Place) -> int:
        """The line of a place, or of the nearest enclosing place that is in the file."""
        return self._lines[self.known(place)]


def parse(text: str, lines: Lines, what: str) -> dict[str, Any]:
    """The mapping in a YAML file; `UsageError` if it is malformed or holds a key twice.

    `what` says in an error what the file should be.
    """
    content = _read(text, lines, several=False)
    if not isinstance(content, dict):
        raise UsageError(f"{lines.file}:1: {what}")
    return cast("dict[str, Any]", content)


def parse_all(text: str, lines: Lines) -> list[Any]:
    """The documents of a YAML file, whose places begin with their number; see `parse`."""
    return cast("list[Any]", _read(text, lines, several=True))


def _read(text: str, lines: Lines, *, several: bool) -> Any:
    try:
        # Very deep nesting raises RecursionError.
        if several:
            roots = list(yaml.compose_all(text, yaml.SafeLoader))
            for at, root in enumerate(roots):
                lines.note((at,), root)
            return [_value(root, (at,), lines) for at, root in enumerate(roots)]
        root = yaml.compose(text, yaml.SafeLoader)
        return None if root is None else _value(root, (), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{lines.file}:{line}: not valid YAML: {error.problem or error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{lines.file}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UsageError(f"{lines.file}: nested too deeply") from None


def spelled(text: str) -> str | None:
    """A text that is a number, spelled as YAML 1.1 requires (a point before an exponent); None for others."""
    try:
        value = float(text)
    except ValueError:
        return None
    digits, e, exponent = repr(value).partition("e")
    return f"{digits}{'' if '.' in digits or not e else '.0'}{e}{exponent}" if math.isfinite(value) else None


def _value(node: yaml.Node, place: Place, lines: Lines) -> Any:
    if isinstance(node, yaml.MappingNode):
        content: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            # "<<" would merge in another mapping, and a list cannot be a key.
            if not isinstance(key, yaml.ScalarNode) or name == "<<":
                raise UsageError(f"{lines.file}:{key.start_mark.line + 1}: a key must be a plain word")
            if name in content:
                raise UsageError(
                    f"{lines.file}:{key.start_mark.line + 1}: {name!r} is given twice; keep one of them"
                )
            lines.note((*place, name), key)
            content[name] = _value(value, (*place, name), lines)
        return content
    if isinstance(node, yaml.SequenceNode):
        items: list[Any] = []
        for at, item in enumerate(node.value):
            lines.note((*place, at), item)
            items.append(_value(item, (*place, at), lines))
        return items
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)  # pyright: ignore[reportUnknownMemberType]
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # PyYAML's constructors raise various errors for a value that does not fit its tag.
        tag = node.tag.rpartition(":")[2]
        raise UsageError(
            f"{lines.file}:{node.start_mark.line + 1}: {str(node.value)[:40]!r} cannot be read as a {tag}"
            f" ({error})"
        ) from None
    finally:
        loader.dispose()
