"""The folder of a run: its files, its lock, and the check that it belongs to the same study."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...errors import CorruptError, MismatchError, StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from ...records import Json
    from ..spec.arms import Arm
    from ..spec.sections import Benchmark

SCHEMA = "taskvec/run/1"
_OURS = ("study.yaml", "run.json", "vector", "controls", "checkpoints", "arms", "samples", "job.json",
         "worker.log", "results.json", "report.html")  # fmt: skip
_LOCK = "run.lock"
# Entries of run.json that the first run sets, and later runs keep.
_FIRST = ("started", "study_digest", "primary")


class RunFolder:
    """The folder of a run. A cell is finished when its sample file exists; the file is written atomically."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Does not touch the folder yet."""
        self.path = Path(path).expanduser().absolute()
        self.held: tuple[int, ...] = ()
        """The file descriptor of the lock while it is held; a child process that inherits it holds it too."""

    @property
    def vector(self) -> Path:
        """The folder of v."""
        return self.path / "vector"

    def control(self, arm: Arm) -> Path:
        """The folder of a random vector."""
        return self.path / "controls" / arm.id

    def checkpoint(self, arm: Arm) -> Path:
        """The folder of an arm's weights, for a backend that loads them from files."""
        return self.path / "checkpoints" / arm.id

    def samples(self, arm: Arm, benchmark: Benchmark) -> Path:
        """The sample file of a cell."""
        return self.path / "samples" / f"{arm.id}.{benchmark.id}.jsonl"

    def answers(self, arm: Arm, benchmark: Benchmark) -> Path:
        """The file of the answers so far of a cell that is not finished."""
        return self.path / "samples" / f".{arm.id}.{benchmark.id}.answers.jsonl"

    def write_samples(self, arm: Arm, benchmark: Benchmark, rows: Iterable[Json]) -> None:
        """Writes the sample file of a cell, which finishes it."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write(self.samples(arm, benchmark), text)
        self.answers(arm, benchmark).unlink(missing_ok=True)

    def write_arm(self, arm: Arm, made: Json) -> None:
        """Records how an arm's weights were made."""
        write(self.path / "arms" / f"{arm.id}.json", as_text(made))

    def begin(self, run: Json, study: str, *, overwrite: bool) -> None:
        """Starts a run, or continues one of the same identity.

        The start time, the digest of the study file and the primary tests stay as the first run set them, so
        that arms added later do not change tests that were fixed before.

        Raises:
            MismatchError: the folder holds a run of another study, or of this study with other inputs or
                other primary tests, or files of a run whose run.json is missing.
        """
        path = self.path / "run.json"
        if overwrite:
            self._clear()
        left = [name for name in _OURS if os.path.lexists(self.path / name)]
        if left and not path.is_file():
            raise MismatchError(
                f"{self.path} holds {left[0]} of a run whose run.json is missing; give another folder, or"
                " --overwrite"
            )
        if path.is_file():
            old = read_run(self.path)
            if found := _difference(old["identity"], run["identity"], ""):
                raise MismatchError(
                    f"{self.path} holds another run: {found}; give another folder, or --overwrite"
                )
            if "primary" in old and _sorted(old["primary"]) != _sorted(run.get("primary")):
                raise MismatchError(
                    f"{self.path} holds a run whose primary tests were fixed when it began:"
                    f" {_named(old['primary'])}; the study file now has {_named(run.get('primary'))};"
                    " change `primary` back, give another folder, or --overwrite"
                )
            # `old | run` below also keeps entries that are known only after the target has been loaded.
            earlier = {key: old[key] for key in _FIRST if key in old}
            if old.get("sandbox") and old["sandbox"] != run.get("sandbox"):
                # Some of the code ran in another sandbox, so both are recorded.
                earlier["sandbox"] = "; then ".join(filter(None, (old["sandbox"], run.get("sandbox"))))
            run = old | run | earlier
        # Remove what a killed run was working on. No other run uses it, since the lock is held.
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        for scratch in (self.path / "controls").glob(".control-*"):
            shutil.rmtree(scratch, ignore_errors=True)
        for answers in (self.path / "samples").glob(".*.answers.jsonl"):
            if (self.path / "samples" / f"{answers.name[1 : -len('.answers.jsonl')]}.jsonl").is_file():
                answers.unlink()
        write(path, as_text(run))
        write(self.path / "study.yaml", study)

    def note(self, **found: Any) -> None:
        """Adds entries to `run.json`."""
        write(self.path / "run.json", as_text(read_run(self.path) | found))

    def _clear(self) -> None:
        # run.json is removed last, so that the folder is still a run if this is interrupted.
        for name in sorted(_OURS, key=lambda name: name == "run.json"):
            one = self.path / name
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            else:
                one.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Generator[None]:
        """Creates the folder and locks it against a second run.

        Raises:
            UsageError: the folder holds something else than a run; it is left as it is.
            StorageError: the folder cannot be written, or another run is active in it.
        """
        try:
            others = [one.name for one in self.path.iterdir()] if self.path.is_dir() else []
            if others and not {"run.json", _LOCK} & {*others}:
                raise UsageError(
                    f"{self.path} exists and holds {min(others)}, not a run; give another folder"
                )
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / _LOCK).open("a")
        except OSError as error:
            raise StorageError(
                error.errno,
                f"{self.path}: {error.strerror}; give a folder that can be written",
                str(self.path),
            ) from None
        with file:
            try:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:
                # Windows has no such call; there the user must not start two runs at a time.
                pass
            except BlockingIOError:
                raise StorageError(
                    errno.EBUSY,
                    f"{self.path}: another run is active there; wait for it or give another folder",
                    str(self.path),
                ) from None
            except OSError:
                # Some network file systems have no locks; running without one is better than not at all.
                pass
            self.held = (file.fileno(),)
            try:
                yield
            finally:
                self.held = ()


def read_run(folder: Path) -> Json:
    """Reads `run.json` of a folder.

    Raises:
        UsageError: the folder holds no run.
        CorruptError: its run.json is malformed.
        MismatchError: its schema is not one that this version reads.
    """
    path = folder / "run.json"
    try:
        run: Any = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{folder} holds no run.json; name a folder that `taskvec study run` wrote"
        ) from None
    except (ValueError, RecursionError):
        raise CorruptError(f"{path} is not JSON; run the study again with --overwrite") from None
    if not isinstance(run, dict) or not isinstance(cast("Json", run).get("identity"), dict):
        raise CorruptError(f"{path} is not the record of a run; run the study again with --overwrite")
    if cast("Json", run).get("schema") != SCHEMA:
        raise MismatchError(
            f"{path}: this version of taskvec reads {SCHEMA!r}; update taskvec, or run the study again"
        )
    return cast("Json", run)


def write(path: Path, text: str, errors: str = "strict") -> None:
    """Writes a file atomically: under another name first, then renamed.

    `errors` says what to do with characters that UTF-8 cannot encode, as for `open`.

    Raises:
        StorageError: the file cannot be written; no part of it is left.
    """
    aside = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("w", encoding="utf-8", errors=errors, newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turns an `OSError` inside the block into a `StorageError` that names the file.

    Raises:
        StorageError: the block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        # The error of a write or sync through a descriptor names no file.
        raise StorageError(
            error.errno,
            f"{path} cannot be written: {error.strerror}; free some space, or give a folder that can be"
            " written",
            str(path),
        ) from error


def as_text(value: Json) -> str:
    """A JSON object as text, in the form of a run's files."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _sorted(primary: Any) -> list[str]:
    """The tests, sorted, so that their order in the study file does not matter."""
    return sorted(json.dumps(one, sort_keys=True) for one in primary or ())


def _named(primary: Any) -> str:
    return (
        ", ".join(f"{one['arm']} against {one['against']} on {one['benchmark']}" for one in primary or ())
        or "none"
    )


def _difference(old: Any, new: Any, place: str) -> str | None:
    """The first difference between two identities, in words; None if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        first, second = cast("Json", old), cast("Json", new)
        for key in first | second:
            if found := _difference(first.get(key), second.get(key), f"{place}.{key}".lstrip(".")):
                return found
        return None
    if old == new:
        return None
    return (
        f"{place} was {json.dumps(old, ensure_ascii=False)} and now is {json.dumps(new, ensure_ascii=False)}"
    )
