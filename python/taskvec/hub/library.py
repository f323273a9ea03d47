"""huggingface_hub, imported where it is used first: a second that work on local folders need not wait for."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator


def hub() -> Any:
    """The library; without types, of which it has many that a strict checker does not know."""
    return importlib.import_module("huggingface_hub")


def constants() -> Any:
    """What the environment has set, as the library read it."""
    return importlib.import_module("huggingface_hub.constants")


def utils() -> Any:
    """What it offers to those who build on it."""
    return importlib.import_module("huggingface_hub.utils")


def httpx() -> Any:
    """Its HTTP client, whose name changes with its versions."""
    return utils().httpx


@contextmanager
def quiet(*, bars: bool) -> Generator[None]:
    """Keeps its own words, which show signed addresses, off standard error; its bars too unless wished."""
    settings = utils()
    level, hide = settings.logging.get_verbosity(), not bars and not settings.are_progress_bars_disabled()
    settings.logging.set_verbosity_error()
    if hide:
        settings.disable_progress_bars()
    try:
        yield
    finally:
        settings.logging.set_verbosity(level)
        if hide:
            settings.enable_progress_bars()


def errors() -> Any:
    """Its exceptions."""
    return importlib.import_module("huggingface_hub.errors")
