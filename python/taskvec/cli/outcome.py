"""What every command does with the plan or the result of its verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import taskvec

from ..records import briefly
from . import render
from .console import Talk, say, show, split
from .progress_bar import Bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..advice import AdviceResult
    from ..check_result import CheckResult
    from ..results import DiffResult, InspectResult, SweepResult, WriteResult
    from ..vector import Vector


def write(
    given: dict[str, Any],
    plan: Callable[..., CheckResult] | None,
    verb: Callable[..., Vector | WriteResult | SweepResult],
    *inputs: Any,
) -> int:
    """Runs a verb that writes, or only plans it, and shows what came of it; returns the exit code."""
    talk, how = split(given)
    plan_only = how.pop("dry_run")
    if plan is not None and (plan_only or talk.verbose):
        with briefly(wanted=not (talk.as_json or talk.verbose)):
            planned = plan(*inputs, **how)
        if plan_only:
            return show_plan(talk, planned)
        say(f"inputs are read by {planned.io}: {planned.io_reason}")
    with Bar(quiet=talk.quiet) as bar:
        done = verb(*inputs, progress=bar, **how)
    result: Any = done.written if isinstance(done, taskvec.Vector) else done
    outputs: tuple[WriteResult, ...] = result.results if isinstance(done, taskvec.SweepResult) else (result,)
    for warning in render.said_of(outputs, "warnings"):
        say(f"warning: {warning}")
    if talk.verbose:
        for note in render.said_of(outputs, "notes"):
            say(f"note: {note}")
        # One that an earlier run finished had no windows.
        for line in render.engine(max(outputs, key=lambda one: one.engine.windows)):
            say(line)
    lines = render.swept if isinstance(done, taskvec.SweepResult) else render.written
    show(talk, result.to_json(), lines(result))
    return 0


def only_alphas(alpha: str | tuple[str, ...] | None) -> None:
    """Refuses `--alpha` beside `--alphas`."""
    if alpha not in (None, ()):
        raise taskvec.UsageError("--alpha and --alphas exclude each other; put every factor into --alphas")


def warn(result: CheckResult | InspectResult | DiffResult | AdviceResult) -> None:
    """Prints the warnings of a result."""
    for warning in result.warnings:
        say(f"warning: {warning}")


def show_plan(talk: Talk, plan: CheckResult) -> int:
    """Shows a plan; returns the exit code."""
    warn(plan)
    show(talk, plan.to_json(), render.checked(plan))
    return 0 if plan.compatible else 1
