"""Completion in a shell, as click does it: of commands and options, and of folders where one is expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, shell_complete
from click.types import StringParamType

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDERS = ("DIR", "REF", "RUN", "RESULTS")


class _Folder(StringParamType):
    """A folder. click completes nothing where any text is allowed, and bash then offers no files either."""

    name = "folder"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="dir")]


def complete(cli: click.Group, variable: str, instruction: str) -> int:
    """Answers the shell that set `variable`, on standard output; returns the exit code."""
    for param in _parameters(cli):
        named = param.metavar in _FOLDERS or (isinstance(param, click.Argument) and param.metavar is None)
        if named and param.type is click.STRING:
            param.type = _Folder()
    return shell_complete(cli, {}, "taskvec", variable, instruction)


def _parameters(command: click.Command) -> Iterator[click.Parameter]:
    yield from command.params
    if isinstance(command, click.Group):
        for one in command.commands.values():
            yield from _parameters(one)
