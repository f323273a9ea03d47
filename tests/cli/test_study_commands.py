"""`taskvec study` and `taskvec report` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

import chat
import taskvec.study
import watched
from taskvec.cli import commands
from taskvec.cli.main import main
from taskvec.study import environment
from taskvec.study.spec import study_file as file

if TYPE_CHECKING:
    from pathlib import Path

BARE = {"think": False, "minus": False, "random": [], "donors": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    chat.write_family(folder)
    chat.write_tasks(folder / "tasks", count=8)
    chat.write_study(folder / "study.yaml", chat.study(folder, folder / "tasks", arms=BARE))
    return folder


def command(capfd: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main([*map(str, args)])
    said = capfd.readouterr()
    return code, said.out, said.err


def test_what_ships_is_listed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(file, "SHIPPED", tmp_path)
    chat.write_study(tmp_path / "tiny.yaml", chat.study(root, root / "tasks"))
    assert command(capfd, "study", "ls") == (0, "tiny  Does a random walk help?\n", "")
    code, out, _ = command(capfd, "study", "ls", "--json")
    assert (code, json.loads(out)) == (
        0,
        {
            "schema": "taskvec/study-list/1",
            "studies": [{"name": "tiny", "about": "Does a random walk help?"}],
        },
    )


def test_a_study_is_shown(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capfd, "study", "show", root / "study.yaml")
    assert (code, err) == (0, "")
    assert out.startswith("tiny: Does a random walk help?\n")
    assert "instruct; +v\n" in out
    assert f"words: Words (tiny_words, at most {chat.CAP} new tokens)" in out
    code, out, _ = command(capfd, "study", "show", root / "study.yaml", "--json")
    assert json.loads(out) == taskvec.study.load(root / "study.yaml").to_json()


def test_showing_needs_no_heavy_package(root: Path) -> None:
    code = (
        "import sys\nfrom taskvec.cli.main import main\nmain(sys.argv[1:])\n"
        "print([name for name in ('torch', 'transformers', 'lm_eval', 'numpy') if name in sys.modules])"
    )
    args = [sys.executable, "-c", code, "study", "show", str(root / "study.yaml")]
    done = subprocess.run(args, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


def test_a_study_is_checked(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capfd, "study", "check", root / "study.yaml")
    assert (code, err) == (0, "")
    assert "target instruct, minuend grpo, subtrahend sft: they fit together" in out
    assert "16 answers to generate, 16 choices to make" in out
    assert "Words (tiny_words): 8 documents, 0 shots, at most 12 new tokens, exact_match after last" in out
    assert "Words, n = 8: too few for any of these" in out
    assert "measured    words: " in out
    assert "  time        under a minute" in out or "  time        about" in out
    for what in ("memory", "disk"):
        assert f"  {what}" in out
    assert "measured" not in command(capfd, "study", "check", root / "study.yaml", "--no-measure")[1]
    code, out, _ = command(capfd, "study", "check", root / "study.yaml", "--json", "--limit", "3")
    told = json.loads(out)
    assert (told["schema"], told["cells"], told["generations"], told["choices"]) == (
        "taskvec/study-check/1", 4, 6, 6,
    )  # fmt: skip
    assert told["benchmarks"][0]["power_note"]
    assert not (root / "RUN").exists()


def test_a_run_and_its_report(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "RUN"
    code, out, err = command(capfd, "study", "run", root / "study.yaml", "-o", run)
    assert code == 0
    assert "+v" in out
    assert f"The report is {run}/report.html; open it in a browser." in out
    # Off a terminal, a line for each thing that is begun; nothing of the libraries.
    assert all(line.startswith("taskvec: ") for line in err.splitlines())
    assert "taskvec: 0 of 32 documents done; now instruct: Words" in err
    code, again, err = command(capfd, "report", run)
    assert (code, again, err) == (0, out, "")
    (run / "results.json").unlink()
    code, out, _ = command(capfd, "report", run, "--json", "--quiet")
    assert json.loads(out) == json.loads((run / "results.json").read_text())
    code, out, err = command(capfd, "study", "run", root / "study.yaml", "-o", run, "--quiet")
    assert (code, out, err) == (0, "", "")


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "a slip": ({"alhpa": 1}, 2, "bad.yaml:28: there is no key"),
    "no such task": ({"benchmarks": [{"id": "x", "task": "tiny_word"}]}, 2, "tiny_words"),
    "no data": ({"benchmarks": [{"id": "x", "task": "sciq"}]}, 4, "allenai/sciq"),
    "a folder that is not there": ({"target": "./nowhere"}, 4, "nowhere"),
    "a ref": ({"target": "org/name"}, 4, "org/name: is neither a local folder"),
    "a cap beyond the context": (
        {"benchmarks": [{"id": "x", "task": "tiny_words", "max_new_tokens": 4000}]}, 2, "lower max_new",
    ),
    "an α beyond f32": ({"arms": {"sweep": [1e39]}}, 2, "too large"),
    "a device that is not there": ({"device": "cuda:77"}, 2, "cuda:77"),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_one_sentence_and_a_code(
    name: str, verb: str, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes, code, says = WRONG[name]
    study = chat.write_study(tmp_path / "bad.yaml", chat.study(root, root / "tasks", **changes))
    args = ["study", verb, study, *(["-o", tmp_path / "RUN"] if verb == "run" else [])]
    found, out, err = command(capfd, *args)
    assert (found, out) == (code, "")
    assert err.startswith("taskvec: ")
    assert err.count("\n") == 1
    assert says in err
    assert not (tmp_path / "RUN").exists()
    _, out, _ = command(capfd, *args, "--json")
    assert json.loads(out)["exit_code"] == code


def test_a_device_that_is_none(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = command(capfd, "study", "check", root / "study.yaml", "--device", "cuda:x")
    assert (code, err) == (2, "taskvec: device 'cuda:x' is not one of auto, cpu, cuda, cuda:1\n")


def test_a_target_that_cannot_chat(root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mute = chat.write_model(tmp_path / "mute", chat.model(0), template=None)
    study = chat.write_study(tmp_path / "s.yaml", chat.study(root, root / "tasks", target=str(mute)))
    code, _, err = command(capfd, "study", "run", study, "-o", tmp_path / "RUN")
    assert code == 1
    assert "no chat template" in err


@pytest.mark.parametrize("absent", ["lm_eval", "accelerate", "matplotlib"])
def test_without_the_extra(
    absent: str,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == absent else find_spec(name))
    for args in (("check",), ("run", "-o", tmp_path / "RUN")):
        code, out, err = command(capfd, "study", *args, root / "study.yaml")
        assert (code, out) == (2, "")
        assert err == f'taskvec: {absent} not installed; run pip install "taskvec[eval]"\n'
    assert command(capfd, "study", "show", root / "study.yaml")[0] == 0


def outside() -> dict[str, str]:
    """An environment in which nothing says offline yet."""
    return {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}


@pytest.mark.parametrize("by", ["study", "flag"])
def test_offline_means_no_request_at_all(by: str, root: Path, tmp_path: Path) -> None:
    content = chat.study(root, root / "tasks", arms=BARE, offline=by == "study")
    # Its data are on the Hub: what would call out if anything did.
    if by == "flag":
        content["benchmarks"].append({"id": "humaneval", "task": "humaneval", "max_new_tokens": 20})
    study = chat.write_study(tmp_path / "study.yaml", content)
    args = ["study", "run", str(study), "-o", str(tmp_path / "RUN"), "--quiet"]
    args += ["--offline", "--allow-code-execution"] if by == "flag" else []
    last, said = watched.run(*args, env=outside())
    assert last == f"{4 if by == 'flag' else 0} [] False", said
    if by == "flag":
        assert "the data of task humaneval" in said


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on(number: int, root: Path, tmp_path: Path) -> None:
    for name in ("instruct", "grpo", "sft"):
        (tmp_path / name).symlink_to(root / name)
    # Each cell long enough to be stopped in.
    chat.write_tasks(tmp_path / "tasks", count=80)
    content = chat.study(root, tmp_path / "tasks", arms=BARE, batch_size=1)
    content["benchmarks"] = [
        {"id": one, "task": "tiny_words", "max_new_tokens": chat.CAP, "limit": limit}
        for one, limit in (("first", 4), ("second", 80))
    ]
    study = chat.write_study(tmp_path / "study.yaml", content)
    run = tmp_path / "RUN"
    process = subprocess.Popen(
        [sys.executable, "-m", "taskvec", "study", "run", str(study), "-o", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=outside(),
    )  # fmt: skip
    until = time.monotonic() + 120
    while not (run / "samples" / "baseline.first.jsonl").exists():
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == ""
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines()[-1] == "taskvec: stopped; run the same command again to continue"
    first = run / "samples" / "baseline.first.jsonl"
    # Hidden: answers of a cell that is not finished.
    assert sorted(path.name for path in (run / "samples").glob("[!.]*.jsonl")) == [first.name]
    when = first.stat().st_mtime_ns
    assert taskvec.study.run(study, run).complete
    assert first.stat().st_mtime_ns == when


def test_options_are_explained(capfd: pytest.CaptureFixture[str]) -> None:
    group: Any = commands.cli.commands["study"]
    for name, one in group.commands.items():
        code, out, err = command(capfd, "study", name, "--help")
        assert (code, err) == (0, "")
        assert one.help
        for parameter in one.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts} has no help"
                assert all(opt in out for opt in parameter.opts)


def test_the_copy_of_the_study_is_the_study(root: Path, tmp_path: Path) -> None:
    taskvec.study.run(root / "study.yaml", tmp_path / "RUN", limit=2)
    assert yaml.safe_load((tmp_path / "RUN" / "study.yaml").read_text()) == yaml.safe_load(
        (root / "study.yaml").read_text()
    )
