"""Estimates the time, memory and disk space of a study from one measured batch of each kind."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ... import dry_run
from ...text import duration, readable
from ..environment import quiet
from ..scoring.loading import load_model, make_room
from ..scoring.prompts import count, render
from .batch_size import cap, set_batch_size
from .memory import Peak

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...records import Json
    from ..scoring.tasks import Loaded
    from .preflight import Ready

# Number of prompts whose tokens are counted to estimate the mean length.
_SAMPLE = 64
# Bytes of a sample row without its answer, and of a token of the answer; both are upper estimates.
_ROW, _TOKEN = 1000, 8
_One = TypeVar("_One")


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurement of one batch of one benchmark."""

    benchmark: str
    kind: str
    rows: int
    """Number of answers or choices in the batch."""
    seconds: float
    tokens: int
    """Generated tokens; for choices, tokens of the prompts and continuations."""
    prefill: float
    """Seconds for each token of the prompts."""
    step: float
    """Seconds for one generation step, which adds a token to each row; 0 for choices."""
    steps: float
    """Tokens of the longest answer as a share of the token limit."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated time, memory and disk space of a study."""

    measured: tuple[Measured, ...]
    seconds: float | None
    """Time if answers are as long as the measured ones; None if the backend is in another environment."""
    most_seconds: float | None
    """Time if in every batch one answer reaches the token limit."""
    memory: int | None
    """Peak memory of a run in bytes: of the GPU, or of the process on a CPU."""
    device_memory: int | None
    """Memory of the GPU in bytes; None on a CPU."""
    disk: int
    """Disk space that the folder of the run needs, in bytes."""
    free: int
    """Free space on that disk, in bytes."""

    def to_json(self) -> Json:
        """The JSON object that `--json` prints."""
        return dataclasses.asdict(self)

    def lines(self) -> Iterator[str]:
        """The same as lines of text."""
        for one in self.measured:
            what = ("answer" if one.kind == "generate" else "choice") + ("" if one.rows == 1 else "s")
            tokens = f", {one.tokens / one.seconds:,.0f} tokens/s" if one.kind == "generate" else ""
            rate = one.rows / one.seconds
            yield f"  measured    {one.benchmark}: {one.rows} {what}, {rate:,.1f} a second{tokens}"
        if self.seconds is None or self.most_seconds is None:
            yield "  time        not measured: the backend is in another environment"
        else:
            most = f"; {duration(self.most_seconds)} if answers reach their token limits"
            yield f"  time        {duration(self.seconds)}{most if self.most_seconds > self.seconds else ''}"
        if self.memory is not None:
            of = "" if self.device_memory is None else f" of {readable(self.device_memory)} on the device"
            yield f"  memory      {readable(self.memory)}{of}"
        short = "" if self.disk <= self.free else ": too little, free some space or use another disk"
        yield f"  disk        {readable(self.disk)} of {readable(self.free)} that are free{short}"


def estimate(ready: Ready, where: Path | None = None) -> Estimate:
    """Loads the target, asks it one batch of each kind, and estimates what the whole study takes.

    Args:
        ready: the study.
        where: the folder of the run, which need not exist; by default the working directory.

    Raises:
        MismatchError: the target cannot be loaded, or the device does not have enough memory for it.
    """
    where = (where or Path.cwd()).absolute()
    room = next(one for one in (where, *where.parents) if one.is_dir())
    needed, free = _disk(ready, where), shutil.disk_usage(room).free
    if ready.study.backend != "hf":
        return Estimate((), None, None, None, None, needed, free)
    with Peak(ready.device) as peak:
        measured, lengths = _measured(ready, peak)
    times = [_seconds(loaded, measured, lengths) for _, loaded in ready.cells()]
    return Estimate(
        tuple(measured.values()),
        sum(typical for typical, _ in times),
        sum(most for _, most in times),
        peak.bytes,
        peak.there,
        needed,
        free,
    )


def _measured(ready: Ready, peak: Peak) -> tuple[dict[str, Measured], dict[str, float]]:
    """The measured batch by kind, and the mean tokens of a document's prompts by benchmark."""
    # Imported here: lm-eval's models take seconds to import.
    from ..scoring.study_lm import StudyLM

    target, lengths = ready.target.path, dict[str, float]()
    model = load_model(target, target, ready.device, ready.dtype)
    peak.loaded(model)
    try:
        with quiet():
            lm = StudyLM(model, ready.tokenizer)
            for loaded in ready.loaded:
                lengths[loaded.benchmark.id] = _length(loaded, render(loaded, ready.tokenizer, None), lm)
            cells = Counter(loaded.benchmark.id for _, loaded in ready.cells())
            found: dict[str, Measured] = {}
            for kind, ask in (("generate", _generated), ("choice", _chosen)):
                alike = [one for one in ready.loaded if one.kind == kind]
                if alike:
                    # Measure the benchmark that takes the most time.
                    most = max(alike, key=lambda one: cells[one.benchmark.id] * one.n * max(1, cap(one)))
                    set_batch_size(lm, most, ready.study)
                    found[kind] = ask(lm, most)
        return found, lengths
    finally:
        del model
        make_room()


def _length(loaded: Loaded, asked: Sequence[tuple[str, str]], lm: Any) -> float:
    some = _spread(asked, _SAMPLE)
    tokens = sum(count(lm.tokenizer, prompt + rest) for prompt, rest in some) / len(some)
    return tokens * len(asked) / loaded.n


def _generated(lm: Any, loaded: Loaded) -> Measured:
    requests = [one for task in loaded.tasks for one in task.instances]
    # Requests with equal settings, so that they form one batch.
    batch = _spread([one for one in requests if one.args[1] == requests[0].args[1]], lm.batch_size)
    first = [
        dataclasses.replace(one, arguments=(one.args[0], {**one.args[1], "max_gen_toks": 1})) for one in batch
    ]
    # One run that is not measured, since the first run sets much up.
    lm.generate_until(first)
    prefill = _timed(lambda: lm.generate_until(first))
    seconds = _timed(lambda: lm.generate_until(batch))
    rows = [lm.records[one.task_name, one.doc_id] for one in batch]
    longest = max(row.tokens for row in rows)
    each = prefill / sum(row.prompt_tokens for row in rows)
    step = max(seconds - prefill, 0.0) / (longest - 1) if longest > 1 else prefill
    tokens = sum(row.tokens for row in rows)
    return Measured(
        loaded.benchmark.id, loaded.kind, len(rows), seconds, tokens, each, step, longest / cap(loaded)
    )


def _chosen(lm: Any, loaded: Loaded) -> Measured:
    documents: dict[tuple[str, int], list[Any]] = {}
    for one in (one for task in loaded.tasks for one in task.instances):
        documents.setdefault((one.task_name, one.doc_id), []).append(one)
    size = max(map(len, documents.values()))
    some = _spread([*documents.values()], max(1, lm.batch_size // size))
    batch = [one for requests in some for one in requests]
    lm.loglikelihood(some[0])
    seconds = _timed(lambda: lm.loglikelihood(batch))
    tokens = sum(count(lm.tokenizer, one.args[0] + one.args[1]) for one in batch)
    return Measured(loaded.benchmark.id, loaded.kind, len(some), seconds, tokens, seconds / tokens, 0.0, 0.0)


def _seconds(loaded: Loaded, measured: dict[str, Measured], lengths: dict[str, float]) -> tuple[float, float]:
    """Seconds for a cell: with answers as measured, and with one in each batch that reaches the limit."""
    one = measured[loaded.kind]
    prompts = loaded.n * lengths[loaded.benchmark.id] * one.prefill
    batches = -(-loaded.n // one.rows)
    most = batches * one.step * max(cap(loaded) - 1, 0)
    return prompts + most * one.steps, prompts + most


def _disk(ready: Ready, where: Path) -> int:
    """Bytes of the folder of a run, at its largest."""
    if ready.study.donors is None:
        own, vector = 0, sum(one.stat().st_size for one in Path(ready.donors[0].path).glob("*.safetensors"))
    else:
        minuend, subtrahend = (one.path for one in ready.donors)
        own = vector = dry_run.extract(minuend, subtrahend, where / "vector").disk.needed
    controls = vector * sum(arm.kind == "random" for arm in ready.arms)
    samples = sum(loaded.n * (_ROW + _TOKEN * cap(loaded)) for _, loaded in ready.cells())
    # Another backend loads each arm from a checkpoint, of which one exists at a time.
    checkpoint = ready.plan.disk.needed if ready.study.backend != "hf" else 0
    return own + controls + samples + checkpoint


def _spread(items: Sequence[_One], most: int) -> list[_One]:
    """At most `most` items, evenly spaced."""
    number = min(most, len(items))
    return [items[at * len(items) // number] for at in range(number)]


def _timed(ask: Any) -> float:
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start
