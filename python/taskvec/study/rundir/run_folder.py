"""The folder of a run: what is in it, who may write to it, and whether it is a run of this very study."""

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
# What the first run says for all later ones.
_FIRST = ("started", "study_digest", "primary")


class RunFolder:
    """A folder RUN. A cell whose sample file is there is finished: the file appears whole or not at all."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Touches nothing yet."""
        self.path = Path(path).expanduser().absolute()
        self.held: tuple[int, ...] = ()
        """The descriptor of the lock while it is held. A process that inherits it holds the lock too."""

    @property
    def vector(self) -> Path:
        """Where v is kept."""
        return self.path / "vector"

    def control(self, arm: Arm) -> Path:
        """Where a random vector is kept."""
        return self.path / "controls" / arm.id

    def checkpoint(self, arm: Arm) -> Path:
        """Where a backend that needs files finds an arm's weights."""
        return self.path / "checkpoints" / arm.id

    def samples(self, arm: Arm, benchmark: Benchmark) -> Path:
        """The answers of a cell."""
        return self.path / "samples" / f"{arm.id}.{benchmark.id}.jsonl"

    def answers(self, arm: Arm, benchmark: Benchmark) -> Path:
        """What of a cell is answered while it is not finished."""
        return self.path / "samples" / f".{arm.id}.{benchmark.id}.answers.jsonl"

    def write_samples(self, arm: Arm, benchmark: Benchmark, rows: Iterable[Json]) -> None:
        """Finishes a cell."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write(self.samples(arm, benchmark), text)
        self.answers(arm, benchmark).unlink(missing_ok=True)

    def write_arm(self, arm: Arm, made: Json) -> None:
        """Says how an arm's weights were made."""
        write(self.path / "arms" / f"{arm.id}.json", as_text(made))

    def begin(self, run: Json, study: str, *, overwrite: bool) -> None:
        """Starts a run, or takes up one of the same identity.

        When it was started, by which text and with which primary tests stays what the first run said: arms
        that are added later change no test that was announced before.

        Raises:
            MismatchError: it holds a run of another study, of this one on other inputs or with other primary
                tests, or what is left of a run that nothing says which it was.
        """
        path = self.path / "run.json"
        if overwrite:
            self._clear()
        left = [name for name in _OURS if os.path.lexists(self.path / name)]
        if left and not path.is_file():
            raise MismatchError(
                f"{self.path} holds {left[0]} of a run whose run.json is gone; give another folder, or"
                " --overwrite"
            )
        if path.is_file():
            old = read_run(self.path)
            if found := _difference(old["identity"], run["identity"], ""):
                raise MismatchError(
                    f"{self.path} holds a run that is not this one: {found}; give another folder, or"
                    " --overwrite"
                )
            if "primary" in old and _sorted(old["primary"]) != _sorted(run.get("primary")):
                raise MismatchError(
                    f"{self.path} holds a run whose primary tests were fixed when it began, as"
                    f" {_named(old['primary'])}, and the study now asks for {_named(run.get('primary'))};"
                    " change `primary` back, give another folder, or --overwrite"
                )
            # What is known only once the target has been read stays known.
            earlier = {key: old[key] for key in _FIRST if key in old}
            if old.get("sandbox") and old["sandbox"] != run.get("sandbox"):
                # Some of the code ran behind other walls.
                earlier["sandbox"] = "; then ".join(filter(None, (old["sandbox"], run.get("sandbox"))))
            run = old | run | earlier
        # What a run that was killed was at work on: no other is, as long as the lock is held.
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        for scratch in (self.path / "controls").glob(".control-*"):
            shutil.rmtree(scratch, ignore_errors=True)
        for answers in (self.path / "samples").glob(".*.answers.jsonl"):
            if (self.path / "samples" / f"{answers.name[1 : -len('.answers.jsonl')]}.jsonl").is_file():
                answers.unlink()
        write(path, as_text(run))
        write(self.path / "study.yaml", study)

    def note(self, **found: Any) -> None:
        """Adds to what `run.json` says."""
        write(self.path / "run.json", as_text(read_run(self.path) | found))

    def _clear(self) -> None:
        # Last what makes it a run, so that a clearing cut short can be taken up.
        for name in sorted(_OURS, key=lambda name: name == "run.json"):
            one = self.path / name
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            else:
                one.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Generator[None]:
        """Makes the folder, and keeps a second run out of it.

        Raises:
            UsageError: it holds something else than a run; nothing is put there.
            StorageError: it cannot be written, or another run is at work in it.
        """
        try:
            others = [one.name for one in self.path.iterdir()] if self.path.is_dir() else []
            if others and not {"run.json", _LOCK} & {*others}:
                raise UsageError(
                    f"{self.path} is there already and holds {min(others)}, not a run; give another folder"
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
                # Without this call two runs are not told apart; one at a time is the rule.
                pass
            except BlockingIOError:
                raise StorageError(
                    errno.EBUSY,
                    f"{self.path}: another run is at work there; wait for it or give another folder",
                    str(self.path),
                ) from None
            except OSError:
                # Some network file systems have no locks; going on without is the lesser evil.
                pass
            self.held = (file.fileno(),)
            try:
                yield
            finally:
                self.held = ()


def read_run(folder: Path) -> Json:
    """`run.json` of a folder.

    Raises:
        UsageError: the folder holds no run.
        CorruptError: its run.json is malformed.
        MismatchError: it is in a form that this version does not know.
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
            f"{path}: this version of taskvec reads {SCHEMA!r}; update taskvec, or run it again"
        )
    return cast("Json", run)


def write(path: Path, text: str, errors: str = "strict") -> None:
    """Writes a file aside and renames it into place; `errors` is for characters that UTF-8 has not.

    Raises:
        StorageError: it cannot be written; nothing of it is left.
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
    """While this lasts, what the system refuses is told with the file's name.

    Raises:
        StorageError: something was refused.
    """
    try:
        yield
    except OSError as error:
        # Written or synced through a descriptor, it would not say which file.
        raise StorageError(
            error.errno,
            f"{path} cannot be written: {error.strerror}; make room or give a folder that can be written",
            str(path),
        ) from error


def as_text(value: Json) -> str:
    """JSON as it is written to a run's files."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _sorted(primary: Any) -> list[str]:
    """Tests in an order of their own: which stands first in the file is of no matter."""
    return sorted(json.dumps(one, sort_keys=True) for one in primary or ())


def _named(primary: Any) -> str:
    return (
        ", ".join(f"{one['arm']} against {one['against']} on {one['benchmark']}" for one in primary or ())
        or "none"
    )


def _difference(old: Any, new: Any, place: str) -> str | None:
    """Where and how two identities first differ."""
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
