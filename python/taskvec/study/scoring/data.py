"""The documents of a benchmark: from the Hub or its cache, or from files that the study names instead.

lm-eval's tasks load their data themselves, through one function of `datasets`. It is replaced while tasks
are built, so that a study can put files in the download's place, ask for a revision, and write down what was
read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...errors import StorageError, UsageError
from ..environment import library

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from ...records import Json

GSM8K = ("openai/gsm8k", "main")
"""Where shots come from that must not be drawn from the questions themselves."""

# What `datasets` reads, by the end of a file's name.
_READERS = {".jsonl": "json", ".json": "json", ".jsonl.gz": "json", ".json.gz": "json", ".parquet": "parquet",
            ".csv": "csv", ".arrow": "arrow"}  # fmt: skip
_SPLITS = ("train", "validation", "test", "testmini", "dev")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class Source:
    """Where the documents of one benchmark come from, and what was read so far.

    Attributes:
        benchmark: its id, for errors.
        files: files instead of the download: one for each split, or a folder.
        revision: of the data's repository; None for the newest.
        shots: a repository and configuration whose split `train` shots are drawn from, or None.
        aliases: columns of the shots that this task calls otherwise, as (its name, theirs).
        found: what was read, a record for each load.
        sought: what is being loaded, for errors; None before the first load and after each.
        lacking: splits that a task looked for and the study's files do not have.
    """

    benchmark: str
    files: str | dict[str, str] | None = None
    revision: str | None = None
    shots: tuple[str, str] | None = None
    aliases: tuple[tuple[str, str], ...] = ()
    found: list[Json] = field(default_factory=list[Any])
    sought: str | None = None
    lacking: set[str] = field(default_factory=set[str])
    _given: dict[tuple[tuple[str, str], ...], str | None] = field(default_factory=dict[Any, Any])

    @contextmanager
    def in_place(self) -> Generator[None]:
        """While this lasts, `datasets.load_dataset` loads from here."""
        datasets = library("datasets")
        real: Callable[..., Any] = datasets.load_dataset

        def load(path: str, name: str | None = None, **how: Any) -> Any:
            self.sought = path + (f" ({name})" if name else "")
            loaded = self._load(real, path, name, how)
            self.sought = None
            return loaded

        datasets.load_dataset = load
        try:
            yield
        finally:
            datasets.load_dataset = real

    def _load(self, real: Callable[..., Any], path: str, name: str | None, how: Json) -> Any:
        if self.files is not None:
            chosen = self._chosen(name)
            before = self._given.setdefault(tuple(sorted(chosen.items())), name)
            if before != name:
                raise UsageError(
                    f"benchmark {self.benchmark!r}: it is a group of several data sets, and data names one"
                    f" set of files for {before} and {name}; give a folder with a file or a folder for each"
                )
            splits = {split: _read(real, self.benchmark, split, file) for split, file in chosen.items()}
            self.found.append(_record(path, name, None, splits, chosen))
            return self._dictionary(splits)
        if "data_files" in how:
            # A task of the user's own that reads local files: they are all that is known.
            if self.revision is not None:
                raise UsageError(
                    f"benchmark {self.benchmark!r}: its task reads local files, of which there are no"
                    " revisions; remove data_revision"
                )
            splits = dict(real(path=path, name=name, **how))
            self.found.append(_record(None, name, None, splits))
            return self._dictionary(splits)
        asked = how | ({} if self.revision is None else {"revision": self.revision})
        splits = dict(real(path=path, name=name, **asked))
        commit = _commit(splits)
        if self.revision is not None:
            self._must_be(path, commit)
        self.found.append(_record(path, name, commit, splits))
        if self.shots is not None:
            self.sought = f"{self.shots[0]} ({self.shots[1]}), whose training split shots are drawn from"
            its = real(path=self.shots[0], name=self.shots[1])["train"]
            self.found.append(_record(*self.shots, _commit({"train": its}), {"train": its}))
            splits["train"] = its
        return self._dictionary(splits)

    def _must_be(self, path: str, commit: str | None) -> None:
        # With the network `datasets` has looked the revision up. Without it, it takes whatever its cache has,
        # and only a full commit can be held against that.
        offline = os.environ.get("HF_HUB_OFFLINE") == "1"
        if commit != self.revision and (offline or _COMMIT.fullmatch(self.revision or "")):
            raise StorageError(
                None,
                f"benchmark {self.benchmark!r}: the cache holds {path} at {commit or 'an unknown commit'},"
                f" not at {self.revision}; allow the network, or name the commit that is there",
            )

    def _dictionary(self, splits: dict[str, Any]) -> Any:
        for name, theirs in self.aliases:
            if "train" in splits and name not in splits["train"].column_names:
                splits["train"] = splits["train"].add_column(name, list(splits["train"][theirs]))
        kind: Any = library("datasets").DatasetDict
        lacking, some = self.lacking, next(iter(splits.values()))

        class Splits(kind):
            """Splits that are not there are empty: lm-eval opens all that a task names, needed or not."""

            def __missing__(self, name: str) -> Any:
                lacking.add(str(name))
                return some.select([])

        return Splits(splits)

    def _chosen(self, name: str | None) -> dict[str, str]:
        """A file for each split."""
        if isinstance(self.files, dict):
            return self.files
        folder = Path(self.files or "")
        if not folder.is_dir():
            raise StorageError(
                None, f"benchmark {self.benchmark!r}: data {folder} is not a folder; name one, or files by"
                " split", str(folder),
            )  # fmt: skip
        # A group has a file, or a folder of splits, for each of its configurations.
        places = [folder / name, folder] if name else [folder]
        for place in places:
            found = {_stem(one): str(one) for one in sorted(place.glob("*")) if _reader(one)}
            if splits := {split: path for split, path in found.items() if split in _SPLITS}:
                return splits
        whole = [one for one in sorted(folder.glob("*")) if _reader(one) and _stem(one) == name]
        if whole:
            return {"test": str(whole[0])}
        wanted = f"{name}.jsonl or {name}/test.jsonl" if name else "test.jsonl"
        said = f"benchmark {self.benchmark!r}: {folder} has no file for it; put {wanted} there"
        raise StorageError(None, said, str(folder))


def _reader(path: Path) -> str | None:
    return next((kind for end, kind in _READERS.items() if path.name.endswith(end)), None)


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _read(real: Callable[..., Any], benchmark: str, split: str, file: str) -> Any:
    path = Path(file)
    if not path.is_file():
        said = f"benchmark {benchmark!r}: data file {file} of split {split} is not there; name one that is"
        raise StorageError(None, said, file)
    if (kind := _reader(path)) is None:
        raise UsageError(
            f"benchmark {benchmark!r}: {file} is of no kind that can be read; give one of"
            f" {', '.join(sorted(_READERS))}"
        )
    try:
        return real(path=kind, data_files={split: file}, split=split)
    except Exception as error:
        cause = error.__cause__ or error
        said = (str(cause).strip().splitlines() or [""])[0]
        raise UsageError(
            f"benchmark {benchmark!r}: data file {file} cannot be read ({type(cause).__name__}: {said});"
            " mend it"
        ) from error


def _commit(splits: dict[str, Any]) -> str | None:
    """The commit of the repository, where `datasets` kept it: in sources' addresses or the cache's path."""
    for split in splits.values():
        for address in cast("Iterable[str]", split.info.download_checksums or ()):
            if found := re.search(r"@([0-9a-f]{40})/", address):
                return found[1]
        for file in split.cache_files:
            if _COMMIT.fullmatch(name := Path(file["filename"]).parent.name):
                return name
    return None


def _record(
    path: str | None,
    name: str | None,
    commit: str | None,
    splits: dict[str, Any],
    files: dict[str, str] | None = None,
) -> Json:
    return {
        "repository": path,
        "configuration": name,
        "revision": commit,
        "files": files and [Path(file).name for _, file in sorted(files.items())],
        "fingerprint": fingerprint(splits),
    }


def fingerprint(splits: dict[str, Any]) -> str:
    """SHA-256 over the documents of all splits in order, 32 hex digits: the same however they were loaded."""
    whole = hashlib.sha256()
    for split, documents in sorted(splits.items()):
        whole.update(f"{split}\n".encode())
        for document in documents:
            text = json.dumps(document, sort_keys=True, ensure_ascii=False, default=str)
            whole.update(f"{text}\n".encode())
    return whole.hexdigest()[:32]
