"""Opens and compares the inputs of a merge, for the verbs that write one and the dry runs that plan one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import taskvec._core as _core

from ..errors import UsageError
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
    target: Folder, donors: Iterable[Folder], options: Options, progress: object = None
) -> Generator[Inputs]:
    """Opens a target and its donors and compares configs and tokenizers; see `Session` for `progress`."""
    with Session(options, progress) as session:
        base, others = session.target(target), session.donors(*donors)
        found = compare(base, others)
        yield Inputs(session, base, others, found.asked(options), found)


def not_donors(inputs: Inputs, *, vectors: str) -> UsageError:
    """The error for donors that are neither a pair nor `vectors`; a wrong path raises its own error."""
    for donor in inputs.donors:
        _core.inspect(donor, listed=False)
    return UsageError(
        f"give a target with a minuend and a subtrahend, or a target with {vectors} made by extract"
    )
