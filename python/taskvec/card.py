"""Writes the model card (README.md) of an output: metadata for the Hub, the command, the names of the inputs.

The same request gives the same text: it holds no time, no path and no name of a machine.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from .inputs.refs import Ref
    from .options import Options

_CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag", "library_name")
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Card:
    """The text of a README.md, and notes on what could not be copied into it."""

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
    models = [target, *(ref for _, ref in inputs)]
    front, notes = _front(models, ["taskvec", "merge", "task-arithmetic"], relation="merge")
    body = [
        f"# {_printable(target.name)} + task vector",
        "",
        f"Made by taskvec as `{formula}`, on every tensor that the inputs share{_but(options)}:",
        "",
        *_code([*command, *_recipe(options, [ref for _, ref in inputs]), "-o", "OUT"]),
        *_inputs([("target", target), *inputs]),
        "The arithmetic is done in float32. Each operation is rounded once, and the result once to the",
        "output dtype. Tensors that only the target has, its config and its tokenizer are copied from it.",
        "`taskvec.json` records the inputs, the options, the effect of rounding and a digest of every file,",
        "which `taskvec verify` checks.",
    ]
    if target.holds("README.md"):
        body += ["", "The target's own card is in [README.target.md](README.target.md)."]
    return Card(_whole(front, body), notes)


def graft_card(target: Ref, donors: list[tuple[Ref, list[str]]], options: Options) -> Card:
    """The card of a checkpoint written by `graft`."""
    front, notes = _front([target, *(ref for ref, _ in donors)], ["taskvec", "merge"], relation="merge")
    command = ["taskvec", "graft", target.pinned, donors[0][0].pinned]
    for at, (ref, patterns) in enumerate(donors):
        command += ["--from", ref.pinned] if at else []
        for pattern in patterns:
            command += ["--take", pattern]
    named = [(f"donor {at}" if len(donors) > 1 else "donor", ref) for at, (ref, _) in enumerate(donors, 1)]
    body = [
        f"# {_printable(target.name)} with weights of {_printable(donors[0][0].name)}",
        "",
        "Made by taskvec from the weights of several models, each copied byte for byte:",
        "",
        *_code([*command, *_recipe(options, [ref for ref, _ in donors]), "-o", "OUT"]),
        *_inputs([("target", target), *named]),
        "Nothing was computed. All other weights, the config and the tokenizer are the target's.",
        "`taskvec.json` says which tensor comes from where, and has a digest of every file, which",
        "`taskvec verify` checks.",
    ]
    if target.holds("README.md"):
        body += ["", "The target's own card is in [README.target.md](README.target.md)."]
    return Card(_whole(front, body), notes)


def recipe_card(method: str, text: str, inputs: list[tuple[str, Ref]], options: Options) -> Card:
    """The card of a checkpoint that a file with a recipe describes; `text` is that of the file."""
    front, notes = _front([ref for _, ref in inputs], ["taskvec", "merge"], relation="merge")
    seed = ["--seed", str(options.seed)] if options.seed else []
    body = [
        f"# Merge with {method}",
        "",
        "Made by taskvec from this recipe, in mergekit's format:",
        "",
        *("    " + _printable(line) for line in text.splitlines()),
        "",
        *_code(["taskvec", "merge", "RECIPE.yml", *_recipe(options, []), *seed, "-o", "OUT"]),
        *_inputs([(f"model {at}", ref) for at, (_, ref) in enumerate(inputs, 1)]),
        "The arithmetic is done in float32, and each result is rounded once. `taskvec.json` records what",
        "each tensor was made of, and a digest of every file, which `taskvec verify` checks.",
    ]
    return Card(_whole(front, body), notes)


def vector_card(minuend: Ref, subtrahend: Ref, options: Options) -> Card:
    """The card of a vector written by `extract`."""
    front, notes = _front([minuend, subtrahend], ["taskvec", "task-vector", "task-arithmetic"])
    pair, recipe = (minuend.pinned, subtrahend.pinned), _recipe(options, [minuend, subtrahend])
    body = [
        f"# Task vector {_printable(minuend.name)} − {_printable(subtrahend.name)}",
        "",
        "Made by taskvec as `v = minuend − subtrahend`, tensor by tensor:",
        "",
        *_code(["taskvec", "extract", *pair, *recipe, "--encoding", options.encoding, "-o", "VEC"]),
        *_inputs([("minuend", minuend), ("subtrahend", subtrahend)]),
        *_use(options),
    ]
    return Card(_whole(front, body), notes)


def derived_card(
    title: str, formula: str, command: list[str], inputs: list[tuple[str, Ref]], options: Options
) -> Card:
    """The card of a vector written from other vectors."""
    front, notes = _front([ref for _, ref in inputs], ["taskvec", "task-vector", "task-arithmetic"])
    stored = ["--encoding", options.encoding]
    body = [
        f"# {_printable(title)}",
        "",
        f"Made by taskvec as {formula}:",
        "",
        *_code([*command, *stored, "-o", "VEC"]),
        *_inputs(inputs),
        *_use(options),
    ]
    return Card(_whole(front, body), notes)


def _use(options: Options) -> list[str]:
    """What to do with a vector, and how it is stored."""
    packed = [
        "Its values are packed. taskvec restores each of them exactly; for programs that read only plain",
        "safetensors, `taskvec convert VEC -o DENSE --encoding dense` writes the same vector unpacked.",
    ]
    dense = [
        "taskvec restores the exact float32 value of every element. If there is a file",
        "`vector-exceptions.safetensors`, it holds the elements that bfloat16 cannot represent; programs",
        "that do not read it see v rounded to bfloat16.",
    ]
    return [
        "Add it to a checkpoint with the same tensors; none of the models that it comes from is needed:",
        "",
        *_code(["taskvec", "apply", "TARGET", "VEC", "-o", "OUT", "--alpha", "1.0"]),
        *(packed if options.encoding == "packed" else dense),
        "`vector.json` records where the vector comes from.",
    ]


def _front(
    models: list[Ref], tags: list[str], relation: str | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The metadata block; licence, language and the like are copied from the first model's card."""
    carried, note = _carried(models[0])
    base: dict[str, Any] = {}
    # The Hub draws model trees from these names; it has no place for revisions, so each name comes once.
    if names := list(dict.fromkeys(one.origin.repo for one in models if one.origin)):
        base["base_model"] = names
        if relation:
            base["base_model_relation"] = relation
    return {**base, "tags": tags, **carried}, (note,) if note else ()


def _carried(source: Ref) -> tuple[dict[str, Any], str | None]:
    import yaml  # Imported here so that `import taskvec` stays fast.

    readme = Path(source.path) / "README.md"
    why = f"{readme}: its metadata cannot be read, so no licence was copied; add it to the model card"
    try:
        text = source.read("README.md")
        lines = (text or b"")[:_LARGEST].decode("utf-8", errors="strict").splitlines()
    except UnicodeDecodeError:
        return {}, why
    except OSError:
        if source.remote is not None:
            raise
        return {}, why
    if not lines or lines[0].rstrip() != "---":
        return {}, None
    end = next((at for at, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    try:
        # A date that does not exist raises ValueError, and very deep brackets raise RecursionError.
        front = None if end is None else yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, ValueError, RecursionError):
        front = None
    if not isinstance(front, dict):
        return {}, why
    known = cast("dict[Any, Any]", front)
    return {key: known[key] for key in _CARRIED if _plain(known.get(key))}, None


def _plain(value: Any) -> bool:
    """Whether the value is a text or a list of texts, the only forms that these keys may have."""
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(item, str) for item in cast("list[Any]", value))
    )


def _but(options: Options) -> str:
    """What the formula leaves out."""
    varied = options.alpha_rules or options.schedule
    return ", with α varied and tensors left out as the options say" if varied else ""


def _recipe(options: Options, donors: list[Ref]) -> list[str]:
    """The options that decide what is written; options that only change the speed are left out."""
    words: list[str] = []
    for pattern, alpha, _ in options.alpha_rules:
        words += ["--alpha-rule", f"{pattern}={alpha}"]
    if options.schedule:
        words += ["--schedule", options.schedule]
    if options.dtype:
        words += ["--dtype", options.dtype]
    if options.rounding == "stochastic":
        words += ["--rounding", "stochastic", "--seed", str(options.seed)]
    if options.requantise:
        words += ["--requantise"] + (["--scales", options.requantise] if options.requantise != "keep" else [])
    if options.vocab != "strict":
        words += ["--vocab", options.vocab]
    for name, patterns in (
        ("--include", options.include),
        ("--exclude", options.exclude),
        ("--strip-prefix", options.prefixes),
        ("--map", options.map),
    ):
        for pattern in patterns:
            words += [name, pattern]
    if options.base:
        # If the base is a donor, name it as the rest of the command does.
        pinned = {donor.path: donor.pinned for donor in donors}
        words += ["--base", pinned.get(options.base, options.base)]
    return words


def _code(words: list[str]) -> list[str]:
    # Indented instead of fenced, because a pattern may hold any number of backticks.
    return ["    " + _printable(shlex.join(words)), ""]


def _inputs(inputs: list[tuple[str, Ref]]) -> list[str]:
    def cell(ref: Ref) -> str:
        name = _printable(ref.name).replace("|", "&#124;")
        return f"[{name}]({ref.origin.page})" if ref.origin else name

    kind = {True: " (LoRA adapter)", False: ""}
    rows = [f"| {role}{kind[ref.is_adapter]} | {cell(ref)} |" for role, ref in inputs]
    return ["| input | name |", "|---|---|", *rows, ""]


def _printable(text: str) -> str:
    """Escapes line breaks and the like, which would end the heading, table row or code block around them."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _whole(front: dict[str, Any], body: list[str]) -> str:
    import yaml

    # The stubs do not give a type to one argument, which is not used here.
    dump: Callable[..., str] = cast("Any", yaml).safe_dump
    metadata = dump(front, sort_keys=False, allow_unicode=True)
    return "\n".join(["---", metadata + "---", "", *body]) + "\n"
