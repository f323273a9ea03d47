"""The exceptions of taskvec, one for each exit code.

Each also derives from a builtin exception, so that plain `except` clauses work. The message is one sentence
that names the file, the tensor and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class TaskvecError(Exception):
    """The base class of all exceptions of taskvec."""

    exit_code: ClassVar[int] = 1
    """The exit code of the command line for this error."""


class UsageError(TaskvecError, ValueError):
    """The request itself is wrong, whatever the inputs hold (exit code 2)."""

    exit_code = 2


class MismatchError(TaskvecError, ValueError):
    """The inputs are well-formed but do not fit together, or a check failed (exit code 1)."""

    exit_code = 1


class CorruptError(TaskvecError, ValueError):
    """An input is malformed, or changed while it was read (exit code 3)."""

    exit_code = 3


class StorageError(TaskvecError, OSError):
    """The system or the network failed: no space, no permission, no such file (exit code 4).

    `errno` and `filename` are as in any `OSError`; `str()` gives the sentence alone.
    """

    exit_code = 4

    def __init__(self, errno: int | None, message: str, filename: str | None = None) -> None:
        """Takes the arguments of `OSError`."""
        super().__init__(errno, message, filename)

    def __str__(self) -> str:
        """The sentence alone: `OSError` would put "[Errno …]" before it and the file name after it."""
        return str(self.strerror)
