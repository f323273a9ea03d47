"""The worker: another process, a written checkpoint, lm-eval's own loading, and the rows of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import chat
import taskvec
import taskvec.study
from taskvec.errors import MismatchError, StorageError, UsageError
from taskvec.study import environment
from taskvec.study.rundir.run_folder import RunFolder
from taskvec.study.running import backend, preflight, worker

if TYPE_CHECKING:
    from taskvec.study.running.preflight import Ready

ARMS: dict[str, Any] = {"think": True, "minus": False, "random": [], "donors": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    chat.write_family(folder)
    chat.write_tasks(folder / "tasks", count=8)
    chat.write_study(folder / "study.yaml", chat.study(folder, folder / "tasks", arms=ARMS))
    taskvec.study.run(folder / "study.yaml", folder / "RUN")
    return folder


def job(ready: Ready, run: Path, arm: str, checkpoint: Path) -> dict[str, Any]:
    (one,) = [one for one in ready.arms if one.id == arm]
    return worker.job_for(ready, RunFolder(run), one, list(ready.loaded), str(checkpoint), "hf", {})


def same(arm: str, root: Path, folder: Path) -> bool:
    """Whether both runs hold the same rows of an arm."""
    names = [f"{arm}.{one}.jsonl" for one in ("words", "choice")]
    one, other = ([rows(at / "RUN" / "samples" / name) for name in names] for at in (root, folder))
    return one == other


def rows(path: Path) -> list[dict[str, Any]]:
    """A cell's rows, but for how long they took."""
    return chat.untimed([json.loads(line) for line in path.read_text().splitlines()])


def test_the_rows_are_those_of_the_arm_in_memory(root: Path, tmp_path: Path) -> None:
    ready = preflight.look(root / "study.yaml")
    taskvec.apply(root / "instruct", root / "RUN" / "vector", tmp_path / "out")
    worker.work(job(ready, tmp_path / "RUN", "plus-think", tmp_path / "out"))
    assert same("plus-think", root, tmp_path)
    worker.work(job(ready, tmp_path / "RUN", "minuend", root / "grpo"))
    assert same("minuend", root, tmp_path)


def vllm(root: Path, folder: Path, python: Path | str, script: str = "") -> Path:
    """A study whose backend is a script that stands in for the other environment's Python."""
    if script:
        Path(python).write_text(f"#!{sys.executable}\n{script}")
        Path(python).chmod(0o755)
    backend = {"vllm": {"python": str(python), "args": {"gpu_memory_utilization": 0.5}}}
    # Two processes, each of which imports torch: a study as small as they go.
    arms = {**ARMS, "think": False, "donors": False}
    content = chat.study(root, root / "tasks", arms=arms, backend=backend)
    content["benchmarks"] = content["benchmarks"][:1]
    return chat.write_study(folder / "vllm.yaml", content)


STAND_IN = """
import json, os, sys
from pathlib import Path
if sys.argv[3] == "--about":
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent / "installed"), *sys.path])
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
job = json.loads(Path(sys.argv[3]).read_text())
assert sys.argv[1:3] == ["-m", "taskvec.study.worker"]
assert (job["model"], job["args"]) == ("vllm", {"gpu_memory_utilization": 0.5})
run = Path(job["run"])
weights = sorted(path.name for path in Path(job["checkpoint"]).glob("*.safetensors"))
with (run.parent / "seen").open("a") as seen:
    seen.write(json.dumps([job["arm"]["id"], job["checkpoint"], job["target"], weights]) + "\\n")
job["model"], job["args"] = "hf", {}
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
path = run / "other.json"
path.write_text(json.dumps(job))
os.execv(sys.executable, [sys.executable, "-m", "taskvec.study.worker", str(path)])
"""


def installed(folder: Path, version: str) -> None:
    """What the stand-in takes for vLLM: nothing but its name."""
    about = folder / "installed" / "vllm.dist-info" / "METADATA"
    about.parent.mkdir(parents=True, exist_ok=True)
    about.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def test_a_study_in_another_environment(root: Path, tmp_path: Path) -> None:
    installed(tmp_path, "9.1")
    told: list[tuple[Any, ...]] = []
    study = vllm(root, tmp_path, tmp_path / "python", STAND_IN)
    results = taskvec.study.run(study, tmp_path / "RUN", progress=lambda *at: told.append(at))
    assert results.complete
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    target, run = str(root / "instruct"), tmp_path / "RUN"
    assert [(arm, checkpoint) for arm, checkpoint, _, _ in seen] == [
        ("baseline", target),
        ("plus", str(run / "checkpoints" / "plus")),
    ]
    assert all(tokenizer == target and weights == ["model.safetensors"] for _, _, tokenizer, weights in seen)
    for path in (run / "samples").iterdir():
        assert rows(path) == rows(root / "RUN" / "samples" / path.name)
    assert list((run / "checkpoints").iterdir()) == []
    assert not (run / "job.json").exists()
    effect, other = (json.loads((at / "arms" / "plus.json").read_text()) for at in (run, root / "RUN"))
    assert effect["effect"] == other["effect"]
    assert told[-1][2:4] == (16, 16)
    assert [one[2] for one in told] == sorted(one[2] for one in told)
    record = json.loads((run / "run.json").read_text())
    assert record["versions"]["worker vllm"] == "9.1"
    assert record["versions"]["worker torch"] == record["versions"]["torch"]
    installed(tmp_path, "9.2")
    with pytest.raises(MismatchError, match=r'versions\.worker vllm was "9\.1" and now is "9\.2"'):
        taskvec.study.run(study, run)


def test_a_worker_that_fails(root: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "if '--about' in sys.argv:\n"
        '    print(\'{"versions": {}, "device": "cpu", "named": "cpu"}\')\n'
        "    sys.exit()\n"
        "print('loading', file=sys.stderr)\n"
        "sys.exit('CUDA is on strike')"
    )
    with pytest.raises(
        MismatchError, match=r"CUDA is on strike \(the worker's whole output is in .*worker\.log\)"
    ):
        taskvec.study.run(vllm(root, tmp_path, tmp_path / "python", script), tmp_path / "RUN")
    assert list((tmp_path / "RUN").glob("checkpoints/*")) == []


@pytest.mark.parametrize(
    ("script", "says"),
    [("import sys\nsys.exit('No module named taskvec')", "No module named taskvec"),
     ("print('hello')", "does not report its versions")],
)  # fmt: skip
def test_an_environment_that_has_not_what_it_takes(
    script: str, says: str, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match=says):
        taskvec.study.check(vllm(root, tmp_path, tmp_path / "python", script))


def test_a_worker_without_vllm_and_a_gpu_that_it_cannot_be_told() -> None:
    with pytest.raises(UsageError, match="vllm is not installed"):
        backend.ask_about(sys.executable, "cpu")
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES"):
        backend.ask_about(sys.executable, "cuda:1")


def test_a_worker_needs_nothing_that_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "matplotlib" else object())
    environment.prepare(offline=False, needed=environment.SCORING)


KILLED = """
import sys
from taskvec.study.rundir.run_folder import RunFolder
from taskvec.study.running.worker import _run
folder = RunFolder(sys.argv[1])
with folder.lock():
    _run(sys.argv[2], {}, folder, print)
"""


def test_a_worker_that_is_left_behind_keeps_other_runs_out(tmp_path: Path) -> None:
    python, run = tmp_path / "python", tmp_path / "RUN"
    python.write_text(
        f"#!{sys.executable}\nimport os, pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'part')!r}).write_text(str(os.getpid()))\n"
        f"os.rename({str(tmp_path / 'part')!r}, {str(tmp_path / 'pid')!r})\n"
        "time.sleep(120)\n"
    )
    python.chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(run), str(python)]) as parent:
        until = time.monotonic() + 60
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        parent.kill()
    left = int((tmp_path / "pid").read_text())
    try:
        with pytest.raises(StorageError, match="another run is active there"), RunFolder(run).lock():
            pass
    finally:
        os.kill(left, signal.SIGKILL)
    while True:
        try:
            with RunFolder(run).lock():
                break
        except StorageError:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_python_that_is_not_there(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="backend: python /nowhere/python cannot be run"):
        taskvec.study.run(vllm(root, tmp_path, "/nowhere/python"), tmp_path / "RUN")
