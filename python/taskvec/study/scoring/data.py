"""Loads the documents of a benchmark from the Hub, its cache, or files that the study names.

lm-eval's tasks load their data themselves, with `datasets.load_dataset`. That function is replaced while
tasks are built, so that a study can use files instead, choose a revision, and record what was read.
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
"""The data set of the few-shot examples, for benchmarks that would draw them from their own questions."""

# The kind of file, as `datasets` names it, by the end of the file's name.
_READERS = {".jsonl": "json", ".json": "json", ".jsonl.gz": "json", ".json.gz": "json", ".parquet": "parquet",
            ".csv": "csv", ".arrow": "arrow"}  # fmt: skip
_SPLITS = ("train", "validation", "test", "testmini", "dev")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class Source:
    """Where the documents of one benchmark come from, and a record of what was read.

    Attributes:
        benchmark: the benchmark's id, for error messages.
        files: files to use instead of the download: one for each split, or a folder.
        revision: the revision of the data's repository; None for the newest.
        shots: repository and configuration whose split `train` gives the few-shot examples, or None.
        aliases: columns of the few-shot examples that this task names differently: (its name, their name).
        found: a record of each load.
        sought: what is being loaded, for error messages; None if nothing is.
        lacking: splits that a task asked for and the study's files do not have.
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
        """Replaces `datasets.load_dataset` for the length of the block."""
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
                    f"benchmark {self.benchmark!r}: it is a group of several data sets, but data gives the"
                    f" same files for {before} and {name}; give a folder with a file or a folder for each"
                )
            splits = {split: _read(real, self.benchmark, split, file) for split, file in chosen.items()}
            self.found.append(_record(path, name, None, splits, chosen))
            return self._dictionary(splits)
        if "data_files" in how:
            # A task of the user that reads local files, of which no repository is known.
            if self.revision is not None:
                raise UsageError(
                    f"benchmark {self.benchmark!r}: its task reads local files, which have no revision;"
                    " remove data_revision"
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
            self.sought = f"{self.shots[0]} ({self.shots[1]}), whose training split gives the shots"
            its = real(path=self.shots[0], name=self.shots[1])["train"]
            self.found.append(_record(*self.shots, _commit({"train": its}), {"train": its}))
            splits["train"] = its
        return self._dictionary(splits)

    def _must_be(self, path: str, commit: str | None) -> None:
        # Online, `datasets` has resolved the revision. Offline, it takes whatever its cache has, which can
        # only be compared with a full commit.
        offline = os.environ.get("HF_HUB_OFFLINE") == "1"
        if commit != self.revision and (offline or _COMMIT.fullmatch(self.revision or "")):
            raise StorageError(
                None,
                f"benchmark {self.benchmark!r}: the cache holds {path} at {commit or 'an unknown commit'},"
                f" not at {self.revision}; allow the network, or set data_revision to the cached commit",
            )

    def _dictionary(self, splits: dict[str, Any]) -> Any:
        for name, theirs in self.aliases:
            if "train" in splits and name not in splits["train"].column_names:
                splits["train"] = splits["train"].add_column(name, list(splits["train"][theirs]))
        kind: Any = library("datasets").DatasetDict
        lacking, some = self.lacking, next(iter(splits.values()))

        class Splits(kind):
            """Gives an empty split for a missing one: lm-eval opens every split of a task, needed or not."""

            def __missing__(self, name: str) -> Any:
                lacking.add(str(name))
                return some.select([])

        return Splits(splits)

    def _chosen(self, name: str | None) -> dict[str, str]:
        """The file for each split."""
        if isinstance(self.files, dict):
            return self.files
        folder = Path(self.files or "")
        if not folder.is_dir():
            raise StorageError(
                None, f"benchmark {self.benchmark!r}: data {folder} is not a folder; name a folder, or a file"
                " for each split", str(folder),
            )  # fmt: skip
        # For a group, the folder has a file, or a folder of splits, for each configuration.
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
        said = f"benchmark {benchmark!r}: data file {file} of split {split} does not exist; name another"
        raise StorageError(None, said, file)
    if (kind := _reader(path)) is None:
        raise UsageError(
            f"benchmark {benchmark!r}: {file} is not of a known file type; give one of"
            f" {', '.join(sorted(_READERS))}"
        )
    try:
        return real(path=kind, data_files={split: file}, split=split)
    except Exception as error:
        cause = error.__cause__ or error
        said = (str(cause).strip().splitlines() or [""])[0]
        raise UsageError(
            f"benchmark {benchmark!r}: data file {file} cannot be read ({type(cause).__name__}: {said});"
            " correct it"
        ) from error


def _commit(splits: dict[str, Any]) -> str | None:
    """The commit of the repository, from the URLs of its files or the cache's path; None if not found."""
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
    """SHA-256 over the documents of all splits in order (32 hexadecimal digits), however they were loaded."""
    whole = hashlib.sha256()
    for split, documents in sorted(splits.items()):
        whole.update(f"{split}\n".encode())
        for document in documents:
            text = json.dumps(document, sort_keys=True, ensure_ascii=False, default=str)
            whole.update(f"{text}\n".encode())
    return whole.hexdigest()[:32]
