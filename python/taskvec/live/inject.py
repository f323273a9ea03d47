"""Puts a vector into a live torch model, in place, for the length of a `with` block.

The values are bit for bit those that `apply` or `transfer` would write, and are streamed window by window.
"""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, get_args

import taskvec._core as _core

from ..errors import UsageError
from ..fit.compatibility import compare
from ..inputs.refs import Fixed, local
from ..inputs.session import Session
from ..options import Keywords, Options, make_options, refuse_options, spread_alphas
from .change import Job, Originals, changed, holds, stream, writing
from .parameters import carriers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from torch import nn

    from ..fit.compatibility import Findings
    from ..inputs.refs import Folder, Ref
    from ..options import Alpha
    from ..results import Applied

_WRITING = ("dtype", "sync", "sha256", "overwrite", "resume", "stream")


def applied(
    vector: Folder,
    model: nn.Module,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    *,
    target: Folder | None = None,
    originals: Originals = "folder",
    **options: Unpack[Keywords],
) -> AbstractContextManager[Applied]:
    """The implementation of `Vector.applied`, which documents the arguments and errors."""
    opts, alphas = _live_options(options, originals), spread_alphas(alpha, 1)
    with Session(opts) as session:
        base, skill = _target(model, target, session), session.whole(vector)
        found = _compared(base, [skill], session)

    def start(base: str, skill: str) -> _core.Live:
        return _core.live_apply(base, [skill], alphas, found.asked(opts))

    return changed(model, Job(start, [base, Fixed(skill.path)], found), originals, opts)


def transferred(
    model: nn.Module,
    minuend: Folder,
    subtrahend: Folder,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    *,
    target: Folder | None = None,
    originals: Originals = "folder",
    **options: Unpack[Keywords],
) -> AbstractContextManager[Applied]:
    """Puts target + α·(minuend − subtrahend) into a live model for the length of a `with` block.

    The result, options and errors are those of `Vector.applied`, but the vector is not stored.
    """
    opts, (scale,) = _live_options(options, originals), spread_alphas(alpha, 1)
    with Session(opts) as session:
        base = _target(model, target, session)
        pair = [session.whole(donor) for donor in (minuend, subtrahend)]
        # The path of the adapter's base is made absolute, because the working directory may change later.
        places = {os.fspath(minuend): pair[0].path, os.fspath(subtrahend): pair[1].path}
        if opts.base is not None:
            base_folder = Path(places.get(opts.base, opts.base)).expanduser()
            # If it is not a folder, it is a name on the Hub, which stays as it is.
            opts = replace(opts, base=str(base_folder.absolute()) if base_folder.is_dir() else opts.base)
        found = _compared(base, pair, session)

    def start(base: str, first: str, second: str) -> _core.Live:
        return _core.live_transfer(base, first, second, scale, found.asked(opts))

    given = [base, *(Fixed(donor.path) for donor in pair)]
    return changed(model, Job(start, given, found), originals, opts)


def _compared(base: Fixed, donors: list[Ref], session: Session) -> Findings:
    """Compares configs and tokenizers; adds warnings for files in the cache that were not checked."""
    found = compare(local(Path(str(base))), donors)
    found.warnings += session.unchecked()
    return found


def unlike(model: nn.Module, target: Folder | None = None) -> tuple[str, ...]:
    """The names of the model's parameters whose values differ from those of the folder `target`.

    The folder's values are cast to the model's dtype, as loading does, and compared bit for bit, window by
    window. If `target` is None, it is the folder that the model was loaded from. Raises the errors of
    `Vector.applied` for models that cannot be compared.
    """
    with Session(Options()) as session:
        base = str(_target(model, target, session))
    job = _core.live_read(base, Options())
    found = carriers(model, base, json.loads(job.tensors), ())
    with writing(), closing(stream(job, found, results=False)) as parts:
        names = {
            carrier.name
            for carrier, first, stop, _, original in parts
            if not holds(carrier.flat[first:stop].cpu(), original)
        }
    return tuple(carrier.name for carrier in found if carrier and carrier.name in names)


def _target(model: nn.Module, target: Folder | None, session: Session) -> Fixed:
    """The target as a local folder, from which the model's own values are read again at the end."""
    if target is not None:
        return Fixed(session.whole(target).path)
    path = getattr(model, "name_or_path", "")
    if not isinstance(path, str) or not path or not Path(path).is_dir():
        raise UsageError(
            f"the model was loaded from {path!r}, which is not a local folder; name the folder with target"
        )
    return Fixed(path)


def _live_options(options: Keywords, originals: Originals) -> Options:
    if originals not in get_args(Originals):
        raise UsageError(f"originals {originals!r} is not one of {', '.join(get_args(Originals))}")
    refuse_options(options, _WRITING, "a live model")
    return make_options(options)
