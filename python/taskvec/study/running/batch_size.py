"""How many prompts are asked at a time: as the study says, or as many as the device holds, found by trial."""

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
"""More rows at a time are hardly faster there."""
MOST = 512
"""Beyond this a batch takes as long as the rows that it saves, and an interruption loses more."""
# Of the device's memory, while a size is tried: what later batches fragment must fit too.
_SHARE = 0.9


def set_batch_size(lm: Any, loaded: Loaded, study: Study, folder: RunFolder | None = None) -> None:
    """Lets a `StudyLM` ask a benchmark as many prompts at a time as the study says.

    `auto` is found once for each benchmark and written to the run's `batch_sizes`: every later run forms the
    same batches, whose answers are then the same bits.

    Raises:
        MismatchError: the device has not the memory for one prompt at a time.
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
    """The first of `most`, half of it, and so on for which an attempt does not run out of memory.

    None where not even 1 does.
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
    """What a batch can cost at most: prompts all of the longest, and answers all up to the cap.

    Args:
        lm: a `StudyLM`.
        kind: `generate` or `choice`.
        rows: prompts in the batch.
        length: tokens of each prompt; for choices, with what is scored after it.
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
    """The most tokens that an answer may have; 0 for choices."""
    if loaded.kind == "choice":
        return 0
    return max(task.get_config("generation_kwargs")["max_gen_toks"] for task in loaded.tasks)


def _tried(lm: Any, loaded: Loaded, study: Study) -> int:
    # The longer of the two prompts that arms have.
    with quiet():
        asked = render(loaded, lm.tokenizer, study.think if study.arms.think else None)
    longest = max(count(lm.tokenizer, prompt + rest) for prompt, rest in asked)
    new = cap(loaded)
    most = min(MOST, 1 << (len(asked) - 1).bit_length())
    with quiet(), _some_left(lm.device):
        found = largest(lambda rows: attempt(lm, loaded.kind, rows, longest, new), most)
    if found is None:
        raise MismatchError(
            f"benchmark {loaded.benchmark.id!r}: {lm.device} has not the memory for one prompt of {longest}"
            f" tokens and {new} new ones; take another device, or a smaller dtype or max_new_tokens"
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
