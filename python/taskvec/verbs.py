"""The verbs: extract, apply, transfer, check, inspect, diff and verify.

A checkpoint or vector is a local folder or a ref on the Hub (`taskvec.refs`).

Weights are bfloat16, float16 or float32 tensors of any shape, matched by name. All verbs raise the errors of
`taskvec.errors` and let Ctrl-C through as `KeyboardInterrupt`; `taskvec.options.Keywords` tells what the
options mean. `progress`, if given, is called with (phase, bytes done, bytes in all) some ten times a second.
With `dry_run=True` a verb writes nothing and returns the `CheckResult` that says what it would do.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING, Literal, Unpack, overload

import taskvec._core as _core

from .card import Card, merge_card, vector_card
from .check_result import CheckResult
from .errors import UsageError
from .fit.compatibility import compare
from .options import Alpha, Keywords, make_options, parse_alpha, spread_alphas
from .results import DiffResult, InspectResult, VerifyResult, WriteResult
from .session import Folders
from .vector import Vector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .fit.compatibility import Findings
    from .options import Options
    from .records import Json
    from .refs import Folder, Ref


@overload
def extract(
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    dry_run: Literal[False] = False,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> Vector: ...
@overload
def extract(
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    dry_run: Literal[True],
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> CheckResult: ...
def extract(
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    dry_run: bool = False,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> Vector | CheckResult:
    """Writes the vector v = minuend − subtrahend to the new folder `out`.

    A donor may be a LoRA adapter, which stands for its ΔW: with another on the same base, or with the base.
    Nothing is lost: `apply` gets the exact float32 difference of every element back. From bfloat16 donors v
    is stored as bfloat16 with an exceptions file, else as float32; the options that change values (`dtype`,
    `rounding`, `alpha_rules`) belong to `apply`. `Vector.written` holds what was done.
    """
    opts = make_options(options)
    if opts.dtype or opts.rounding != "nearest" or opts.alpha_rules:
        raise UsageError(
            "a vector is stored without loss; give dtype, rounding and alpha rules to apply instead"
        )
    where = _out(out)
    with _folders(opts, progress) as folders:
        first, second = folders.donors(minuend, subtrahend)
        if dry_run:
            return _plan(_core.check_extract(first, second, where, opts), folders, None, [first, second])
        card = vector_card(first, second, opts)
        result = _written(_core.extract(first, second, where, opts, card.text, progress), card, folders)
    return Vector.from_result(where, result)


@overload
def apply(
    target: Folder,
    vectors: Folder | Iterable[Folder],
    out: Folder,
    *,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    dry_run: Literal[False] = False,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> WriteResult: ...
@overload
def apply(
    target: Folder,
    vectors: Folder | Iterable[Folder],
    out: Folder,
    *,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    dry_run: Literal[True],
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> CheckResult: ...
def apply(
    target: Folder,
    vectors: Folder | Iterable[Folder],
    out: Folder,
    *,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    dry_run: bool = False,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> WriteResult | CheckResult:
    """Writes the checkpoint target + Σ αᵢ·vᵢ to the new folder `out`.

    `alpha` is one number for all vectors or one for each, in their order; negative ones take a vector away.
    The sum is taken in that order in float32 and rounded once to the dtype written.
    """
    opts = make_options(options)
    where, names = _out(out), [vectors] if isinstance(vectors, str | os.PathLike) else list(vectors)
    if not names:
        raise UsageError("no vector to apply; name at least one")
    alphas = spread_alphas(alpha, len(names))
    with _folders(opts, progress) as folders:
        base, added = folders.target(target), folders.donors(*names)
        found = compare(base, added)
        opts = found.asked(opts)
        if dry_run:
            return _plan(_core.check_apply(base, added, where, alphas, opts), folders, base, added, found)
        command = ["taskvec", "apply", base.pinned, *(one.pinned for one in added)]
        for text, _ in alphas:
            command += ["--alpha", text]
        formula = "target" + "".join(f" + ({text})·v{at}" for at, (text, _) in enumerate(alphas, 1))
        card = merge_card(base, [(f"v{at}", one) for at, one in enumerate(added, 1)], command, formula, opts)
        answer = _core.apply(base, added, where, alphas, opts, card.text, progress)
        return _written(answer, card, folders, found)


@overload
def transfer(
    target: Folder,
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    alpha: Alpha = 1.0,
    dry_run: Literal[False] = False,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> WriteResult: ...
@overload
def transfer(
    target: Folder,
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    alpha: Alpha = 1.0,
    dry_run: Literal[True],
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> CheckResult: ...
def transfer(
    target: Folder,
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    alpha: Alpha = 1.0,
    dry_run: bool = False,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> WriteResult | CheckResult:
    """Writes the checkpoint target + α·(minuend − subtrahend) to the new folder `out`, in one pass.

    The bytes are those of `extract` followed by `apply`; the vector is never stored.
    """
    opts = make_options(options)
    where, scale = _out(out), parse_alpha(alpha)
    with _folders(opts, progress) as folders:
        base, (first, second) = folders.target(target), folders.donors(minuend, subtrahend)
        found = compare(base, [first, second])
        opts = found.asked(opts)
        if dry_run:
            answer = _core.check_transfer(base, first, second, where, scale, opts)
            return _plan(answer, folders, base, [first, second], found)
        command = ["taskvec", "transfer", base.pinned, first.pinned, second.pinned, "--alpha", scale[0]]
        formula = f"target + ({scale[0]})·(minuend − subtrahend)"
        card = merge_card(base, [("minuend", first), ("subtrahend", second)], command, formula, opts)
        answer = _core.transfer(base, first, second, where, scale, opts, card.text, progress)
        return _written(answer, card, folders, found)


def check(
    target: Folder,
    *donors: Folder,
    out: Folder | None = None,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    **options: Unpack[Keywords],
) -> CheckResult:
    """Whether the inputs fit together, and what combining them would cost; no weight is read.

    `donors` are a minuend and a subtrahend, or one or more vectors. The answer is that of a dry run of
    `transfer` or `apply`: what is compatible here, these verbs write. `compatible` is False where anything
    does not fit, and `problems` says what; inputs that are malformed raise. `out` adds the room on
    its disk to the answer.
    """
    opts = make_options(options)
    where = None if out is None else _out(out)
    with _folders(opts, None) as folders:
        base, others = folders.target(target), folders.donors(*donors)
        vectors = [other.is_vector for other in others]
        if others and all(vectors):
            alphas = spread_alphas(alpha, len(others))
            found = compare(base, others)
            answer = _core.check_apply(base, others, where, alphas, found.asked(opts))
        elif len(others) == 2 and not any(vectors):
            (scale,) = spread_alphas(alpha, 1)
            found = compare(base, others)
            opts = found.asked(opts)
            answer = _core.check_transfer(base, others[0], others[1], where, scale, opts)
        else:
            raise UsageError(
                "give a target with a minuend and a subtrahend, or a target with vectors made by extract"
            )
        return _plan(answer, folders, base, others, found)


def inspect(path: Folder, **options: Unpack[Keywords]) -> InspectResult:
    """What is in a checkpoint, vector or adapter: files, tensors, dtypes, sidecars; from headers alone."""
    with _folders(make_options(options), None) as folders:
        found: Json = json.loads(_core.inspect(folders.target(path)))
        found["warnings"] += folders.unchecked()
    return InspectResult.from_json(found)


def diff(
    a: Folder, b: Folder, *, progress: _core.Progress | None = None, **options: Unpack[Keywords]
) -> DiffResult:
    """How `b` differs from `a`: changed elements, norm, cosine, ulp histogram; per tensor and in all."""
    opts = make_options(options)
    with _folders(opts, progress) as folders:
        both = folders.whole(a), folders.whole(b)
        found: Json = json.loads(_core.diff(*both, opts, progress))
        found["warnings"] = folders.unchecked()
    return DiffResult.from_json(found)


def verify(
    out: Folder, *, progress: _core.Progress | None = None, **options: Unpack[Keywords]
) -> VerifyResult:
    """Re-reads a folder that taskvec wrote against its manifest: every file, every digest.

    `ok` is False where something is not as it was written, and `problems` says which file.
    """
    opts = make_options(options)
    with _folders(opts, progress) as folders:
        return VerifyResult.from_json(json.loads(_core.verify(folders.whole(out).path, opts, progress)))


def _folders(options: Options, progress: object) -> Folders:
    # Our own bar makes room for those of downloads; a caller's function has its own way to show things.
    return Folders(options, bars=getattr(progress, "shown", False))


def _plan(
    answer: str, folders: Folders, target: Ref | None, donors: list[Ref], found: Findings | None = None
) -> CheckResult:
    plan: Json = json.loads(answer)
    # Of an adapter's base only headers are read.
    read = [donor for donor in donors if donor.is_adapter] or donors
    plan["download"] = folders.traffic(target, read)
    plan["warnings"] += folders.unchecked()
    if found is not None:
        plan["warnings"] += found.warnings
        plan["notes"] += found.beside(plan["problems"])
    return CheckResult.from_json(plan)


def _out(out: Folder) -> str:
    # Not `resolve`: a folder that is yet to be made is never a ref on the Hub.
    text = os.fspath(out)
    if not text:
        raise UsageError("the name of the output folder is empty; give the path of a folder to make")
    return str(pathlib.Path(text).expanduser())


def _written(answer: str, card: Card, folders: Folders, found: Findings | None = None) -> WriteResult:
    result: Json = json.loads(answer)
    result["notes"] += card.notes
    result["warnings"] += folders.unchecked()
    if found is not None:
        result["warnings"] += found.warnings
        result["notes"] += found.notes
    return WriteResult.from_json(result)
