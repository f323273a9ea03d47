"""Reads the tokens of a folder and their ids from its tokenizer files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..inputs.refs import Ref
    from ..records import Json


class Unreadable(Exception):
    """The vocabulary of a file is not in a known form; the argument is the name of the file."""


class Tokens(NamedTuple):
    """The tokens of a folder."""

    file: str
    """The file that lists them."""
    ids: dict[str, int]
    """Token → id."""


def tokens(ref: Ref, load: Callable[[str], Json | None]) -> Tokens | None:
    """The tokens of a folder; None if no file lists them. `load` reads a JSON file by its name.

    `tokenizer.json` has all tokens. If it does not exist, `vocab.json` has the tokens of the model, and
    `added_tokens.json` and `tokenizer_config.json` have the added ones.
    """
    if ref.holds("tokenizer.json") or not any(ref.holds(name) for name in _SLOW):
        content = load("tokenizer.json")
        return None if content is None else Tokens("tokenizer.json", _read("tokenizer.json", _fast, content))
    found: dict[str, int] = {}
    named = ""
    for name, read in _SLOW.items():
        content = load(name) if ref.holds(name) else None
        part = {} if content is None else _read(name, read, content)
        named = named or (name if part else "")
        found |= part
    return Tokens(named, found) if found else None


def _fast(content: Json) -> dict[str, int]:
    vocab: Any = content["model"]["vocab"]
    if isinstance(vocab, list):  # Unigram: a list of [piece, score]; the id is the index.
        vocab = {piece: at for at, (piece, _) in enumerate(cast("list[Any]", vocab))}
    found = {str(token): int(at) for token, at in vocab.items()}
    found.update((str(added["content"]), int(added["id"])) for added in content.get("added_tokens") or ())
    return found


def _plain(content: Json) -> dict[str, int]:
    return {str(token): int(at) for token, at in content.items()}


def _decoder(content: Json) -> dict[str, int]:
    added: Any = content.get("added_tokens_decoder") or {}
    return {str(one["content"]): int(at) for at, one in added.items()}


_SLOW: dict[str, Callable[[Json], dict[str, int]]] = {
    "vocab.json": _plain,
    "added_tokens.json": _plain,
    "tokenizer_config.json": _decoder,
}


def _read(name: str, read: Callable[[Json], dict[str, int]], content: Json) -> dict[str, int]:
    try:
        return read(content)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise Unreadable(name) from None
