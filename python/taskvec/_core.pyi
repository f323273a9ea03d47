"""The compiled core. The verbs of `taskvec` stand before it: refs resolved, options parsed, results typed.

Every answer is JSON text whose `schema` field names its form (see `results.py` and `check_result.py`).
A place is a local folder or a `Ref`, `out` a local folder, `alpha` is (text, number), `card` is the text of
the README.md to write. The errors are those of `taskvec.errors`; what a `Remote` raises comes back as it is.
The long calls release the GIL, and a signal handler that raises (Ctrl-C: `KeyboardInterrupt`) ends them
within a second, or as soon as the calls of a `Remote` that are under way return.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

from .inputs.refs import Ref
from .options import Options

Place = str | os.PathLike[str] | Ref
"""A folder with an input in it."""

class Remote(Protocol):
    """A folder elsewhere, at a commit: its content never changes. Called from many threads at once."""

    @property
    def files(self) -> Sequence[tuple[str, int]]:
        """Every file below the folder: name, with `/`, and bytes. The methods call it by its place here."""

    @property
    def streams(self) -> bool:
        """Whether shards are read by ranges and never put on the disk."""

    def fetch(self, file: int, begin: int, end: int) -> Iterator[bytes]:
        """Just the bytes `[begin, end)` of a file, in order, in pieces of any size: a generator.

        It is closed early where a job stops; empty pieces while it waits (for a retry) let the job see that
        it should.
        """

    def want(self, file: int) -> None:
        """Begins to download a file, if that is not so yet; called in the order of reading."""

    def local(self, file: int) -> str | None:
        """The path of the whole, checked file; None if it is still not here after a wait of a second."""

Progress = Callable[[str, int, int], None]
"""Called with (phase, bytes done, bytes in all) some ten times a second, on the calling thread."""

class Request(Protocol):
    """What a job in parts is asked to do: `taskvec.jobs.asked.Request`."""

    @property
    def verb(self) -> str:
        """Its name on the command line."""

    @property
    def places(self) -> Sequence[Place]:
        """The inputs, the target first if there is one."""

    @property
    def alphas(self) -> Sequence[tuple[str, float]]:
        """One; for `apply` one for each vector."""

    @property
    def takes(self) -> Sequence[Sequence[str]]:
        """Of a graft, what is taken from each donor."""

Variant = tuple[tuple[str, float], str]
"""One output of a sweep: its alpha and its card."""

Buffer = Any
"""Writable bytes in one piece, such as a NumPy array; typing has a name for it from Python 3.12 on."""

version: str
"""The package's version."""
debug_build: bool
"""Whether this build is without optimisation, and so many times slower."""

def is_weights(name: str) -> bool:
    """Whether a file of this name holds weights, in whatever format, or is the index of such files."""

def is_stray(path: str) -> bool:
    """Whether a file, called by its path below a folder, may hold a secret, or is what a training run left.

    Such files are neither copied into an output nor uploaded.
    """

def strip_prefixes(name: str, prefixes: Sequence[str]) -> str:
    """A tensor's name without wrappers' prefixes, as `strip_prefix` takes them off."""

def simd() -> str:
    """The instruction set in use; TASKVEC_SIMD in the environment lowers it (`UsageError`: names none)."""

def transfer(
    target: Place,
    minuend: Place,
    subtrahend: Place,
    out: str,
    alpha: tuple[str, float],
    options: Options,
    card: str,
    progress: Progress | None,
) -> str:
    """Writes target + α·(minuend − subtrahend) to the folder `out`: a `taskvec/result/1`."""

def graft(
    target: Place,
    donors: Sequence[tuple[Place, Sequence[str]]],
    out: str,
    options: Options,
    card: str,
    progress: Progress | None,
) -> str:
    """Writes the target with tensors of the donors to the folder `out`: a `taskvec/result/1`."""

def sweep_transfer(
    target: Place,
    minuend: Place,
    subtrahend: Place,
    out: str,
    variants: list[Variant],
    options: Options,
    progress: Progress | None,
) -> str:
    """Writes a checkpoint for each variant to a folder in `out`: a `taskvec/sweep/1`."""

def advise(
    target: Place,
    donors: Sequence[Place],
    alphas: list[tuple[str, float]],
    options: Options,
    progress: Progress | None,
) -> str:
    """What every α would do, for a minuend and a subtrahend or for one vector: a `taskvec/advice/1`."""

def apply(
    target: Place,
    vectors: Sequence[Place],
    out: str,
    alphas: list[tuple[str, float]],
    options: Options,
    card: str,
    progress: Progress | None,
) -> str:
    """Writes target + Σ αᵢ·vᵢ to the folder `out`: a `taskvec/result/1`."""

def sweep_apply(
    target: Place,
    vectors: Sequence[Place],
    out: str,
    variants: list[Variant],
    options: Options,
    progress: Progress | None,
) -> str:
    """Writes a checkpoint for each variant to a folder in `out`: a `taskvec/sweep/1`."""

def extract(
    minuend: Place, subtrahend: Place, out: str, options: Options, card: str, progress: Progress | None
) -> str:
    """Writes the vector minuend − subtrahend to the folder `out`: a `taskvec/result/1`."""

def convert(vector: Place, out: str, options: Options, card: str, progress: Progress | None) -> str:
    """Writes a vector with another encoding to the folder `out`: a `taskvec/result/1`."""

def combine(
    vectors: Sequence[Place],
    out: str,
    alphas: list[tuple[str, float]],
    options: Options,
    card: str,
    progress: Progress | None,
) -> str:
    """Writes the vector Σ αᵢ·vᵢ to the folder `out`: a `taskvec/result/1`."""

def randomize(
    noise: Place,
    vector: Place,
    seed: int,
    out: str,
    options: Options,
    card: str,
    progress: Progress | None,
) -> str:
    """Writes the numbers of `noise` to the folder `out`, in place of v's values: a `taskvec/result/1`."""

def check_convert(vector: Place, out: str | None, options: Options) -> str:
    """What `convert` would do, from headers alone: a `taskvec/plan/1`."""

def check_combine(
    vectors: Sequence[Place], out: str | None, alphas: list[tuple[str, float]], options: Options
) -> str:
    """What `combine` would do, from headers alone: a `taskvec/plan/1`."""

def check_transfer(
    target: Place,
    minuend: Place,
    subtrahend: Place,
    out: str | None,
    alpha: tuple[str, float],
    options: Options,
) -> str:
    """What `transfer` would do, from headers and configs alone: a `taskvec/plan/1`."""

def check_graft(
    target: Place, donors: Sequence[tuple[Place, Sequence[str]]], out: str | None, options: Options
) -> str:
    """What `graft` would do, from headers and configs alone: a `taskvec/plan/1`."""

def check_apply(
    target: Place,
    vectors: Sequence[Place],
    out: str | None,
    alphas: list[tuple[str, float]],
    options: Options,
) -> str:
    """What `apply` would do, from headers and configs alone: a `taskvec/plan/1`."""

def check_sweep_transfer(
    target: Place,
    minuend: Place,
    subtrahend: Place,
    out: str | None,
    alphas: list[tuple[str, float]],
    options: Options,
) -> str:
    """What `sweep_transfer` would do, from headers and configs alone: a `taskvec/plan/1` of all outputs."""

def check_sweep_apply(
    target: Place,
    vectors: Sequence[Place],
    out: str | None,
    alphas: list[tuple[str, float]],
    options: Options,
) -> str:
    """What `sweep_apply` would do, from headers and configs alone: a `taskvec/plan/1` of all outputs."""

def check_extract(minuend: Place, subtrahend: Place, out: str | None, options: Options) -> str:
    """What `extract` would do, from headers and configs alone: a `taskvec/plan/1`."""

def job_plan(
    job: str, request: Request, out: str, parts: int, options: Options, card: str, asked: str
) -> str:
    """Plans a job in so many parts, in the folder `job`: a `taskvec/job-plan/1`.

    `asked` is JSON text that the plan keeps.
    """

def job_asked(job: str) -> tuple[str, int]:
    """What `job_plan` was given to keep, and how many parts there are."""

def job_status(job: str) -> str:
    """What is done of a job: a `taskvec/job-status/1`."""

def job_already(job: str, part: int) -> str | None:
    """The result of a part that is done: a `taskvec/part-result/1`; None if it has to be run."""

def job_run(job: str, part: int, request: Request, options: Options, progress: Progress | None) -> str:
    """Runs one part: a `taskvec/part-result/1`."""

def job_committed(job: str) -> str | None:
    """What the commit returned, a `taskvec/result/1`; None if the job is not committed."""

def job_commit(
    job: str,
    verify: bool,
    request: Request,
    options: Options,
    told: tuple[list[str], list[str]],
    progress: Progress | None,
) -> str:
    """Makes the output from all parts: a `taskvec/result/1` with these notes and warnings too."""

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

def live_apply(
    target: Place, vectors: Sequence[Place], alphas: list[tuple[str, float]], options: Options
) -> Live:
    """Computes target + Σ αᵢ·vᵢ for a live model."""

def live_transfer(
    target: Place, minuend: Place, subtrahend: Place, alpha: tuple[str, float], options: Options
) -> Live:
    """Computes target + α·(minuend − subtrahend) for a live model."""

def live_read(target: Place, options: Options) -> Live:
    """The target's own values."""

def kind(place: Place) -> Literal["checkpoint", "vector", "adapter"]:
    """What a folder holds; one that is none of these counts as a checkpoint."""

def inspect(place: Place, listed: bool = True) -> str:
    """What is in a checkpoint or vector folder, from headers alone: a `taskvec/inspect/1`.

    There may be many tensors; the list of them is empty if `listed` is false.
    """

def inspect_to(place: Place, warnings: Callable[[], list[str]], write: Callable[[str], object]) -> list[str]:
    """Hands the same with every tensor to `write`, piece by piece, as ASCII text for people.

    What `warnings` returns once the headers are read is added to the warnings; all of them come back.
    """

def diff(a: Place, b: Place, options: Options, progress: Progress | None) -> str:
    """How two checkpoints differ, tensor by tensor: a `taskvec/diff/1`."""

def verify(out: str, options: Options, progress: Progress | None) -> str:
    """Re-reads a written folder against its manifest: a `taskvec/verify/1`."""
