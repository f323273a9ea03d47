"""Studies: does a vector do what it is meant to, against controls, on benchmarks that lm-eval scores.

    import taskvec.study

    taskvec.study.check("mini")
    taskvec.study.run("mini", "RUN")

All of it but `load` needs the extra `eval`: `pip install "taskvec[eval]"`.
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
    """Reads a study file, or by its name one that ships with taskvec, with defaults filled in.

    Raises:
        UsageError: there is no such study, or something in it is not as it must be ("FILE:LINE: …").
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
    """Whether a study can run, what it would do, and how long it would take.

    Args:
        study: name or path.
        offline: allow no network, whatever the study says.
        device: `cpu`, `cuda`, `cuda:1` or `auto` instead of the study's.
        limit: documents of each task at most.
        target: the model that receives v, instead of the study's: a folder or a ref.
        measure: load the target and ask it one batch of each kind, to estimate time, memory and disk; without
            it no weight is read.

    Raises:
        UsageError: the study asks for what makes no sense, or the extra `eval` is missing.
        MismatchError: its inputs do not fit together, or its target cannot chat.
        StorageError: the data of a benchmark cannot be had.
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

    All arms but the donors are made in memory on one loaded target. A cell (an arm on a benchmark) is
    finished when its file in `samples` is there; the same call takes an interrupted run up after the last
    batch that was finished, and asks nothing twice.

    A run without the network leaves the process so: the libraries read that switch once, when imported.

    Args:
        study: name or path.
        out: the folder of the run.
        offline: allow no network, whatever the study says.
        device: `cpu`, `cuda`, `cuda:1` or `auto` instead of the study's.
        limit: documents of each task at most.
        target: the model that receives v, instead of the study's: a folder or a ref.
        overwrite: start anew where `out` holds a run.
        allow_code_execution: your consent to running code that the model wrote, in a sandbox; benchmarks such
            as `humaneval` need it. No study file can give it.
        command: the command line to write down, where there is one.
        progress: called with (arm, benchmark, documents done, documents in all, seconds left or None) as
            batches finish.

    Raises:
        UsageError: as `check`; or `out` holds something else than a run.
        MismatchError: as `check`; or `out` holds another run.
        StorageError: as `check`; or a file cannot be written, or another run is at work in `out`.
    """
    from .running import preflight, runner

    ready = preflight.look(
        study, offline=offline, device=device, limit=limit, target=target, consent=allow_code_execution,
        command=command,
    )  # fmt: skip
    return runner.run(ready, out, overwrite=overwrite, progress=progress)


def report(run: str | os.PathLike[str]) -> tuple[Results, Path]:
    """Makes the report of a run anew: also of one that is not finished, or of its results.json alone.

    Args:
        run: the folder of the run, whose results.json is then made anew too, or a results.json.

    Returns:
        The results, and the path of report.html, beside results.json.

    Raises:
        UsageError: `run` is neither of the two.
        StorageError: a file cannot be read or written.
        CorruptError: a file of the run is malformed, or files do not belong together.
    """
    from pathlib import Path

    from .reporting.page import rebuild

    return rebuild(Path(run).expanduser())
