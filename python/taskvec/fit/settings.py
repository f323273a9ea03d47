"""The settings of language models in a `config.json`, wherever they are: at the top or in a sub-config.

A multimodal config nests them under a name that every family chooses anew, and has settings of vision or
audio towers beside them. Not names tell them apart: a language model counts its vocabulary, a tower does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ..records import Json

SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
)
_TOWER = ("patch_size", "image_size", "num_mel_bins")


def language_models(config: Json) -> dict[str, Json]:
    """By path (`thinker_config.text_config`, the top is empty): the settings, with those above as defaults.

    One model where there is one; several where the config has several (thinker and talker, encoder and
    decoder); the top alone where no object inside looks like a model.
    """
    found = {path: one for path, one in _objects(config, (), {}) if _counts(one[0])}
    told = {path: one for path, one in found.items() if "vocab_size" in one[0]}
    if not any("num_attention_heads" in own for own, _ in told.values()):
        # Settings that stop at the vocabulary are a part's; the sizes are then in an object without it.
        told = {path: one for path, one in found.items() if not any(key in one[0] for key in _TOWER)}
    whole = {path: one for path, one in told.items() if "num_attention_heads" in one[0]} or told
    return {".".join(path): merged for path, (_, merged) in whole.items()} or {"": config}


def paired(ours: Json, theirs: Json) -> list[tuple[str, Json, Json]]:
    """The language models of two configs that correspond: where theirs are, and the settings of both.

    By path where both have one of the same path; else those of the same sizes. Empty where it cannot be told.
    """
    mine, others = language_models(ours), language_models(theirs)
    if len(mine) == len(others) == 1:
        ((_, one),), ((path, other),) = mine.items(), others.items()
        return [(path, one, other)]
    if both := mine.keys() & others.keys():
        return [(path, mine[path], others[path]) for path in mine if path in both]
    return [
        (path, one, other)
        for one in mine.values()
        for path, other in others.items()
        if all(one.get(key) == other.get(key) for key in ("hidden_size", "num_hidden_layers"))
    ]


def _objects(
    value: Any, path: tuple[str, ...], above: Json
) -> list[tuple[tuple[str, ...], tuple[Json, Json]]]:
    """Every object: its path, and its own settings without and with those above it."""
    if isinstance(value, list):
        parts = enumerate(cast("list[Any]", value))
        return [one for at, part in parts for one in _objects(part, (*path, str(at)), above)]
    if not isinstance(value, dict):
        return []
    own = {key: part for key, part in cast("Json", value).items() if part is not None}
    values: Json = {key: part for key, part in own.items() if not isinstance(part, dict) or "rope" in key}
    merged: Json = {**above, **values}
    inside = [one for key, part in own.items() for one in _objects(part, (*path, key), merged)]
    return [(path, (own, merged)), *inside]


def _counts(own: Json) -> bool:
    return "vocab_size" in own or sum(key in own for key in SIZES) > 1
