"""Reads sample files, and pairs the answers of two arms document by document.

Two arms are compared only if they were asked about exactly the same documents, and arms with the same prompt
only if their prompts are equal word for word; anything else is an error. A perturbed question is paired with
its clean one by the clean document's hash, which both rows hold.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from ...errors import CorruptError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ...records import Json

_FIELDS: dict[str, tuple[type, ...]] = {
    "doc_id": (int,),
    "task": (str,),
    "cluster": (str, type(None)),
    "doc_hash": (str,),
    "prompt_hash": (str,),
    "question": (str,),
    "target": (str,),
    "response": (str, type(None)),
    "answer": (str, type(None)),
    "correct": (int, float),
    "extracted": (bool, type(None)),
    "empty": (bool, type(None)),
    "touched": (bool, type(None)),
    "readings": (dict,),
    "verdict": (str, type(None)),
    "tokens": (int, type(None)),
    "truncated": (bool, type(None)),
    "prompt_tokens": (int, type(None)),
    "seconds": (int, float, type(None)),
}


@dataclass(frozen=True, slots=True)
class Samples:
    """One arm's answers on one benchmark."""

    file: Path
    rows: Mapping[int, Json]
    """One row for each document, by its number and in that order."""

    @property
    def scores(self) -> tuple[float, ...]:
        """The value of the metric for each document."""
        return tuple(float(row["correct"]) for row in self.rows.values())

    def mean(self, key: str) -> float | None:
        """The mean of a field over the documents that have it; None if no document does."""
        values = [float(row[key]) for row in self.rows.values() if row[key] is not None]
        return sum(values) / len(values) if values else None


def read(file: Path) -> Samples:
    """Reads a sample file.

    Raises:
        StorageError: It cannot be read.
        CorruptError: A line is not a sample, a document occurs twice, or the file is empty.
    """
    try:
        text = file.read_bytes()
    except OSError as error:
        raise StorageError(error.errno, f"{file}: {error.strerror}", str(file)) from error
    rows: dict[int, Json] = {}
    for number, line in enumerate(text.splitlines(), 1):
        row = _row(f"{file}:{number}", line)
        if row["doc_id"] in rows:
            raise CorruptError(
                f"{file}:{number}: document {row['doc_id']} occurs a second time; delete the file and"
                f" run again"
            )
        rows[row["doc_id"]] = row
    if not rows:
        raise CorruptError(f"{file} holds no sample; delete it and run again")
    return Samples(file, dict(sorted(rows.items())))


def paired(
    arm: Samples, other: Samples, *, same_prompt: bool, same_target: bool = True
) -> list[tuple[Json, Json]]:
    """The rows of both arms for each document, in the order of the documents' numbers.

    Args:
        arm: One arm's samples.
        other: Another arm's samples of the same benchmark, or the samples of a benchmark that is a
            perturbation of the same documents.
        same_prompt: Whether to check that the prompts are equal.
        same_target: Whether to check that the right answers are equal.

    Raises:
        CorruptError: The documents, their subtasks, clusters, right answers or prompts differ.
    """
    files = f"{arm.file} and {other.file}"
    if odd := arm.rows.keys() ^ other.rows.keys():
        raise CorruptError(
            f"{files} cannot be paired: only one of them holds document {min(odd)}; delete both and run again"
        )
    same = ["doc_hash", "task", "cluster"]
    same += ["target"] * same_target + ["prompt_hash"] * same_prompt
    for document, row in arm.rows.items():
        if unlike := [key for key in same if row[key] != other.rows[document][key]]:
            raise CorruptError(
                f"{files} cannot be paired: `{unlike[0]}` of document {document} differs; delete both and"
                f" run again"
            )
    return [(row, other.rows[document]) for document, row in arm.rows.items()]


def _row(place: str, line: bytes) -> Json:
    try:
        # Bad UTF-8 and too many digits raise ValueError too; very deep brackets raise RecursionError.
        decoded: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise CorruptError(f"{place}: not a JSON object; delete the file and run again") from None
    row = cast("Json", decoded if isinstance(decoded, dict) else {})
    if wrong := [key for key, types in _FIELDS.items() if key not in row or not isinstance(row[key], types)]:
        raise CorruptError(
            f"{place}: `{wrong[0]}` is missing or of the wrong type; delete the file and run again"
        )
    numbers = {"correct": row["correct"], **{f"readings.{key}": one for key, one in row["readings"].items()}}
    if row["seconds"] is not None:
        numbers["seconds"] = row["seconds"]
    if odd := [key for key, one in numbers.items() if not _is_finite(one)]:
        raise CorruptError(f"{place}: `{odd[0]}` is not a finite number; delete the file and run again")
    return row


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and isfinite(value)
    except OverflowError:  # An integer too large for a float.
        return False
