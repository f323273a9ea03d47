"""The compiled core. The verbs of `taskvec` stand before it: refs resolved, options parsed, results typed.

Every answer is JSON text whose `schema` field names its form (see `results.py` and `plan.py`).
Paths are local folders, `alpha` is (text, number), `card` is the text of the README.md to write. The errors
are those of `taskvec.errors`. The long calls release the GIL, and a signal handler that raises (Ctrl-C:
`KeyboardInterrupt`) ends them within a second.
"""

from collections.abc import Callable
from typing import Any

from .options import Options

Progress = Callable[[str, int, int], None]
"""Called with (phase, bytes done, bytes in all) some ten times a second, on the calling thread."""

Buffer = Any
"""Writable bytes in one piece, such as a NumPy array; typing has a name for it from Python 3.12 on."""

version: str
"""The package's version."""
debug_build: bool
"""Whether this build is without optimisation, and so many times slower."""

def simd() -> str:
    """The instruction set in use; TASKVEC_SIMD in the environment lowers it (`UsageError`: names none)."""

def transfer(
    target: str,
    minuend: str,
    subtrahend: str,
    out: str,
    alpha: tuple[str, float],
    options: Options,
    card: str,
    progress: Progress | None,
) -> str:
    """Writes target + α·(minuend − subtrahend) to the folder `out`: a `taskvec/result/1`."""

def apply(
    target: str,
    vectors: list[str],
    out: str,
    alphas: list[tuple[str, float]],
    options: Options,
    card: str,
    progress: Progress | None,
) -> str:
    """Writes target + Σ αᵢ·vᵢ to the folder `out`: a `taskvec/result/1`."""

def extract(
    minuend: str, subtrahend: str, out: str, options: Options, card: str, progress: Progress | None
) -> str:
    """Writes the vector minuend − subtrahend to the folder `out`: a `taskvec/result/1`."""

def check_transfer(
    target: str, minuend: str, subtrahend: str, out: str | None, alpha: tuple[str, float], options: Options
) -> str:
    """What `transfer` would do, from headers and configs alone: a `taskvec/plan/1`."""

def check_apply(
    target: str, vectors: list[str], out: str | None, alphas: list[tuple[str, float]], options: Options
) -> str:
    """What `apply` would do, from headers and configs alone: a `taskvec/plan/1`."""

def check_extract(minuend: str, subtrahend: str, out: str | None, options: Options) -> str:
    """What `extract` would do, from headers and configs alone: a `taskvec/plan/1`."""

class Live:
    """A job whose windows are handed to Python instead of written; opened by the `live_` functions."""

    @property
    def tensors(self) -> str:
        """The target's tensors in file order: a JSON list of name, dtype, shape, base, combined."""

    @property
    def target_id(self) -> str:
        """Names the target as it lies on the disk: equal only while nobody touched it."""

    @property
    def window_bytes(self) -> int:
        """The bytes of a buffer for a window; it must have just these."""

    def start(self, wanted: list[bool]) -> None:
        """Begins to compute; `wanted` says for each tensor whether its values are to be handed over."""

    def next(self, result: Buffer | None, original: Buffer) -> list[tuple[int, int, int, int]] | None:
        """Fills the buffers with a window; None when all were handed over and the inputs have not changed.

        Each part is (tensor, first element, elements, byte at which they begin in both buffers): whole
        elements, each once, the parts of a tensor in any order. `result` is what would be written, `original`
        the target's own values; a job of `live_read` has no result.
        """

    def report(self) -> str:
        """What the job did, once `next` has returned None: a `taskvec/applied/1`."""

    def close(self) -> None:
        """Stops the job, unless it has ended, and lets go of its files and buffers."""

def live_apply(target: str, vectors: list[str], alphas: list[tuple[str, float]], options: Options) -> Live:
    """Computes target + Σ αᵢ·vᵢ for a live model."""

def live_transfer(
    target: str, minuend: str, subtrahend: str, alpha: tuple[str, float], options: Options
) -> Live:
    """Computes target + α·(minuend − subtrahend) for a live model."""

def live_read(target: str, options: Options) -> Live:
    """The target's own values."""

def inspect(path: str) -> str:
    """What is in a checkpoint or vector folder, from headers alone: a `taskvec/inspect/1`."""

def diff(a: str, b: str, options: Options, progress: Progress | None) -> str:
    """How two checkpoints differ, tensor by tensor: a `taskvec/diff/1`."""

def verify(out: str, options: Options, progress: Progress | None) -> str:
    """Re-reads a written folder against its manifest: a `taskvec/verify/1`."""
