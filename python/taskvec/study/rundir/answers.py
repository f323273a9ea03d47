"""The answers of a cell that is being scored, one line each, written down as batches finish.

A batch is what an interruption can lose. A cell that is taken up again keeps the batches that are whole and
answers the others in the composition that they would have had: in bfloat16 an answer depends on the rows that
are computed beside it.
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

# Seconds of answers that a power failure may cost; a process that is killed loses nothing written.
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
    """One request to the model; a document that is a choice has several."""

    task: str
    doc_id: int
    request: int
    """Which of the document's requests."""
    batch: int
    """Which batch of the cell it is answered in."""
    asked: str
    """Digest of what is asked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to a question."""

    answer: Any
    """The text, or log-likelihood and whether it is the greedy continuation."""
    made: Json | None
    """Of a text: `tokens`, `truncated`, `prompt_tokens`."""
    seconds: float
    """The batch's wall time divided by its requests."""


def digest(*parts: str) -> str:
    """A digest of what is asked."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Answers:
    """The file of answers of one cell; `with` closes it."""

    def __init__(self, path: Path) -> None:
        """Touches nothing yet."""
        self._path = path
        self._file: IO[str] | None = None
        self._synced = 0.0

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file; what is in it stays."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def take_up(self, questions: Sequence[Question]) -> dict[Question, Answer]:
        """The answers of whole batches that an earlier run left, and the file ready for further ones.

        Args:
            questions: all of the cell.

        Raises:
            CorruptError: a line is malformed, or answers something that is not asked here.
            StorageError: the file cannot be read or written.
        """
        found = self._read({(one.task, one.doc_id, one.request): one for one in questions})
        lacking = {one.batch for one in questions if one not in found}
        kept = {one: answer for one, answer in found.items() if one.batch not in lacking}
        if self._path.exists():
            # Lines of a batch that has to be answered again would stand there twice.
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
            raise RuntimeError(f"{self._path} was not taken up")
        with writing(self._path):
            # At once, so that a process that is killed leaves all of a batch or none of it.
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
        # After the last line break there is nothing, or a line that was cut short.
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
    # ASCII: what a model says need not be text that UTF-8 can hold.
    return json.dumps(asdict(question) | asdict(answer)) + "\n"


def _parsed(place: str, line: bytes) -> tuple[Json, Answer]:
    """A line's object, and the answer in it."""
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
    """Whether an object has these fields, each of exactly this type."""
    return isinstance(value, dict) and all(
        type(cast("Json", value).get(key)) is kind for key, kind in fields.items()
    )
