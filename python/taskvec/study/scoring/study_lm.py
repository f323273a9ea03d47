"""lm-eval's model over a live torch model: asks as the arm asks, and records what was generated.

lm-eval keeps the text of an answer alone. Whether it was cut off, and how long it was, is seen here, where
the tokens are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..environment import library
from .prompts import Turn, ask

if TYPE_CHECKING:
    from collections.abc import Callable

_HFLM: Any = library("lm_eval.models.huggingface").HFLM


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer as it came out of the model."""

    text: str
    tokens: int
    """New tokens, the one that ended it included."""
    truncated: bool
    """It reached the cap: neither an end token nor a stop string came before."""
    prompt_tokens: int


class StudyLM(_HFLM):
    """`HFLM` with the think line and a record of what was generated.

    Attributes:
        line: the line that ends the last user turn; None for plain prompts.
        records: what was generated, by (task name, document number).
        progress: called with (requests done, requests in all) after each batch.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, **how: Any) -> None:
        """Takes a live model, or the path of one, and the tokenizer that asks it."""
        self._parent.__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, **how)
        self.line: str | None = None
        self.records: dict[tuple[str, int], Generated] = {}
        self.progress: Callable[[int, int], None] | None = None
        self._asked: list[str] = []
        self._rows: dict[str, deque[Generated]] = {}
        self._done = self._all = 0

    @property
    def _parent(self) -> Any:
        """`super()`, of which no type is known."""
        return super()

    def apply_chat_template(self, chat_history: list[Turn], add_generation_prompt: bool = True) -> str:
        """The prompt for a conversation, with the arm's line."""
        return ask(self.tokenizer, chat_history, line=self.line, add_generation_prompt=add_generation_prompt)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, each recorded under its document."""
        self._rows, self._done, self._all = defaultdict[str, deque[Generated]](deque), 0, len(requests)
        answers = self._parent.generate_until(requests, disable_tqdm=True)
        for request, answer in zip(requests, answers, strict=True):
            # Requests are reordered by prompt, and equal prompts keep their order.
            row = self._rows[request.args[0]].popleft()
            if not row.text.startswith(answer):
                raise RuntimeError(f"an answer of {request.task_name} was recorded for another document")
            self.records[request.task_name, request.doc_id] = row
        return answers

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihoods, without lm-eval's bars."""
        return self._parent.loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **how: Any) -> Any:
        # Choices of one token that follow the same prompt are one row of a batch.
        self._done, self._all = 0, len({(*prompt, *rest[:-1]) for _, prompt, rest in requests})
        return self._parent._loglikelihood_tokens(requests, *args, **how)

    def tok_batch_encode(self, strings: list[str], *args: Any, **how: Any) -> Any:
        """Encodes the prompts of a batch, and remembers which they are."""
        self._asked = list(strings)
        return self._parent.tok_batch_encode(strings, *args, **how)

    def _model_call(self, inps: Any, *args: Any, **how: Any) -> Any:
        logits = self._parent._model_call(inps, *args, **how)
        self._tell(inps.shape[0])
        return logits

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **how: Any) -> Any:
        rows = self._parent._model_generate(context, max_length, stop, **how)
        width = context.shape[1]
        lengths = how["attention_mask"].sum(dim=1).tolist()
        for prompt, row, length in zip(self._asked, rows.tolist(), lengths, strict=True):
            self._rows[prompt].append(self._generated(row[width:], stop, length))
        self._tell(len(lengths))
        return rows

    def _generated(self, tokens: list[int], stop: list[str], prompt_tokens: int) -> Generated:
        text = self.tok_decode(tokens)
        ends = self._end_tokens()
        length = next((at + 1 for at, token in enumerate(tokens) if token in ends), None)
        kept = tokens if length is None else tokens[: length - 1]

        def stopped(count: int) -> bool:
            # Special tokens too: lm-eval ends generation at them where they are stop strings.
            so_far = self.tok_decode(kept[:count], skip_special_tokens=False)
            return any(one in so_far for one in stop if one)

        if stopped(len(kept)):
            length = bisect_left(range(len(kept) + 1), True, key=stopped)
        return Generated(text, length or len(tokens), length is None, prompt_tokens)

    def _end_tokens(self) -> set[int]:
        ends = self.model.generation_config.eos_token_id
        return {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}

    def _tell(self, rows: int) -> None:
        self._done = min(self._done + rows, self._all)
        if self.progress is not None:
            self.progress(self._done, self._all)
