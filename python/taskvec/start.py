"""The first instants of the command `taskvec`: Ctrl-C while Python is still importing it.

The package's first line imports this module, before anything that takes time. A program that uses taskvec as
a library keeps its own handler.
"""

from __future__ import annotations

import os
import sys

# What stands below `signal`, which takes some milliseconds to import.
signal = __import__("_signal")


def guard() -> None:
    """Lets Ctrl-C end the command quietly until it has a handler of its own; what is ignored stays so."""
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
    # Nothing has been begun that would have to be ended well.
    os.write(2, b"taskvec: stopped\n")
    os._exit(130)
