"""Progress bars on standard error: the bytes of a verb, and the documents of a study with the time left."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

from ..text import time_left
from .console import say

if TYPE_CHECKING:
    from types import TracebackType


class Bar:
    """A `progress=` callable that draws a bar for each phase; none if `quiet` or not on a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        """Draws nothing yet; the bar appears with the first report."""
        self.shown = not quiet and sys.stderr.isatty()
        """Whether this object draws anything."""
        self._phase = ""
        self._bar: Any = None

    def __enter__(self) -> Self:
        """The bar itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the terminal on a fresh line, whatever happened."""
        self._close()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Draws `done` of `total` bytes."""
        if not self.shown:
            return
        if phase != self._phase:
            # Imported here because the import takes a tenth of a second, too long for `--version`.
            from tqdm import tqdm

            self._close()
            self._phase = phase
            # Reports come only ten times a second, so each is drawn.
            self._bar = tqdm(
                desc=phase,
                total=total,
                file=sys.stderr,
                unit="B",
                unit_scale=True,
                mininterval=0,
                leave=False,
            )
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class Documents:
    """A study's `progress=` callable: one bar for the whole study.

    If standard error is not a terminal, it prints a line for each arm and benchmark instead.
    """

    def __init__(self, *, quiet: bool) -> None:
        """Draws nothing yet; the bar appears with the first report."""
        self._quiet = quiet
        self._at = ("", "")
        self._bar: Any = None

    def __enter__(self) -> Self:
        """The bar itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the terminal on a fresh line, whatever happened."""
        if self._bar is not None:
            self._bar.close()

    def __call__(self, arm: str, benchmark: str, done: int, total: int, left: float | None) -> None:
        """Draws `done` of `total` documents; `left` is the time left in seconds, None if not known."""
        if self._quiet:
            return
        before, self._at = self._at, (arm, benchmark)
        ahead = "" if left is None else f", {time_left(left)}"
        if not sys.stderr.isatty():
            if before != self._at:
                say(f"{done:,} of {total:,} documents done{ahead}; now {arm}: {benchmark}")
            return
        title = f"{arm}: {benchmark}"
        if self._bar is None:
            from tqdm import tqdm

            # No estimate by tqdm: it would assume that every document takes the same time.
            self._bar = tqdm(
                desc=title, total=total, initial=done, file=sys.stderr, mininterval=0.2, leave=False,
                bar_format="{desc} |{bar}| {n_fmt} of {total_fmt} documents{postfix}",
            )  # fmt: skip
        elif before != self._at:
            self._bar.set_description_str(title, refresh=False)
        self._bar.set_postfix_str(ahead.removeprefix(", "), refresh=False)
        self._bar.update(done - self._bar.n)
        if before != self._at:
            self._bar.refresh()
