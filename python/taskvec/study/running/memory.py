"""Measures peak memory: on a GPU as torch counts it, else the anonymous memory of the process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..environment import library

if TYPE_CHECKING:
    from types import TracebackType

_STATUS = Path("/proc/self/status")
_EVERY = 0.02


class Peak:
    """Measures the peak memory of a `with` block in which a model is loaded and asked.

    torch counts the memory on a GPU. On a CPU it counts none, so a thread reads the anonymous memory of the
    process every 20 ms. Weights mapped from a file are not in that figure until a vector is put into them,
    so they are added.

    Attributes:
        bytes: the peak in bytes, including the model's weights; None if the system does not report memory.
        there: the memory of the GPU in bytes; None without a GPU.
    """

    def __init__(self, device: str) -> None:
        """`device` is a torch device."""
        self._device = device
        self._gpu = device != "cpu"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = self._loaded = self._weights = self._most = 0
        self.bytes: int | None = None
        self.there: int | None = None

    def __enter__(self) -> Self:
        """Starts measuring."""
        if self._gpu:
            torch = library("torch")
            torch.cuda.reset_peak_memory_stats(self._device)
            self.there = torch.cuda.get_device_properties(self._device).total_memory
        else:
            self._before = _anonymous() or 0
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops measuring and sets `bytes`."""
        if self._gpu:
            self.bytes = library("torch").cuda.max_memory_allocated(self._device)
            return
        self._stop.set()
        self._thread.join()
        if _anonymous() is not None:
            self.bytes = self._before + self._weights + max(self._most - self._loaded, 0)

    def loaded(self, model: Any) -> None:
        """Must be called when the model is loaded and nothing has been asked yet."""
        self._weights = sum(one.numel() * one.element_size() for one in model.parameters())
        self._loaded = self._most = _anonymous() or 0

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY):
            self._most = max(self._most, _anonymous() or 0)


def _anonymous() -> int | None:
    """Anonymous resident memory of this process in bytes (Linux only); None elsewhere."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("RssAnon:")), None)
    return None if found is None else int(found) * 1024
