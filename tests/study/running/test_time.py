"""Time left: what was measured, times what is to come."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from taskvec.cli.progress_bar import Documents
from taskvec.study.running.time_left import TimeLeft
from taskvec.text import time_left


def benchmark(name: str, n: int, cap: int = 0) -> Any:
    task = SimpleNamespace(get_config=lambda _: {"max_gen_toks": cap})
    kind = "generate" if cap else "choice"
    return SimpleNamespace(benchmark=SimpleNamespace(id=name), kind=kind, n=n, tasks=(task,))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def driven(todo: list[Any], *reports: tuple[float, str, str, int]) -> TimeLeft:
    """After reports of (seconds since the last, arm, benchmark, documents done)."""
    clock = Clock()
    left = TimeLeft(todo, clock)
    for seconds, *report in reports:
        clock.now += seconds
        left.report(*report)  # pyright: ignore
    return left


A, B, C = benchmark("a", 10, 100), benchmark("b", 20, 200), benchmark("c", 30)


def test_nothing_is_known_before_the_first_batch() -> None:
    assert driven([A, B]).seconds() is None
    assert driven([A, B], (5, "t", "a", 0)).seconds() is None


def test_a_benchmark_costs_what_it_cost() -> None:
    # Two arms on one benchmark: 4 documents took 8 s, 16 are left.
    left = driven([A, A], (5, "t", "a", 0), (8, "t", "a", 4))
    assert left.seconds() == pytest.approx(16 * 2)
    left = driven([A, A], (5, "t", "a", 0), (8, "t", "a", 4), (18, "t", "a", 10), (9, "v", "a", 0))
    assert left.seconds() == pytest.approx(10 * 2.6)
    left = driven([A], (5, "t", "a", 0), (8, "t", "a", 10))
    assert left.seconds() == 0


def test_what_an_earlier_run_did_took_no_time() -> None:
    left = driven([A, A], (5, "t", "a", 6), (8, "t", "a", 8))
    assert left.seconds() == pytest.approx(12 * 4)


def test_loading_a_model_is_not_taken_for_speed() -> None:
    left = driven([A, A], (1, "t", "a", 0), (10, "t", "a", 10), (500, "v", "a", 0), (1, "v", "a", 1))
    assert left.seconds() == pytest.approx(9 * 1)


def test_others_cost_as_much_for_each_token_of_their_caps() -> None:
    # 4 documents of at most 100 tokens took 8 s.
    left = driven([A, B], (0, "t", "a", 0), (8, "t", "a", 4))
    assert left.seconds() == pytest.approx(6 * 2 + 20 * 4)
    left = driven([A, C], (0, "t", "a", 0), (8, "t", "a", 4))
    assert left.seconds() == pytest.approx(6 * 2 + 30 * 0.2)
    # From choices nothing follows for texts.
    assert driven([A, C], (0, "t", "c", 0), (8, "t", "c", 30)).seconds() is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "under a minute left"), (29, "under a minute left"), (31, "about 1 min left"),
     (40 * 60, "about 40 min left"), (3570, "about 1 h left"), (3600 * 3 + 1200, "about 3 h 20 min left"),
     (3600 * 12 + 1200, "about 12 h left"), (3600 * 75, "about 3 days left")],
)  # fmt: skip
def test_in_words(seconds: float, words: str) -> None:
    assert time_left(seconds) == words


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


REPORTS = [
    ("target", "loading", 0, 40, None),
    ("target", "Words", 0, 40, None),
    ("target", "Words", 5, 40, 2400.0),
    ("target", "Words", 20, 40, 1200.0),
    ("+v", "Words", 20, 40, 1199.0),
    ("+v", "Words", 40, 40, 0.0),
]


def shown(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO, *, quiet: bool = False) -> str:
    monkeypatch.setattr("sys.stderr", screen)
    with Documents(quiet=quiet) as bar:
        for report in REPORTS:
            bar(*report)
    return screen.getvalue()


def test_a_line_a_cell_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO()).splitlines() == [
        "taskvec: 0 of 40 documents done; now target: loading",
        "taskvec: 0 of 40 documents done; now target: Words",
        "taskvec: 20 of 40 documents done, about 20 min left; now +v: Words",
    ]


def test_a_terminal_sees_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Terminal())
    assert "target: loading |" in text
    assert "| 0 of 40 documents\r" in text
    assert "+v: Words |" in text
    assert "20 of 40 documents, about 20 min left" in text
    assert text.endswith("\r"), "the bar is wiped at the end"


def test_silence_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, Terminal(), quiet=True) == ""
