"""The verbs that write (extract, apply, transfer) and those that only read (inspect, diff, verify).

A checkpoint or vector is a local folder or a ref on the Hub, `org/name[@revision][:subfolder]`. Weights are
bfloat16, float16 or float32 tensors of any shape, and are matched by name.

`taskvec.options.Keywords` describes the options. `progress`, if given, is called as
`progress(phase, bytes_done, bytes_total)` about ten times a second. `taskvec.dry_run` plans what a writing
verb would do.

All verbs raise these errors, of `taskvec.errors`, and let Ctrl-C through as `KeyboardInterrupt`:

- `UsageError`: an argument or option is wrong;
- `MismatchError`: the inputs do not fit together;
- `CorruptError`: an input is malformed, or changed while it was read;
- `StorageError`: a file cannot be read or written, or the Hub cannot be reached.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Unpack

import taskvec._core as _core

from .card import Card, graft_card, merge_card, vector_card
from .fit.grafts import graft_options, grafts
from .fit.merge import Inputs, opened
from .inputs.session import Session
from .options import (
    Alpha,
    Keywords,
    alpha_list,
    make_options,
    output_path,
    parse_alpha,
    spread_alphas,
    vector_list,
    vector_options,
)
from .records import BRIEF
from .results import DiffResult, InspectResult, SweepResult, VerifyResult, WriteResult
from .vector import Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .inputs.refs import Folder
    from .records import Json


def extract(
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> Vector:
    """Writes the vector v = minuend − subtrahend to the new folder `out`.

    The vector is lossless: `apply` gets the exact float32 difference of every element back. It is packed, or
    with `encoding="dense"` stored in plain safetensors: as float32, or if both donors are bfloat16 as
    bfloat16, with the elements that bfloat16 cannot hold in an exceptions file. The options that change
    values (`dtype`, `rounding`, `alpha_rules`) are refused here; give them to `apply`.

    A donor may be a LoRA adapter, which is read as its weight change ΔW. The other donor is then an adapter
    on the same base, or the base itself.

    The returned `Vector` has the result as its attribute `written`.
    """
    opts, where = vector_options(make_options(options)), output_path(out)
    with Session(opts, progress) as session:
        first, second = session.donors(minuend, subtrahend)
        card = vector_card(first, second, opts)
        result: Json = json.loads(_core.extract(first, second, where, opts, card.text, progress))
        return Vector.from_result(where, finished(result, session, card))


def apply(
    target: Folder,
    vectors: Folder | Iterable[Folder],
    out: Folder,
    *,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> WriteResult:
    """Writes the checkpoint target + Σ αᵢ·vᵢ to the new folder `out`.

    `alpha` is one number for all vectors, or one for each in their order; a negative α subtracts its vector.
    The sum is computed in that order in float32, and rounded once to the output dtype.
    """
    opts, where, names = make_options(options), output_path(out), vector_list(vectors)
    alphas = spread_alphas(alpha, len(names))
    with opened(target, names, opts, progress) as inputs:
        base, added, opts = inputs.target, inputs.donors, inputs.options
        card = apply_card(inputs, alphas)
        answer = _core.apply(base, added, where, alphas, opts, card.text, progress)
        return _merged(json.loads(answer), inputs, card)


def transfer(
    target: Folder,
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    alpha: Alpha = 1.0,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> WriteResult:
    """Writes the checkpoint target + α·(minuend − subtrahend) to the new folder `out`, in one pass.

    The weights are those of `extract` followed by `apply`, byte for byte, but the vector is not stored.
    """
    opts, where, scale = make_options(options), output_path(out), parse_alpha(alpha)
    with opened(target, (minuend, subtrahend), opts, progress) as inputs:
        base, (first, second), opts = inputs.target, inputs.donors, inputs.options
        card = transfer_card(inputs, scale)
        answer = _core.transfer(base, first, second, where, scale, opts, card.text, progress)
        return _merged(json.loads(answer), inputs, card)


def sweep_apply(
    target: Folder,
    vectors: Folder | Iterable[Folder],
    out: Folder,
    *,
    alphas: Alpha | Iterable[Alpha],
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> SweepResult:
    """Writes what `apply` does for each of several α, from one read of the inputs.

    `alphas` is a list, or text with commas. The output of α = 0.5 is the folder `alpha-0.5` in `out`, where α
    is as it was written. It is byte for byte what `apply` writes with this α, manifest and model card
    included. An α rule keeps its own α in every output; a schedule scales each α. There can be one vector
    only, and `out` may hold nothing but such folders.
    """
    opts, where = make_options(options), output_path(out)
    names, wanted = vector_list(vectors), alpha_list(alphas)
    with opened(target, names, opts, progress) as inputs:
        cards = [apply_card(inputs, [alpha] * len(names)) for alpha in wanted]
        base, added, opts = inputs.target, inputs.donors, inputs.options
        answer = _core.sweep_apply(base, added, where, _variants(wanted, cards), opts, progress)
        return _swept(inputs, cards, answer)


def sweep_transfer(
    target: Folder,
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    alphas: Alpha | Iterable[Alpha],
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> SweepResult:
    """Writes what `transfer` does for each of several α, from one read of the inputs; see `sweep_apply`."""
    opts, where, wanted = make_options(options), output_path(out), alpha_list(alphas)
    with opened(target, (minuend, subtrahend), opts, progress) as inputs:
        cards = [transfer_card(inputs, alpha) for alpha in wanted]
        base, (first, second), opts = inputs.target, inputs.donors, inputs.options
        answer = _core.sweep_transfer(base, first, second, where, _variants(wanted, cards), opts, progress)
        return _swept(inputs, cards, answer)


def graft(
    target: Folder,
    donor: Folder,
    out: Folder,
    *,
    take: Iterable[str],
    more: Iterable[tuple[Folder, Iterable[str]]] = (),
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> WriteResult:
    """Writes the target with tensors of donors to the new folder `out`, each copied byte for byte.

    `take` are regular expressions on the names of the weights that come from `donor`; `more` are other
    donors, each with its own. Weights may be of any type. A quantised one is copied with its scales, and only
    over one that is quantised in the same way; names, types and shapes must be equal.
    """
    opts, where, wanted = graft_options(make_options(options)), output_path(out), grafts(donor, take, more)
    with opened(target, [one for one, _ in wanted], opts, progress) as inputs:
        taken = [(ref, list(patterns)) for ref, (_, patterns) in zip(inputs.donors, wanted, strict=True)]
        card = graft_card(inputs.target, taken, opts)
        answer = _core.graft(inputs.target, taken, where, inputs.options, card.text, progress)
        return _merged(json.loads(answer), inputs, card)


def inspect(path: Folder, **options: Unpack[Keywords]) -> InspectResult:
    """Lists what is in a checkpoint, vector or adapter: files, tensors, dtypes; reads headers, no weights."""
    with Session(make_options(options)) as session:
        found: Json = json.loads(_core.inspect(session.target(path), listed=not BRIEF.get()))
        found["warnings"] += session.unchecked()
    return InspectResult.from_json(found)


def inspect_to(path: Folder, write: Callable[[str], object], **options: Unpack[Keywords]) -> list[str]:
    """Hands what `inspect` returns to `write`, as JSON text in pieces; returns the warnings in it."""
    with Session(make_options(options)) as session:
        place = session.target(path)
        return _core.inspect_to(place, session.unchecked, write)


def diff(
    a: Folder, b: Folder, *, progress: _core.Progress | None = None, **options: Unpack[Keywords]
) -> DiffResult:
    """Compares `b` with `a`: changed elements, norm, cosine, ulp histogram; for each tensor and in total."""
    opts = make_options(options)
    with Session(opts, progress) as session:
        both = session.whole(a), session.whole(b)
        found: Json = json.loads(_core.diff(*both, opts, progress))
        found["warnings"] = session.unchecked()
    return DiffResult.from_json(found)


def verify(
    out: Folder, *, progress: _core.Progress | None = None, **options: Unpack[Keywords]
) -> VerifyResult:
    """Reads every file of a folder that taskvec wrote, and compares its digest with the manifest.

    If a file is not as it was written, `ok` is False and `problems` names the file.
    """
    opts = make_options(options)
    with Session(opts, progress) as session:
        return VerifyResult.from_json(json.loads(_core.verify(session.whole(out).path, opts, progress)))


def apply_card(inputs: Inputs, alphas: list[tuple[str, float]]) -> Card:
    """The card of what `apply` writes with an α for each vector."""
    target, vectors = inputs.target, inputs.donors
    command = ["taskvec", "apply", target.pinned, *(one.pinned for one in vectors)]
    for text, _ in alphas:
        command += ["--alpha", text]
    formula = "target" + "".join(f" + ({text})·v{at}" for at, (text, _) in enumerate(alphas, 1))
    named = [(f"v{at}", one) for at, one in enumerate(vectors, 1)]
    return merge_card(target, named, command, formula, inputs.options)


def transfer_card(inputs: Inputs, alpha: tuple[str, float]) -> Card:
    """The card of what `transfer` writes with this α."""
    target, (minuend, subtrahend), text = inputs.target, inputs.donors, alpha[0]
    command = ["taskvec", "transfer", target.pinned, minuend.pinned, subtrahend.pinned, "--alpha", text]
    formula = f"target + ({text})·(minuend − subtrahend)"
    named = [("minuend", minuend), ("subtrahend", subtrahend)]
    return merge_card(target, named, command, formula, inputs.options)


def _variants(alphas: list[tuple[str, float]], cards: list[Card]) -> list[_core.Variant]:
    return [(alpha, card.text) for alpha, card in zip(alphas, cards, strict=True)]


def _swept(inputs: Inputs, cards: list[Card], answer: str) -> SweepResult:
    found: Json = json.loads(answer)
    for result, card in zip(found["results"], cards, strict=True):
        _merged(result, inputs, card)
    return SweepResult.from_json(found)


def _merged(result: Json, inputs: Inputs, card: Card) -> WriteResult:
    result["warnings"] += inputs.found.warnings
    result["notes"] += inputs.found.notes
    return finished(result, inputs.session, card)


def finished(result: Json, session: Session, card: Card) -> WriteResult:
    """The result of a verb that wrote a folder, with what Python has to say about it."""
    result["notes"] += card.notes
    result["warnings"] += session.unchecked()
    return WriteResult.from_json(result)
