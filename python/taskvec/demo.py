"""The whole mission on the miniature family, each step shown as the command that a user would type."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from . import render, verbs
from .demo_family import ROLES, write_family
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ALPHA = "0.7"


def run(out: str, *, seed: int, overwrite: bool, say: Callable[[str], None]) -> bool:
    """Makes the family in the folder `out`, runs the verbs on it, and says if all went as promised."""
    root = Path(out).expanduser()
    if root.exists() and not overwrite:
        raise UsageError(f"{root} is there already; give --overwrite, or another folder with -o")
    say(f"Making a family of four small models in {root}: {', '.join(ROLES)}.")
    write_family(root, seed)
    base = {role: str(root / role) for role in ROLES}
    target, grpo, sft = base["instruct"], base["grpo"], base["sft"]
    vector, applied, moved, same = (
        str(root / name) for name in ("vector", "applied", "transferred", "alpha-0")
    )

    def show(command: list[str], lines: Iterable[str]) -> None:
        say("")
        say(
            "$ taskvec " + shlex.join([*command, "--overwrite"] if overwrite and "-o" in command else command)
        )
        for line in lines:
            say(line)

    plan = verbs.check(target, grpo, sft)
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


def _same_weights(first: str, second: str) -> bool:
    """Compares weights and index by reading the files: the proof must not rest on the core's word."""
    one, other = _weights(Path(first)), _weights(Path(second))
    return bool(one) and one == other


def _weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("model*.safetensors*")}
