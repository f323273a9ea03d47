"""Streamed task arithmetic on LLM checkpoints: v = minuend − subtrahend, then target + α·v.

    import taskvec

    taskvec.check("instruct", "grpo", "sft").compatible
    taskvec.transfer("instruct", "grpo", "sft", "out", alpha=0.7, memory="256MiB")

To keep the vector, use `extract` and `apply`. A checkpoint is a folder as `transformers` saves it.
"""

# ruff: noqa: E402 (the imports below take time; `guard` must handle a Ctrl-C that comes during them)
from .start import guard

guard()

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

from ._core import debug_build, version
from .errors import CorruptError, MismatchError, StorageError, TaskvecError, UsageError

if TYPE_CHECKING:
    from . import dry_run, study
    from .advice import AdviceResult, advise
    from .algebra import combine, convert, randomize
    from .check_result import CheckResult
    from .dry_run import check
    from .jobs.job import Job, open_job, plan
    from .jobs.results import JobPlan, JobStatus, PartResult
    from .live.inject import transferred
    from .merging.run import MergeGroup, explain_merge, merge
    from .results import Applied, DiffResult, InspectResult, SweepResult, VerifyResult, WriteResult
    from .upload import PushResult, push
    from .vector import Vector
    from .verbs import apply, diff, extract, graft, inspect, sweep_apply, sweep_transfer, transfer, verify

# Where the public names are. They are imported when they are first used, so that no command waits for
# what only others need.
_HOMES = {
    "advice": ("AdviceResult", "advise"),
    "algebra": ("combine", "convert", "randomize"),
    "check_result": ("CheckResult",),
    "dry_run": ("check",),
    "jobs.job": ("Job", "open_job", "plan"),
    "jobs.results": ("JobPlan", "JobStatus", "PartResult"),
    "live.inject": ("transferred",),
    "merging.run": ("MergeGroup", "explain_merge", "merge"),
    "results": ("Applied", "DiffResult", "InspectResult", "SweepResult", "VerifyResult", "WriteResult"),
    "upload": ("PushResult", "push"),
    "vector": ("Vector",),
    "verbs": (
        "apply",
        "diff",
        "extract",
        "graft",
        "inspect",
        "sweep_apply",
        "sweep_transfer",
        "transfer",
        "verify",
    ),
}


# Type checkers read the imports above, and find a name that is not there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in ("dry_run", "study"):
            return import_module(f".{name}", __name__)
        for home, names in _HOMES.items():
            if name in names:
                value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "AdviceResult",
    "Applied",
    "CheckResult",
    "CorruptError",
    "DiffResult",
    "InspectResult",
    "Job",
    "JobPlan",
    "JobStatus",
    "MergeGroup",
    "MismatchError",
    "PartResult",
    "PushResult",
    "StorageError",
    "SweepResult",
    "TaskvecError",
    "UsageError",
    "Vector",
    "VerifyResult",
    "WriteResult",
    "advise",
    "apply",
    "check",
    "combine",
    "convert",
    "diff",
    "dry_run",
    "explain_merge",
    "extract",
    "graft",
    "inspect",
    "merge",
    "open_job",
    "plan",
    "push",
    "randomize",
    "study",
    "sweep_apply",
    "sweep_transfer",
    "transfer",
    "transferred",
    "verify",
]

__version__ = version

if debug_build:
    warnings.warn(
        "taskvec was built without optimisation and is many times slower; use `maturin develop --release`",
        RuntimeWarning,
        stacklevel=2,
    )
