"""The command line as a user meets it: each test starts a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

import taskvec as package
from taskvec.cli import commands as command_line
from taskvec.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from command import Answer

    Run = Callable[..., Answer]

COMMANDS = command_line.cli.commands


def test_importing_is_light() -> None:
    heavy = ["torch", "transformers", "numpy", "click", "yaml", "tqdm", "huggingface_hub"]
    code = f"import sys, taskvec; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_needs_no_heavy_package() -> None:
    code = (
        "import sys\nfrom taskvec.cli.main import main\nmain(['--help'])\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'yaml', 'tqdm') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, env=environment
    )
    assert done.stdout.strip().endswith("[]")


def test_version(taskvec: Run) -> None:
    answer = taskvec("--version")
    assert (answer.code, answer.stdout) == (0, f"taskvec {package.__version__}\n")


def test_public_names_are_imported_when_they_are_used() -> None:
    code = """
import sys, taskvec
from taskvec.cli.main import main
late = {"verbs", "results", "check_result", "vector", "upload", "advice", "dry_run", "live.inject"}
assert not [name for name in late if f"taskvec.{name}" in sys.modules]
assert set(taskvec.__all__) <= set(dir(taskvec))
assert all(getattr(taskvec, name) is not None for name in taskvec.__all__)
assert taskvec.study.load('mini').name == 'mini'
assert callable(taskvec.push) and taskvec.push is taskvec.push and taskvec.dry_run.transfer
import taskvec.upload
assert callable(taskvec.push)
from taskvec import *
assert transfer is taskvec.transfer
try:
    taskvec.nothing
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "module 'taskvec' has no attribute 'nothing'\n"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_explained(name: str, taskvec: Run) -> None:
    shown = taskvec(name, "--help")
    assert (shown.code, shown.stderr) == (0, "")
    assert COMMANDS[name].help
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} has no help"
            assert all(f"{one}" in shown.stdout for one in parameter.opts)


@pytest.mark.parametrize("name", ["apply", "transfer"])
def test_writing_commands_have_the_shared_options(name: str) -> None:
    options = {
        one for parameter in COMMANDS[name].params for one in parameter.opts + parameter.secondary_opts
    }
    assert options >= {
        "--memory", "--threads", "--dtype", "--rounding", "--seed", "--vocab", "--include", "--exclude",
        "--alpha", "--alpha-rule", "--schedule", "--io", "--no-sync", "--sha256", "--overwrite", "--resume",
        "--no-resume", "--dry-run", "--quiet", "--verbose", "--debug", "--json", "-o", "--out",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["transfer", "a", "b"], 2, "SUBTRAHEND"),
        (["transfer", "a", "b", "c", "-o", "d", "--frobnicate"], 2, "--frobnicate"),
        (["transfer", "a", "b", "c", "-o", "d", "--memory", "lots"], 2, "'lots' is not a size"),
        (["transfer", "a", "b", "c", "-o", "d", "--alpha", "x"], 2, "'x' is not a number"),
        (["transfer", "a", "b", "c", "-o", "d", "--alpha-rule", "mlp"], 2, "REGEX=α"),
        (["transfer", "org/name", "b", "c", "-o", "d"], 4, "org/name: is neither a local folder"),
        (["transfer", "nowhere", "nowhere", "nowhere", "-o", "d"], 4, "nowhere"),
        (["apply", "a", "b", "-o", "d", "--alpha", "1", "--alpha", "2"], 2, "2 alphas do not fit 1 vectors"),
        (["extract", "a", "b", "-o", ""], 2, "empty"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_errors_are_one_line_and_a_code(args: list[str], code: int, says: str, taskvec: Run) -> None:
    plain = taskvec(*args)
    assert (plain.code, plain.stdout) == (code, "")
    assert says in plain.stderr
    assert plain.stderr.startswith("taskvec: ")
    assert plain.stderr.count("\n") == 1
    told = taskvec(*args, "--json")
    assert told.code == code
    assert json.loads(told.stdout) == {
        "schema": "taskvec/error/1",
        "error": plain.stderr.removeprefix("taskvec: ").rstrip("\n"),
        "exit_code": code,
    }


def test_traceback_only_on_request(taskvec: Run) -> None:
    args = ("transfer", "org/name", "b", "c", "-o", "d")
    assert "Traceback" not in taskvec(*args).stderr
    assert "Traceback" in taskvec(*args, "--debug").stderr


def test_what_nobody_foresaw_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(path: str, **how: Any) -> Any:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(package, "inspect", broken)
    assert main(["inspect", "x"]) == 70
    assert capsys.readouterr().err == (
        "taskvec: internal error, please report it: RuntimeError: no such luck (--debug adds a traceback)\n"
    )


def test_no_arguments_show_the_help(taskvec: Run) -> None:
    answer = taskvec()
    assert (answer.code, answer.stdout) == (2, "")
    assert "transfer" in answer.stderr


def document(answer: Answer, schema: str) -> dict[str, Any]:
    """The one JSON document on standard output."""
    value = json.loads(answer.stdout)
    assert value["schema"] == schema
    return value


def test_json_is_all_there_is_on_stdout(family: Path, taskvec: Run) -> None:
    target, grpo, sft = family / "instruct", family / "grpo", family / "sft"
    plan = document(taskvec("check", target, grpo, sft, "--json"), "taskvec/plan/1")
    assert plan["compatible"] is True
    assert any("253 rows of padding" in note for note in plan["notes"])
    extra = ("--json", "--verbose", "--no-sync")
    made = document(taskvec("extract", grpo, sft, "-o", "v", *extra), "taskvec/result/1")
    assert made["exceptions"] is not None
    document(taskvec("apply", target, "v", "-o", "a", "--alpha", "-1", *extra), "taskvec/result/1")
    document(taskvec("transfer", target, grpo, sft, "-o", "t", *extra), "taskvec/result/1")
    document(taskvec("transfer", target, grpo, sft, "-o", "u", "--dry-run", "--json"), "taskvec/plan/1")
    document(taskvec("inspect", "v", "--json"), "taskvec/inspect/1")
    assert document(taskvec("diff", target, target, "--json"), "taskvec/diff/1")["identical"] is True
    assert document(taskvec("verify", "t", "--json"), "taskvec/verify/1")["ok"] is True
    assert document(taskvec("check", target, "v", "--json"), "taskvec/plan/1")["verb"] == "apply"


def test_a_dry_run_writes_nothing(family: Path, taskvec: Run, tmp_path: Path) -> None:
    answer = taskvec(
        "transfer", family / "instruct", family / "grpo", family / "sft", "-o", "out", "--dry-run"
    )
    assert answer.code == 0
    assert "the inputs fit together" in answer.stdout
    assert list(tmp_path.iterdir()) == []


def test_check_says_no_with_code_1(family: Path, taskvec: Run, tmp_path: Path) -> None:
    donor = shutil.copytree(family / "grpo", tmp_path / "grpo")
    config = json.loads((donor / "config.json").read_text())
    (donor / "config.json").write_text(json.dumps({**config, "num_attention_heads": 8}))
    args = ("check", family / "instruct", donor, family / "sft")
    plain = taskvec(*args)
    assert plain.code == 1
    assert "num_attention_heads is 8" in plain.stdout
    told = taskvec(*args, "--json")
    assert told.code == 1
    plan = document(told, "taskvec/plan/1")
    assert plan["compatible"] is False
    assert [problem["file"] for problem in plan["problems"]] == [str(donor / "config.json")]


def test_check_wants_a_pair_or_vectors(family: Path, taskvec: Run) -> None:
    answer = taskvec("check", family / "instruct", family / "grpo")
    assert answer.code == 2
    assert "minuend and a subtrahend" in answer.stderr


def test_quiet_prints_nothing_but_warnings(family: Path, taskvec: Run) -> None:
    answer = taskvec("extract", family / "grpo", family / "sft", "-o", "v", "--quiet")
    assert (answer.code, answer.stdout) == (0, "")
    assert all(line.startswith("taskvec: warning: ") for line in answer.stderr.splitlines())


def test_verbose_says_how_inputs_are_read(family: Path, taskvec: Run) -> None:
    answer = taskvec("extract", family / "grpo", family / "sft", "-o", "v", "--verbose")
    assert answer.code == 0
    assert "taskvec: inputs are read by " in answer.stderr
    assert " window" in answer.stderr


def test_a_closed_pipe_is_no_traceback(family: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "taskvec", "inspect", str(family / "base")],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_output_is_said(family: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "taskvec", "inspect", str(family / "base")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 4
    assert done.stderr.startswith("taskvec: the result: ")


STOPPED = """
import sys, time
import taskvec
from taskvec.cli.main import main
def wait(*args, **options):
    print("ready", flush=True)
    time.sleep(60)
taskvec.transfer = taskvec.diff = wait
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["transfer", "t", "g", "s", "-o", "o"], "stopped; run the same command again to continue"),
        (["diff", "a", "b"], "stopped"),
    ],
)
def test_signals(number: int, code: int, args: list[str], sentence: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", STOPPED, *args, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert time.monotonic() - start < 5
    assert process.returncode == code
    assert stderr == f"taskvec: stopping; interrupt again to stop at once\ntaskvec: {sentence}\n"
    assert json.loads(stdout) == {"schema": "taskvec/error/1", "error": sentence, "exit_code": code}


STUBBORN = """
import sys, time
import taskvec
from taskvec.cli.main import main
def wait(*args, **options):
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(60)
taskvec.diff = wait
sys.exit(main(["diff", "a", "b"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", STUBBORN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stderr.readline() == "taskvec: stopping; interrupt again to stop at once\n"
    time.sleep(0.2)
    process.send_signal(number)
    process.communicate(timeout=10)
    assert process.returncode == -number


def test_an_ascii_terminal_is_no_reason_to_fail(family: Path, taskvec: Run) -> None:
    args = ("check", family / "instruct", family / "grpo", family / "sft", "--alpha-rule", "mlp=0.5")
    answer = taskvec(*args, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert answer.code == 0
    assert "\\u03b1 rule" in answer.stdout
