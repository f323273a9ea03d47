"""Ends each row of a batch as soon as its text contains one of the stop strings.

lm-eval's own criterion ends a batch only when all rows contain the same stop string, so rows that end with
different strings all run to the token limit. It also decodes all rows once for each string at every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..environment import library

if TYPE_CHECKING:
    from collections.abc import Sequence

_Criterion: Any = library("transformers").StoppingCriteria

# Extra tokens to decode. A token usually holds at least one byte of a stop string, but some are empty or hold
# only a part of a character.
_SPARE = 4


def holds(tokenizer: Any, tokens: Sequence[int], stops: Sequence[str]) -> bool:
    """Whether the text of new tokens contains a stop string.

    Special tokens are decoded too, since they can be stop strings.
    """
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    return any(one in text for one in stops if one)


class RowStop(_Criterion):
    """A stopping criterion for `generate` that decides for each row.

    At each step, only the last few tokens of unfinished rows are decoded. If they contain a stop string, the
    whole text of the row is checked too, since the first tokens of the tail may be decoded differently there.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], ends: set[int], width: int) -> None:
        """Makes the criterion of one batch.

        Args:
            tokenizer: decodes the tokens.
            stops: the stop strings, any of which ends a row.
            ends: the end tokens of the model and of the tokenizer, which also end a row.
            width: length of the padded prompts in tokens.
        """
        self._tokenizer, self._ends, self._width = tokenizer, ends, width
        # lm-eval lists the end token among the stop strings; it is found by its id instead.
        named = {tokenizer.decode([one], skip_special_tokens=False) for one in ends}
        self._stops = [one for one in stops if one and one not in named]
        self._tail = max((len(one.encode()) for one in self._stops), default=0) + _SPARE
        self._ended: list[bool] = []

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Returns which rows have ended, as a bool tensor of shape (rows,).

        Args:
            input_ids: prompts and new tokens, of shape (rows, width + new).
            scores: not used.
        """
        self._ended = self._ended or [False] * len(input_ids)
        # One copy from the device for all rows, since each copy waits for the device.
        tails = input_ids[:, self._width :][:, -self._tail :].tolist()
        for at, tail in enumerate(tails):
            self._ended[at] |= tail[-1] in self._ends
        open_rows = [at for at, ended in enumerate(self._ended) if self._stops and not ended]
        texts = self._tokenizer.batch_decode([tails[at] for at in open_rows], skip_special_tokens=False)
        for at, text in zip(open_rows, texts, strict=True):
            if any(one in text for one in self._stops):
                whole = input_ids[at, self._width :].tolist()
                self._ended[at] = holds(self._tokenizer, whole, self._stops)
        torch = library("torch")
        return torch.tensor(self._ended, dtype=torch.bool, device=input_ids.device)
