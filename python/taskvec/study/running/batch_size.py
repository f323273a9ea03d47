"""Sets the batch size: the study file's, or the largest that fits on the device, found by trial."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import MismatchError
from ..environment import library, quiet
from ..rundir.run_folder import read_run
from ..scoring.loading import make_room, no_room
from ..scoring.prompts import count, render

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ...records import Json
    from ..rundir.run_folder import RunFolder
    from ..scoring.tasks import Loaded
    from ..spec.sections import Study

ON_CPU = 16
"""The batch size on a CPU, where larger batches are hardly faster."""
MOST = 512
"""The largest batch size tried: larger ones save no time, and an interruption would lose more."""
# Share of the device's memory allowed during a trial; the rest is for fragmentation by later batches.
_SHARE = 0.9


def set_batch_size(lm: Any, loaded: Loaded, study: Study, folder: RunFolder | None = None) -> None:
    """Sets the batch size of a `StudyLM` for a benchmark.

    For `"auto"` the size is found once for each benchmark and recorded in `batch_sizes` of run.json, so that
    every later run forms the same batches and gets the same answers bit for bit.

    Raises:
        MismatchError: the device does not have enough memory for one prompt.
    """
    size: Any = study.batch_size
    if size == "auto":
        noted: Json = {} if folder is None else read_run(folder.path).get("batch_sizes", {})
        size = noted.get(loaded.benchmark.id)
        if size is None:
            size = ON_CPU if lm.device.type == "cpu" else _tried(lm, loaded, study)
            if folder is not None:
                folder.note(batch_sizes=noted | {loaded.benchmark.id: size})
    lm.batch_size_per_gpu = size


def largest(attempt: Callable[[int], None], most: int) -> int | None:
    """The first size of `most`, `most` / 2, `most` / 4, … for which `attempt` does not run out of memory.

    None if even size 1 runs out of memory.
    """
    size = most
    while size:
        try:
            attempt(size)
        except Exception as error:
            if not no_room(error):
                raise
        else:
            return size
        finally:
            make_room()
        size //= 2
    return None


def attempt(lm: Any, kind: str, rows: int, length: int, new: int) -> None:
    """Runs the most expensive batch that is possible: all prompts and all answers of the greatest length.

    Args:
        lm: a `StudyLM`.
        kind: `generate` or `choice`.
        rows: number of prompts in the batch.
        length: tokens of each prompt; for choices, including the continuation that is scored.
        new: tokens to generate.
    """
    torch = library("torch")
    prompts = torch.full((rows, length), lm.eot_token_id, device=lm.device)
    if kind == "choice":
        torch.log_softmax(lm._model_call(prompts), dim=-1, dtype=lm.softmax_dtype)
        return
    lm.model.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        max_length=length + new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=lm.tokenizer.pad_token_id,
        use_cache=True,
    )


def cap(loaded: Loaded) -> int:
    """The most tokens that may be generated for an answer; 0 for choices."""
    if loaded.kind == "choice":
        return 0
    return max(task.get_config("generation_kwargs")["max_gen_toks"] for task in loaded.tasks)


def _tried(lm: Any, loaded: Loaded, study: Study) -> int:
    # With the think line, if any arm has it: that is the longer prompt.
    with quiet():
        asked = render(loaded, lm.tokenizer, study.think if study.arms.think else None)
    longest = max(count(lm.tokenizer, prompt + rest) for prompt, rest in asked)
    new = cap(loaded)
    most = min(MOST, 1 << (len(asked) - 1).bit_length())
    with quiet(), _some_left(lm.device):
        found = largest(lambda rows: attempt(lm, loaded.kind, rows, longest, new), most)
    if found is None:
        raise MismatchError(
            f"benchmark {loaded.benchmark.id!r}: {lm.device} does not have enough memory for one prompt of"
            f" {longest} tokens and {new} new ones; use another device, or a smaller dtype or max_new_tokens"
        )
    return found


@contextmanager
def _some_left(device: Any) -> Generator[None]:
    if device.type != "cuda":
        yield
        return
    torch = library("torch")
    torch.cuda.set_per_process_memory_fraction(_SHARE, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
