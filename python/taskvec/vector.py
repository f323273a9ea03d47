"""A saved task vector, opened by its description alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from .errors import CorruptError, MismatchError
from .inputs.refs import Fixed
from .inputs.session import Session
from .live.inject import applied
from .options import Options
from .records import Json, freeze

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from torch import nn

    from .live.change import Originals
    from .options import Alpha, Keywords
    from .results import Applied, WriteResult

_FAMILY = "taskvec/vector/"
_SCHEMA = _FAMILY + "1"


class Vector:
    """A vector folder: v = minuend − subtrahend, usable without either.

    Opening reads `vector.json` and no weights. `MismatchError` where the folder is not a vector, or is one in
    a form that this version does not know; `CorruptError` where `vector.json` is malformed.
    """

    __slots__ = ("_folder", "_info", "_written")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the vector in the folder `path`; one on the Hub is downloaded."""
        with Session(Options()) as session:
            self._folder = Fixed(session.whole(path).path)
        self._info: Mapping[str, Any] = freeze(_description(Path(self._folder.path)))
        self._written: WriteResult | None = None

    @classmethod
    def from_result(cls, path: str, result: WriteResult) -> Vector:
        """The vector that `extract` has just written to the folder `path`."""
        vector = cls(path)
        vector._written = result
        return vector

    @property
    def path(self) -> str:
        """The folder, as it was named."""
        return self._folder.path

    @property
    def info(self) -> Mapping[str, Any]:
        """What `vector.json` says: where the vector comes from and how it is encoded; read-only."""
        return self._info

    @property
    def written(self) -> WriteResult | None:
        """What `extract` reported when it made this object; None for a vector that was opened."""
        return self._written

    def applied(
        self,
        model: nn.Module,
        alpha: Alpha | Iterable[Alpha] = 1.0,
        *,
        target: str | os.PathLike[str] | None = None,
        originals: Originals = "folder",
        **options: Unpack[Keywords],
    ) -> AbstractContextManager[Applied]:
        """Puts target + α·v into a live torch model, in place, while a `with` block lasts.

        The model then holds, bit for bit, what loading the checkpoint that `apply(target, vector, …)` writes
        would give in the model's own dtype: a live float32 copy of a bfloat16 checkpoint gets values rounded
        to bfloat16. Values go in window by window, so device memory does not grow with the model. At the end
        of the block, however it ends, the model is again what it was, bit for bit.

        `target` is the folder that the model was loaded from; None asks the model (`model.name_or_path`).
        `originals` says where the model's own values come from at the end: `"folder"` reads them from the
        target again, `"cpu"` keeps them in the CPU's memory meanwhile, so that the folder may go. Either way
        the model must hold what the folder does, and every value is compared before it is changed: a model
        that was trained since, or has another vector in it, is refused.
        `options` are those of `apply` except the ones about what is written: rounding, seed, vocab, include,
        exclude, alpha_rules, strip_prefix, memory, threads, io.

        `MismatchError` names a parameter that cannot be changed (offloaded, quantised, sharded, not in the
        folder under its name) or differs from the folder; nothing stays changed. `CorruptError` where an
        input changed meanwhile: if that is the target, at the end of the block, the model is left modified,
        and the message says so.
        """
        return applied(self, model, alpha, target=target, originals=originals, **options)

    def __fspath__(self) -> str:
        """A vector stands wherever its folder may, also once the working folder is another."""
        return str(self._folder)

    def __repr__(self) -> str:
        """The call that opens it again."""
        return f"Vector({self._folder.path!r})"


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
