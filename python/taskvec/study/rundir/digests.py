"""Digests that tell checkpoints from one another without reading all of their bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...inputs.refs import Ref
    from ...records import Json

_PIECE = 1 << 16
_PIECES = 256
# Files other than weights that affect how a checkpoint answers.
_BESIDE = ("*.json", "*.jinja", "*.model", "*.txt")


def described(role: str, ref: Ref) -> Json:
    """Role, name and digest of one input."""
    return {"role": role, "name": ref.name, "digest": digest(Path(ref.path))}


def digest(folder: Path) -> str:
    """SHA-256 over the names, sizes and contents of a checkpoint's or vector's files: 32 hexadecimal digits.

    Of a file larger than 16 MiB only 256 evenly spread pieces are read, the header among them. Training
    changes weights everywhere, so this tells checkpoints apart without reading hundreds of gigabytes.
    """
    whole = hashlib.sha256()
    try:
        files = {path for pattern in (*_BESIDE, "*.safetensors") for path in folder.glob(pattern)}
        for path in sorted(files):
            whole.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            for piece in _pieces(path):
                whole.update(piece)
    except OSError as error:
        raise StorageError(
            error.errno,
            f"{error.filename or folder}: {error.strerror}; give a folder that can be read",
            str(folder),
        ) from None
    return whole.hexdigest()[:32]


def _pieces(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _PIECE * _PIECES:
            yield file.read()
            return
        for at in range(_PIECES):
            file.seek((size - _PIECE) * at // (_PIECES - 1))
            yield file.read(_PIECE)
