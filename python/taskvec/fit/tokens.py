"""A folder's tokens and their ids, from the files that tokenizers are saved in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..inputs.refs import Ref
    from ..records import Json


class Unreadable(Exception):
    """A file whose vocabulary is in no known form; its argument is the file's name."""


class Tokens(NamedTuple):
    """The tokens of a folder."""

    file: str
    """The file that names them."""
    ids: dict[str, int]
    """Token → id."""


def tokens(ref: Ref, load: Callable[[str], Json | None]) -> Tokens | None:
    """The folder's tokens; None where no file names them. `load` reads a JSON object.

    `tokenizer.json` has all tokens. Without it, `vocab.json` has the model's own, `added_tokens.json` and
    `tokenizer_config.json` those that were added.
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
    if isinstance(vocab, list):  # Unigram: [piece, score], the id is its place
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
