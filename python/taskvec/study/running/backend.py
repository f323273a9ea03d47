"""The environment of a backend that runs apart: what it is, and what its errors mean here."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from ...errors import CorruptError, MismatchError, StorageError, TaskvecError, UsageError

if TYPE_CHECKING:
    from ...records import Json

_BY_CODE = {1: MismatchError, 2: UsageError, 3: CorruptError}


def failed(code: int, said: str, more: str) -> TaskvecError:
    """The error that a worker ended with: its exit code tells the kind, its last line is the sentence."""
    last = (said.strip().splitlines() or ["the worker said nothing"])[-1]
    if code == StorageError.exit_code:
        return StorageError(None, last)
    return _BY_CODE.get(code, MismatchError)(f"{last}{more}")


def ask_about(python: str, device: str) -> Json:
    """What `environment.about` says in the backend's environment, the version of vLLM added.

    Raises:
        UsageError: that environment has not what it takes, or no such device.
        MismatchError: it cannot say.
    """
    if ":" in device:
        raise UsageError(
            f"device {device} cannot be asked of vLLM; set CUDA_VISIBLE_DEVICES and let device be auto"
        )
    command = [python, "-m", "taskvec.study.worker", "--about", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise UsageError(f"backend: python {python} cannot be run: {error.strerror}") from None
    if done.returncode:
        raise failed(done.returncode, done.stderr, f" (this said {python}, the Python of the backend)")
    # Libraries may have said something before.
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise MismatchError(f"backend: python {python} does not say what is in its environment") from None
