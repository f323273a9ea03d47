"""Compares the configs and tokenizers of the inputs of a merge.

The core compares names and shapes of tensors in the headers. Headers do not show that attention is split into
other heads, or that an id is another token; either makes the sum of two models meaningless. `check` and the
verbs that write use the same comparison, so that they give the same answer. It finds:

- claims: reasons against the job, which the core refuses if a tensor concerned is combined;
- warnings: odd differences that do not make the sum wrong, since the sizes in the headers agree;
- notes: other differences, and what could not be compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..errors import TaskvecError
from .settings import language_models, paired
from .tokens import Tokens, Unreadable, tokens

if TYPE_CHECKING:
    from ..inputs.refs import Ref
    from ..options import Options
    from ..records import Json

# If one of these differs, the weights have another meaning, which no header shows.
_UNSEEN = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
# Sizes that the headers show more reliably, and a name: one architecture may have several names.
_SEEN = ("model_type", "hidden_size", "intermediate_size")
# The plan handles these, or they change the model without changing the meaning of its weights.
_NOTED = ("rope", "tie_word_embeddings", "vocab_size")


class Claim(NamedTuple):
    """A reason against a job."""

    file: str
    message: str
    row: int | None
    """The first vocabulary row that is another token; None if the claim concerns all tensors."""


@dataclass(slots=True)
class Findings:
    """The result of a comparison, in the order found."""

    claims: list[Claim] = field(default_factory=list[Claim])
    warnings: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    def asked(self, options: Options) -> Options:
        """The same options with these claims added, so that the core takes them into account."""
        return replace(options, claims=tuple(self.claims))

    def claim(self, ref: Ref, name: str, message: str, row: int | None = None) -> None:
        """Adds a reason against the job that is found in the file `name` of a folder."""
        file = _path(ref, name)
        self.claims.append(Claim(file, f"{file}: {message}", row))

    def beside(self, problems: list[Json]) -> list[str]:
        """The notes, and as notes the claims that the core has not made problems of the plan."""
        told = {problem["message"] for problem in problems}
        moot = [
            f"{one.message} (no such tensor is combined)" for one in self.claims if one.message not in told
        ]
        return [*moot, *self.notes]


def compare(target: Ref, donors: list[Ref]) -> Findings:
    """Compares the target's config and tokenizer with each donor's; a vector has only `vector.json`."""
    found = Findings()
    config, own = _config(target, found), _tokens(target, found)
    for donor in donors:
        # An adapter needs no config or tokenizer, but if it has copies of its base's, they are compared.
        if not donor.is_adapter or donor.holds("config.json"):
            theirs = _config(donor, found)
            if config is not None and theirs is not None:
                _compare_configs(target, config, donor, theirs, found)
        if donor.is_vector:
            found.notes.append(
                f"{_path(donor, 'vector.json')} holds no tokenizer, so tokens were not compared"
            )
        elif donor.holds("tokenizer.json") or not donor.is_adapter:
            others = _tokens(donor, found)
            if own is not None and others is not None:
                _compare_tokens(target, own, donor, others, found)
    if config is not None and own is not None and own.ids:
        _compare_rows(target, config, own.ids, found)
    return found


def _path(ref: Ref, name: str) -> str:
    # A path on the Hub is written with `/` on every system.
    return f"{ref.path}/{name}" if ref.remote else str(Path(ref.path) / name)


def _load(ref: Ref, name: str, found: Findings) -> Json | None:
    """The JSON object in a file; None, with a note or warning, if the file is not there or not readable."""
    path = _path(ref, name)
    try:
        text = ref.read(name)
        if text is None:
            found.notes.append(f"{path} does not exist, so it was not compared")
            return None
        value: Any = json.loads(text)
    # An error of the network says nothing about the file, so it is raised as it is.
    except (OSError, ValueError, RecursionError) as error:
        if ref.remote is not None and isinstance(error, TaskvecError):
            raise
        found.warnings.append(
            f"{path} cannot be read as JSON ({type(error).__name__}), so it was not compared; download or"
            " save it again"
        )
        return None
    if not isinstance(value, dict):
        found.warnings.append(
            f"{path} is not a JSON object, so it was not compared; download or save it again"
        )
        return None
    return cast("Json", value)


def _config(ref: Ref, found: Findings) -> Json | None:
    if not ref.is_vector:
        return _load(ref, "config.json", found)
    config = (_load(ref, "vector.json", found) or {}).get("config")
    if isinstance(config, dict):
        return cast("Json", config)
    found.notes.append(f"{_path(ref, 'vector.json')} holds no config, so configs were not compared")
    return None


def _compare_configs(target: Ref, ours: Json, donor: Ref, theirs: Json, found: Findings) -> None:
    name = "vector.json" if donor.is_vector else "config.json"
    pairs = paired(ours, theirs)
    if not pairs:
        found.warnings.append(
            f"{_path(donor, name)}: its language models cannot be matched with those of {target.name}, so"
            " their settings were not compared; make sure that their attention heads are the same"
        )
    for path, mine, other in pairs:
        mine, other = {**mine, "rope": _rope(mine)}, {**other, "rope": _rope(other)}
        for key in _UNSEEN + _SEEN + _NOTED:
            if mine.get(key) is None or other.get(key) is None or mine[key] == other[key]:
                continue
            where = f" in {path}" if path else ""
            said = f"{key} is {_short(other[key])}{where}, but {_short(mine[key])} in {target.name}"
            if key in _UNSEEN:
                found.claim(donor, name, f"{said}; choose donors with the target's layers and heads")
            elif key in _SEEN:
                found.warnings.append(
                    f"{_path(donor, name)}: {said}; tensors are combined by name and shape, so make sure that"
                    " both have the same architecture"
                )
            else:
                found.notes.append(f"{donor.name}: {said}")


def _rope(config: Json) -> Any:
    """The rotary settings in one form, from the old keys (`rope_theta`, `rope_scaling`) or the new one."""
    rope: Json = {}
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(settings := config.get(key), dict):
            rope.update(cast("Json", settings))
    rope.setdefault("rope_theta", config.get("rope_theta"))
    # "type" is the older name of "rope_type"; "default" applies if neither is given.
    kind = rope.pop("type", "default")
    rope.setdefault("rope_type", kind)
    return rope if rope["rope_theta"] is not None else None


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _tokens(ref: Ref, found: Findings) -> Tokens | None:
    try:
        return tokens(ref, lambda name: _load(ref, name, found))
    except Unreadable as error:
        found.warnings.append(
            f"{_path(ref, str(error))}: its vocabulary is not in the form that the tokenizers library"
            " writes, so it was not compared; save the tokenizer again"
        )
        return None


def _compare_tokens(target: Ref, own: Tokens, donor: Ref, others: Tokens, found: Findings) -> None:
    ours, theirs, name = own.ids, others.ids, others.file
    way_out = (
        "choose donors with the target's tokenizer, or --exclude the embedding and the output head"
        " (--exclude 'embed|lm_head')"
    )
    moved = sorted(token for token in ours.keys() & theirs.keys() if ours[token] != theirs[token])
    if moved:
        token = moved[0]
        found.claim(
            donor,
            name,
            f"{len(moved)} tokens have another id than in {target.name} ({token!r}: {theirs[token]} here,"
            f" {ours[token]} there), which would mix up embedding rows; {way_out}",
            min(min(ours[one], theirs[one]) for one in moved),
        )
    mine, other = _by_id(ours, moved), _by_id(theirs, moved)
    # Several tokens may share an id; one in common is enough.
    reused = sorted(at for at in mine.keys() & other.keys() if not mine[at] & other[at])
    if reused:
        at = reused[0]
        found.claim(
            donor,
            name,
            f"{len(reused)} ids are other tokens than in {target.name} (id {at}: {min(other[at])!r} here,"
            f" {min(mine[at])!r} there), which would mix up embedding rows; {way_out}",
            at,
        )
    for one, has, another, lacks in ((target, ours, donor, theirs), (donor, theirs, target, ours)):
        if extra := len(has.keys() - lacks.keys()):
            found.notes.append(f"tokens of {one.name} that {another.name} does not have: {extra}")


def _by_id(ids: dict[str, int], moved: list[str]) -> dict[int, set[str]]:
    """Id → its tokens, without the tokens in `moved`, which are reported already."""
    found: dict[int, set[str]] = {}
    for token in ids.keys() - set(moved):
        found.setdefault(ids[token], set()).add(token)
    return found


def _compare_rows(target: Ref, config: Json, ids: dict[str, int], found: Findings) -> None:
    """Compares the ids in use with vocab_size, which `transformers` requires to be the embedding's rows."""
    # If there are several models, the first is the one that gets the user's text.
    rows, needed = next(iter(language_models(config).values())).get("vocab_size"), max(ids.values()) + 1
    if not isinstance(rows, int):
        return
    if rows < needed:
        found.warnings.append(
            f"{_path(target, 'config.json')}: vocab_size {rows} is less than the {needed} ids of its"
            " tokenizer; resize the target's embedding, or use the tokenizer that belongs to the target"
        )
    elif rows > needed:
        padding = f"{rows - needed} rows of padding"
        found.notes.append(f"{target.name}: {rows} vocabulary rows, {needed} ids in its tokenizer, {padding}")
