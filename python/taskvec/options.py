"""The options that the verbs share: how a user may write them, and the frozen value that the core reads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypedDict, cast, get_args

from .errors import UsageError

Dtype = Literal["bf16", "f16", "f32"]
Rounding = Literal["nearest", "stochastic"]
Vocab = Literal["strict", "common"]
Io = Literal["auto", "mmap", "pread", "direct"]

Alpha = float | str
"""α as a number or as text; the core works with `f32(float(text))`, as torch does."""
AlphaRule = str | tuple[str, Alpha]
"""`"REGEX=α"`, or the pair of them."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgt]?)(i?b)?", re.IGNORECASE | re.ASCII)
_LARGEST = 2**63 - 1


class Keywords(TypedDict, total=False):
    """The keyword options that the verbs share; all may be left out.

    memory: budget for buffers and headers, in bytes or as text (`"256MiB"`, `"1GB"`); default: the smaller of
        256 MiB and a quarter of the machine's (or its cgroup's) memory.
    threads: worker threads; default: the cores at hand.
    dtype: dtype of every float tensor written; default: the target's own, tensor by tensor.
    rounding: how the f32 result becomes the output dtype.
    seed: key of `rounding="stochastic"`, 0 to 2⁶⁴ − 1.
    vocab: `"strict"` refuses vocabularies of different lengths, `"common"` combines the leading rows that all
        inputs have.
    include, exclude: regular expressions on tensor names; what they leave out is the target's, unchanged.
    alpha_rules: `"REGEX=α"` or `(regex, α)`; the last that matches a name wins; matching none is an error.
    strip_prefix: wrapper prefixes such as `"module."` to take off tensor names before they are matched.
    base: the checkpoint that LoRA adapters among the donors are on, whatever `adapter_config.json` says;
        beside one adapter it is the other donor.
    io: how inputs are read; the output holds the same bytes whichever is chosen.
    sync: whether the output is on the disk, not only in memory, when the call returns.
    sha256: whether the manifest holds SHA-256 digests too, at the price of a pass over inputs and output.
    overwrite: whether an existing output folder may be replaced.
    resume: whether an interrupted run of the same request is taken up again.
    stream: whether checkpoints that are donors are read from the Hub by ranges, and never stored.
    cache_dir: where downloads are kept; default: the Hugging Face cache (`HF_HUB_CACHE`).
    """

    memory: int | str | None
    threads: int | None
    dtype: Dtype | None
    rounding: Rounding
    seed: int
    vocab: Vocab
    include: Iterable[str]
    exclude: Iterable[str]
    alpha_rules: Iterable[AlphaRule]
    strip_prefix: Iterable[str]
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
    """The options of one job as the core reads them, by attribute; see `Keywords` for what each means."""

    memory: int | None = None
    threads: int | None = None
    dtype: Dtype | None = None
    rounding: Rounding = "nearest"
    seed: int = 0
    vocab: Vocab = "strict"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    alpha_rules: tuple[tuple[str, str, float], ...] = ()
    io: Io = "auto"
    sync: bool = True
    sha256: bool = False
    overwrite: bool = False
    resume: bool = True
    prefixes: tuple[str, ...] = ()
    base: str | None = None
    stream: bool = False
    cache_dir: str | None = None
    claims: tuple[tuple[str, str, int | None], ...] = ()
    """No user's: what configs and tokenizers say against the job (`taskvec.compat.Claim`)."""


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
        threads=_whole("threads", given.get("threads"), least=1, most=4096),
        dtype=_one_of("dtype", given.get("dtype"), Dtype, optional=True),
        rounding=_one_of("rounding", given.get("rounding", "nearest"), Rounding),
        seed=_whole("seed", given.get("seed", 0), least=0, most=2**64 - 1) or 0,
        vocab=_one_of("vocab", given.get("vocab", "strict"), Vocab),
        include=_texts("include", given.get("include", ())),
        exclude=_texts("exclude", given.get("exclude", ())),
        alpha_rules=tuple(parse_rule(rule) for rule in _several("alpha_rules", given.get("alpha_rules", ()))),
        io=_one_of("io", given.get("io", "auto"), Io),
        sync=bool(given.get("sync", True)),
        sha256=bool(given.get("sha256", False)),
        overwrite=bool(given.get("overwrite", False)),
        resume=bool(given.get("resume", True)),
        prefixes=_texts("strip_prefix", given.get("strip_prefix", ())),
        base=_ref("base", given.get("base")),
        stream=bool(given.get("stream", False)),
        cache_dir=_folder(given.get("cache_dir")),
    )


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


def parse_size(size: int | str | None) -> int | None:
    """Bytes from `"256MiB"`, `"0.5GiB"`, `"64M"`, `"1GB"` or a plain number; None stays None.

    MB is 10⁶ bytes; MiB, and M alone as in `dd` and `ulimit`, is 2²⁰.
    """
    if size is None:
        return None
    count: int | None = None
    if isinstance(size, str):
        if match := _SIZE.fullmatch(size.strip()):
            number, letter, suffix = match.groups()
            base = 1000 if suffix is not None and suffix.lower() == "b" else 1024
            power = " kmgt".index(letter.lower() or " ")
            if power > 0 or base == 1000 or suffix is None:
                count = int(Fraction(number) * base**power)
    elif not isinstance(size, bool):
        count = size
    if count is None or not 0 < count <= _LARGEST:
        raise UsageError(f"memory {size!r} is not a size; write it as 256MiB, 0.5GiB or a number of bytes")
    return count


def parse_alpha(alpha: Alpha) -> tuple[str, float]:
    """α as (its text, its number); whether f32 can hold the number is for the core to say."""
    text = alpha.strip() if isinstance(alpha, str) else repr(float(alpha))
    try:
        return text, float(text)
    except ValueError:
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
    """One α for each vector: a single one goes for all of them, none at all is 1.0."""
    given = [alpha] if isinstance(alpha, str | int | float) else list(alpha)
    alphas = [parse_alpha(one) for one in given or [1.0]]
    if len(alphas) == 1:
        return alphas * vectors
    if len(alphas) != vectors:
        raise UsageError(
            f"{len(alphas)} alphas do not fit {vectors} vectors; give one for all or one for each"
        )
    return alphas


def vector_options(options: Options) -> Options:
    """The options of an extraction, once nothing among them would change a value."""
    if options.dtype or options.rounding != "nearest" or options.alpha_rules:
        raise UsageError(
            "a vector is stored without loss; give dtype, rounding and alpha rules to apply instead"
        )
    return options


def vector_list(
    vectors: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> list[str | os.PathLike[str]]:
    """The vectors of a merge: one alone counts as a list of one, and none at all is refused."""
    names = [vectors] if isinstance(vectors, str | os.PathLike) else list(vectors)
    if not names:
        raise UsageError("no vector to apply; name at least one")
    return names


def output_path(out: str | os.PathLike[str]) -> str:
    """The folder to write. It is always a path: a folder that is yet to be made is not on the Hub."""
    text = os.fspath(out)
    if not text:
        raise UsageError("the name of the output folder is empty; give the path of a folder to make")
    return str(Path(text).expanduser())


def _one_of(name: str, value: object, choices: object, *, optional: bool = False) -> Any:
    if (optional and value is None) or value in get_args(choices):
        return value
    raise UsageError(f"{name} {value!r} is not one of {', '.join(get_args(choices))}")


def _whole(name: str, value: object, *, least: int, most: int) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and least <= value <= most):
        return value
    raise UsageError(f"{name} {value!r} is not a whole number from {least} to {most}")


def _several(name: str, value: object) -> list[Any]:
    # A lone string is an iterable of characters: a slip that would otherwise match nearly every tensor.
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise UsageError(f"{name} {value!r} is not a list; write it as [{value!r}]")
    return list(cast("Iterable[Any]", value))


def _texts(name: str, value: object) -> tuple[str, ...]:
    texts = _several(name, value)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise UsageError(f"{name} {wrong[0]!r} is not text")
    return tuple(texts)
