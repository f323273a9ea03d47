"""Changes a live model at the start of a `with` block, and restores it at the end."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Literal

import taskvec._core as _core

from ..errors import CorruptError, MismatchError, TaskvecError
from ..options import Options
from ..results import Applied
from .parameters import Carrier, carriers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor, nn

    from ..fit.compatibility import Findings
    from ..inputs.refs import Fixed
    from ..records import Json

Originals = Literal["folder", "cpu"]
"""Where the model's own values come from at the end: read again from the target, or copied to CPU memory."""


class Job:
    """The computation for one `with` block; it is planned before the block is entered."""

    def __init__(self, start: Callable[..., _core.Live], given: list[Fixed], found: Findings) -> None:
        """Plans the computation: `given` are the folders, the base first, whose paths `start` takes."""
        self.base, self.found = given[0], found
        self._start, self._given = start, given
        self._paths = self._now()
        self._live = start(*self._paths)

    def _now(self) -> list[str]:
        return [str(folder) for folder in self._given]

    def ready(self) -> _core.Live:
        """The computation; planned again if the working directory has changed, so that paths differ."""
        return self._live if self._now() == self._paths else self._start(*self._now())


@contextmanager
def changed(model: nn.Module, job: Job, originals: Originals, opts: Options) -> Generator[Applied]:
    """Puts the vector into the model, and restores the model when the block ends, whatever ends it."""
    change = _Change(model, job, originals, opts)
    try:
        report = change.put_in()
        report["warnings"] += job.found.warnings
        report["notes"] += job.found.notes
        yield Applied.from_json(report)
    finally:
        try:
            with _interrupts_held():
                change.put_back()
        except KeyboardInterrupt:
            # It came before Ctrl-C was held back, or after the model was restored. In the second case
            # `put_back` finds nothing left to do.
            change.put_back()
            raise


class _Change:
    """The changes of one `with` block to a model, with what is needed to undo them."""

    def __init__(self, model: nn.Module, job: Job, originals: Originals, opts: Options) -> None:
        self._model, self._base, self._opts = model, job.base, opts
        self._job = job.ready()
        self._carriers = self._find()
        self._keep = originals == "cpu"
        self._kept: list[tuple[str, int, int, Tensor]] = []
        """If originals are kept on the CPU: name in the model, first element, one past the last, values."""
        self._written: dict[str, list[tuple[int, int]]] = {}
        """Otherwise, by name in the model: the ranges of elements that were changed."""

    def _find(self) -> list[Carrier | None]:
        return carriers(self._model, str(self._base), json.loads(self._job.tensors), self._opts.prefixes)

    def put_in(self) -> Json:
        """Changes the model to what loading the written checkpoint would give."""
        with writing(), closing(stream(self._job, self._carriers, results=True)) as parts:
            for carrier, first, stop, result, original in parts:
                live = carrier.flat[first:stop]
                was = live.to("cpu", copy=self._keep)
                if not holds(was, original):
                    raise MismatchError(
                        f"parameter `{carrier.name}` differs from {self._base}, so the vector cannot be added"
                        " to that folder's values; leave other `applied` blocks first, load the model again,"
                        " or name with target the folder it was loaded from"
                    )
                if not carrier.combined:
                    continue
                # Recorded before the copy, so that an interruption between the two leaves no unknown change.
                if self._keep:
                    self._kept.append((carrier.name, first, stop, was))
                else:
                    self._written.setdefault(carrier.name, []).append((first, stop))
                # torch rounds to the model's dtype as it does when it loads, and before it copies to a GPU.
                live.copy_(result)
        # Every element of these tensors was written, so one range replaces thousands.
        self._written = {
            carrier.name: [(0, carrier.flat.numel())]
            for carrier in self._carriers
            if carrier and carrier.name in self._written
        }
        return json.loads(self._job.report())

    def put_back(self) -> None:
        """Restores what was changed in the model."""
        if not (self._kept or self._written):
            return
        try:
            # Looked up again: if the model was moved or cast inside the block, its memory is elsewhere now.
            self._carriers = self._find()
            with writing():
                flat = {carrier.name: carrier.flat for carrier in self._carriers if carrier}
                for name, first, stop, was in self._kept:
                    flat[name][first:stop].copy_(was)
                self._kept = []
                if self._written:
                    self._read_again()
                self._written = {}
        except (TaskvecError, KeyError) as error:
            raise CorruptError(
                f"{error}; the model's own values could not be restored from {self._base}, so it is left"
                " modified: load it again"
            ) from error

    def _read_again(self) -> None:
        reading = Options(memory=self._opts.memory, threads=self._opts.threads, io=self._opts.io)
        job = _core.live_read(str(self._base), reading)
        if job.target_id != self._job.target_id:
            raise CorruptError(f"{self._base} changed since the vector was put into the model")
        changed = [
            carrier if carrier and carrier.name in self._written else None for carrier in self._carriers
        ]
        with closing(stream(job, changed, results=False)) as parts:
            for carrier, first, stop, _, original in parts:
                for begin, end in self._written[carrier.name]:
                    low, high = max(begin, first), min(end, stop)
                    if low < high:
                        carrier.flat[low:high].copy_(original[low - first : high - first])


@contextmanager
def writing() -> Generator[None]:
    """Allows to write to parameters of every kind; autograd notices that their values have changed."""
    import torch

    threads = torch.get_num_threads()
    try:
        # The core's threads use the cores already; torch's would only compete with them, in busy waiting.
        torch.set_num_threads(1)
        # `no_grad` is not enough: a model made in inference mode can only be written to in inference mode.
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def stream(
    job: _core.Live, found: list[Carrier | None], *, results: bool
) -> Generator[tuple[Carrier, int, int, Tensor, Tensor]]:
    """Yields the tensors of `found` in parts: carrier, first element, one past the last, result, original.

    `original` holds the folder's own values, and so does `result` if `results` is False. Both are on the CPU,
    in the folder's dtype, and are valid until the next part is requested.
    """
    import torch

    # Pinned memory, so that the driver copies to a GPU without another buffer.
    pinned = any(carrier is not None and carrier.flat.is_cuda for carrier in found)
    original = torch.empty(job.window_bytes, dtype=torch.uint8, pin_memory=pinned)
    result = torch.empty_like(original, pin_memory=pinned) if results else original
    buffers = result.numpy() if results else None, original.numpy()
    try:
        job.start([carrier is not None for carrier in found])
        while (parts := job.next(*buffers)) is not None:
            for tensor, first, elements, at in parts:
                carrier = found[tensor]
                assert carrier is not None, "only tensors with a carrier were requested"
                made, own = (carrier.load(window, at, elements) for window in (result, original))
                yield carrier, first, first + elements, made, own
    finally:
        job.close()


def holds(live: Tensor, stored: Tensor) -> bool:
    """Whether the live values are, bit for bit, what loading makes of the stored values."""
    import torch

    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[live.element_size()]
    # Compared with NumPy, which the buffers need anyway: torch's `equal` takes ten times as long.
    return bool((live.view(words).numpy() == stored.to(live.dtype).view(words).numpy()).all())


@contextmanager
def _interrupts_held() -> Generator[None]:
    """Holds Ctrl-C back until the block ends: a model that is only half restored is useless."""
    seen: list[int] = []
    # Only Python's main thread receives signals and may set their handlers.
    mine = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not None
    )
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number)) if mine else None
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)
    if seen:
        signal.raise_signal(signal.SIGINT)
