"""Reading a run's files: one that is damaged is told by its name, with what to do."""

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
    """Whatever JSON of another shape than ours breaks inside is damage to a file, and told as that.

    Args:
        what: The file.
        remedy: What to do.

    Raises:
        CorruptError: Something broke that is no error of taskvec's own.
    """
    try:
        yield
    except TaskvecError:
        raise
    # A generator turns the StopIteration of a search in vain into a RuntimeError.
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CorruptError(f"{what} is not as taskvec writes it ({error!r}); {remedy}") from error


def read_json(path: Path) -> Json:
    """A file's JSON object."""
    try:
        decoded: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise StorageError(
            error.errno, f"{path}: {error.strerror}; name a RUN folder, or the results.json in one", str(path)
        ) from error
    except (ValueError, RecursionError):
        raise CorruptError(f"{path}: not JSON; make it again") from None
    if not isinstance(decoded, dict):
        raise CorruptError(f"{path}: not a JSON object; make it again")
    return cast("Json", decoded)
