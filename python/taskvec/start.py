"""Handles a Ctrl-C that comes while Python is still importing the command `taskvec`.

The package imports this module first, before anything that takes time. A program that uses taskvec as a
library keeps its own handler.
"""

from __future__ import annotations

import os
import sys

# The built-in module behind `signal`; importing `signal` itself takes some milliseconds.
signal = __import__("_signal")


def guard() -> None:
    """Lets Ctrl-C end the command without a traceback until `cli.main` installs its own handler.

    An ignored signal stays ignored.
    """
    if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def _is_command() -> bool:
    """Whether this process is `taskvec` or `python -m taskvec`."""
    name = (sys.argv or [""])[0]
    # Python puts "-m" there while it looks for the module.
    if name == "-m":
        given = sys.orig_argv
        return "taskvec" in given and given[given.index("taskvec") - 1] == "-m"
    return name.replace("\\", "/").rpartition("/")[2] in ("taskvec", "taskvec.exe")


def _stop(_number: int, _frame: object) -> None:
    # Nothing has been started yet that would need cleaning up.
    os.write(2, b"taskvec: stopped\n")
    os._exit(130)
