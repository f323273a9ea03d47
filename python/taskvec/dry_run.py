"""Plans what the writing verbs would do, and whether they can; reads headers, no weights, and writes nothing.

Each function but `check` takes the arguments of the verb of the same name, except `progress`. They raise
the same errors, with two exceptions: if inputs do not fit together, they do not raise `MismatchError` but
list the reasons in the `problems` of what they return; and they do not ask whether `out` may be written.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Unpack

import taskvec._core as _core

from .algebra import plain_options, vectors_of
from .check_result import CheckResult
from .fit.grafts import graft_options, grafts
from .fit.merge import Inputs, not_donors, opened
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

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from .inputs.refs import Folder, Ref
    from .records import Json


def extract(minuend: Folder, subtrahend: Folder, out: Folder, **options: Unpack[Keywords]) -> CheckResult:
    """Plans what `taskvec.extract` would do."""
    opts, where = vector_options(make_options(options)), output_path(out)
    with Session(opts) as session:
        first, second = session.donors(minuend, subtrahend)
        plan: Json = json.loads(_core.check_extract(first, second, where, opts))
        return _result(plan, session, None, [first, second])


def convert(vector: Folder, out: Folder, **options: Unpack[Keywords]) -> CheckResult:
    """Plans what `taskvec.convert` would do."""
    opts, where = plain_options(make_options(options)), output_path(out)
    with Session(opts) as session:
        (source,) = vectors_of(session, [vector])
        return _result(json.loads(_core.check_convert(source, where, opts)), session, None, [source])


def combine(
    vectors: Folder | Iterable[Folder],
    out: Folder,
    *,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    **options: Unpack[Keywords],
) -> CheckResult:
    """Plans what `taskvec.combine` would do."""
    opts, where, names = plain_options(make_options(options)), output_path(out), vector_list(vectors)
    alphas = spread_alphas(alpha, len(names))
    with Session(opts) as session:
        sources = vectors_of(session, names)
        return _result(json.loads(_core.check_combine(sources, where, alphas, opts)), session, None, sources)


def apply(
    target: Folder,
    vectors: Folder | Iterable[Folder],
    out: Folder,
    *,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    **options: Unpack[Keywords],
) -> CheckResult:
    """Plans what `taskvec.apply` would do."""
    opts, where, names = make_options(options), output_path(out), vector_list(vectors)
    alphas = spread_alphas(alpha, len(names))
    with opened(target, names, opts) as inputs:
        return _merge(inputs, _core.check_apply(inputs.target, inputs.donors, where, alphas, inputs.options))


def transfer(
    target: Folder,
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    alpha: Alpha = 1.0,
    **options: Unpack[Keywords],
) -> CheckResult:
    """Plans what `taskvec.transfer` would do."""
    opts, where, scale = make_options(options), output_path(out), parse_alpha(alpha)
    with opened(target, (minuend, subtrahend), opts) as inputs:
        first, second = inputs.donors
        answer = _core.check_transfer(inputs.target, first, second, where, scale, inputs.options)
        return _merge(inputs, answer)


def sweep_apply(
    target: Folder,
    vectors: Folder | Iterable[Folder],
    out: Folder,
    *,
    alphas: Alpha | Iterable[Alpha],
    **options: Unpack[Keywords],
) -> CheckResult:
    """Plans what `taskvec.sweep_apply` would do: one plan, with memory and disk for all α."""
    opts, where = make_options(options), output_path(out)
    names, wanted = vector_list(vectors), alpha_list(alphas)
    with opened(target, names, opts) as inputs:
        answer = _core.check_sweep_apply(inputs.target, inputs.donors, where, wanted, inputs.options)
        return _merge(inputs, answer)


def sweep_transfer(
    target: Folder,
    minuend: Folder,
    subtrahend: Folder,
    out: Folder,
    *,
    alphas: Alpha | Iterable[Alpha],
    **options: Unpack[Keywords],
) -> CheckResult:
    """Plans what `taskvec.sweep_transfer` would do: one plan, with memory and disk for all α."""
    opts, where, wanted = make_options(options), output_path(out), alpha_list(alphas)
    with opened(target, (minuend, subtrahend), opts) as inputs:
        first, second = inputs.donors
        answer = _core.check_sweep_transfer(inputs.target, first, second, where, wanted, inputs.options)
        return _merge(inputs, answer)


def graft(
    target: Folder,
    donor: Folder,
    out: Folder,
    *,
    take: Iterable[str],
    more: Iterable[tuple[Folder, Iterable[str]]] = (),
    **options: Unpack[Keywords],
) -> CheckResult:
    """Plans what `taskvec.graft` would do."""
    opts, where, wanted = graft_options(make_options(options)), output_path(out), grafts(donor, take, more)
    with opened(target, [one for one, _ in wanted], opts) as inputs:
        taken = [(ref, list(patterns)) for ref, (_, patterns) in zip(inputs.donors, wanted, strict=True)]
        return _merge(inputs, _core.check_graft(inputs.target, taken, where, inputs.options))


def merge(
    config: str | os.PathLike[str], out: str | os.PathLike[str], **options: Unpack[Keywords]
) -> CheckResult:
    """Plans what `taskvec.merge` would do."""
    from .merging.run import plan  # Reading YAML takes time to import.

    return plan(config, out, **options)


def check(
    target: Folder,
    *donors: Folder,
    out: Folder | None = None,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    **options: Unpack[Keywords],
) -> CheckResult:
    """Says whether the inputs fit together, and what combining them would cost; reads no weights.

    `donors` are a minuend and a subtrahend, or one or more vectors. The result is that of a dry run of
    `transfer` or `apply`: if it is compatible, these verbs will write it. If anything does not fit,
    `compatible` is False and `problems` lists the reasons. If `out` is given, the result includes the free
    space on its disk.

    Raises:
        UsageError: The donors are neither a pair nor vectors, or an option is wrong.
        CorruptError: An input is malformed.
        StorageError: An input is not available.
    """
    opts, where = make_options(options), None if out is None else output_path(out)
    with opened(target, donors, opts) as inputs:
        base, others, asked = inputs.target, inputs.donors, inputs.options
        vectors = [other.is_vector for other in others]
        if others and all(vectors):
            alphas = spread_alphas(alpha, len(others))
            return _merge(inputs, _core.check_apply(base, others, where, alphas, asked))
        if len(others) == 2 and not any(vectors):
            (scale,) = spread_alphas(alpha, 1)
            minuend, subtrahend = others
            return _merge(inputs, _core.check_transfer(base, minuend, subtrahend, where, scale, asked))
        raise not_donors(inputs, vectors="vectors")


def _merge(inputs: Inputs, answer: str) -> CheckResult:
    plan: Json = json.loads(answer)
    plan["warnings"] += inputs.found.warnings
    plan["notes"] += inputs.found.beside(plan["problems"])
    return _result(plan, inputs.session, inputs.target, inputs.donors)


def _result(plan: Json, session: Session, target: Ref | None, donors: list[Ref]) -> CheckResult:
    # If a donor is an adapter, only the headers of its base are read, so the base is not counted.
    read = [donor for donor in donors if donor.is_adapter] or donors
    plan["download"] = session.traffic(target, read)
    plan["warnings"] += session.unchecked()
    return CheckResult.from_json(plan)
