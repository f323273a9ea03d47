"""The verbs: extract, apply, transfer, check, inspect, diff and verify, on checkpoints in local folders.

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
from .compat import compare
from .errors import UsageError
from .options import Alpha, Keywords, make_options, parse_alpha, spread_alphas
from .plan import CheckResult
from .refs import resolve
from .results import DiffResult, InspectResult, VerifyResult, WriteResult
from .vector import Vector, is_vector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Json

Folder = str | os.PathLike[str]
"""A local folder. A `Vector` is one too."""


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

    Nothing is lost: `apply` gets the exact float32 difference of every element back. From bfloat16 donors v
    is stored as bfloat16 with an exceptions file, else as float32; the options that change values (`dtype`,
    `rounding`, `alpha_rules`) belong to `apply`. `Vector.written` holds what was done.
    """
    opts = make_options(options)
    if opts.dtype or opts.rounding != "nearest" or opts.alpha_rules:
        raise UsageError(
            "a vector is stored without loss; give dtype, rounding and alpha rules to apply instead"
        )
    first, second, where = resolve(minuend), resolve(subtrahend), _out(out)
    if dry_run:
        return CheckResult.from_json(json.loads(_core.check_extract(first.path, second.path, where, opts)))
    card = vector_card(first, second, opts)
    answer = _core.extract(first.path, second.path, where, opts, card.text, progress)
    return Vector.from_result(where, _written(answer, card))


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
    base, where = resolve(target), _out(out)
    added = [resolve(one) for one in ([vectors] if isinstance(vectors, str | os.PathLike) else vectors)]
    if not added:
        raise UsageError("no vector to apply; name at least one")
    alphas = spread_alphas(alpha, len(added))
    paths = [one.path for one in added]
    if dry_run:
        return CheckResult.from_json(json.loads(_core.check_apply(base.path, paths, where, alphas, opts)))
    command = ["taskvec", "apply", base.name, *(one.name for one in added)]
    for text, _ in alphas:
        command += ["--alpha", text]
    formula = "target" + "".join(f" + ({text})·v{at}" for at, (text, _) in enumerate(alphas, 1))
    card = merge_card(base, [(f"v{at}", one) for at, one in enumerate(added, 1)], command, formula, opts)
    return _written(_core.apply(base.path, paths, where, alphas, opts, card.text, progress), card)


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
    base, first, second, where = resolve(target), resolve(minuend), resolve(subtrahend), _out(out)
    paths = (base.path, first.path, second.path)
    scale = parse_alpha(alpha)
    if dry_run:
        return CheckResult.from_json(json.loads(_core.check_transfer(*paths, where, scale, opts)))
    command = ["taskvec", "transfer", base.name, first.name, second.name, "--alpha", scale[0]]
    formula = f"target + ({scale[0]})·(minuend − subtrahend)"
    card = merge_card(base, [("minuend", first), ("subtrahend", second)], command, formula, opts)
    return _written(_core.transfer(*paths, where, scale, opts, card.text, progress), card)


def check(
    target: Folder,
    *donors: Folder,
    out: Folder | None = None,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    **options: Unpack[Keywords],
) -> CheckResult:
    """Whether the inputs fit together, and what combining them would cost; no weight is read.

    `donors` are a minuend and a subtrahend, or one or more vectors. Beyond what a dry run of `transfer` or
    `apply` tells, configs and tokenizers are compared. `compatible` is False where anything does not fit, and
    `problems` says what; inputs that are malformed raise. `out` adds the room on its disk to the answer.
    """
    opts = make_options(options)
    base, others = resolve(target), [resolve(donor) for donor in donors]
    where = None if out is None else _out(out)
    vectors = [is_vector(other.path) for other in others]
    if others and all(vectors):
        alphas = spread_alphas(alpha, len(others))
        answer = _core.check_apply(base.path, [other.path for other in others], where, alphas, opts)
    elif len(others) == 2 and not any(vectors):
        (scale,) = spread_alphas(alpha, 1)
        answer = _core.check_transfer(base.path, others[0].path, others[1].path, where, scale, opts)
    else:
        raise UsageError(
            "give a target with a minuend and a subtrahend, or a target with vectors made by extract"
        )
    plan: Json = json.loads(answer)
    found = compare(base, others)
    plan["notes"] += found.notes
    plan["problems"] += found.problems
    plan["compatible"] = not plan["problems"]
    return CheckResult.from_json(plan)


def inspect(path: Folder) -> InspectResult:
    """What is in a checkpoint or vector folder: files, tensors, dtypes, sidecars; from headers alone."""
    return InspectResult.from_json(json.loads(_core.inspect(resolve(path).path)))


def diff(
    a: Folder, b: Folder, *, progress: _core.Progress | None = None, **options: Unpack[Keywords]
) -> DiffResult:
    """How `b` differs from `a`: changed elements, norm, cosine, ulp histogram; per tensor and in all."""
    paths = resolve(a).path, resolve(b).path
    return DiffResult.from_json(json.loads(_core.diff(*paths, make_options(options), progress)))


def verify(
    out: Folder, *, progress: _core.Progress | None = None, **options: Unpack[Keywords]
) -> VerifyResult:
    """Re-reads a folder that taskvec wrote against its manifest: every file, every digest.

    `ok` is False where something is not as it was written, and `problems` says which file.
    """
    return VerifyResult.from_json(
        json.loads(_core.verify(resolve(out).path, make_options(options), progress))
    )


def _out(out: Folder) -> str:
    # Not `resolve`: a folder that is yet to be made is never a ref on the Hub.
    text = os.fspath(out)
    if not text:
        raise UsageError("the name of the output folder is empty; give the path of a folder to make")
    return str(pathlib.Path(text).expanduser())


def _written(answer: str, card: Card) -> WriteResult:
    result: Json = json.loads(answer)
    result["notes"] += card.notes
    return WriteResult.from_json(result)
