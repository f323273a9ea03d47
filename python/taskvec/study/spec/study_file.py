"""Reads and checks a study file: YAML that says what to compare on which benchmarks.

`load` takes the name of a study that ships with taskvec, or a path. A model in a study file is a folder if it
begins with `.`, `/` or `~` (relative to the file), else a ref as the verbs take it.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ...errors import StorageError, UsageError
from ...inputs.yaml_lines import Lines, parse, spelled
from .sections import NAME, ArmChoice, Benchmark, Donors, Primary, Published, Study, Vllm, VllmBackend

if TYPE_CHECKING:
    from pydantic import BaseModel

SHIPPED = Path(__file__).parents[2] / "studies"
"""The studies that come with the package."""


def load(study: str | Path) -> tuple[Study, str]:
    """Reads a study; returns it and its text. A `UsageError` about its content begins with FILE:LINE."""
    try:
        path = find(study)
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{study} is not a UTF-8 text file; name a study file") from None
    except OSError as error:
        raise StorageError(
            error.errno, f"{study}: {error.strerror}; name a study file that can be read", str(study)
        ) from None
    except (RuntimeError, ValueError) as error:
        # The path begins with `~` and an unknown user, or holds a NUL.
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{str(study)!r} cannot be a path: {error}; name a study file") from None
    lines = Lines(str(path))
    content = parse(text, lines, "a study is a mapping of keys to values, beginning with 'schema:'")
    try:
        read = Study.model_validate(content)
    except ValidationError as error:
        raise UsageError(_sentence(error, lines)) from None
    return _with_folders(read, path.parent, lines), text


def find(study: str | Path) -> Path:
    """The file of a study, given the name of one that ships with taskvec or a path."""
    # A name may contain a dot (of a model's version), so only these endings mark a file.
    is_file = Path(study).suffix in (".yaml", ".yml")
    if isinstance(study, str) and not is_file and re.fullmatch(NAME, study):
        path = SHIPPED / f"{study}.yaml"
        if path.is_file():
            return path
        if not Path(study).exists():
            raise UsageError(
                f"there is no study {study!r}; those that ship with taskvec are"
                f" {', '.join(shipped()) or 'none'}; for any other, give the path of its file"
            )
    return Path(study).expanduser()


def shipped() -> list[str]:
    """The names of the studies that ship with taskvec."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _with_folders(study: Study, folder: Path, lines: Lines) -> Study:
    def absolute(ref: str, *place: int | str) -> str:
        try:
            return str((folder / Path(ref).expanduser()).resolve())
        except (OSError, RuntimeError) as error:
            # The path begins with `~` and an unknown user, or its links form a loop.
            where = ".".join(map(str, place))
            raise UsageError(f"{lines.file}:{lines.at(place)}: {where}: {error} (it is {ref!r})") from None

    def full(ref: str, *place: str) -> str:
        return absolute(ref, *place) if ref.startswith((".", "/", "~")) else ref

    def files(data: str | dict[str, str] | None, *place: int | str) -> str | dict[str, str] | None:
        if isinstance(data, dict):
            return {split: absolute(path, *place, split) for split, path in data.items()}
        return None if data is None else absolute(data, *place)

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
            "benchmarks": [
                one.model_copy(update={"data": files(one.data, "benchmarks", at, "data")})
                for at, one in enumerate(study.benchmarks)
            ],
        }
    )


def _sentence(error: ValidationError, lines: Lines) -> str:
    """One sentence, with the line, on the first problem in the order of the file."""
    # For `backend` pydantic reports an error for each of its two forms; drop that of the form not used.
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
    hint = f"; YAML reads it as text, write {meant_number}" if meant_number else ""
    return f"{start}{f'{where}: ' if where else ''}{message}{shown}{hint}"


def _keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed in the section at this place."""
    sections: dict[str, type[BaseModel]] = {
        "donors": Donors,
        "arms": ArmChoice,
        "benchmarks": Benchmark,
        "primary": Primary,
        "published": Published,
        "vllm": Vllm,
        "VllmBackend": VllmBackend,
    }
    names = [part for part in loc if isinstance(part, str) and part in sections]
    section = sections[names[-1]] if names else Study
    return [field.alias or name for name, field in section.model_fields.items()]
