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

from ._core import debug_build, version
from .advice import AdviceResult, advise
from .check_result import CheckResult
from .dry_run import check
from .errors import CorruptError, MismatchError, StorageError, TaskvecError, UsageError
from .live.inject import transferred
from .push import PushResult, push
from .results import Applied, DiffResult, InspectResult, VerifyResult, WriteResult
from .vector import Vector
from .verbs import apply, diff, extract, inspect, transfer, verify

__all__ = [
    "AdviceResult",
    "Applied",
    "CheckResult",
    "CorruptError",
    "DiffResult",
    "InspectResult",
    "MismatchError",
    "PushResult",
    "StorageError",
    "TaskvecError",
    "UsageError",
    "Vector",
    "VerifyResult",
    "WriteResult",
    "advise",
    "apply",
    "check",
    "diff",
    "extract",
    "inspect",
    "push",
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
