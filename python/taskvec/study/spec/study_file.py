"""The study file: what to compare with what on which benchmarks, in YAML; checked key by key.

`load` takes the name of a study that ships with taskvec, or a path. Paths inside a study file that begin with
`.`, `/` or `~` are folders, relative to the file itself; anything else is a ref as the verbs take it.
"""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from ...errors import StorageError, UsageError
from ..environment import DEVICE
from .yaml_lines import Lines, parse, spelled

if TYPE_CHECKING:
    from ...records import Json

SHIPPED = Path(__file__).parents[2] / "studies"
"""The studies that come with the package."""

_ID = r"[a-z0-9]+(-[a-z0-9]+)*"


def _factor(alpha: float) -> float:
    if not math.isfinite(alpha) or alpha == 0:
        raise ValueError("α must be a finite number other than 0, which is the baseline")
    return alpha


def _one_line(text: str) -> str:
    # The last are halves of characters, which an escape can spell and no file can hold.
    if not text.strip() or any(one in "\n\r\0" or "\ud800" <= one <= "\udfff" for one in text):
        raise ValueError("give one line of text")
    return text


Factor = Annotated[float, AfterValidator(_factor)]
Line = Annotated[str, AfterValidator(_one_line)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]


class _Section(BaseModel):
    """No unknown keys, no types guessed from others, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Donors(_Section):
    """The pair whose difference is v."""

    minuend: Line
    subtrahend: Line


class ArmChoice(_Section):
    """Which arms there are beside the baseline and +v."""

    think: bool = True
    """Both of them also with the think line."""
    minus: bool = True
    random: list[Seed] = Field(default=[1, 2, 3])
    """A norm-matched random vector for each seed; one or two could not tell luck from effect."""
    donors: bool | None = None
    """The donors themselves; by default wherever the study names them."""
    sweep: list[Factor] = Field(default=[])
    """Further α of +v, with the plain prompt."""

    @model_validator(mode="after")
    def _sound(self) -> ArmChoice:
        if len(self.random) in (1, 2):
            raise ValueError("random needs at least 3 seeds, or none at all: []")
        # As many digits as tell the arms of a sweep apart.
        for name, values in (("random", self.random), ("sweep", [f"{one:.12g}" for one in self.sweep])):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names a value twice")
        return self


class Vllm(_Section):
    """vLLM, in the environment of another Python."""

    python: Line
    args: dict[str, JsonValue] = {}
    """Arguments of lm-eval's `vllm` model."""

    @model_validator(mode="after")
    def _sound(self) -> Vllm:
        if ours := sorted({"pretrained", "tokenizer", "dtype", "batch_size"} & {*self.args}):
            raise ValueError(f"args must not hold {ours[0]}, which the study itself says")
        return self


class VllmBackend(_Section):
    """`backend: {vllm: {python: …}}`."""

    vllm: Vllm


class Benchmark(_Section):
    """One benchmark: a task or group of lm-eval, and how it is run."""

    id: Annotated[str, Field(pattern=f"^{_ID}$")]
    task: Line
    title: Line | None = None
    max_new_tokens: Count | None = None
    """The cap on generated tokens, which every task that generates text must be given."""
    shots: Annotated[int, Field(ge=0)] | None = None
    limit: Count | None = None
    """The first so many documents (of each task, for a group)."""
    metric: Line | None = None
    filter: Line | None = None
    sweep: bool = True
    confirm_unsafe: bool = False
    """Consent to running code that the model wrote, for the tasks that do."""

    @property
    def name(self) -> str:
        """What to call it in tables."""
        return self.title or self.id


class Study(_Section):
    """A study file as read: defaults filled in, folders absolute."""

    form: Literal["taskvec/study/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=f"^{_ID}$")]
    about: Line
    target: Line
    donors: Donors | None = None
    vector: Line | None = None
    alpha: Factor = 1.0
    arms: ArmChoice = ArmChoice()
    think: Line = "Think step by step."
    offline: bool = False
    tasks: Line | None = None
    backend: Literal["hf"] | VllmBackend = "hf"
    device: Annotated[str, Field(pattern=f"^({DEVICE})$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: Count = 16
    rounding: Literal["nearest", "stochastic"] = "nearest"
    benchmarks: Annotated[list[Benchmark], Field(min_length=1)]

    @model_validator(mode="after")
    def _sound(self) -> Study:
        if (self.donors is None) == (self.vector is None):
            raise ValueError("give either donors, with minuend and subtrahend, or vector")
        if self.vector is not None and self.arms.donors:
            raise ValueError("arms.donors needs donors, and this study names a vector")
        taken = {"+v": self.alpha} | ({"−v": -self.alpha} if self.arms.minus else {})
        for arm, alpha in taken.items():
            if alpha in self.arms.sweep:
                raise ValueError(f"arms.sweep holds {alpha:.12g}, which is the α of {arm} already")
        ids = [one.id for one in self.benchmarks]
        if twice := [one for one in ids if ids.count(one) > 1]:
            raise ValueError(f"two benchmarks have the id {twice[0]!r}")
        return self

    def to_json(self) -> Json:
        """The study as JSON, defaults filled in."""
        return self.model_dump(mode="json", by_alias=True)


def load(study: str | Path) -> tuple[Study, str]:
    """Reads a study and its text; `UsageError` says "FILE:LINE: …" for whatever is not as it must be."""
    try:
        path = find(study)
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{study} is not a text file in UTF-8; name a study file") from None
    except OSError as error:
        raise StorageError(
            error.errno, f"{study}: {error.strerror}; name a study file that can be read", str(study)
        ) from None
    except (RuntimeError, ValueError) as error:
        # No such user's home, or a NUL.
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{str(study)!r} cannot be a path: {error}; name a study file") from None
    lines = Lines(str(path))
    content = parse(text, lines)
    try:
        read = Study.model_validate(content)
    except ValidationError as error:
        raise UsageError(_sentence(error, lines)) from None
    return _with_folders(read, path.parent, lines), text


def find(study: str | Path) -> Path:
    """The file of a shipped study, by name, or of any other, by path."""
    if isinstance(study, str) and re.fullmatch(_ID, study):
        path = SHIPPED / f"{study}.yaml"
        if path.is_file():
            return path
        if not Path(study).exists():
            raise UsageError(
                f"there is no study {study!r}; those that ship are {', '.join(shipped()) or 'none'},"
                " any other is named by the path of its file"
            )
    return Path(study).expanduser()


def shipped() -> list[str]:
    """The names of the studies that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _with_folders(study: Study, folder: Path, lines: Lines) -> Study:
    def absolute(ref: str, *place: str) -> str:
        try:
            return str((folder / Path(ref).expanduser()).resolve())
        except (OSError, RuntimeError) as error:
            # No such user's home, or links in a circle.
            where = ".".join(place)
            raise UsageError(f"{lines.file}:{lines.at(place)}: {where}: {error} (it is {ref!r})") from None

    def full(ref: str, *place: str) -> str:
        return absolute(ref, *place) if ref.startswith((".", "/", "~")) else ref

    pair = study.donors
    return study.model_copy(
        update={
            "target": full(study.target, "target"),
            "donors": pair
            and Donors(
                minuend=full(pair.minuend, "donors", "minuend"),
                subtrahend=full(pair.subtrahend, "donors", "subtrahend"),
            ),
            "vector": study.vector and full(study.vector, "vector"),
            "tasks": study.tasks and absolute(study.tasks, "tasks"),
        }
    )


def _sentence(error: ValidationError, lines: Lines) -> str:
    """The first problem in the file's order, with its line, in one sentence."""
    # Of `backend` pydantic tells why it is neither of the two forms; one of them is not what was meant.
    meant = [
        one
        for one in error.errors()
        if not (one["type"] == "literal_error" and isinstance(one["input"], dict))
        and one["type"] != "model_type"
    ]
    found = min(meant or error.errors(), key=lambda one: lines.at(one["loc"]))
    place = lines.known(found["loc"])
    where = ".".join(str(part) for part in place)
    key = str(found["loc"][-1]) if found["loc"] else ""
    start = f"{lines.file}:{lines.at(found['loc'])}: "
    if found["type"] == "string_pattern_mismatch":
        return f"{start}{where}: {found['input']!r} is not of the form {found['ctx']['pattern']}"  # pyright: ignore
    if found["type"] == "missing":
        return f"{start}{f'{where} has no {key!r}' if where else f'{key!r} is missing'}; add it"
    if found["type"] == "extra_forbidden":
        known = _keys(found["loc"][:-1])
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the keys here are {', '.join(known)}"
        return f"{start}there is no key {key!r} here; {hint}"
    message = found["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    given = found["input"]
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | None) and where else ""
    meant_number = spelled(given) if found["type"] == "float_type" and isinstance(given, str) else None
    hint = f"; YAML takes it for text, write {meant_number}" if meant_number else ""
    return f"{start}{f'{where}: ' if where else ''}{message}{shown}{hint}"


def _keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at this place may have."""
    sections: dict[str, type[BaseModel]] = {
        "donors": Donors,
        "arms": ArmChoice,
        "benchmarks": Benchmark,
        "vllm": Vllm,
        "VllmBackend": VllmBackend,
    }
    names = [part for part in loc if isinstance(part, str) and part in sections]
    section = sections[names[-1]] if names else Study
    return [field.alias or name for name, field in section.model_fields.items()]
