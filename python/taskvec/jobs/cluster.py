"""Runs a job's parts on a Ray cluster, one task a part, and commits it.

A task gets the job's folder and a number, and returns what `Job.run` does, some hundred bytes: no weight goes
through Ray's object store. Records stay when tasks, nodes or the driver die, and only what is missing runs
again. Ray is imported where it is used.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from .._core import version
from ..errors import MismatchError, StorageError, TaskvecError, UsageError
from ..options import make_options
from .job import Job, open_job

if TYPE_CHECKING:
    from collections.abc import Generator

    from .._core import Progress
    from ..results import WriteResult
    from .job import How

_BESIDE = 150_000_000
"""Bytes that a task takes beside its budget: Python, Ray and the core's code."""
_BUDGET = 256 << 20
"""The budget that a task is counted with if none is given: the usual one."""
_TRIES = 6
"""How often a part is tried that fails for lack of storage or network; each time after twice the wait."""


def run_on_ray(
    job: Job, address: str | None = None, *, progress: Progress | None = None, **how: Any
) -> WriteResult:
    """Runs the missing parts of a job on the Ray cluster at `address`, and commits the job.

    Without an address, the cluster is the one that RAY_ADDRESS names, or one on this machine alone. Every
    node needs this version of taskvec, and sees the job's folders under the same paths. `how` is as for
    `Job.run`. A task is counted with its threads and its memory; without `threads`, with the CPUs of the
    smallest node.

    A part whose node or process dies is run again without end; one that fails for lack of storage or network,
    a few times. Any other error ends the run.

    Raises:
        UsageError: Ray is not installed.
        StorageError: The cluster cannot be reached.
    """
    if find_spec("ray") is None:
        raise UsageError('Ray is not installed; pip install "taskvec[ray]" on every node')
    given: How = how  # type: ignore[assignment]
    options = job.asked.done_by(make_options({**given}), given).options
    status = job.status()
    if not status.committed and status.missing:
        with _cluster(address) as ray:
            threads = options.threads or _smallest(ray)
            memory = (options.memory or _BUDGET) + _BESIDE
            task = ray.remote(_part).options(
                num_cpus=threads, memory=memory, max_retries=-1, scheduling_strategy="SPREAD"
            )
            asked = {**how, "threads": threads}
            _Parts(ray, task, job, asked, progress).run(status.missing_parts)
    return job.commit(progress=progress, **given)


def _part(folder: str, part: int, wanted: str, how: dict[str, Any]) -> tuple[int, str | None]:
    """The task: runs a part in the worker's own process, which dies with its node."""
    if version != wanted:
        raise MismatchError(
            f"this node has taskvec {version}, but the run was started by taskvec {wanted}; install the same"
            " version on every node"
        )
    try:
        open_job(folder).run(part, **how)
    except StorageError as error:
        # Another try may help; the driver decides.
        return part, str(error)
    return part, None


class _Parts:
    """The tasks of a run, and what becomes of them."""

    def __init__(self, ray: Any, task: Any, job: Job, how: dict[str, Any], progress: Progress | None) -> None:
        self._ray, self._task, self._job, self._how = ray, task, job, how
        self._progress = progress
        self._tries: dict[int, int] = {}
        self._later: list[tuple[float, int]] = []

    def run(self, parts: list[int]) -> None:
        """Runs these parts; if one fails for good, or the user stops, all others are cancelled."""
        running = [self._start(part) for part in parts]
        try:
            while running or self._later:
                now = time.monotonic()
                running += [self._start(part) for at, part in self._later if at <= now]
                self._later = [(at, part) for at, part in self._later if at > now]
                if not running:
                    time.sleep(0.2)
                    continue
                ended, running = self._ray.wait(running, timeout=1)
                for one in ended:
                    self._ended(self._ray.get(one))
                self._tell()
        except BaseException as error:
            for one in running:
                self._ray.cancel(one, force=False)
            raise self._told(error) from error

    def _start(self, part: int) -> Any:
        return self._task.remote(self._job.folder, part, version, self._how)

    def _ended(self, answer: tuple[int, str | None]) -> None:
        part, failed = answer
        if failed is None:
            return
        tries = self._tries[part] = self._tries.get(part, 0) + 1
        if tries >= _TRIES:
            raise StorageError(None, f"part {part} failed {tries} times: {failed}")
        self._later.append((time.monotonic() + 2.0**tries, part))

    def _tell(self) -> None:
        if self._progress is not None:
            status = self._job.status()
            self._progress("writing", status.bytes_done, status.bytes)

    def _told(self, error: BaseException) -> BaseException:
        """The error of ours that a task raised, without Ray's words around it."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, TaskvecError):
            return cause
        if isinstance(error, self._ray.exceptions.RayError):
            first = str(error).strip().splitlines()[-1]
            return StorageError(None, f"Ray could not run the parts: {first}; run the same command again")
        return error


@contextmanager
def _cluster(address: str | None) -> Generator[Any]:
    """Ray, connected; a connection that the caller has is used, and kept."""
    # Untyped, and not installed everywhere.
    ray: Any = import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS") or ""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _require_listener(where)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise StorageError(None, f"the Ray cluster {where} cannot be reached: {first}") from error
    finally:
        # Ray puts a handler of its own in the place of ours.
        if current_thread() is main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Fails if nothing listens at host:port; Ray itself would try for many minutes."""
    if match := re.fullmatch(r"(?:ray://)?\[?([^\]/]+?)\]?:(\d+)", address):
        socket.create_connection((match[1], int(match[2])), timeout=10).close()


def _smallest(ray: Any) -> int:
    """The CPUs of the smallest node that has any: a task that wants more would wait for ever."""
    cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return min((one for one in cpus if one), default=1)
