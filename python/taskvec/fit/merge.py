"""Opens and compares the inputs of a merge, for the verbs that write one and the dry runs that plan one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import taskvec._core as _core

from ..inputs.session import Session
from .compatibility import Findings, compare

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from ..inputs.refs import Folder, Ref
    from ..options import Options


@dataclass(frozen=True, slots=True)
class Inputs:
    """A target and its donors, valid as long as their session is open."""

    session: Session
    target: Ref
    donors: list[Ref]
    options: Options
    """The options of the caller, with the reasons found against this merge added (`Options.claims`)."""
    found: Findings
    """The result of comparing configs and tokenizers."""


@contextmanager
def opened(
    target: Folder, donors: Iterable[Folder], options: Options, *, bars: bool = False
) -> Generator[Inputs]:
    """Opens a target and its donors and compares configs and tokenizers; `bars` shows download progress."""
    with Session(options, bars=bars) as session:
        base, others = session.target(target), session.donors(*donors)
        found = compare(base, others)
        yield Inputs(session, base, others, found.asked(options), found)


def require_donors(inputs: Inputs) -> None:
    """Raises the error of a donor that cannot be opened; it is told before a wrong number of donors is."""
    for donor in inputs.donors:
        _core.inspect(donor)
