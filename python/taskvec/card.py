"""The model card (README.md) of what a verb writes: metadata for the Hub, the recipe, the inputs by name.

The same request gives the same text: no time, no path, no machine in it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .options import Options
    from .refs import Ref

_CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag", "library_name")
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Card:
    """The text of a README.md, and what could not be carried over into it."""

    text: str
    notes: tuple[str, ...]


def merge_card(
    target: Ref,
    inputs: list[tuple[str, Ref]],
    command: list[str],
    formula: str,
    options: Options,
) -> Card:
    """The card of a checkpoint written by `apply` or `transfer`."""
    front, notes = _front(target, ["taskvec", "merge", "task-arithmetic"])
    body = [
        f"# {_printable(target.name)} + task vector",
        "",
        f"Made by taskvec as `{formula}`, on every tensor that the inputs share:",
        "",
        *_code([*command, *_recipe(options), "-o", "OUT"]),
        *_inputs([("target", target), *inputs]),
        "The arithmetic is done in float32, each operation rounded once, the result once to the",
        "dtype written. Tensors that only the target has, its config and its tokenizer are its own.",
        "`taskvec.json` records the inputs, the options, what rounding did and a digest of every file:",
        "`taskvec verify` checks it.",
    ]
    if (Path(target.path) / "README.md").is_file():
        body += ["", "The target's own card is in [README.target.md](README.target.md)."]
    return Card(_whole(front, body), notes)


def vector_card(minuend: Ref, subtrahend: Ref, options: Options) -> Card:
    """The card of a vector written by `extract`."""
    front, notes = _front(minuend, ["taskvec", "task-vector", "task-arithmetic"])
    body = [
        f"# Task vector {_printable(minuend.name)} − {_printable(subtrahend.name)}",
        "",
        "Made by taskvec as `v = minuend − subtrahend`, tensor by tensor:",
        "",
        *_code(["taskvec", "extract", minuend.name, subtrahend.name, *_recipe(options), "-o", "VEC"]),
        *_inputs([("minuend", minuend), ("subtrahend", subtrahend)]),
        "Add it to a checkpoint with the same tensors; neither of the two models above is needed for that:",
        "",
        *_code(["taskvec", "apply", "TARGET", "VEC", "-o", "OUT", "--alpha", "1.0"]),
        "taskvec gives back the exact float32 difference of every element. The weights are safetensors, yet",
        "where there is a `vector-exceptions.safetensors`, other readers see v rounded to bfloat16: that",
        "file holds the elements that bfloat16 cannot. `vector.json` records where the vector comes from.",
    ]
    return Card(_whole(front, body), notes)


def _front(source: Ref, tags: list[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The metadata block, what `source` says of its licence and use carried over."""
    carried, note = _carried(source)
    base = {"base_model": [source.name]} if source.on_hub else {}
    return {**base, "tags": tags, **carried}, (note,) if note else ()


def _carried(source: Ref) -> tuple[dict[str, Any], str | None]:
    import yaml  # Not at the top: `import taskvec` stays light.

    readme = Path(source.path) / "README.md"
    why = f"{readme}: its metadata cannot be read, so no licence was carried over; add it to the model card"
    try:
        if readme.exists() and not readme.is_file():
            return {}, why  # A pipe would be waited for.
        with readme.open("rb") as file:
            lines = file.read(_LARGEST).decode("utf-8", errors="strict").splitlines()
    except FileNotFoundError:
        return {}, None
    except (OSError, UnicodeDecodeError):
        return {}, why
    if not lines or lines[0].rstrip() != "---":
        return {}, None
    end = next((at for at, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    try:
        # Dates that do not exist are a ValueError, brackets without end a RecursionError.
        front = None if end is None else yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, ValueError, RecursionError):
        front = None
    if not isinstance(front, dict):
        return {}, why
    known = cast("dict[Any, Any]", front)
    return {key: known[key] for key in _CARRIED if _plain(known.get(key))}, None


def _plain(value: Any) -> bool:
    """Text or a list of texts: all that these keys may hold, and nothing that could grow on the way out."""
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(item, str) for item in cast("list[Any]", value))
    )


def _recipe(options: Options) -> list[str]:
    """The options that decide what is written; those that decide only how fast are left out."""
    words: list[str] = []
    for pattern, alpha, _ in options.alpha_rules:
        words += ["--alpha-rule", f"{pattern}={alpha}"]
    if options.dtype:
        words += ["--dtype", options.dtype]
    if options.rounding == "stochastic":
        words += ["--rounding", "stochastic", "--seed", str(options.seed)]
    if options.vocab != "strict":
        words += ["--vocab", options.vocab]
    for name, patterns in (
        ("--include", options.include),
        ("--exclude", options.exclude),
        ("--strip-prefix", options.prefixes),
    ):
        for pattern in patterns:
            words += [name, pattern]
    return words


def _code(words: list[str]) -> list[str]:
    # Indented, not fenced: a pattern may hold any number of backticks.
    return ["    " + _printable(shlex.join(words)), ""]


def _inputs(inputs: list[tuple[str, Ref]]) -> list[str]:
    link = "[{0}](https://huggingface.co/{0})"
    rows = [
        f"| {role} | {link.format(ref.name) if ref.on_hub else _printable(ref.name).replace('|', '&#124;')} |"
        for role, ref in inputs
    ]
    return ["| input | name |", "|---|---|", *rows, ""]


def _printable(text: str) -> str:
    """A line break in a folder's name or a pattern must not end the heading, row or block it stands in."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _whole(front: dict[str, Any], body: list[str]) -> str:
    import yaml

    metadata = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return "\n".join(["---", metadata + "---", "", *body]) + "\n"
