"""How the command begins: Ctrl-C in its first instants, and signals that its parent told it to ignore."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from hostile import SLOW, await_journal, finish, start, trio

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

# A stand-in for the first import after the guard: it says that it is being imported, and takes its time.
WAITING = "import os, time\nos.write(1, b'here')\ntime.sleep(30)\n"
SCRIPT = "import sys\nfrom taskvec.cli.main import main\nsys.exit(main())\n"


def begun(
    tmp_path: Path, command: list[str], module: str, text: str = WAITING, **options: Any
) -> subprocess.Popen[str]:
    """A command that has come as far as importing `module`."""
    (tmp_path / f"{module}.py").write_text(text)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", *command], env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.read(4) == "here"
    return process


@pytest.mark.parametrize("module", ["click", "fractions"])
@pytest.mark.parametrize("way", ["module", "script"])
def test_ctrl_c_while_the_command_is_imported(way: str, module: str, tmp_path: Path) -> None:
    (tmp_path / "taskvec").write_text(SCRIPT)
    command = ["-m", "taskvec"] if way == "module" else [str(tmp_path / "taskvec")]
    process = begun(tmp_path, [*command, "study", "ls", "--help"], module)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "", "taskvec: stopped\n")


def test_ctrl_c_while_a_library_is_imported_late(tmp_path: Path) -> None:
    process = begun(tmp_path, ["-m", "taskvec", "check", "lab/a", "lab/b", "lab/c"], "huggingface_hub")
    process.send_signal(signal.SIGINT)
    code, _, said = finish(process)
    assert code == 130, said
    assert said.splitlines() == ["taskvec: stopping; interrupt again to stop at once", "taskvec: stopped"]


def test_an_interrupted_import_that_raises_something_else(tmp_path: Path) -> None:
    """As a compiled module does that cannot go on half imported."""
    body = "".join(f"    {line}\n" for line in WAITING.splitlines())
    text = f"try:\n{body}except BaseException:\n    raise ImportError('half') from None\n"
    process = begun(
        tmp_path, ["-m", "taskvec", "check", "lab/a", "lab/b", "lab/c"], "huggingface_hub", text=text
    )
    process.send_signal(signal.SIGINT)
    code, _, said = finish(process)
    assert code == 130, said
    assert said.endswith("taskvec: stopped\n")


def test_a_program_that_uses_the_library_keeps_its_handler() -> None:
    code = "import signal, taskvec; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def ignoring() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_what_the_parent_ignores_stays_ignored(tmp_path: Path) -> None:
    inputs, out = trio(tmp_path, 12 << 20), tmp_path / "out"
    process = start(("transfer", *inputs, "-o", out, *SLOW), preexec_fn=ignoring)
    await_journal(process, out)
    process.send_signal(signal.SIGINT)
    code, _, said = finish(process)
    assert code == 0, said
    assert "stop" not in said
    assert (out / "taskvec.json").is_file()


def test_what_the_parent_ignores_stays_ignored_while_it_starts(tmp_path: Path) -> None:
    process = begun(tmp_path, ["-m", "taskvec", "--help"], "click", preexec_fn=ignoring)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.kill()
    process.communicate()
