"""Benchmarks as lm-eval's task objects, set up as the study says; only the tasks that it names are loaded."""

from __future__ import annotations

import difflib
import os
import random
import re
from contextlib import chdir
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ...errors import StorageError, UsageError
from ..environment import library, quiet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...records import Json
    from ..spec.study_file import Benchmark, Study

# lm-eval's own seeds.
_SEED, _OTHER_SEED = 0, 1234
# A name on a line of its own; what a file includes or inherits does not name it.
_NAME = re.compile(
    rb"""^["']?(?:task|group)["']?:[ \t]*["']?([^\s"'#\[{]+)["']?[ \t]*(?:[ \t]#.*)?\r?$""",
    re.MULTILINE,
)
# For one document these give a pair or a table, not a number.
_NOT_A_SCORE = ("f1", "mcc", "brier_score", "likelihood", "bleu", "chrf", "ter", "perplexity")
_CHOICE = "the answer is picked among given ones by likelihood, so a chain of thought cannot show"
_PREFILLED = "the beginning of the answer is given, which leaves no room for a chain of thought"


@dataclass(frozen=True, slots=True)
class Loaded:
    """One benchmark, ready to be scored."""

    benchmark: Benchmark
    tasks: tuple[Any, ...]
    """lm-eval's `Task` objects: one, or those of a group."""
    kind: Literal["generate", "choice"]
    metric: str
    filter: str
    invalid: dict[str, Any]
    """By task: what the filter answers where it finds no answer; None where it always finds one."""
    shots: int
    version: str
    n: int
    """Documents."""
    note: str | None
    """Why a chain of thought cannot show, where it cannot."""

    def to_json(self) -> Json:
        """The entry of `run.json` and `results.json`."""
        one = self.benchmark
        return {
            "id": one.id, "title": one.name, "task": one.task, "version": self.version, "kind": self.kind,
            "metric": self.metric, "filter": self.filter, "shots": self.shots,
            "max_new_tokens": one.max_new_tokens, "limit": one.limit, "n": self.n, "note": self.note,
        }  # fmt: skip


def seed(tasks: Iterable[Any] = ()) -> None:
    """Makes what tasks draw, as they are built, asked and scored, the same every time, for every arm."""
    import numpy as np

    random.seed(_SEED)
    np.random.seed(_OTHER_SEED)
    library("torch").manual_seed(_OTHER_SEED)
    for task in tasks:
        # Shots are drawn anew for each arm.
        task.set_fewshot_seed(seed=_OTHER_SEED)


def load(study: Study) -> tuple[Loaded, ...]:
    """Builds the tasks of a study's benchmarks, data included.

    Raises:
        UsageError: there is no such task, or it cannot be run as the study wants.
        StorageError: the data of a task cannot be had.
    """
    with quiet():
        return tuple(_load(one, study.tasks) for one in study.benchmarks)


def _load(benchmark: Benchmark, own: str | None) -> Loaded:
    if benchmark.confirm_unsafe:
        # Read when a task that runs code is built.
        os.environ["HF_ALLOW_CODE_EVAL"] = "1"
    # Some draw their documents, or the order of their choices.
    seed()
    tasks = _build(benchmark, own)
    kinds = {task.OUTPUT_TYPE for task in tasks}
    if len(kinds) > 1 or not kinds <= {"generate_until", "multiple_choice"}:
        raise _refused(benchmark, f"it is of the kind {', '.join(sorted(map(str, kinds)))}", "another task")
    kind = "generate" if kinds == {"generate_until"} else "choice"
    for task in tasks:
        if getattr(task, "UNSAFE_CODE", False) and not benchmark.confirm_unsafe:
            raise _refused(
                benchmark,
                "it runs code that the model wrote",
                "confirm_unsafe: true, in a sandbox, or another",
            )
        if getattr(task, "MULTIMODAL", False):
            raise _refused(benchmark, "it shows pictures or sounds", "a task of text alone")
        if (task.get_config("repeats") or 1) > 1:
            raise _refused(
                benchmark, "it samples several answers to each document, and arms are greedy", "another task"
            )
        _set_up(task, benchmark, kind)
    metric, filter = _scored_by(benchmark, tasks)
    prefilled = any(task.get_config("gen_prefix") for task in tasks)
    sizes = [min(len(task.eval_docs), benchmark.limit or len(task.eval_docs)) for task in tasks]
    return Loaded(
        benchmark,
        tasks,
        kind,
        metric,
        filter,
        {task.task_name: _invalid(benchmark, task, filter) for task in tasks},
        tasks[0].get_config("num_fewshot"),
        ", ".join(sorted({str(task.VERSION) for task in tasks})),
        sum(sizes),
        _CHOICE if kind == "choice" else _PREFILLED if prefilled else None,
    )


def _refused(benchmark: Benchmark, why: str, instead: str) -> UsageError:
    return UsageError(
        f"benchmark {benchmark.id!r}: task {benchmark.task} cannot be used as it is: {why}; choose {instead}"
    )


def _set_up(task: Any, benchmark: Benchmark, kind: str) -> None:
    pinned = task.get_config("num_fewshot")
    shots = (pinned or 0) if benchmark.shots is None else benchmark.shots
    if pinned == 0 and shots:
        raise _refused(benchmark, f"it is made for 0 shots, not {shots}", "shots: 0, or another task")
    task.set_config("num_fewshot", shots)
    if kind == "choice":
        return
    if benchmark.max_new_tokens is None:
        raise _refused(benchmark, "it generates text without a cap", "max_new_tokens")
    given: Json = task.get_config("generation_kwargs") or {}
    # All of it, so that nothing is left to a default: lm-eval's is to cut answers off at 256 tokens.
    how = {"max_gen_toks": benchmark.max_new_tokens, "do_sample": False, "temperature": 0.0}
    task.set_config("generation_kwargs", {"until": given.get("until") or [], **how})


def _scored_by(benchmark: Benchmark, tasks: tuple[Any, ...]) -> tuple[str, str]:
    """The metric and the filter: those asked for, else the first that the task has."""
    metrics, filters = zip(*((_metrics(task), _filters(task)) for task in tasks), strict=True)
    metric, filter = benchmark.metric or metrics[0][0], benchmark.filter or filters[0][0]
    for task, has, passes in zip(tasks, metrics, filters, strict=True):
        # What a metric that is a function of the task's own answers is not known until it has run.
        if metric not in has and not any(
            callable(one["metric"]) for one in task.get_config("metric_list") or ()
        ):
            raise _refused(benchmark, f"it has no metric {metric!r}", f"one of {', '.join(has)}")
        # lm-eval builds a task whose metric it does not know, and fails once it has an answer to score.
        known: Json = getattr(task, "_metric_fn_list", {})
        if known.get(metric, True) is None and not callable(task.get_config("process_results")):
            raise _refused(benchmark, f"lm-eval knows no metric {metric!r}", "another metric")
        if metric in _NOT_A_SCORE:
            raise _refused(benchmark, f"{metric} is not one number for each document", "another metric")
        if task.higher_is_better().get(metric) is False:
            raise _refused(benchmark, f"of {metric} less is better, and more is in a study", "another metric")
        if filter not in passes:
            raise _refused(benchmark, f"it has no filter {filter!r}", f"one of {', '.join(passes)}")
    return metric, filter


def _metrics(task: Any) -> list[str]:
    return list(task.aggregation())


def _filters(task: Any) -> list[str]:
    return [one["name"] for one in task.get_config("filter_list") or ()] or ["none"]


def _invalid(benchmark: Benchmark, task: Any, filter: str) -> Any:
    # Of the filters themselves, some of which are classes of the task's own and have a default.
    for one in getattr(task, "_filters", ()):
        for step in one.filters if one.name == filter else ():
            try:
                made = step()
            except Exception as error:
                why = f"its filter {filter!r} cannot be built ({type(error).__name__}: {error})"
                raise _refused(benchmark, why, "another filter, or mend it") from error
            if (fallback := getattr(made, "fallback", None)) is not None:
                return fallback
    return None


def _build(benchmark: Benchmark, own: str | None) -> tuple[Any, ...]:
    """The task objects; relative paths in a task's file are relative to its folder."""
    name, mine = benchmark.task, {} if own is None else _names(Path(own))
    path = mine.get(name) or _registered().get(name)
    if path is None:
        near = difflib.get_close_matches(name, [*mine, *_registered()], 3)
        raise UsageError(
            f"benchmark {benchmark.id!r}: neither lm-eval nor the study's tasks folder has a task {name!r};"
            + (f" near it are {', '.join(near)}" if near else " choose one that is there")
        )
    folders, managers = {path.parent}, library("lm_eval.tasks")
    while True:
        manager: Any = managers.TaskManager(include_path=[*sorted(folders)], include_defaults=False)
        index: dict[str, Any] = manager.task_index
        if name not in index:
            raise UsageError(
                f"benchmark {benchmark.id!r}: {path} is not a task that lm-eval can read; mend it"
            )
        # A group may name tasks that lie in other folders.
        lacking = _members(name, index) - index.keys()
        found = {one: mine.get(one) or _registered().get(one) for one in lacking}
        more = {path.parent for path in found.values() if path is not None}
        if more <= folders:
            break
        folders |= more
    source: Json = index[name].cfg or {}
    try:
        with chdir(path.parent):
            return tuple(manager.load([name])["tasks"].values())
    except Exception as error:
        raise _no_data_or_no_task(benchmark, source, error) from error


def _members(name: str, index: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    entry = index.get(name)
    members: Any = entry.cfg.get("task") if entry and entry.cfg else None
    for member in cast("list[Any]", members) if isinstance(members, list) else ():
        one: str = member if isinstance(member, str) else member.get("group") or member.get("task")
        found |= {one} | _members(one, index)
    return found


def _no_data_or_no_task(benchmark: Benchmark, source: Json, error: Exception) -> StorageError | UsageError:
    said = (str(error).strip().splitlines() or [""])[0]
    data = f"{source.get('dataset_path')}" + (f" ({one})" if (one := source.get("dataset_name")) else "")
    from_hub = type(error).__module__.partition(".")[0] in {"datasets", "huggingface_hub", "httpx"}
    if isinstance(error, OSError) or from_hub or "cache for" in said:
        offline = " without the network" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        return StorageError(
            getattr(error, "errno", None),
            f"benchmark {benchmark.id!r}: the data of task {benchmark.task}, {data}, cannot be had{offline}"
            f" ({type(error).__name__}: {said}); download them first, or name data files in a task of your"
            " own",
        )
    return UsageError(
        f"benchmark {benchmark.id!r}: task {benchmark.task} cannot be built ({type(error).__name__}: {said});"
        " mend it or choose another"
    )


@cache
def _registered() -> dict[str, Path]:
    """lm-eval's own tasks and groups, by name."""
    return _names(Path(library("lm_eval").__file__).parent / "tasks")


def _names(folder: Path) -> dict[str, Path]:
    """The tasks and groups in a folder's YAML files, by name.

    Found in the text: lm-eval's own search, which reads its 14,000 files as YAML, takes 12 s.
    """
    if not folder.is_dir():
        raise StorageError(
            None, f"{folder} is not a folder; `tasks:` names the folder of task files", str(folder)
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml")):
        for match in _NAME.finditer(path.read_bytes()):
            found.setdefault(match[1].decode(errors="replace"), path)
    return found
