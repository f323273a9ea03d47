"""A saved task vector, opened by its description alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .errors import CorruptError, MismatchError
from .records import Json, freeze
from .refs import resolve

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from .results import WriteResult

_FAMILY = "taskvec/vector/"
_SCHEMA = _FAMILY + "1"


class Vector:
    """A vector folder: v = minuend − subtrahend, usable without either.

    Opening reads `vector.json` and no weights. `MismatchError` where the folder is not a vector, or is one in
    a form that this version does not know; `CorruptError` where `vector.json` is malformed.
    """

    __slots__ = ("_info", "_path", "_written")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the vector in the folder `path`."""
        folder = resolve(path).path
        self._path = folder
        self._info: Mapping[str, Any] = freeze(_description(Path(folder)))
        self._written: WriteResult | None = None

    @classmethod
    def from_result(cls, path: str, result: WriteResult) -> Vector:
        """The vector that `extract` has just written to the folder `path`."""
        vector = cls(path)
        vector._written = result
        return vector

    @property
    def path(self) -> str:
        """The folder."""
        return self._path

    @property
    def info(self) -> Mapping[str, Any]:
        """What `vector.json` says: where the vector comes from and how it is encoded; read-only."""
        return self._info

    @property
    def written(self) -> WriteResult | None:
        """What `extract` reported when it made this object; None for a vector that was opened."""
        return self._written

    def __fspath__(self) -> str:
        """A vector stands wherever its folder may."""
        return self._path

    def __repr__(self) -> str:
        """The call that opens it again."""
        return f"Vector({self._path!r})"


def is_vector(path: str | os.PathLike[str]) -> bool:
    """Whether the folder holds a `vector.json`."""
    return (Path(path) / "vector.json").is_file()


def _description(folder: Path) -> Json:
    path = folder / "vector.json"
    try:
        info: Any = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise MismatchError(
            f"{folder} is not a vector: it holds no vector.json; make one with `taskvec extract`"
        ) from None
    except (ValueError, RecursionError):
        raise CorruptError(f"{path} is not JSON; extract the vector again") from None
    schema: Any = cast("Json", info).get("schema") if isinstance(info, dict) else None
    if not isinstance(schema, str) or not schema.startswith(_FAMILY):
        raise CorruptError(f"{path}: its schema is {schema!r}, not {_SCHEMA!r}; extract the vector again")
    if schema != _SCHEMA:
        raise MismatchError(
            f"{path}: this version of taskvec reads {_SCHEMA!r}, not {schema!r}; update taskvec"
        )
    return cast("Json", info)
