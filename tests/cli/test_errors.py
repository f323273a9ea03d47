from __future__ import annotations

import copy
import errno
import pickle

import pytest

from taskvec import CorruptError, MismatchError, StorageError, TaskvecError, UsageError

SENTENCE = "model.safetensors: tensor `a` ends past the data; download it again"
ERRORS = [
    (UsageError(SENTENCE), 2, ValueError),
    (MismatchError(SENTENCE), 1, ValueError),
    (CorruptError(SENTENCE), 3, ValueError),
    (StorageError(errno.ENOSPC, SENTENCE, "out"), 4, OSError),
    (StorageError(None, SENTENCE, None), 4, OSError),
]


@pytest.mark.parametrize(("error", "code", "builtin"), ERRORS)
def test_each_has_its_exit_code_builtin_and_sentence(
    error: TaskvecError, code: int, builtin: type[Exception]
) -> None:
    assert error.exit_code == code
    assert isinstance(error, builtin)
    assert isinstance(error, TaskvecError)
    assert str(error) == SENTENCE


@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
@pytest.mark.parametrize("error", [one for one, _, _ in ERRORS])
def test_round_trip(error: TaskvecError, again: object) -> None:
    twin = again(error)  # type: ignore[operator]
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    if isinstance(error, StorageError):
        assert (twin.errno, twin.filename) == (error.errno, error.filename)


def test_storage_error_keeps_what_the_system_said() -> None:
    error = StorageError(errno.ENOSPC, SENTENCE, "out")
    assert (error.errno, error.filename) == (errno.ENOSPC, "out")
