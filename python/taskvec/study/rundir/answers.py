"""The answers of a cell that is being scored: one line for each, written batch by batch.

An interruption loses one batch at most. A run that continues keeps complete batches and answers the others
again, each in the same composition: in bfloat16 an answer depends on the other rows of its batch.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, Self, cast

from ...errors import CorruptError, StorageError
from .run_folder import write, writing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    from ...records import Json

# Seconds between syncs to disk: a power failure loses so much at most, a killed process nothing written.
_SYNC_AFTER = 5.0
_FIELDS: dict[str, type] = {
    "task": str,
    "doc_id": int,
    "request": int,
    "batch": int,
    "asked": str,
    "seconds": float,
}
_MADE: dict[str, type] = {"tokens": int, "truncated": bool, "prompt_tokens": int}


@dataclass(frozen=True, slots=True)
class Question:
    """One request to the model; a multiple-choice document has several."""

    task: str
    doc_id: int
    request: int
    """The index among the document's requests."""
    batch: int
    """The batch of the cell in which it is answered."""
    asked: str
    """Digest of the request's text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to a question."""

    answer: Any
    """The generated text, or for a choice its log-likelihood and whether it is the greedy continuation."""
    made: Json | None
    """For a generated text: `tokens`, `truncated`, `prompt_tokens`; else None."""
    seconds: float
    """The batch's wall time divided by its requests."""


def digest(*parts: str) -> str:
    """A digest of the parts of a request: 32 hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Answers:
    """The file of answers of one cell; `with` closes it."""

    def __init__(self, path: Path) -> None:
        """Does not touch the file yet."""
        self._path = path
        self._file: IO[str] | None = None
        self._synced = 0.0

    def __enter__(self) -> Self:
        """Returns this object."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file, and keeps it."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def take_up(self, questions: Sequence[Question]) -> dict[Question, Answer]:
        """Opens the file for further answers; returns those of complete batches from an earlier run.

        Args:
            questions: all questions of the cell.

        Raises:
            CorruptError: a line is malformed, or answers something that is not asked here.
            StorageError: the file cannot be read or written.
        """
        found = self._read({(one.task, one.doc_id, one.request): one for one in questions})
        lacking = {one.batch for one in questions if one not in found}
        kept = {one: answer for one, answer in found.items() if one.batch not in lacking}
        if self._path.exists():
            # Batches that are answered again would otherwise be in the file twice.
            write(self._path, "".join(_line(*one) for one in kept.items()))
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8", newline="\n")
        return kept

    def add(self, answers: Iterable[tuple[Question, Answer]]) -> None:
        """Writes the answers of a batch.

        Raises:
            StorageError: they cannot be written.
        """
        if self._file is None:
            raise RuntimeError(f"take_up was not called for {self._path}")
        with writing(self._path):
            # In one write, so that a killed process leaves either all of a batch or none of it.
            self._file.write("".join(_line(*one) for one in answers))
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_AFTER:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def _read(self, asked: dict[tuple[str, int, int], Question]) -> dict[Question, Answer]:
        try:
            lines = self._path.read_bytes().split(b"\n") if self._path.exists() else [b""]
        except OSError as error:
            raise StorageError(
                error.errno,
                f"{self._path} cannot be read: {error.strerror}; delete it and run again",
                str(self._path),
            ) from error
        found: dict[Question, Answer] = {}
        # What follows the last line break is empty, or a line that was cut short; it is ignored.
        for number, line in enumerate(lines[:-1], 1):
            place = f"{self._path}:{number}"
            row, answer = _parsed(place, line)
            question = asked.get((row["task"], row["doc_id"], row["request"]))
            if question is None or (row["batch"], row["asked"]) != (question.batch, question.asked):
                raise CorruptError(
                    f"{place}: answers a question that this cell does not ask; delete the file and run again"
                )
            if question in found:
                raise CorruptError(f"{place}: answers a question twice; delete the file and run again")
            found[question] = answer
        return found


def _line(question: Question, answer: Answer) -> str:
    # As ASCII, since a model's answer may hold characters that UTF-8 cannot encode.
    return json.dumps(asdict(question) | asdict(answer)) + "\n"


def _parsed(place: str, line: bytes) -> tuple[Json, Answer]:
    """Parses a line: its JSON object, and the answer in it."""
    try:
        decoded: Any = json.loads(line)
    except (ValueError, RecursionError):
        decoded = None
    row = cast("Json", decoded if isinstance(decoded, dict) else {})
    made: Any = row.get("made")
    answer: Any = row.get("answer")
    if made is None:
        # NaN and infinities are log-likelihoods too.
        right = isinstance(answer, list) and [type(one) for one in cast("list[Any]", answer)] == [float, bool]
    else:
        right = isinstance(answer, str) and _has(made, _MADE)
    if not right or not _has(row, _FIELDS):
        raise CorruptError(f"{place}: is not an answer as a run writes it; delete the file and run again")
    return row, Answer(row["answer"] if made else (*row["answer"],), made, row["seconds"])


def _has(value: Any, fields: dict[str, type]) -> bool:
    """Whether the value is an object with these fields, each of exactly this type."""
    return isinstance(value, dict) and all(
        type(cast("Json", value).get(key)) is kind for key, kind in fields.items()
    )
