"""What `check` adds to the core's plan: do the configs and tokenizers of the inputs belong together?

Headers show that tensors match by name and shape. They do not show attention split into other heads, or a
token with another id, either of which makes the sum of two models noise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .errors import TaskvecError
from .vector import is_vector

if TYPE_CHECKING:
    from .records import Json
    from .refs import Ref

# Weights mean something else when one of these differs, whatever their shapes.
_STRUCTURE = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
)
# A policy of the plan deals with these, or they bend the model without changing what a weight means.
_NOTED = ("rope", "tie_word_embeddings", "vocab_size")


@dataclass(slots=True)
class Findings:
    """What a comparison found, in the order found."""

    notes: list[str] = field(default_factory=list[str])
    problems: list[Json] = field(default_factory=list["Json"])

    def problem(self, ref: Ref, name: str, message: str) -> None:
        """Adds a problem with one of a folder's files in the form that plans have."""
        file = str(Path(ref.path) / name)
        self.problems.append({"file": file, "tensor": None, "message": f"{file}: {message}"})


def compare(target: Ref, donors: list[Ref]) -> Findings:
    """Compares the target's config and tokenizer with each donor's; a vector has `vector.json` alone."""
    found = Findings()
    config = _config(target, found)
    tokens = _tokens(target, found)
    for donor in donors:
        # An adapter needs neither file; copies of its base's may still tell that they differ.
        if not donor.is_adapter or donor.holds("config.json"):
            _compare_configs(target, config, donor, _config(donor, found), found)
        if not is_vector(donor) and (donor.holds("tokenizer.json") or not donor.is_adapter):
            _compare_tokens(target, tokens, donor, _tokens(donor, found), found)
    if config is not None and tokens:
        _compare_rows(target, config, tokens, found)
    return found


def _load(ref: Ref, name: str, found: Findings) -> Json | None:
    """The JSON object in a file: absent is a note, malformed a problem."""
    try:
        text = ref.read(name)
        if text is None:
            found.notes.append(f"{Path(ref.path) / name} is not there, so it was not compared")
            return None
        value: Any = json.loads(text)
    # A network that fails is not the file's fault, and is told as what it is.
    except (OSError, ValueError, RecursionError) as error:
        if ref.remote is not None and isinstance(error, TaskvecError):
            raise
        found.problem(
            ref, name, f"cannot be read as JSON ({type(error).__name__}); download or save it again"
        )
        return None
    if not isinstance(value, dict):
        found.problem(ref, name, "holds no JSON object; download or save it again")
        return None
    return cast("Json", value)


def _config(ref: Ref, found: Findings) -> Json | None:
    """The keys that matter, found at the top or in `text_config` and written in one way."""
    if is_vector(ref):
        described = _load(ref, "vector.json", found) or {}
        config = described.get("config")
        if not isinstance(config, dict):
            found.notes.append(f"{Path(ref.path) / 'vector.json'} keeps no config, so none was compared")
            return None
    else:
        config = _load(ref, "config.json", found)
    if config is None:
        return None
    top = cast("Json", config)
    inner = top.get("text_config")
    flat = {**top, **cast("Json", inner)} if isinstance(inner, dict) else top
    return {**{key: flat.get(key) for key in _STRUCTURE + _NOTED}, "rope": _rope(flat)}


def _rope(config: Json) -> Any:
    """The rotary settings, old spelling (`rope_theta`, `rope_scaling`) and new (`rope_parameters`) alike."""
    rope: Json = {}
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(settings := config.get(key), dict):
            rope.update(cast("Json", settings))
    rope.setdefault("rope_theta", config.get("rope_theta"))
    # "type" is the older name of "rope_type", and "default" what is meant where neither is given.
    kind = rope.pop("type", "default")
    rope.setdefault("rope_type", kind)
    return rope if rope["rope_theta"] is not None else None


def _compare_configs(
    target: Ref, ours: Json | None, donor: Ref, theirs: Json | None, found: Findings
) -> None:
    if ours is None or theirs is None:
        return
    for key in _STRUCTURE + _NOTED:
        mine, other = ours[key], theirs[key]
        if mine is None or other is None or mine == other:
            continue
        said = f"{key} is {_short(other)} where {target.name} has {_short(mine)}"
        if key in _STRUCTURE:
            name = "vector.json" if is_vector(donor) else "config.json"
            found.problem(donor, name, f"{said}; only models of one architecture and size fit together")
        else:
            found.notes.append(f"{donor.name}: {said}")


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _tokens(ref: Ref, found: Findings) -> dict[str, int] | None:
    """Token → id of the folder's tokenizer.json: the model's vocabulary, then the added tokens."""
    content = _load(ref, "tokenizer.json", found)
    if content is None:
        return None
    try:
        vocab: Any = content["model"]["vocab"]
        if isinstance(vocab, list):  # Unigram: [piece, score], the id is its place
            vocab = {piece: at for at, (piece, _) in enumerate(cast("list[Any]", vocab))}
        tokens = {str(token): int(at) for token, at in vocab.items()}
        tokens.update(
            (str(added["content"]), int(added["id"])) for added in content.get("added_tokens") or ()
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        found.problem(
            ref,
            "tokenizer.json",
            "its vocabulary is not in the form that the tokenizers library writes; save it again",
        )
        return None
    return tokens


def _compare_tokens(
    target: Ref, ours: dict[str, int] | None, donor: Ref, theirs: dict[str, int] | None, found: Findings
) -> None:
    if ours is None or theirs is None:
        return
    moved = sorted(token for token in ours.keys() & theirs.keys() if ours[token] != theirs[token])
    if moved:
        token = moved[0]
        found.problem(
            donor,
            "tokenizer.json",
            f"{len(moved)} tokens have another id than in {target.name} ({token!r}: {theirs[token]}, there"
            f" {ours[token]}) and would mix up embedding rows; choose donors with the target's tokenizer",
        )
    for one, has, other, lacks in ((target, ours, donor, theirs), (donor, theirs, target, ours)):
        if extra := len(has.keys() - lacks.keys()):
            found.notes.append(f"tokens of {one.name} that {other.name} lacks: {extra}")


def _compare_rows(target: Ref, config: Json, tokens: dict[str, int], found: Findings) -> None:
    """The embedding's rows (`transformers` opens it only if they are vocab_size) against the ids in use."""
    rows, needed = config["vocab_size"], max(tokens.values()) + 1
    if not isinstance(rows, int):
        return
    if rows < needed:
        found.problem(
            target,
            "config.json",
            f"vocab_size {rows} is less than the {needed} ids of its tokenizer; resize the embedding first",
        )
    elif rows > needed:
        padding = f"{rows - needed} rows of padding"
        found.notes.append(f"{target.name}: {rows} vocabulary rows, {needed} ids in its tokenizer, {padding}")
