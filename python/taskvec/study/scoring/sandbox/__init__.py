"""Runs code that a model wrote: `Sandbox` judges programs, and `confined` runs inside its processes."""

from .sandbox import Program, Sandbox, Verdict

__all__ = ["Program", "Sandbox", "Verdict"]
