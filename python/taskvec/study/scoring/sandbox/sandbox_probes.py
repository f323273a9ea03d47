"""Test programs for the sandbox, run before its first verdict: each tries something that must be stopped."""

from __future__ import annotations

HONEST = '''
def probe(numbers, names):
    """An honest program: it sorts, counts, imports, and changes its argument."""
    import math
    import re
    names.append("seen")
    return sorted(numbers), {name: len(name) for name in names}, math.sqrt(2.0), re.findall("[a-z]+", "ab, c")
'''
"""Must pass `HONEST_TEST`; if it did not, a probe that is stopped would prove nothing."""

HONEST_TEST = """
def check(candidate):
    import math
    names = ["one"]
    expected = ([1, 2, 3], {"one": 3, "seen": 4}, math.sqrt(2.0), ["ab", "c"])
    assert candidate([3, 1, 2], names) == expected
    assert names == ["one", "seen"]
"""

REFUSED_TEST = """
def check(candidate):
    assert candidate() == "refused"
"""
"""A probe passes this test if it ran, made its attempt, and was refused."""


_PROBE = """
import os

def probe():
    try:
        {}
    except (OSError, KeyError):
        return "refused"
    return "done"
"""


# Signal 0 tests whether a signal could be sent, without sending one.
_ATTEMPTS = {
    # In a folder that every user may write to, under a unique name; removed again if the attempt succeeds.
    "write a file": """path = f"/tmp/taskvec-probe-{os.getpid()}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)""",
    "read /etc/passwd": 'open("/etc/passwd").read()',
    "open a TCP socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "start a process": "os.fork() or os._exit(0)",
    "send its parent a signal": "os.kill(os.getppid(), 0)",
    "read its parent's environment": 'open(f"/proc/{os.getppid()}/environ").read()',
    "see the user's environment": 'os.environ["PATH"]',
}
PROBES = {attempt: _PROBE.format(line) for attempt, line in _ATTEMPTS.items()}
"""The programs, by what each tries to do."""
