"""When a row of a batch ends: as soon as its text holds any of the stop strings, whatever the others do.

lm-eval's own criterion ends a batch when every row has met the same string, and decodes all rows once for
each string at every step. With it, rows that end in different ways all run on to the cap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..environment import library

if TYPE_CHECKING:
    from collections.abc import Sequence

_Criterion: Any = library("transformers").StoppingCriteria

# More than a stop string can be spread over: a token holds at least one byte of it, save for those that are
# empty or the half of a character.
_SPARE = 4


def holds(tokenizer: Any, tokens: Sequence[int], stops: Sequence[str]) -> bool:
    """Whether the text of new tokens contains a stop string.

    Special tokens count: lm-eval ends generation at them where they are stop strings.
    """
    text = tokenizer.decode(tokens, skip_special_tokens=False)
    return any(one in text for one in stops if one)


class RowStop(_Criterion):
    """A stopping criterion for `generate` that answers row by row.

    Only the last few tokens of rows that are still open are decoded at each step. What seems to be a stop
    string there is looked for in the row's whole text before the row ends, since the two may be decoded
    differently at the seam.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], ends: set[int], width: int) -> None:
        """For one batch.

        Args:
            tokenizer: decodes.
            stops: any of them ends a row.
            ends: tokens that end a row too: the model's, of which `generate` knows, and the tokenizer's.
            width: tokens of the padded prompts.
        """
        self._tokenizer, self._ends, self._width = tokenizer, ends, width
        # lm-eval names the end token among them, which needs no looking for in the text.
        named = {tokenizer.decode([one], skip_special_tokens=False) for one in ends}
        self._stops = [one for one in stops if one and one not in named]
        self._tail = max((len(one.encode()) for one in self._stops), default=0) + _SPARE
        self._ended: list[bool] = []

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Which rows have ended, as a tensor of bools.

        Args:
            input_ids: prompts and new tokens, (rows, width + new).
            scores: not used.
        """
        self._ended = self._ended or [False] * len(input_ids)
        # One copy from the device for all rows.
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
