"""Runs a command: handles Ctrl-C, prints one sentence for an error, and chooses the exit code."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from ..errors import TaskvecError
from ..inputs.session import pinned
from .commands import cli
from .console import put, say

if TYPE_CHECKING:
    from collections.abc import Generator

_WRITING = ("extract", "apply", "transfer", "merge", "push", "run", "commit")
_STUDY_RUN = ["study", "run"]
_INTERNAL = 70
# The environment variable by which a shell asks what a line could go on with.
_COMPLETION = "_TASKVEC_COMPLETE"


@contextmanager
def _stoppable() -> Generator[list[int]]:
    """Turns Ctrl-C and SIGTERM into KeyboardInterrupt; yields the list of the signals that came so far."""
    caught: list[int] = []

    def stop(number: int, _frame: object) -> None:
        caught.append(number)
        # Not through sys.stderr: the signal may have interrupted a write to it.
        os.write(2, b"taskvec: stopping; interrupt again to stop at once\n")
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    # A signal that is ignored stays ignored: `nohup` and the shell set this for background jobs.
    numbers = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; the README has a table of them."""
    args = sys.argv[1:] if argv is None else argv
    if asked := os.environ.get(_COMPLETION):
        from .completion import complete

        return complete(cli, _COMPLETION, asked)
    options = args[: args.index("--")] if "--" in args else args
    stdout: Any = sys.stdout
    if isinstance(stdout, io.TextIOWrapper):
        # A tensor name that the terminal cannot encode must not fail a command whose work is done.
        stdout.reconfigure(errors="backslashreplace")
    _allow_many_files()
    with _stoppable() as caught:
        try:
            with pinned(), cli.make_context("taskvec", list(args)) as context:
                code = cli.invoke(context)
            stdout.flush()
        except click.exceptions.Exit as exit:
            return exit.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return error.exit_code
        except BrokenPipeError:
            # The program that read the output has closed the pipe. Without this the interpreter would fail
            # once more when it flushes standard output at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
            return 128 + 13
        except (Exception, KeyboardInterrupt) as error:
            code, sentence = _sentence(error, caught, resumed=args[0] in _WRITING or args[:2] == _STUDY_RUN)
            if "--debug" in options:
                traceback.print_exc()
            say(sentence)
            if "--json" in options:
                put(json.dumps({"schema": "taskvec/error/1", "error": sentence, "exit_code": code}))
    return code


def _allow_many_files() -> None:
    """Raises the soft limit of open files: three inputs of hundreds of shards each exceed the usual 1,024.

    Only the command does this, because the process is its own. The library leaves the limit alone.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if most == resource.RLIM_INFINITY else min(most, 65_536)
    # If the system refuses, the error comes when the limit is reached, and names the file.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _sentence(error: BaseException, caught: list[int], *, resumed: bool) -> tuple[int, str]:
    """The exit code and the sentence for the exception that ended a command."""
    # A library that is interrupted while it is imported may raise something else than KeyboardInterrupt.
    if isinstance(error, KeyboardInterrupt) or caught:
        return 128 + (caught or [signal.SIGINT])[0], "stopped" + (
            "; run the same command again to continue" if resumed else ""
        )
    if isinstance(error, TaskvecError):
        return error.exit_code, str(error)
    if isinstance(error, click.ClickException):
        return error.exit_code, error.format_message()
    if isinstance(error, OSError):
        return 4, f"{error.filename or 'the result'}: {error.strerror or error}"
    return (
        _INTERNAL,
        f"internal error, please report it: {type(error).__name__}: {error} (--debug adds a traceback)",
    )
