"""What a `with` block does to a live model, and how everything is undone at its end."""

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
"""Where the model's own values come from at the end: read again from the target, or kept on the CPU."""


class Job:
    """The computation for one `with` block, planned when it is asked for."""

    def __init__(self, start: Callable[..., _core.Live], given: list[Fixed], found: Findings) -> None:
        """Plans it where the folders `given`, the base first, are now; `start` takes their paths."""
        self.base, self.found = given[0], found
        self._start, self._given = start, given
        self._paths = self._now()
        self._live = start(*self._paths)

    def _now(self) -> list[str]:
        return [str(folder) for folder in self._given]

    def ready(self) -> _core.Live:
        """The computation: planned anew if the block is entered in another working folder."""
        return self._live if self._now() == self._paths else self._start(*self._now())


@contextmanager
def changed(model: nn.Module, job: Job, originals: Originals, opts: Options) -> Generator[Applied]:
    """The model with the vector in it; afterwards the model as it was, whatever ends the block."""
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
            # It came before it could be held, or after all was put back: then nothing is left to do.
            change.put_back()
            raise


class _Change:
    """What one `with` block does to a model, and what it takes to undo it."""

    def __init__(self, model: nn.Module, job: Job, originals: Originals, opts: Options) -> None:
        self._model, self._base, self._opts = model, job.base, opts
        self._job = job.ready()
        self._carriers = self._find()
        self._keep = originals == "cpu"
        self._kept: list[tuple[str, int, int, Tensor]] = []
        """With originals on the CPU: live name, first element, one past the last, and what they held."""
        self._written: dict[str, list[tuple[int, int]]] = {}
        """Otherwise: by live name, the elements that no longer are the folder's."""

    def _find(self) -> list[Carrier | None]:
        return carriers(self._model, str(self._base), json.loads(self._job.tensors), self._opts.prefixes)

    def put_in(self) -> Json:
        """Makes the model what loading the written checkpoint would give."""
        with writing(), closing(stream(self._job, self._carriers, results=True)) as parts:
            for carrier, first, stop, result, original in parts:
                live = carrier.flat[first:stop]
                was = live.to("cpu", copy=self._keep)
                if not holds(was, original):
                    raise MismatchError(
                        f"parameter `{carrier.name}` differs from {self._base}, so that what this folder plus"
                        " the vector is would not be this model plus the vector; leave other `applied` blocks"
                        " first, load the model anew, or name the folder it was loaded from with target"
                    )
                if not carrier.combined:
                    continue
                # Noted first: an interruption between the two must not leave a change that nobody knows of.
                if self._keep:
                    self._kept.append((carrier.name, first, stop, was))
                else:
                    self._written.setdefault(carrier.name, []).append((first, stop))
                # Torch rounds to the model's dtype as it does in loading, and before the values go to a GPU.
                live.copy_(result)
        # What was written in thousands of windows is one stretch now.
        self._written = {
            carrier.name: [(0, carrier.flat.numel())]
            for carrier in self._carriers
            if carrier and carrier.name in self._written
        }
        return json.loads(self._job.report())

    def put_back(self) -> None:
        """Makes the model what it was, as far as it was changed."""
        if not (self._kept or self._written):
            return
        try:
            # Looked up anew: a model that was moved or cast in the block has other memory now.
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
                f"{error}; the model's own values could not be put back from {self._base}, and it is left"
                " modified: load it anew"
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
    """In which parameters of every kind may be written; autograd sees that their version is another."""
    import torch

    threads = torch.get_num_threads()
    try:
        # The core's threads have the cores: torch's would only wait for each other, and busily.
        torch.set_num_threads(1)
        # Not `no_grad`: models that were made in inference mode can be written in nothing else.
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def stream(
    job: _core.Live, found: list[Carrier | None], *, results: bool
) -> Generator[tuple[Carrier, int, int, Tensor, Tensor]]:
    """Every part of the carried tensors: carrier, first element, one past the last, result, original.

    The original is the folder's own values, and so is the result without `results`. They are in the folder's
    dtype, on the CPU, and hold until the next part is asked for.
    """
    import torch

    # Pinned, so that copies to a GPU need no further staging in the driver.
    pinned = any(carrier is not None and carrier.flat.is_cuda for carrier in found)
    original = torch.empty(job.window_bytes, dtype=torch.uint8, pin_memory=pinned)
    result = torch.empty_like(original, pin_memory=pinned) if results else original
    buffers = result.numpy() if results else None, original.numpy()
    try:
        job.start([carrier is not None for carrier in found])
        while (parts := job.next(*buffers)) is not None:
            for tensor, first, elements, at in parts:
                carrier = found[tensor]
                assert carrier is not None, "only what is carried was asked for"
                made, own = (carrier.load(window, at, elements) for window in (result, original))
                yield carrier, first, first + elements, made, own
    finally:
        job.close()


def holds(live: Tensor, stored: Tensor) -> bool:
    """Whether these live values are, bit for bit, what loading makes of the stored ones."""
    import torch

    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[live.element_size()]
    # In NumPy, which is on board for the buffers too: torch's `equal` takes ten times as long.
    return bool((live.view(words).numpy() == stored.to(live.dtype).view(words).numpy()).all())


@contextmanager
def _interrupts_held() -> Generator[None]:
    """Lets Ctrl-C wait: a model half put back is of no use to anybody."""
    seen: list[int] = []
    # Only Python's main thread gets to see signals, and only it may say what they do.
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
