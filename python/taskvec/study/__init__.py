"""Studies measure, with controls, what a vector does to a model, on benchmarks that lm-eval scores.

    import taskvec.study

    taskvec.study.check("mini")
    taskvec.study.run("mini", "RUN")

`check` and `run` need the extra `eval`: `pip install "taskvec[eval]"`; `report` needs only `report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from .rundir.results import Results
    from .running.check_result import Checked
    from .running.runner import Progress
    from .spec.sections import Study

__all__ = ["check", "load", "report", "run"]


def load(study: str | Path) -> Study:
    """Reads a study, given the path of its file or the name of one that ships with taskvec.

    The returned value has defaults filled in and absolute paths.

    Raises:
        UsageError: there is no such study, or its file is not valid (the message begins with FILE:LINE).
        StorageError: the file cannot be read.
    """
    from .spec import study_file as file

    return file.load(study)[0]


def check(
    study: str | Path,
    *,
    offline: bool = False,
    device: str | None = None,
    limit: int | None = None,
    target: str | None = None,
    measure: bool = True,
) -> Checked:
    """Checks whether a study can run, what it would do, and how long it would take.

    Args:
        study: the name or path of the study.
        offline: use no network, whatever the study file says.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, instead of the study file's device.
        limit: the most documents of each task.
        target: the model that receives v, instead of the study file's target: a folder or a ref.
        measure: load the target and time one batch of each kind, to estimate time, memory and disk; if False,
            no weights are read.

    Raises:
        UsageError: the study is not valid, or the extra `eval` is not installed.
        MismatchError: its inputs do not fit together, or its target has no chat template.
        StorageError: an input or the data of a benchmark is not available.
    """
    from .running.check_result import Checked
    from .running.preflight import look

    ready = look(study, offline=offline, device=device, limit=limit, target=target)
    if not measure:
        return Checked(ready)
    from .running.measure import estimate

    return Checked(ready, estimate(ready))


def run(
    study: str | Path,
    out: str | os.PathLike[str],
    *,
    offline: bool = False,
    device: str | None = None,
    limit: int | None = None,
    target: str | None = None,
    overwrite: bool = False,
    allow_code_execution: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Results:
    """Runs a study in the folder `out` and writes its `results.json` and `report.html`.

    All arms except the donors are made in memory, from one loaded target. A cell (an arm on a benchmark) is
    finished when its file in `samples` exists. The same call continues an interrupted run after the last
    finished batch, and asks nothing twice.

    After a run offline, the process stays offline, because the libraries read that setting only once, when
    they are imported.

    Args:
        study: the name or path of the study.
        out: the folder of the run.
        offline: use no network, whatever the study file says.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, instead of the study file's device.
        limit: the most documents of each task.
        target: the model that receives v, instead of the study file's target: a folder or a ref.
        overwrite: discard a run that `out` holds and start again.
        allow_code_execution: allow code that the model wrote to run in a sandbox; benchmarks such as
            `humaneval` need it. A study file cannot allow it.
        command: the command line to record in the results; None for a call from Python.
        progress: called as `progress(arm, benchmark, documents_done, documents_total, seconds_left)` after
            each batch; `seconds_left` is None if it is not known.

    Raises:
        UsageError: as for `check`; or `out` holds something else than a run.
        MismatchError: as for `check`; or `out` holds another run.
        StorageError: as for `check`; or a file cannot be written, or another run is active in `out`.
    """
    from .running import preflight, runner

    ready = preflight.look(
        study, offline=offline, device=device, limit=limit, target=target, consent=allow_code_execution,
        command=command,
    )  # fmt: skip
    return runner.run(ready, out, overwrite=overwrite, progress=progress)


def report(run: str | os.PathLike[str]) -> tuple[Results, Path]:
    """Makes the report of a run again; the run need not be finished.

    Args:
        run: the folder of the run, whose results.json is then also made again from the samples; or a
            results.json alone.

    Returns:
        The results, and the path of report.html, which is beside results.json.

    Raises:
        UsageError: `run` is neither of the two.
        StorageError: a file cannot be read or written.
        CorruptError: a file of the run is malformed, or files do not belong together.
    """
    from pathlib import Path

    from .reporting.page import rebuild

    return rebuild(Path(run).expanduser())
