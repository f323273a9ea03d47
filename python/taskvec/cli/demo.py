"""`taskvec demo`: runs the verbs and a study on four small models, and shows each step as a command."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .. import dry_run, verbs
from ..errors import UsageError
from ..study import environment
from . import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..study.running.runner import Progress

ROLES = ("base", "sft", "grpo", "instruct")
_FAMILY = Path(__file__).parents[1] / "mini"
_ALPHA = "1"
_MEANING = """\
How to read this: v makes instruct work problems out before it answers. It can do so without v, but mostly
does not. It also does so on problems that grpo was never trained on. This is not a new skill: asking for
steps in the prompt does as much. The models have 0.6M parameters each and solve made-up problems; they show
that the arithmetic works from end to end, not what it does to a language model."""


def run(
    out: str,
    *,
    overwrite: bool,
    say: Callable[[str], None],
    progress: Progress | None = None,
) -> bool:
    """Copies the models to the folder `out`, runs every step on them, and returns whether all went well.

    The study needs the extra `eval`. Without it, the study is left out and `say` tells how to install it.
    """
    root = Path(out).expanduser()
    if root.exists() and not overwrite:
        raise UsageError(f"{root} already exists; give --overwrite, or another folder with -o")
    say(f"Four small trained models are copied to {root}: {', '.join(ROLES)}.")
    for role in ROLES:
        shutil.copytree(_FAMILY / role, root / role, dirs_exist_ok=True)
    kept = _arithmetic(root, overwrite=overwrite, say=say)
    if missing := environment.missing():
        say("")
        say(f"The study of what the vector does is left out: {missing}, then run `taskvec demo --overwrite`.")
    else:
        _study(root, overwrite=overwrite, say=say, progress=progress)
    return kept


def _arithmetic(root: Path, *, overwrite: bool, say: Callable[[str], None]) -> bool:
    target, grpo, sft = (str(root / role) for role in ("instruct", "grpo", "sft"))
    vector, applied, moved, same = (
        str(root / name) for name in ("vector", "applied", "transferred", "alpha-0")
    )

    def show(command: list[str], lines: Iterable[str]) -> None:
        _show(say, [*command, "--overwrite"] if overwrite and "-o" in command else command, lines)

    plan = dry_run.check(target, grpo, sft)
    show(["check", target, grpo, sft], render.checked(plan))
    made = verbs.extract(grpo, sft, vector, overwrite=overwrite)
    if made.written:
        show(["extract", grpo, sft, "-o", vector], render.written(made.written))
    done = verbs.apply(target, made, applied, alpha=_ALPHA, overwrite=overwrite)
    show(["apply", target, vector, "-o", applied, "--alpha", _ALPHA], render.written(done))
    done = verbs.transfer(target, grpo, sft, moved, alpha=_ALPHA, overwrite=overwrite)
    show(["transfer", target, grpo, sft, "-o", moved, "--alpha", _ALPHA], render.written(done))
    changes = verbs.diff(target, moved)
    show(["diff", target, moved], render.compared(changes, every=False))
    intact = verbs.verify(moved)
    show(["verify", moved], render.verified(intact))
    done = verbs.transfer(target, grpo, sft, same, alpha="0", overwrite=overwrite)
    show(["transfer", target, grpo, sft, "-o", same, "--alpha", "0"], render.written(done))

    outcomes = [
        ("check finds that the inputs fit together", plan.compatible),
        ("apply and transfer agree byte for byte", _same_weights(applied, moved)),
        ("the vector changes the target", not changes.identical),
        ("verify finds everything as it was written", intact.ok),
        ("α = 0 gives the target's weights back, byte for byte", _same_weights(target, same)),
    ]
    say("")
    for promise, kept in outcomes:
        say(f"{'yes' if kept else 'NO '}  {promise}")
    say("")
    say(f"The models are in {root}; the vector is {vector}, the result {moved}.")
    return all(kept for _, kept in outcomes)


def _study(
    root: Path,
    *,
    overwrite: bool,
    say: Callable[[str], None],
    progress: Progress | None,
) -> None:
    from .. import study
    from ..study.reporting import terminal as tables

    out = root / "study"
    say("")
    say("Does v work? Every variant of instruct answers the same 2,000 problems; this takes a few minutes.")
    results = study.run("mini", out, overwrite=overwrite, progress=progress)
    command = ["study", "run", "mini", "-o", str(out)]
    _show(say, [*command, "--overwrite"] if overwrite else command, tables.lines(results))
    say("")
    say(_MEANING)
    say("")
    say(f"The report: {out / 'report.html'}")


def _show(say: Callable[[str], None], command: list[str], lines: Iterable[str]) -> None:
    say("")
    say("$ taskvec " + shlex.join(command))
    for line in lines:
        say(line)


def _same_weights(first: str, second: str) -> bool:
    """Compares weights and index by reading the files itself, so that the proof does not rely on the core."""
    one, other = _weights(Path(first)), _weights(Path(second))
    return bool(one) and one == other


def _weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("model*.safetensors*")}
