"""Where code that a model wrote is run: `Sandbox` judges programs, `confined` runs in its processes."""

from .sandbox import Program, Sandbox, Verdict

__all__ = ["Program", "Sandbox", "Verdict"]
