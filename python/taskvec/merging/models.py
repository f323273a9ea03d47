"""A model of a merge as far as names and config tell: its tensors, its stacks of layers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import taskvec._core as _core

from ..errors import MismatchError

if TYPE_CHECKING:
    from ..inputs.refs import Ref
    from ..records import Json

_LAYER = re.compile(r"(?:(?P<stack>.+?)\.)?(?P<number>\d+)\.(?P<rest>.+)")
_BEFORE = re.compile(r"(^|\.)(embed_tokens|wte|wpe|embed_in|word_embeddings|tok_embeddings)\.")
_AFTER = re.compile(r"(^|\.)(norm|ln_f|final_layer_norm|final_layernorm|lm_head|embed_out)\.")
HEADS = ("lm_head.weight", "embed_out.weight")
"""Output heads, which a model that ties them to its embedding need not store."""
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)\.weight$")


class Layer(NamedTuple):
    """Where a tensor is: `stack.number.rest`."""

    stack: str
    number: int
    rest: str

    @property
    def name(self) -> str:
        """The tensor's name."""
        return f"{self.stack}.{self.number}.{self.rest}" if self.stack else f"{self.number}.{self.rest}"


def layer_of(name: str) -> Layer | None:
    """The layer of a tensor: the first number in its name; None for embeddings, the head and the like."""
    found = _LAYER.fullmatch(name)
    return Layer(found["stack"] or "", int(found["number"]), found["rest"]) if found else None


def side(name: str) -> str | None:
    """Whether a tensor of no layer comes before the layers or after them; None if its name does not tell."""
    if _BEFORE.search(name):
        return "before"
    return "after" if _AFTER.search(name) else None


@dataclass(frozen=True, slots=True)
class Model:
    """One input of a merge."""

    text: str
    """As it is written in the file."""
    ref: Ref
    names: tuple[str, ...]
    stacks: dict[str, int]
    """The number of layers of each stack, by what stands before the numbers in names."""

    @classmethod
    def open(cls, text: str, ref: Ref) -> Model:
        """Reads headers."""
        if ref.is_vector or ref.is_adapter:
            kind = "a vector" if ref.is_vector else "a LoRA adapter"
            raise MismatchError(
                f"{text} is {kind}, and a merge is of checkpoints; apply it to its base first"
            )
        inside: Json = json.loads(_core.inspect(ref))
        names = tuple(one["name"] for one in inside["tensors"])
        stacks: dict[str, int] = defaultdict(int)
        for layer in filter(None, map(layer_of, names)):
            stacks[layer.stack] = max(stacks[layer.stack], layer.number + 1)
        return cls(text, ref, names, dict(stacks))

    @property
    def main(self) -> str | None:
        """The stack with most layers."""
        return max(self.stacks, key=lambda stack: self.stacks[stack], default=None)

    def embedding(self) -> str | None:
        """The name of its only embedding."""
        found = [name for name in self.names if _EMBEDDING.search(name) and layer_of(name) is None]
        return found[0] if len(found) == 1 else None

    def config(self) -> Json:
        """Its config.json; empty if it has none."""
        try:
            found = json.loads(self.ref.read("config.json") or b"{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise MismatchError(f"{self.text}: config.json is not a JSON object; download the model again")
        return cast("Json", found)
