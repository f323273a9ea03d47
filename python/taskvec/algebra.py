"""Vectors from other vectors: another encoding, sums, and the random control of a study.

All of them take the options of `extract` that say how to read and to write; tensors are not selected.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import taskvec._core as _core

from . import verbs
from .card import derived_card
from .errors import MismatchError, StorageError, UsageError
from .inputs.session import Session
from .options import (
    Alpha,
    Keywords,
    Options,
    make_options,
    output_path,
    spread_alphas,
    vector_list,
    vector_options,
)
from .vector import Vector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

    from .card import Card
    from .inputs.refs import Folder, Ref
    from .records import Json

_CHUNK = 1 << 20
"""Elements drawn at a time. A constant, since with another size the same seed would draw other numbers."""
_OF_TENSORS = ("include", "exclude", "vocab", "prefixes", "map", "base", "stream")
"""Options on how tensors of different checkpoints are matched, by their names in `Options`."""


def convert(
    vector: Folder, out: Folder, *, progress: _core.Progress | None = None, **options: Unpack[Keywords]
) -> Vector:
    """Writes `vector` to the new folder `out` with another `encoding`, exactly.

    A vector that is converted there and back has the bytes that it had.
    """
    opts, where = plain_options(make_options(options)), output_path(out)
    with Session(opts, progress) as session:
        (source,) = vectors_of(session, [vector])
        command = ["taskvec", "convert", source.pinned]
        card = derived_card(_title(source), f"{source.name}, stored anew", command, [("v", source)], opts)
        answer = _core.convert(source, where, opts, card.text, progress)
        return _written(where, answer, session, card)


def combine(
    vectors: Folder | Iterable[Folder],
    out: Folder,
    *,
    alpha: Alpha | Iterable[Alpha] = 1.0,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> Vector:
    """Writes the vector Σ αᵢ·vᵢ to the new folder `out`.

    `alpha` is one number for all vectors, or one for each in their order. The sum is computed in that order
    in float32, each operation rounded once, and stored without loss. All vectors must have the same tensors.
    """
    opts, where, names = plain_options(make_options(options)), output_path(out), vector_list(vectors)
    alphas = spread_alphas(alpha, len(names))
    with Session(opts, progress) as session:
        sources = vectors_of(session, names)
        command = ["taskvec", "combine", *(one.pinned for one in sources)]
        for text, _ in alphas:
            command += ["--alpha", text]
        terms = [(f"v{at}", one) for at, one in enumerate(sources, 1)]
        scaled = zip(alphas, terms, strict=True)
        formula = " + ".join(f"({text})·{name}" for (text, _), (name, _) in scaled)
        card = derived_card("Sum of task vectors", f"`{formula}`", command, terms, opts)
        answer = _core.combine(sources, where, alphas, opts, card.text, progress)
        return _written(where, answer, session, card)


def randomize(
    vector: Folder,
    out: Folder,
    *,
    progress: _core.Progress | None = None,
    **options: Unpack[Keywords],
) -> Vector:
    """Writes to the new folder `out` a vector of Gaussian noise with v's names, shapes, dtypes and norms.

    It is the control of a study: if such a vector gives a gain too, the gain is not due to v, since any
    change of that size brings it.

    Each tensor is drawn from its own stream, keyed by `seed` and the tensor's name. It is scaled to the
    Euclidean norm that `extract` recorded for that tensor of v, then rounded to the dtype in which v is
    stored (in bf16 the norm is right to about one part in a thousand). The same seed gives the same bytes
    with the same version of torch. It takes some megabytes of memory and, while it runs, the disk space of a
    dense vector.

    Raises:
        MismatchError: v was extracted from inputs with NaN or Inf.
        UsageError: `seed` is not a whole number from 0 to 2⁶⁴ − 1, or torch is not installed.
        StorageError: There is no disk space.
    """
    opts, where = plain_options(make_options(options)), output_path(out)
    if find_spec("torch") is None:
        raise UsageError('the numbers are drawn by torch; pip install "taskvec[eval]"')
    seed = opts.seed
    with Session(opts, progress) as session:
        (source,) = vectors_of(session, [vector])
        info: Json = json.loads(source.read("vector.json") or b"{}")
        shapes = {one.name: (one.dtype, one.shape) for one in verbs.inspect(vector).tensors}
        norms = _norms(info, source)
        parent = Path(where).absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".control-", dir=parent) as scratch:
            noise = Path(scratch) / f"noise-{seed}"
            noise.mkdir()
            try:
                with (noise / "model.safetensors").open("wb") as file:
                    file.write(_header(shapes))
                    for name, (dtype, shape) in shapes.items():
                        for chunk in _scaled(name, math.prod(shape), dtype, norms[name], seed):
                            file.write(chunk)
            except OSError as error:
                # The error of a full disk names no file.
                raise StorageError(
                    error.errno,
                    f"{where} cannot be written: {error.strerror}; free the space of v as a dense vector",
                    str(where),
                ) from error
            command = ["taskvec", "randomize", source.pinned, "--seed", str(seed)]
            formula = "random numbers with the norm of each tensor of v"
            card = derived_card("Random vector", formula, command, [("v", source)], opts)
            numbers = session.target(noise)
            answer = _core.randomize(numbers, source, seed, where, opts, card.text, progress)
            return _written(where, answer, session, card)


def plain_options(options: Options) -> Options:
    """The same options; `UsageError` if one of them selects tensors or changes values."""
    plain = Options()
    for name in _OF_TENSORS:
        if getattr(options, name) != getattr(plain, name):
            shown = {"prefixes": "strip_prefix"}.get(name, name)
            raise UsageError(f"{shown} is not an option for vectors that are written from other vectors")
    return vector_options(options)


def vectors_of(session: Session, refs: Iterable[Folder]) -> list[Ref]:
    """Opens vectors; `MismatchError` names the first that is none."""
    found = session.donors(*refs)
    for one in found:
        if not one.is_vector:
            raise MismatchError(f"{one.name} is not a vector; `taskvec extract` writes one")
    return found


def _written(where: str, answer: str, session: Session, card: Card) -> Vector:
    return Vector.from_result(where, verbs.finished(json.loads(answer), session, card))


def _title(source: Ref) -> str:
    return f"Task vector {source.name}"


def _norms(info: Json, source: Ref) -> dict[str, float]:
    norms: dict[str, float] = {}
    for one in info["tensors"]:
        # A tensor without elements has no effect recorded.
        effect = one.get("effect")
        if effect and effect["nonfinite_inputs"]:
            raise MismatchError(
                f"tensor {one['name']} of {source.path} comes from NaN or Inf, so it has no norm for a random"
                " vector to match; leave it out with --exclude when extracting"
            )
        norms[one["name"]] = (effect and effect["norm_v"]) or 0.0
    return norms


def _header(shapes: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    tensors: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape) in shapes.items():
        end = at + math.prod(shape) * (2 if dtype == "BF16" else 4)
        tensors[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _draws(name: str, count: int, seed: int) -> Iterator[torch.Tensor]:
    import torch

    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
    for start in range(0, count, _CHUNK):
        yield torch.randn(min(_CHUNK, count - start), generator=generator, dtype=torch.float32)


def _scaled(name: str, count: int, dtype: str, norm: float, seed: int) -> Iterator[bytes]:
    import torch

    # The tensor is drawn twice, first to compute its norm: so it never has to be in memory as a whole.
    drawn = math.sqrt(sum(float(chunk.double().square().sum()) for chunk in _draws(name, count, seed)))
    scale = norm / drawn if drawn else 0.0
    stored = torch.bfloat16 if dtype == "BF16" else torch.float32
    for chunk in _draws(name, count, seed):
        yield (chunk.double() * scale).to(stored).view(torch.uint8).numpy().tobytes()
