"""Builds lm-eval task objects by name: from the study's tasks folder, taskvec's catalogue, or lm-eval."""

from __future__ import annotations

import difflib
import json
import os
import re
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...errors import StorageError, TaskvecError, UsageError
from ..environment import library
from ..spec.catalogue import CATALOGUE
from . import known
from .readings import refused

if TYPE_CHECKING:
    from ...records import Json
    from ..spec.asked import Asked
    from .code import Judge
    from .data import Source

# The line of a YAML file that names its task or group.
_NAME = re.compile(
    rb"""^["']?(?:task|group)["']?:[ \t]*["']?([^\s"'#\[{]+)["']?[ \t]*(?:[ \t]#.*)?\r?$""",
    re.MULTILINE,
)


# lm-eval's functions that run code that a model wrote, and its metric that does.
_RUNS_CODE = re.compile(
    r'[/\\\\](?:humaneval|humaneval_infilling|mbpp|cruxeval|longproc)[/\\\\]utils|"code_eval"'
)


def build(benchmark: Asked, own: str | None, judge: Judge, source: Source) -> tuple[Any, ...]:
    """The task objects of a benchmark; paths in a task's file are relative to the folder of the file.

    Raises:
        UsageError: there is no such task, or it cannot be built.
        StorageError: its data are not available.
    """
    name, mine = benchmark.task, {} if own is None else _names(Path(own))
    if benchmark.known is not None and name in mine:
        raise UsageError(
            f"benchmark {benchmark.id!r}: the study's tasks folder has a task {name!r}, which is also a"
            " benchmark that taskvec knows by name; rename yours"
        )
    path = mine.get(name) or _registered().get(name)
    if path is None and benchmark.known is None:
        near = difflib.get_close_matches(name, {**mine, **CATALOGUE, **_registered()}, 3)
        raise UsageError(
            f"benchmark {benchmark.id!r}: neither taskvec, lm-eval nor the study's tasks folder has a task"
            f" {name!r};" + (f" did you mean {', '.join(near)}?" if near else " choose one that exists")
        )
    try:
        with source.in_place():
            if benchmark.known is not None:
                return known.build(benchmark, judge)
            assert path is not None
            manager = _manager(benchmark, path, mine)
            with chdir(path.parent):
                return tuple(manager.load([name])["tasks"].values())
    except TaskvecError:
        raise
    except Exception as error:
        if source.lacking:
            raise UsageError(
                f"benchmark {benchmark.id!r}: its data have no split {', '.join(sorted(source.lacking))},"
                " which the task needs; add it under data"
            ) from error
        raise _no_data_or_no_task(benchmark, source, error) from error


def _manager(benchmark: Asked, path: Path, mine: dict[str, Path]) -> Any:
    """A task manager that reads only the folders that the benchmark needs."""
    name, folders, managers = benchmark.task, {path.parent}, library("lm_eval.tasks")
    while True:
        manager: Any = managers.TaskManager(include_path=[*sorted(folders)], include_defaults=False)
        index: dict[str, Any] = manager.task_index
        if name not in index:
            raise UsageError(
                f"benchmark {benchmark.id!r}: {path} is not a task that lm-eval can read; correct it"
            )
        # A group may contain tasks from other folders.
        lacking = _members(name, index) - index.keys()
        found = {one: mine.get(one) or _registered().get(one) for one in lacking}
        more = {path.parent for path in found.values() if path is not None}
        if more <= folders:
            break
        folders |= more
    for one in {name} | _members(name, index):
        config: Json = (index[one].cfg if one in index else None) or {}
        # Functions are not resolved here, so they appear as the paths of their files.
        if "unsafe_code" in config or _RUNS_CODE.search(json.dumps(config, default=str)):
            raise refused(
                benchmark, "it runs code that the model wrote, and the sandbox is only for humaneval and"
                " humaneval_plus", "one of these",
            )  # fmt: skip
    return manager


def _members(name: str, index: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    entry = index.get(name)
    members: Any = entry.cfg.get("task") if entry and entry.cfg else None
    for member in cast("list[Any]", members) if isinstance(members, list) else ():
        one: str = member if isinstance(member, str) else member.get("group") or member.get("task")
        found |= {one} | _members(one, index)
    return found


def _no_data_or_no_task(benchmark: Asked, source: Source, error: Exception) -> StorageError | UsageError:
    said = (str(error).strip().splitlines() or [""])[0]
    from_hub = type(error).__module__.partition(".")[0] in {"datasets", "huggingface_hub", "httpx"}
    if source.sought and (isinstance(error, OSError) or from_hub or "cache for" in said):
        offline = " without the network" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        return StorageError(
            getattr(error, "errno", None),
            f"benchmark {benchmark.id!r}: the data of task {benchmark.task}, {source.sought}, are not"
            f" available{offline} ({type(error).__name__}: {said}); download them first, or name local files"
            " under data",
        )
    return UsageError(
        f"benchmark {benchmark.id!r}: task {benchmark.task} cannot be built ({type(error).__name__}: {said});"
        " correct it or choose another"
    )


@cache
def _registered() -> dict[str, Path]:
    """lm-eval's own tasks and groups, by name."""
    return _names(Path(library("lm_eval").__file__).parent / "tasks")


def _names(folder: Path) -> dict[str, Path]:
    """The YAML file of each task and group in a folder, by name.

    They are found by a text search: lm-eval's own index, which parses its 14,000 files as YAML, takes 12 s.
    """
    if not folder.is_dir():
        raise StorageError(
            None, f"{folder} is not a folder; set `tasks:` to the folder of the task files", str(folder)
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml")):
        for match in _NAME.finditer(path.read_bytes()):
            found.setdefault(match[1].decode(errors="replace"), path)
    return found
