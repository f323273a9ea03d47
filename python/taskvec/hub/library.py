"""Imports huggingface_hub when it is first used: it takes a second, which local folders need not wait for."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator


def hub() -> Any:
    """The library, untyped, since a strict type checker does not accept its types."""
    return importlib.import_module("huggingface_hub")


def constants() -> Any:
    """Its settings, as it read them from the environment."""
    return importlib.import_module("huggingface_hub.constants")


def utils() -> Any:
    """Its helper functions."""
    return importlib.import_module("huggingface_hub.utils")


def httpx() -> Any:
    """Its HTTP client library, which differs between its versions."""
    return utils().httpx


@contextmanager
def quiet(*, bars: bool) -> Generator[None]:
    """Silences its log messages, which can show signed URLs, and its progress bars unless `bars`."""
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
