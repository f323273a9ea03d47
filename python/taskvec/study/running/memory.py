"""The most memory that something takes: on a GPU as torch counts it, else of the process."""

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
    """A `with` block in which a model is loaded and asked.

    torch counts what a GPU holds. Of a CPU it counts nothing, so anonymous memory is looked up again and
    again; weights that are mapped from a file are not in it until a vector is put into them, and are added.

    Attributes:
        bytes: the peak, a model's weights included; None where the system does not tell.
        there: memory of the GPU; None without one.
    """

    def __init__(self, device: str) -> None:
        """For a torch device."""
        self._device = device
        self._gpu = device != "cpu"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = self._loaded = self._weights = self._most = 0
        self.bytes: int | None = None
        self.there: int | None = None

    def __enter__(self) -> Self:
        """The watch itself."""
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
        """Ends the watch."""
        if self._gpu:
            self.bytes = library("torch").cuda.max_memory_allocated(self._device)
            return
        self._stop.set()
        self._thread.join()
        if _anonymous() is not None:
            self.bytes = self._before + self._weights + max(self._most - self._loaded, 0)

    def loaded(self, model: Any) -> None:
        """To be called when the model is there and nothing has been asked."""
        self._weights = sum(one.numel() * one.element_size() for one in model.parameters())
        self._loaded = self._most = _anonymous() or 0

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY):
            self._most = max(self._most, _anonymous() or 0)


def _anonymous() -> int | None:
    """Bytes of this process that no file is behind (Linux)."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("RssAnon:")), None)
    return None if found is None else int(found) * 1024
