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

def merge(
    inputs: Sequence[Place],
    document: str,
    out: str,
    options: Options,
    card: str,
    progress: Progress | None,
) -> str:
    """Writes what a document makes of the inputs to the folder `out`: a `taskvec/result/1`.

    `inputs` are the distinct models in the order of the configuration; a base that is not among its models
    is the last. In the plan, the manifest and messages their roles are `base`, and `model N` for input N
    (from 1). `document` is a JSON object. All of its members are required, and no other is allowed:

    - `method`: a name of docs/merge-methods.md.
    - `base`: the place of the base among the inputs, or null.
    - `work_dtype`, `out_dtype`: `"bfloat16"`, `"float16"`, `"float32"` or null. Arithmetic is float32
      always. A float tensor is written as `out_dtype`, else as `work_dtype`, else in the common type of the
      inputs that take part in it (F32 if they differ; quantised ones count as BF16).
    - `seed`: of what is drawn, 0 to 2⁶⁴ − 1.
    - `settings`: sets of parameters, `{"shared": {…}, "each": [{…} or null for each input]}`. Values are
      numbers and booleans. What is left out has the method's default; `each` of a base that has no
      parameters is ignored.
    - `tensors`: one for each tensor of the output, in any order, `{"name": …, "from": […], "settings":
      place}`. `from` has for each input `true` (the same name), a name, or null (it takes no part).
    - `sidecars_from`: the input whose other files are copied, and whose shards and order the output has as
      far as it has the tensors. It must not be streamed.
    - `config_edits`: null, or members of `config.json` with other values. A key is a path with dots, and
      has to be there already.

    | method | inputs | shared | each |
    |---|---|---|---|
    | linear | 1+, a base is one of them | normalize (true) | weight |
    | passthrough | 1 | | scale (none) |
    | task_arithmetic | base + 0+ | normalize (false), lambda (1) | weight |
    | ties, dare_*, della*, breadcrumbs* | base + 0+ | normalize, rescale, lambda (1) | weight, density (1) |
    | slerp, nearswap | base + 1 | t | |
    | model_stock | base + 2+ | filter_wise (false) | |
    | ram | base + 0+ | epsilon (1e-5) | |
    | ramplus_tl | base + 0+ | epsilon (1e-5), r (0.1), alpha (0.2) | |
    | karcher | 1+, a base is one of them | max_iter (10), tol (1e-5) | |
    | multislerp | 1+, and a base or none | normalize_weights (true), eps (1e-8) | weight |
    | nuslerp | 2, and a base or none | nuslerp_flatten (true), nuslerp_row_wise (false) | weight |
    | sce | base + 0+ | select_topk (1) | |

    `normalize` is true by default for ties and della, `rescale` for dare_* and della*. `each` also has
    epsilon (0.15) of della*, and gamma (0.01) of breadcrumbs*.

    Options other than those of how the work is done, `rounding` and `seed` (of rounding) have to be at
    their defaults. The manifest has the document as `recipe.document`.

    Errors: `UsageError` for a document of another form, or parameters that do not exist or make no sense;
    `MismatchError` for tensors whose shapes or types differ, that an input lacks, or that need a base or a
    second model which takes no part in them; `CorruptError` for an adapter or a vector as an input. Of two
    inputs of slerp, of nearswap (the base) and of nuslerp (without a base), the only one that has a tensor
    is copied.
    """

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

def check_merge(inputs: Sequence[Place], document: str, out: str | None, options: Options) -> str:
    """What `merge` would do: a `taskvec/plan/1`."""

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
