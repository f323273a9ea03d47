"""The command line in a process that tells every socket that it opens, or name that it looks up."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

_WATCHED = """
import sys
seen = []
def watch(event, args):
    # A pair of sockets between threads, or to a daemon of the machine, asks nothing of the network.
    if event == "socket.connect" and not isinstance(args[1], (str, bytes)):
        seen.append((event, args[1]))
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        seen.append((event, args[0]))
sys.addaudithook(watch)
from taskvec.cli.main import main
code = main(sys.argv[1:])
import socket
before = len(seen)
try:
    socket.create_connection(("127.0.0.1", 9), timeout=0.1)
except OSError:
    pass
assert len(seen) > before, "the hook sees nothing"
print()
print(code, seen[:before], any("code_eval" in one or one.endswith("humaneval.utils") for one in sys.modules))
"""


def run(*args: str, **how: Any) -> tuple[str, str]:
    """The last line, "CODE [what was asked of the network] False", and standard error.

    The last word says whether lm-eval's metric that runs code was loaded.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _WATCHED, *args],
        capture_output=True, text=True, timeout=600, **how,
    )  # fmt: skip
    return (done.stdout.splitlines() or [""])[-1], done.stderr
