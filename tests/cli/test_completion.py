"""Completion in a shell: commands, options and their values, and folders where one belongs."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from command import Answer


def offered(taskvec: Callable[..., Answer], *words: str) -> list[str]:
    """What bash is told about the last word, as TYPE,VALUE."""
    asked = {"COMP_WORDS": " ".join(["taskvec", *words]), "COMP_CWORD": str(len(words))}
    done = taskvec(_TASKVEC_COMPLETE="bash_complete", **asked)
    assert (done.code, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offer"),
    [
        (["tra"], ["plain,transfer"]),
        (["study", "s"], ["plain,show"]),
        (["transfer", "--rou"], ["plain,--rounding"]),
        (["transfer", "--rounding", "sto"], ["plain,stochastic"]),
        (["transfer", "ins"], ["dir,ins"]),
        (["apply", "target", "one", "two"], ["dir,two"]),
        (["apply", "target", "one", "-o", "ou"], ["dir,ou"]),
        (["report", "ru"], ["dir,ru"]),
        (["push", "out", "org"], []),
        (["transfer", "--memory", "64"], []),
    ],
)
def test_what_is_offered(taskvec: Callable[..., Answer], words: list[str], offer: list[str]) -> None:
    assert offered(taskvec, *words) == offer


def test_the_script_for_bash(taskvec: Callable[..., Answer]) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    done = taskvec(_TASKVEC_COMPLETE="bash_source")
    assert done.code == 0
    script = f"{done.stdout}\ncomplete -p taskvec"
    told = subprocess.run([bash, "-c", script], check=True, capture_output=True, text=True).stdout
    assert told.startswith("complete ")
    assert told.endswith(" taskvec\n")
