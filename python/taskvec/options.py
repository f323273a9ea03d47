"""The options that the verbs share: as a caller writes them (`Keywords`), and as the core reads them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .errors import UsageError
from .records import BRIEF
from .text import one_of, one_text, parse_size, several, texts, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable

Dtype = Literal["bf16", "f16", "f32"]
Rounding = Literal["nearest", "stochastic"]
Vocab = Literal["strict", "common"]
Scales = Literal["keep", "fresh"]
Encoding = Literal["packed", "dense"]
Io = Literal["auto", "mmap", "pread", "direct"]

Alpha = float | str
"""α as a number or as text; the core computes with `f32(float(text))`, as torch does."""
AlphaRule = str | tuple[str, Alpha]
"""`"REGEX=α"`, or the pair `(regex, α)`."""

TRIED = "0.1,0.25,0.5,0.75,1,1.5"
"""The list of α that `advise` tries if none is given."""


class Keywords(TypedDict, total=False):
    """The keyword options that the verbs share; all are optional.

    memory: budget for buffers and headers, in bytes or as text (`"256MiB"`, `"1GB"`); default: 256 MiB, or a
        quarter of the memory of the machine (or its cgroup) if that is less, or what very many tensors need.
    threads: number of worker threads; default: the available cores.
    dtype: dtype of every float tensor written; default: each tensor keeps the target's dtype.
    encoding: how a vector's values are stored: `"packed"` (the default) or `"dense"`; both are lossless. Only
        for verbs that write a vector.
    rounding: how the float32 result is rounded to the output dtype; default: `"nearest"`.
    requantise: whether a quantised target stays quantised in its own format, instead of becoming bfloat16.
        Few bits keep little of a small vector: the result says how much.
    scales: how `requantise` chooses scales: `"keep"` (the default) keeps the target's, doubled where values
        would not fit; `"fresh"` makes new ones for each block that changes.
    seed: seed of `rounding="stochastic"` or of `randomize`, 0 to 2⁶⁴ − 1; default: 0.
    vocab: what to do with vocabularies of different lengths: `"strict"` (the default) refuses them,
        `"common"` combines the leading rows that all inputs have.
    include, exclude: regular expressions on tensor names; tensors that they leave out are copied unchanged
        from the target.
    alpha_rules: `"REGEX=α"` or `(regex, α)`, another α for tensors whose name matches. The last rule that
        matches a name wins; a rule that matches no name is an error.
    schedule: how α varies over the layers of the model: `"linear:A,B"` goes from A·α at the first layer to
        B·α at the last, `"lines:A,B"` (LiNeS, arXiv 2410.17146) is α·(A + B·k/(L − 1)) at layer k of L and
        A·α outside of layers. A tensor that an alpha rule matches keeps the rule's α.
    strip_prefix: prefixes such as `"module."` to remove from tensor names before they are matched.
    map: pairs `"FROM=TO"` of a regular expression and what replaces each match of it in the names of the
        donors' tensors, where `$1` stands for the first group; `"@FILE"` reads pairs from a file, one a line.
        They are applied in order, after `strip_prefix`; a pair that matches no name is an error.
    base: the base checkpoint of the donors that are LoRA adapters, instead of the one that their
        `adapter_config.json` names; if one donor is an adapter, this checkpoint must be the other one.
    io: how inputs are read; the output is the same with each; default: `"auto"`.
    sync: whether to wait until the output is on the disk; default: True.
    sha256: whether the manifest also holds SHA-256 digests, which takes another pass over inputs and output.
    overwrite: whether an existing output folder may be replaced.
    resume: whether to continue an interrupted run of the same request; default: True.
    stream: whether donors that are checkpoints on the Hub are read by range requests, without storing them.
    cache_dir: folder for downloads; default: the Hugging Face cache (`HF_HUB_CACHE`).
    """

    memory: int | str | None
    threads: int | None
    dtype: Dtype | None
    encoding: Encoding
    rounding: Rounding
    requantise: bool
    scales: Scales
    seed: int
    vocab: Vocab
    include: Iterable[str]
    exclude: Iterable[str]
    alpha_rules: Iterable[AlphaRule]
    schedule: str | None
    strip_prefix: Iterable[str]
    map: Iterable[str]
    base: str | os.PathLike[str] | None
    io: Io
    sync: bool
    sha256: bool
    overwrite: bool
    resume: bool
    stream: bool
    cache_dir: str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one job, checked as far as Python can; see `Keywords` for what each means."""

    memory: int | None = None
    threads: int | None = None
    dtype: Dtype | None = None
    encoding: Encoding = "packed"
    rounding: Rounding = "nearest"
    requantise: Scales | None = None
    seed: int = 0
    vocab: Vocab = "strict"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    alpha_rules: tuple[tuple[str, str, float], ...] = ()
    schedule: str | None = None
    io: Io = "auto"
    sync: bool = True
    sha256: bool = False
    overwrite: bool = False
    resume: bool = True
    prefixes: tuple[str, ...] = ()
    map: tuple[str, ...] = ()
    base: str | None = None
    stream: bool = False
    cache_dir: str | None = None
    claims: tuple[tuple[str, str, int | None], ...] = ()
    """Not an option: reasons against the job from configs and tokenizers (`fit.compatibility.Claim`)."""

    def to_json(self) -> str:
        """The document that the core reads; `stream` and `cache_dir` are not its business."""
        document = {"kinds": BRIEF.get(), **{name: getattr(self, name) for name in _CORE}}
        document["alpha_rules"] = [
            {"pattern": pattern, "text": text, "number": repr(number)}
            for pattern, text, number in self.alpha_rules
        ]
        document["claims"] = [
            {"file": file, "message": message, "row": row} for file, message, row in self.claims
        ]
        return json.dumps(document)


_CORE = tuple(field.name for field in fields(Options) if field.name not in ("stream", "cache_dir"))


def make_options(keywords: Keywords) -> Options:
    """Checks the keyword options; `UsageError` names the one that is wrong."""
    given = dict[str, Any](keywords)
    unknown = sorted(given.keys() - Keywords.__annotations__.keys())
    if unknown:
        raise UsageError(
            f"there is no option {unknown[0]!r}; the options are {', '.join(Keywords.__annotations__)}"
        )
    return Options(
        memory=parse_size(given.get("memory")),
        threads=whole_number("threads", given.get("threads"), least=1, most=4096),
        dtype=one_of("dtype", given.get("dtype"), Dtype, optional=True),
        encoding=one_of("encoding", given.get("encoding", "packed"), Encoding),
        rounding=one_of("rounding", given.get("rounding", "nearest"), Rounding),
        requantise=_scales(given),
        seed=whole_number("seed", given.get("seed", 0), least=0, most=2**64 - 1) or 0,
        vocab=one_of("vocab", given.get("vocab", "strict"), Vocab),
        include=texts("include", given.get("include", ())),
        exclude=texts("exclude", given.get("exclude", ())),
        alpha_rules=tuple(parse_rule(rule) for rule in several("alpha_rules", given.get("alpha_rules", ()))),
        schedule=one_text("schedule", given.get("schedule")),
        io=one_of("io", given.get("io", "auto"), Io),
        sync=bool(given.get("sync", True)),
        sha256=bool(given.get("sha256", False)),
        overwrite=bool(given.get("overwrite", False)),
        resume=bool(given.get("resume", True)),
        prefixes=texts("strip_prefix", given.get("strip_prefix", ())),
        map=_pairs(texts("map", given.get("map", ()))),
        base=_ref("base", given.get("base")),
        stream=bool(given.get("stream", False)),
        cache_dir=_folder(given.get("cache_dir")),
    )


def _scales(given: dict[str, Any]) -> Scales | None:
    scales = one_of("scales", given.get("scales"), Scales, optional=True)
    if given.get("requantise"):
        return scales or "keep"
    if scales is not None:
        raise UsageError("scales is for requantise; give requantise too, or leave scales out")
    return None


def _pairs(given: Iterable[str]) -> tuple[str, ...]:
    """The pairs of `map`, with those of each `@FILE` in its place."""
    pairs: list[str] = []
    for one in given:
        if one.startswith("@"):
            try:
                text = Path(one[1:]).expanduser().read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise UsageError(f"map {one!r}: the file of pairs cannot be read: {error}") from None
            pairs += [line for line in text.splitlines() if line.strip()]
        else:
            pairs.append(one)
    return tuple(pairs)


def _ref(option: str, ref: str | os.PathLike[str] | None) -> str | None:
    if ref is None:
        return None
    if not (text := os.fspath(ref)):
        raise UsageError(f"{option} is empty; name a folder or a model on the Hub, or leave it out")
    return text


def _folder(path: str | os.PathLike[str] | None) -> str | None:
    if path == "":
        raise UsageError("cache_dir is empty; name a folder, or leave it out")
    return None if path is None else str(Path(path).expanduser().absolute())


def refuse_options(keywords: Keywords, names: Iterable[str], purpose: str) -> None:
    """`UsageError` if one of these options is given: they concern a checkpoint that is written."""
    for name in names:
        if name in keywords:
            raise UsageError(f"{name} is for checkpoints that are written; omit it for {purpose}")


def parse_alpha(alpha: Alpha) -> tuple[str, float]:
    """α as (its text, its number); the core checks whether float32 can hold the number."""
    try:
        text = alpha.strip() if isinstance(alpha, str) else repr(float(alpha))
        return text, float(text)
    except (ValueError, TypeError, OverflowError):
        raise UsageError(f"alpha {alpha!r} is not a number; write it as 1, -1 or 0.7") from None


def parse_rule(rule: AlphaRule) -> tuple[str, str, float]:
    """`"REGEX=α"` or `(regex, α)` as (pattern, text of α, number); a pattern may hold `=` itself."""
    if isinstance(rule, str):
        pattern, equals, alpha = rule.rpartition("=")
        if not equals or not pattern:
            raise UsageError(f"alpha rule {rule!r} is not of the form REGEX=α; write it as 'mlp=0.5'")
    else:
        pattern, alpha = rule
    return pattern, *parse_alpha(alpha)


def spread_alphas(alpha: Alpha | Iterable[Alpha], vectors: int) -> list[tuple[str, float]]:
    """One α for each vector; a single α is used for all of them, and no α means 1.0."""
    given = [alpha] if isinstance(alpha, str | int | float) else list(alpha)
    alphas = [parse_alpha(one) for one in given or [1.0]]
    if len(alphas) == 1:
        return alphas * vectors
    if len(alphas) != vectors:
        raise UsageError(
            f"{len(alphas)} alphas do not fit {vectors} vectors; give one for all or one for each"
        )
    return alphas


def alpha_list(alphas: Alpha | Iterable[Alpha]) -> list[tuple[str, float]]:
    """Several α, as a list or as text with commas."""
    if isinstance(alphas, int | float):
        alphas = [alphas]
    given = alphas.split(",") if isinstance(alphas, str) else list(alphas)
    parsed = [parse_alpha(one) for one in given]
    if not parsed:
        raise UsageError("the list of alphas is empty; write it as 0.5,1")
    return parsed


def vector_options(options: Options) -> Options:
    """The same options, for an extraction; `UsageError` if one of them would change values."""
    given = options.dtype, options.alpha_rules, options.schedule, options.requantise
    if any(given) or options.rounding != "nearest":
        raise UsageError(
            "a vector is stored without loss; give dtype, rounding, alpha rules and schedule to apply instead"
        )
    return options


def vector_list(
    vectors: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> list[str | os.PathLike[str]]:
    """The vectors of a merge as a list; `UsageError` if there are none."""
    names = [vectors] if isinstance(vectors, str | os.PathLike) else list(vectors)
    if not names:
        raise UsageError("no vector to apply; name at least one")
    return names


def output_path(out: str | os.PathLike[str]) -> str:
    """The folder to write; always a local path, never a ref on the Hub."""
    if not (text := os.fspath(out)):
        raise UsageError("the name of the output folder is empty; give the path of a new folder")
    return str(Path(text).expanduser())
