from __future__ import annotations

import io

import pytest

from taskvec.cli.progress_bar import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(bar: Bar) -> None:
    with bar:
        bar("combine", 0, 3_000_000_000)
        bar("combine", 1_500_000_000, 3_000_000_000)
        bar("verify", 10, 20)


def test_a_terminal_sees_phases_bytes_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    drive(Bar(quiet=False))
    text = screen.getvalue()
    for part in ("combine", "1.50G/3.00G", "B/s", "verify", "10.0/20.0"):
        assert part in text
    assert text.endswith("\r"), "the bar is wiped at the end"


@pytest.mark.parametrize(("screen", "quiet"), [(Terminal(), True), (io.StringIO(), False)])
def test_silence_when_asked_or_off_a_terminal(
    monkeypatch: pytest.MonkeyPatch, screen: io.StringIO, quiet: bool
) -> None:
    monkeypatch.setattr("sys.stderr", screen)
    drive(Bar(quiet=quiet))
    assert screen.getvalue() == ""
