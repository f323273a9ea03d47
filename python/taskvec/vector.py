"""`Vector`: a task vector that is saved in a folder."""

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
    """A saved vector v = minuend − subtrahend; neither model is needed to use it.

    Opening it reads `vector.json` and no weights.

    Raises:
        MismatchError: The folder is not a vector, or its schema is not one that this version reads.
        CorruptError: `vector.json` is malformed.
        StorageError: The folder is not available.
    """

    __slots__ = ("_folder", "_info", "_written")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the vector in the folder `path`, or downloads it if `path` is a ref on the Hub."""
        with Session(Options()) as session:
            self._folder = Fixed(session.whole(path).path)
        self._info: Mapping[str, Any] = freeze(_description(Path(self._folder.path)))
        self._written: WriteResult | None = None

    @classmethod
    def from_result(cls, path: str, result: WriteResult) -> Vector:
        """Opens the vector that `extract` has just written to the folder `path`."""
        vector = cls(path)
        vector._written = result
        return vector

    @property
    def path(self) -> str:
        """The folder, as the caller wrote it; for a vector on the Hub, the folder in the cache."""
        return self._folder.path

    @property
    def info(self) -> Mapping[str, Any]:
        """The content of `vector.json`, read-only: where the vector comes from and how it is stored."""
        return self._info

    @property
    def written(self) -> WriteResult | None:
        """The result of the `extract` that returned this object; None for a vector that was opened."""
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
        """Puts target + α·v into a loaded torch model, in place, for the length of a `with` block.

        Inside the block the model holds, bit for bit, what it would hold if the checkpoint that
        `apply(target, vector, …)` writes were loaded in the model's dtype. (So a float32 model loaded from a
        bfloat16 checkpoint gets values rounded to bfloat16.) Values are copied window by window, so the
        device memory needed does not grow with the model. When the block ends, normally or by an exception,
        the model is as it was before, bit for bit.

        Args:
            model: A model that was loaded from `target`, on any device.
            alpha: The factor of v.
            target: The folder that the model was loaded from; None takes `model.name_or_path`.
            originals: Where the model's own values come from when the block ends. `"folder"` reads them from
                the target again; `"cpu"` keeps a copy in CPU memory, so that the folder is not needed.
                Either way every value is compared with the folder before it is changed: a model that was
                trained since, or has another vector in it, is refused.
            options: Those of `apply` that are not about output files: rounding, seed, vocab, include,
                exclude, alpha_rules, strip_prefix, map, memory, threads, io.

        Raises:
            MismatchError: A parameter cannot be changed (offloaded, quantised, sharded, not in the folder
                under its name) or differs from the folder; the model is left as it was.
            CorruptError: An input changed in the meantime. If that is the target at the end of the block,
                the model is left modified, and the message says so.
        """
        return applied(self, model, alpha, target=target, originals=originals, **options)

    def __fspath__(self) -> str:
        """The path of the folder, valid even after the working directory has changed."""
        return str(self._folder)

    def __repr__(self) -> str:
        """The call that opens the vector again."""
        return f"Vector({self._folder.path!r})"


def _description(folder: Path) -> Json:
    path = folder / "vector.json"
    try:
        info: Any = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise MismatchError(
            f"{folder} is not a vector: it has no vector.json; make one with `taskvec extract`"
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
