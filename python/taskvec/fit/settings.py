"""Finds the settings of the language models in a `config.json`, at the top level or in a sub-config.

A multimodal config has the language model in a sub-config, beside those of vision or audio towers. Its name
differs between model families, so it is found by content: a language model has a `vocab_size`, a tower none.
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
    """The language models of a config, by path (such as `thinker_config.text_config`; the top level is `""`).

    The settings of each include those of the levels above as defaults. A config may have several models
    (thinker and talker, encoder and decoder). If no object looks like a model, the top level is returned.
    """
    found = {path: one for path, one in _objects(config, (), {}) if _counts(one[0])}
    told = {path: one for path, one in found.items() if "vocab_size" in one[0]}
    if not any("num_attention_heads" in own for own, _ in told.values()):
        # The object with `vocab_size` is only a part of the model; the sizes are in another object.
        told = {path: one for path, one in found.items() if not any(key in one[0] for key in _TOWER)}
    whole = {path: one for path, one in told.items() if "num_attention_heads" in one[0]} or told
    return {".".join(path): merged for path, (_, merged) in whole.items()} or {"": config}


def paired(ours: Json, theirs: Json) -> list[tuple[str, Json, Json]]:
    """Pairs the language models of two configs: the path in `theirs`, our settings, their settings.

    Models at the same path are a pair; if there are none, models of the same sizes are. The list is empty if
    no pair can be found.
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
    """Every object in a config: its path, its own settings, and these with those of the levels above."""
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
