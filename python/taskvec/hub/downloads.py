"""Downloads files from the Hub into its cache, in the order in which a run will read them."""

from __future__ import annotations

import errno
import glob
import queue
import shutil
import threading
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .._core import is_weights
from ..errors import StorageError
from .checked import check
from .errors import explaining, transient
from .library import constants, hub
from .snapshot import cache

if TYPE_CHECKING:
    from .snapshot import Snapshot

_AT_ONCE = 4
# Attempts to download a file, in addition to huggingface_hub's own retries within one connection.
_ATTEMPTS = 3
# Seconds that a stopped download gets to remove its partial file.
_PATIENCE = 2


class Downloads:
    """The downloads of one run."""

    def __init__(self, *, bars: bool) -> None:
        """Downloads nothing yet; `bars` shows a progress bar for each file and one for all of them."""
        self._bars = bars
        self._queue: queue.SimpleQueue[tuple[Snapshot, str, Future[Path]]] = queue.SimpleQueue()
        self._known: dict[tuple[str, str, str], Future[Path]] = {}
        self._lock = threading.Lock()
        self._listing, self._listed = threading.Lock(), set[tuple[str, str]]()
        self._closed = threading.Event()
        self.unchecked = set[str]()
        """Files in the cache whose content could not be checked, because no digest of it is known."""
        self._workers: list[threading.Thread] = []
        self._coming: dict[tuple[str, str, str], int] = {}
        self._size = 0
        self._total: Any = None

    def want(self, snapshot: Snapshot, name: str) -> Future[Path]:
        """Starts to download a file, if not yet started; `StorageError` if the disk has too little space."""
        file = snapshot.files[name]
        key = (snapshot.name.repo, snapshot.commit, file.path)
        with self._lock:
            if key in self._known:
                return self._known[key]
            if snapshot.cached(name) is None:
                self._coming[key] = file.size
                self._size += file.size
                _require_room(sum(self._coming.values()), snapshot)
            future: Future[Path] = Future()
            self._known[key] = future
            self._queue.put((snapshot, name, future))
            if len(self._workers) < _AT_ONCE:
                # A daemon thread does not keep the process from ending.
                self._workers.append(threading.Thread(target=self._work, daemon=True))
                self._workers[-1].start()
        return future

    def local(self, snapshot: Snapshot, name: str, patience: float | None = None) -> Path | None:
        """The complete, checked file; None if it has not arrived within `patience` seconds."""
        try:
            return self.want(snapshot, name).result(patience)
        except NotYet:
            return None

    def finish(self) -> None:
        """Waits for all downloads; a failure is ignored, as this run did not need the file after all."""
        wait(self._known.values())

    def close(self) -> None:
        """Stops running downloads; partial files are not kept."""
        self._closed.set()
        if any(not future.done() for future in self._known.values()):
            # A download checks whether to stop only every 10 MiB, which may take minutes. Closing the
            # connection stops it at once.
            hub().close_session()
        for worker in self._workers:
            worker.join(_PATIENCE)
        with self._lock:
            if self._total is not None:
                self._total.close()

    def _work(self) -> None:
        while not self._closed.is_set():
            try:
                snapshot, name, future = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            try:
                future.set_result(self._fetch(snapshot, name))
            except BaseException as error:
                future.set_exception(error)

    def _fetch(self, snapshot: Snapshot, name: str) -> Path:
        file, text = snapshot.files[name], snapshot.name.text
        path = snapshot.cached(name) or self._download(snapshot, name)
        if path.stat().st_size != file.size:
            raise StorageError(
                errno.EIO, f"{text}: {file.path} has {path.stat().st_size} bytes, not the {file.size}"
                f" that the Hub lists; remove {path.resolve()} and run again", str(path),
            )  # fmt: skip
        with self._lock:
            self._coming.pop((snapshot.name.repo, snapshot.commit, file.path), None)
        if not check(path, file, f"{text}: {file.path}", self._go_on):
            self.unchecked.add(f"{text}: {file.path}")
        return path

    def _patiently(self, call: Any, *args: Any, **how: Any) -> Any:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

        again = Retrying(
            retry=retry_if_exception(lambda error: not self._closed.is_set() and transient(error)),
            stop=stop_after_attempt(_ATTEMPTS), wait=wait_fixed(1), reraise=True,
        )  # fmt: skip
        return again(call, *args, **how)

    def _download(self, snapshot: Snapshot, name: str) -> Path:
        self._keep_list(snapshot)
        file = snapshot.files[name]
        with explaining(f"{snapshot.name.text}: {file.path}"):
            return Path(
                self._patiently(
                    hub().hf_hub_download, snapshot.name.repo, file.path, revision=snapshot.commit,
                    cache_dir=snapshot.cache_dir, tqdm_class=self._bar(file.path), library_name="taskvec",
                )
            )  # fmt: skip

    def _keep_list(self, snapshot: Snapshot) -> None:
        """Stores the list of the repository's files in the cache.

        Without it, a later run offline could not tell a complete snapshot from an incomplete one.
        huggingface_hub stores the list only when it downloads a snapshot, so this downloads one of one file.
        """
        key = (snapshot.name.repo, snapshot.commit)
        with self._listing:
            # The snapshot needs at least one file: the smallest that holds no weights.
            harmless = [file for name, file in snapshot.files.items() if not is_weights(name)]
            if key in self._listed or not harmless or constants().is_offline_mode():
                return
            smallest = min(harmless, key=lambda file: file.size).path
            with explaining(snapshot.name.text):
                self._patiently(
                    hub().snapshot_download, snapshot.name.repo, revision=snapshot.commit,
                    cache_dir=snapshot.cache_dir,
                    allow_patterns=glob.escape(smallest), tqdm_class=self._bar(None),
                )  # fmt: skip
            self._listed.add(key)

    def _go_on(self) -> None:
        if self._closed.is_set():
            raise Stopped

    def _bar(self, title: str | None) -> Any:
        """The progress bar class for huggingface_hub to use; hidden if `title` is None.

        Its `update` also stops the download, by an exception, once this object is closed.
        """
        import tqdm

        # For tqdm, disable=None means: show the bar on a terminal only.
        downloads, bar, hidden = self, cast("type[Any]", tqdm.tqdm), None if self._bars else True
        with self._lock:
            if self._total is None:
                self._total = bar(
                    desc="downloading", total=0, unit="B", unit_scale=True, leave=False, disable=hidden
                )
            self._total.total = self._size

        class FileBar(bar):
            def __init__(self, *args: Any, **how: Any) -> None:
                how |= {"desc": title, "leave": False, "disable": True if title is None else hidden}
                bar.__init__(self, *args, **how)

            def update(self, n: float = 1) -> Any:
                downloads._go_on()
                with downloads._lock:
                    downloads._total.update(n)
                return bar.update(self, n)

        return FileBar


class Stopped(Exception):
    """The run that asked for the file has ended."""


def room(snapshot: Snapshot) -> tuple[Path, int]:
    """The cache, and the free bytes on its disk."""
    kept = cache(snapshot.cache_dir)
    there = next(folder for folder in (kept, *kept.parents) if folder.exists())
    return kept, shutil.disk_usage(there).free


def _require_room(needed: int, snapshot: Snapshot) -> None:
    kept, free = room(snapshot)
    if needed > free:
        raise StorageError(
            errno.ENOSPC,
            f"{kept} has {free / 1e6:,.0f} MB free, but {needed / 1e6:,.0f} MB are to be downloaded; free"
            " some space, name another cache with --cache-dir, or read donors with --stream",
            str(kept),
        )
