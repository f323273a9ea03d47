"""The files for schedulers, with programs in the place of theirs; and what docs/machines.md computes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import taskvec
from parted import assert_equal, family

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SLURM = ROOT / "examples" / "slurm"
# Runs an array at once, one task after the other, and a wrapped command if the array went well.
SBATCH = """#!/bin/bash
echo "$@" >> "$LOG"
for word in "$@"; do
    case $word in
        --array=*) list=${word#--array=} ;;
        --wrap=*) eval "${word#--wrap=}" >> "$LOG" 2>&1; exit ;;
    esac
done
list=${list%%%*}
for part in $(seq "${list%-*}" "${list#*-}"); do
    export SLURM_ARRAY_TASK_ID=$part SLURM_ARRAY_JOB_ID=7 SLURM_CPUS_PER_TASK=1
    bash "${@: -2}" >> "$LOG" 2>&1 || exit 1
done
echo 7
"""
SCONTROL = '#!/bin/bash\necho "scontrol $@" >> "$LOG"\n'
TASKVEC = f'#!/bin/bash\nexec {sys.executable} -W ignore -m taskvec "$@"\n'


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A path with stand-ins for Slurm's programs, and the file to which they write."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("taskvec", TASKVEC)):
        program(programs, name, text)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Path]]:
    root = tmp_path_factory.mktemp("family")
    yield family(root)
    shutil.rmtree(root)


def test_a_job_array(inputs: tuple[Path, Path, Path], environment: dict[str, str], tmp_path: Path) -> None:
    out, job = tmp_path / "out", tmp_path / "a job"
    command = [SLURM / "submit.sh", job, out, "3", *inputs, "--alpha", "0.7"]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "log").read_text()
    assert "--array=0-2%32" in said
    assert "--dependency=afterok:7" in said
    taskvec.transfer(*inputs, tmp_path / "single", alpha=0.7)
    assert_equal(out, tmp_path / "single")


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [
        (0, 0, False),
        (1, 0, False),
        (2, 0, False),
        (3, 0, False),
        (4, 0, True),
        (143, 2, True),
        (137, 4, True),
        (4, 5, False),
    ],
)
def test_what_a_part_does_with_exit_codes(
    code: int, restarts: int, again: bool, environment: dict[str, str], tmp_path: Path
) -> None:
    program(tmp_path / "programs", "taskvec", f"#!/bin/bash\nexit {code}\n")
    done = subprocess.run(
        ["bash", SLURM / "part.sh", "job"],
        env={
            **environment, "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_RESTART_COUNT": str(restarts),
        },
    )  # fmt: skip
    said = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert said == ("scontrol requeue 7_3\n" if again else "")
    assert done.returncode == (0 if again else code)


def test_a_part_hears_that_the_time_is_up(environment: dict[str, str], tmp_path: Path) -> None:
    worker = '#!/bin/bash\ntrap "exit 143" TERM\ntouch "$LOG.ready"\nwhile true; do sleep 0.05; done\n'
    program(tmp_path / "programs", "taskvec", worker)
    process = subprocess.Popen(
        ["bash", SLURM / "part.sh", "job"],
        env={**environment, "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "7"},
    )
    while not (tmp_path / "log.ready").exists():
        assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert (tmp_path / "log").read_text() == "scontrol requeue 7_3\n"


def test_the_jobs_of_kubernetes() -> None:
    text = (ROOT / "examples" / "kubernetes" / "job.yaml").read_text()
    parts, commit = yaml.safe_load_all(text)
    for job in (parts, commit):
        assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
        pod = job["spec"]["template"]["spec"]
        # Without this, Kubernetes refuses a policy for failed pods.
        assert pod["restartPolicy"] == "Never"
        (container,) = pod["containers"]
        codes = {
            code: rule["action"]
            for rule in job["spec"]["podFailurePolicy"]["rules"]
            if "onExitCodes" in rule and rule["onExitCodes"]["containerName"] == container["name"]
            for code in rule["onExitCodes"]["values"]
        }
        assert {code: codes.get(code) for code in (1, 2, 3, 4)} == {
            **dict.fromkeys((1, 2, 3), "FailJob"),
            4: None,
        }
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts <= {volume["name"] for volume in pod["volumes"]}
    spec = parts["spec"]
    assert (spec["completionMode"], spec["template"]["spec"]["containers"][0]["name"]) == ("Indexed", "part")
    assert f"--parts {spec['completions']} " in text
    assert "JOB_COMPLETION_INDEX" in text


def test_the_table_on_paper() -> None:
    path = ROOT / "benches" / "machines" / "on_paper.py"
    spec = importlib.util.spec_from_file_location("on_paper", path)
    assert spec is not None
    assert spec.loader is not None
    paper: Any = importlib.util.module_from_spec(spec)
    sys.modules["on_paper"] = paper
    spec.loader.exec_module(paper)
    page = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
    assert f"\n{paper.table()}\n" in page
    # By hand: 4.026 TB at 1.5625 GB/s, and at 8 nodes 21 of 163 files.
    assert paper.seconds(paper.MODELS[0], 1, 12.5e9) == pytest.approx(2576.6, rel=1e-3)
    assert paper.seconds(paper.MODELS[0], 8, 12.5e9) == pytest.approx(2576.6 * 21 / 163, rel=1e-3)
