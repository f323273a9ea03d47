"""Turns results into the lines that a person reads: plain text, every figure with its unit."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ..text import readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Literal

    from ..advice import AdviceResult
    from ..check_result import CheckResult
    from ..records import Effect, Requantised
    from ..results import DiffResult, InspectResult, SweepResult, VerifyResult, WriteResult
    from ..upload import PushResult

_MOST_ROWS = 10


def written(result: WriteResult) -> Iterator[str]:
    """Lines on what a writing verb did."""
    tensors, effect = result.tensors, result.effect
    rate = (result.bytes.read + result.bytes.written) / max(result.seconds, 1e-9)
    yield from _table(
        ("wrote", f"{result.out} ({_count(result.files, 'file')})"),
        ("tensors", _tensors(tensors.combined, tensors.copied, tensors.converted)),
        ("bytes", f"{readable(result.bytes.read)} read, {readable(result.bytes.written)} written"),
        ("time", f"{result.seconds:.2f} s, {readable(rate)}/s"),
        ("exceptions", None if result.exceptions is None else _count(result.exceptions, "element")),
        ("norm of v", _figure(effect.norm_v)),
        ("requested", _figure(effect.norm_requested)),
        ("effective", _figure(effect.norm_effective)),
        ("gain", _figure(effect.gain)),
        ("cosine", _figure(effect.cosine)),
        ("changed", _share(effect.changed)),
        ("survival", _share(effect.survival)),
        ("grid noise", _share(effect.grid_noise)),
        ("codes", _codes(result.requantised)),
        ("bf16 output", _kept(result.requantised)),
        ("non-finite", _count(effect.nonfinite_inputs, "element") if effect.nonfinite_inputs else None),
        ("overflowed", _count(effect.overflowed, "element") if effect.overflowed else None),
    )


def swept(result: SweepResult) -> Iterator[str]:
    """Lines on what a sweep did, and one for each output."""
    rate = (result.bytes.read + result.bytes.written) / max(result.seconds, 1e-9)
    yield from _table(
        ("wrote", f"{result.out} ({_count(len(result.results), 'checkpoint')})"),
        ("bytes", f"{readable(result.bytes.read)} read, {readable(result.bytes.written)} written"),
        ("time", f"{result.seconds:.2f} s, {readable(rate)}/s"),
    )
    rows = [(Path(one.out).name, *_figures(one.effect)) for one in result.results]
    yield from _columns([("folder", "gain", "cosine", "survival", "changed"), *rows])


def said_of(outputs: tuple[WriteResult, ...], kind: Literal["notes", "warnings"]) -> Iterator[str]:
    """The notes or warnings of outputs, each once; with the folders that it is about, if not about all."""
    said: dict[str, list[str]] = {}
    for one in outputs:
        for line in dict.fromkeys(getattr(one, kind)):
            said.setdefault(line, []).append(Path(one.out).name)
    for line, names in said.items():
        yield line if len(names) == len(outputs) else f"{', '.join(names)}: {line}"


def engine(result: WriteResult) -> Iterator[str]:
    """Lines on how a writing verb did it: threads, windows, reads and writes."""
    used = result.engine
    writes = "direct" if used.direct_writes else "buffered"
    yield f"{_count(used.threads, 'thread')}, {_windows(used.windows, used.window_bytes)}, {used.simd}"
    yield f"{used.io} reads, {writes} writes"
    if used.resumed_bytes:
        yield f"{readable(used.resumed_bytes)} of output kept from an interrupted run"


def checked(plan: CheckResult) -> Iterator[str]:
    """Lines on a plan, and whether it can be carried out."""
    memory, disk = plan.memory, plan.disk
    yield f"{plan.verb}: {'the inputs fit together' if plan.compatible else 'the inputs do not fit together'}"
    yield from _table(
        *(
            (
                one.role,
                f"{one.name} ({_holds(one.files, one.tensors, one.bytes)})",
            )
            for one in plan.inputs
        ),
        ("tensors", _tensors(plan.tensors.combined, plan.tensors.copied, plan.tensors.converted)),
        ("bytes", f"{readable(plan.bytes.read)} to read, {readable(plan.bytes.write)} to write"),
        (
            "memory",
            f"{_mib(memory.planned)} of {_mib(memory.budget)} (least {_mib(memory.least)}):"
            f" {_count(memory.threads, 'thread')}, {_windows(memory.windows, memory.window_bytes)}",
        ),
        (
            "disk",
            f"{readable(disk.needed)} needed"
            + ("" if disk.free is None else f", {readable(disk.free)} free"),
        ),
        ("download", _download(plan)),
        ("reads", f"{plan.io}: {plan.io_reason}"),
        *(
            ("α rule", f"{rule.pattern} = {rule.alpha}: {_count(rule.tensors, 'tensor')}")
            for rule in plan.alpha_rules
        ),
        *(
            ("α factors", f"{stack}: {', '.join(f'{one.factor:.3g}' for one in layers)}")
            for stack, layers in groupby(plan.layers, lambda one: one.stack)
        ),
    )
    yield from (f"note: {note}" for note in plan.notes)
    yield from _problems((one.file, one.tensor, one.message) for one in plan.problems)


def advised(result: AdviceResult, *, every: bool) -> Iterator[str]:
    """A line for each α and rounding, then what follows from them; if `every`, also for each group."""
    rows: list[tuple[str, ...]] = [("α", "rounding", "tensors", "gain", "cosine", "survival", "changed")]
    for one in result.variants:
        rows.append((one.alpha, one.rounding, "all", *_figures(one.effect)))
        if every:
            rows += [("", "", group.name, *_figures(group.effect)) for group in one.groups]
    yield from _columns(rows)
    yield from result.sentences
    yield from (f"note: {note}" for note in result.notes if every)


def _codes(again: Requantised | None) -> str | None:
    if again is None:
        return None
    blocks = f"{again.blocks_copied:,} blocks copied, {again.blocks_kept:,} with their scale"
    return f"{_share(again.codes_changed)} changed; {blocks}, {again.blocks_rescaled:,} with another scale"


def _kept(again: Requantised | None) -> str | None:
    if again is None:
        return None
    return f"would have gain {_figure(again.bf16.gain)}, cosine {_figure(again.bf16.cosine)}"


def _figures(effect: Effect) -> tuple[str, ...]:
    shown = (
        None if effect.gain is None else f"{effect.gain:.3f}",
        None if effect.cosine is None else f"{effect.cosine:.3f}",
        _share(effect.survival),
        _share(effect.changed),
    )
    return tuple(figure or "-" for figure in shown)


def _download(plan: CheckResult) -> str | None:
    to_come = plan.download
    if to_come.free is None:
        return None
    streamed = f", {readable(to_come.streamed)} streamed and not stored" if to_come.streamed else ""
    free = readable(to_come.free)
    return f"{readable(to_come.bytes)} to download from the Hub{streamed}; {free} free in the cache"


def inspected(result: InspectResult, *, every: bool) -> Iterator[str]:
    """Lines on what is in a folder; if `every`, one for each tensor too."""
    dtypes = (
        f"{name} {_count(of.tensors, 'tensor')}, {_count(of.elements, 'element')}"
        for name, of in result.dtypes.items()
    )
    tied = None if result.tied is None else "yes" if result.tied else "no"
    yield from _table(
        (result.kind, result.name),
        ("parameters", f"{result.parameters:,} ({readable(result.bytes)})"),
        *(("dtype", text) for text in dtypes),
        *(
            ("file", f"{file.name}: {_count(file.tensors, 'tensor')}, {readable(file.size)}")
            for file in result.files
        ),
        ("adapter", None if result.adapter is None else _adapter(result.adapter)),
        ("tied head", tied),
        ("quantised", result.quantized),
        *(("", f"{_count(count, 'weight')} in {name}") for name, count in result.formats.items()),
        ("sidecars", ", ".join(result.sidecars) or None),
        ("left out", ", ".join(result.left_out) or None),
        ("manifest", "taskvec.json (`taskvec verify` checks it)" if result.manifest else None),
    )
    if every:
        for tensor in result.tensors:
            yield f"  {tensor.name}  {tensor.dtype} {list(tensor.shape)}  {tensor.file}"


def _adapter(said: Mapping[str, Any]) -> str:
    on = said["base_model"] or "a model that it does not name"
    if said["revision"]:
        on = f"{on}@{said['revision']}"
    kind = "rsLoRA" if said["rslora"] else "LoRA"
    return f"{kind} on {on}, rank {said['rank']}, alpha {said['alpha']:g} (unless a pattern sets others)"


def compared(result: DiffResult, *, every: bool) -> Iterator[str]:
    """Lines on how two checkpoints differ, then on the tensors that differ most, or on all if `every`."""
    total = result.total
    yield f"{result.a} and {result.b} " + ("hold the same weights" if result.identical else "differ")
    yield from _table(
        (
            "changed",
            f"{_share(total.changed)} of {_count(total.elements, 'element')}",
        ),
        ("norm of b−a", _figure(total.norm)),
        ("cosine", _figure(total.cosine)),
        ("non-finite", _count(total.nonfinite, "element") if total.nonfinite else None),
        *(
            (f"{steps} ulp", f"{number:,} ({_ratio(number, total.elements)})")
            for steps, number in total.ulps.items()
            if number
        ),
        ("only in a", ", ".join(result.only_a) or None),
        ("only in b", ", ".join(result.only_b) or None),
        *(("not compared", f"{one.name}: {one.reason}") for one in result.not_compared),
    )
    differing = sorted((one for one in result.tensors if one.changed), key=lambda one: -(one.norm or 0.0))
    shown = differing if every else differing[:_MOST_ROWS]
    for one in shown:
        yield f"  {one.name}  {one.dtype}  changed {_share(one.changed)}  norm {_figure(one.norm)}"
    if hidden := len(differing) - len(shown):
        yield f"  and {_count(hidden, 'tensor')} more; --verbose or --json lists them all"


def verified(result: VerifyResult) -> Iterator[str]:
    """Lines on whether a folder is as it was written."""
    what = _holds(result.files, result.tensors, result.bytes)
    yield f"{'everything is as it was written' if result.ok else 'not as it was written'} ({what})"
    yield from _problems((one.file, None, one.message) for one in result.problems)


def pushed(result: PushResult) -> Iterator[str]:
    """Lines on what was pushed to the Hub."""
    yield f"pushed to {result.url}"
    yield from _table(
        ("commit", f"{result.commit} on {result.revision}"),
        ("holds", f"{_count(result.files, 'file')}, {readable(result.bytes)}"),
    )
    yield from (f"note: {note}" for note in result.notes)


def _problems(problems: Iterable[tuple[str | None, str | None, str]]) -> Iterator[str]:
    """One line for each problem, with the file and the tensor if the message does not name them."""
    for file, tensor, message in problems:
        where = "" if file is None or file in message else f"{file}: "
        what = "" if tensor is None or tensor in message else f"tensor `{tensor}`: "
        yield f"problem: {where}{what}{message}"


def _table(*rows: tuple[str, str | None]) -> Iterator[str]:
    """Two columns; a row without a value is left out."""
    kept = [(name, value) for name, value in rows if value is not None]
    width = max((len(name) for name, _ in kept), default=0)
    return (f"  {name:<{width}}  {value}" for name, value in kept)


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows of cells, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _holds(files: int, tensors: int, size: int) -> str:
    return f"{_count(files, 'file')}, {_count(tensors, 'tensor')}, {readable(size)}"


def _tensors(combined: int, copied: int, converted: int) -> str:
    return f"{combined:,} combined, {copied:,} copied, {converted:,} converted"


def _windows(windows: int, size: int) -> str:
    return f"{_count(windows, 'window')} of {_mib(size)}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _mib(size: int) -> str:
    """A size in MiB, the unit in which `--memory` is usually given."""
    return f"{size / 2**20:,.4g} MiB"


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "none"
