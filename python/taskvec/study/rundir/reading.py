"""Reads JSON files of a run; the error for a damaged file names it and says what to do."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from ...errors import CorruptError, StorageError, TaskvecError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from ...records import Json


@contextmanager
def as_written(what: str, remedy: str) -> Generator[None]:
    """Reports errors inside the block, which reads JSON of an unexpected form, as damage to a file.

    Args:
        what: The file, for the message.
        remedy: What to do, for the message.

    Raises:
        CorruptError: The block raised an error that is not one of taskvec's own.
    """
    try:
        yield
    except TaskvecError:
        raise
    # RuntimeError is what a generator makes of the StopIteration of a search that finds nothing.
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CorruptError(f"{what} is not as taskvec writes it ({error!r}); {remedy}") from error


def read_json(path: Path) -> Json:
    """Reads a file that holds a JSON object."""
    try:
        decoded: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(
            error.errno, f"{path}: {error.strerror}; name a RUN folder, or the results.json in one", str(path)
        ) from error
    except (ValueError, RecursionError):
        raise CorruptError(f"{path} is not JSON; make it again") from None
    if not isinstance(decoded, dict):
        raise CorruptError(f"{path} is not a JSON object; make it again")
    return cast("Json", decoded)
