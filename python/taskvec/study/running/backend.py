"""Asks the Python environment of a separate backend for its versions, and translates its errors."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from ...errors import CorruptError, MismatchError, StorageError, TaskvecError, UsageError

if TYPE_CHECKING:
    from ...records import Json

_BY_CODE = {1: MismatchError, 2: UsageError, 3: CorruptError}


def failed(code: int, said: str, more: str) -> TaskvecError:
    """The error to raise for a failed worker: its exit code gives the type, its last line the sentence."""
    last = (said.strip().splitlines() or ["the worker printed nothing"])[-1]
    if code == StorageError.exit_code:
        return StorageError(None, last)
    return _BY_CODE.get(code, MismatchError)(f"{last}{more}")


def ask_about(python: str, device: str) -> Json:
    """The result of `environment.about` in the backend's environment, with the version of vLLM added.

    Raises:
        UsageError: the environment lacks a package, or there is no such device.
        MismatchError: the environment gives no valid answer.
    """
    if ":" in device:
        raise UsageError(
            f"device {device} cannot be chosen with vLLM; set CUDA_VISIBLE_DEVICES, and device to auto"
        )
    command = [python, "-m", "taskvec.study.worker", "--about", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise UsageError(f"backend: python {python} cannot be run: {error.strerror}") from None
    if done.returncode:
        raise failed(done.returncode, done.stderr, f" (the message is from {python}, the backend's Python)")
    # Libraries may have printed other lines before.
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise MismatchError(
            f"backend: python {python} does not report its versions; check that taskvec is installed there"
        ) from None
