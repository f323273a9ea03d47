"""What a merge reads, opened and compared: for the verb that writes it and for the dry run that plans it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..inputs.session import Session
from .compatibility import Findings, compare

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from ..inputs.refs import Folder, Ref
    from ..options import Options


@dataclass(frozen=True, slots=True)
class Inputs:
    """A target and its donors, for as long as their session lasts."""

    session: Session
    target: Ref
    donors: list[Ref]
    options: Options
    """The options asked for, and with them what speaks against this merge."""
    found: Findings
    """What the comparison of configs and tokenizers found."""


@contextmanager
def opened(
    target: Folder, donors: Iterable[Folder], options: Options, *, bars: bool = False
) -> Generator[Inputs]:
    """Opens a target and its donors, and compares their configs and tokenizers; `bars` shows downloads."""
    with Session(options, bars=bars) as session:
        base, others = session.target(target), session.donors(*donors)
        found = compare(base, others)
        yield Inputs(session, base, others, found.asked(options), found)
