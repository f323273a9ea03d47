"""A digest of a benchmark: its prompts, right answers, settings, and the code that scores it."""

from __future__ import annotations

import hashlib
import inspect
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ...records import Json
    from .tasks import Loaded


def asked_digest(asked: list[tuple[str, str]], loaded: Loaded) -> str:
    """SHA-256 (32 hexadecimal digits) of all prompts, right answers, settings and the code that scores."""
    whole = hashlib.sha256(f"{loaded.metric}\0{loaded.filter}\0".encode())
    for prompt, rest in asked:
        whole.update(f"{prompt}\0{rest}\0".encode())
    for task in loaded.tasks:
        for request in task.instances:
            whole.update(f"{task.doc_to_target(request.doc)}\0".encode())
        settings = {key: task.get_config(key) for key in ("generation_kwargs", "filter_list", "metric_list")}
        whole.update(json.dumps(settings, default=_named, sort_keys=True).encode())
        for name, content in _code(task):
            whole.update(f"{name}\0".encode() + hashlib.sha256(content).digest())
    return whole.hexdigest()[:32]


def _code(task: Any) -> list[tuple[str, bytes]]:
    """Name and content of the Python files of a task: all in the folders that define its functions."""
    todo: list[Any] = [vars(task.config)]
    if not (kind := cast("type[Any]", type(task))).__module__.startswith("lm_eval.api"):
        todo.append(kind)
    folders: set[Path] = set()
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo += cast("Json", one).values()
        elif isinstance(one, list | tuple):
            todo += cast("list[Any]", one)
        elif inspect.isfunction(one) or inspect.isclass(one):
            # Builtins have no file.
            with suppress(OSError, TypeError):
                folders.add(Path(inspect.getfile(one)).parent)
    return sorted((path.name, path.read_bytes()) for folder in folders for path in folder.glob("*.py"))


def _named(value: Any) -> str:
    """The name of a function: its default text holds an address, which differs between processes."""
    return getattr(value, "__qualname__", type(value).__name__)
