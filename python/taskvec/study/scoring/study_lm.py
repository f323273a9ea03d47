"""lm-eval's `HFLM` over a live torch model, which also records how answers were generated.

lm-eval keeps only the text of an answer. This class has the tokens, so it also records how long an answer is
and whether it was cut off. It forms the batches itself, in lm-eval's way, and hands them to lm-eval one at a
time: so each is written down when it is finished, and skipped if an earlier run has answered it.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import MismatchError
from ..environment import library
from ..rundir.answers import Answer, Question, digest
from .loading import make_room, no_room
from .prompts import Turn, ask
from .stopping import RowStop, holds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...records import Json
    from ..rundir.answers import Answers

    Said = tuple[Any, Json | None]
    """The answer to a request, and for a text how it was made, as in `Answer`."""

_HFLM: Any = library("lm_eval.models.huggingface").HFLM
_CRITERIA: Any = library("transformers").StoppingCriteriaList


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated answer."""

    text: str
    """The text before the stop string, as lm-eval takes it."""
    tokens: int
    """Number of new tokens, including the one that ended it."""
    truncated: bool
    """Whether it reached the token limit without an end token or a stop string."""
    prompt_tokens: int
    seconds: float
    """Wall time of its batch divided by the rows of the batch."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One choice among given answers."""

    seconds: float
    """Sum over its requests; each counts the wall time of its batch divided by the requests of the batch."""


class StudyLM(_HFLM):
    """`HFLM` with the think line, a stop for each row, and a record of what was generated.

    Attributes:
        line: the line added to the last user turn; None for plain prompts.
        records: the answers, by (task name, document number).
        progress: called as `progress(requests_done, requests_total)`, first with those of an earlier run and
            then after each batch.
        answers: the file to which finished batches are written; None to write none.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 1, **how: Any) -> None:
        """Takes a live model, or the path of one, and the tokenizer for its prompts."""
        self._parent.__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, **how)
        self.line: str | None = None
        self.records: dict[tuple[str, int], Generated | Chosen] = {}
        self.progress: Callable[[int, int], None] | None = None
        self.answers: Answers | None = None
        self._choices: list[Any] = []
        self._made: list[tuple[str, Json]] = []

    @property
    def _parent(self) -> Any:
        """`super()`, untyped, since lm-eval has no types."""
        return super()

    def apply_chat_template(self, chat_history: list[Turn], add_generation_prompt: bool = True) -> str:
        """The prompt for a conversation, with the arm's line."""
        return ask(self.tokenizer, chat_history, line=self.line, add_generation_prompt=add_generation_prompt)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The texts of the answers; each is also recorded under its document."""

        def length(one: tuple[int, Any]) -> tuple[int, str]:
            return -len(self.tok_encode(one[1].args[0])), one[1].args[0]

        def settings(one: tuple[int, Any]) -> Any:
            return one[1].args[1]

        # lm-eval's own order and groups: longest first, and only equal settings in one batch.
        order: Any = library("lm_eval.models.utils").Collator(
            list(enumerate(requests)), sort_fn=length, group_by="gen_kwargs", group_fn=settings
        )
        batches = [[at for at, _ in batch] for batch in order.get_batched(n=self.batch_size)]
        answers = self._in_batches(
            requests, batches, lambda batch: self._generate([requests[at] for at in batch])
        )
        for request, one in zip(requests, answers, strict=True):
            self.records[request.task_name, request.doc_id] = Generated(
                one.answer, **(one.made or {}), seconds=one.seconds
            )
        return [one.answer for one in answers]

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihoods, without lm-eval's progress bars."""
        self._choices = requests
        return self._parent.loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list[Any], *_: Any, **__: Any) -> list[tuple[float, bool]]:
        # As in lm-eval, one-token choices after the same prompt share a row of a batch; longest rows first.
        rows: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for at, (_, prompt, rest) in enumerate(requests):
            rows[(*prompt, *rest[:-1])].append(at)
        order = [rows[row] for row in sorted(rows, key=lambda row: (-len(row), row))]
        size = self.batch_size
        batches = [
            [at for row in order[first : first + size] for at in row] for first in range(0, len(order), size)
        ]
        answers = self._in_batches(
            self._choices,
            batches,
            lambda batch: [(one, None) for one in self._weigh([requests[at] for at in batch])],
        )
        seconds: defaultdict[tuple[str, int], float] = defaultdict(float)
        for request, one in zip(self._choices, answers, strict=True):
            seconds[request.task_name, request.doc_id] += one.seconds
        self.records |= {document: Chosen(spent) for document, spent in seconds.items()}
        return [one.answer for one in answers]

    def _weigh(self, batch: list[Any]) -> list[tuple[float, bool]]:
        return self._parent._loglikelihood_tokens(batch, disable_tqdm=True)

    def _in_batches(
        self, requests: list[Any], batches: list[list[int]], ask: Callable[[list[int]], list[Said]]
    ) -> list[Answer]:
        """The answers to all requests; asks batch by batch, and skips batches that are answered already."""
        questions = _questions(requests, batches)
        found = {} if self.answers is None else self.answers.take_up(questions)
        self._tell(len(found), len(requests))
        for batch in batches:
            asked = [questions[at] for at in batch]
            if asked[0] in found:
                continue
            start = time.perf_counter()
            said = self._with_room(asked[0].task, lambda batch=batch: ask(batch))
            seconds = (time.perf_counter() - start) / len(batch)
            new = {one: Answer(*what, seconds) for one, what in zip(asked, said, strict=True)}
            if self.answers is not None:
                self.answers.add(new.items())
            found |= new
            self._tell(len(found), len(requests))
        return [found[one] for one in questions]

    def _with_room(self, task: str, ask: Callable[[], list[Said]]) -> list[Said]:
        """Asks a batch; if memory runs out, frees what the allocator holds and asks once more."""
        for _ in range(2):
            try:
                return ask()
            except Exception as error:
                if not no_room(error):
                    raise
            # Outside the `except`, so that the error no longer holds the tensors of the batch.
            make_room()
        size = self.batch_size
        less = f"set batch_size: {size // 2} or auto" if size > 1 else "use another device or a smaller dtype"
        raise MismatchError(
            f"task {task}: {self.device} ran out of memory at batch_size {size}; free memory there and run"
            f" the same command again, which continues after the last finished batch, or {less} and start"
            " again with --overwrite"
        )

    def _generate(self, batch: list[Any]) -> list[Said]:
        """One batch with equal settings, longest first, so that lm-eval does not reorder or split it."""
        self._made = []
        said: list[Said] = []
        texts = self._parent.generate_until(batch, disable_tqdm=True)
        for request, text, (whole, made) in zip(batch, texts, self._made, strict=True):
            if not whole.startswith(text):
                raise RuntimeError(f"an answer of {request.task_name} was recorded for another document")
            said.append((text, made))
        return said

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **how: Any) -> Any:
        # Decoding is greedy; transformers would warn about a temperature.
        how = {key: value for key, value in how.items() if key != "temperature"}
        width, ends = context.shape[1], self._end_tokens()
        rows = self.model.generate(
            input_ids=context,
            max_length=max_length,
            stopping_criteria=_CRITERIA([RowStop(self.tokenizer, stop, ends, width)]),
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            **how,
        )
        lengths = how["attention_mask"].sum(dim=1).tolist()
        for row, length in zip(rows, lengths, strict=True):
            whole, made = self._as_made(row[width:].tolist(), stop, length)
            # `generate` pads only after an end token of the model, not after a stop string.
            row[width + made["tokens"] :] = self.tokenizer.pad_token_id
            self._made.append((whole, made))
        return rows

    def _as_made(self, tokens: list[int], stop: list[str], prompt_tokens: int) -> tuple[str, Json]:
        """The text of a row's new tokens, and its length without padding."""
        ends = self._end_tokens()
        length = next((at + 1 for at, token in enumerate(tokens) if token in ends), None)
        kept = tokens if length is None else tokens[: length - 1]

        def stopped(count: int) -> bool:
            return holds(self.tokenizer, kept[:count], stop)

        if stopped(len(kept)):
            length = bisect_left(range(len(kept) + 1), True, key=stopped)
        made = {"tokens": length or len(tokens), "truncated": length is None, "prompt_tokens": prompt_tokens}
        return self.tok_decode(tokens), made

    def _end_tokens(self) -> set[int]:
        ends: Any = self.model.generation_config.eos_token_id
        found: list[Any] = [self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
        return {one for one in found if one is not None}

    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


def _questions(requests: Sequence[Any], batches: list[list[int]]) -> list[Question]:
    """A `Question` for each request, in the same order."""
    batch_of = {at: number for number, batch in enumerate(batches) for at in batch}
    seen: Counter[tuple[str, int]] = Counter()
    found: list[Question] = []
    for at, request in enumerate(requests):
        document = request.task_name, request.doc_id
        prompt, rest = request.args[:2]
        asked = digest(prompt, rest if isinstance(rest, str) else json.dumps(rest, sort_keys=True))
        found.append(Question(*document, seen[document], batch_of[at], asked))
        seen[document] += 1
    return found
