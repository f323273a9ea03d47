"""The commands `taskvec study` and `taskvec report`.

The study modules are imported inside the commands, so that the other commands start without them.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import flags
from .console import show, split
from .progress_bar import Documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..study.rundir.results import Results
    from ..study.spec.sections import Study

_TALK = (flags.QUIET, flags.DEBUG, flags.JSON)
_HOW = (
    click.option("--offline", is_flag=True, help="Use no network, whatever the study file says."),
    click.option(
        "--device", metavar="D", help="cpu, cuda, cuda:1 or auto, instead of the study file's device."
    ),
    click.option(
        "--target", metavar="REF", help="The model that receives v, instead of the study file's target."
    ),
    click.option(
        "--limit", type=int, metavar="N", help="Use only the first N documents of each task, for a trial run."
    ),
)


@click.group()
def study() -> None:
    """Measure what a vector does to a model, on benchmarks.

    A study compares it with controls, such as random vectors of the same size. STUDY is the name of a study
    that ships with taskvec, or the path of a study file. Running one needs pip install "taskvec[eval]".
    """


@study.command("ls")
@flags.with_options(_TALK)
def list_studies(**given: Any) -> int:
    """List the studies that ship with taskvec."""
    from ..study.spec.study_file import load, shipped

    talk, _ = split(given)
    found = [load(name)[0] for name in shipped()]
    document = {
        "schema": "taskvec/study-list/1",
        "studies": [{"name": one.name, "about": one.about} for one in found],
    }
    width = max((len(one.name) for one in found), default=0)
    show(talk, document, (f"{one.name:<{width}}  {one.about}" for one in found))
    return 0


@study.command("show")
@click.argument("name", metavar="STUDY")
@flags.with_options(_TALK)
def show_study(name: str, **given: Any) -> int:
    """Show what is in a study: inputs, arms, benchmarks."""
    from ..study.spec.study_file import load

    talk, _ = split(given)
    found = load(name)[0]
    show(talk, found.to_json(), _described(found))
    return 0


@study.command("check")
@click.argument("name", metavar="STUDY")
@click.option("--no-measure", is_flag=True, help="Read no weights; time and memory are not estimated.")
@flags.with_options(_HOW, _TALK)
def check_study(name: str, no_measure: bool, **given: Any) -> int:
    """Check a study before it is run.

    Checks inputs, tasks, data, prompts, few-shot examples and token limits. Says how small an effect the
    benchmarks can detect and, from one measured batch, how much time, memory and disk the run will take.
    """
    from ..study import check

    talk, how = split(given)
    checked = check(name, measure=not no_measure, **how)
    show(talk, checked.to_json(), checked.lines())
    return 0


@study.command("run")
@click.argument("name", metavar="STUDY")
@click.option("-o", "--out", required=True, metavar="RUN", help="The folder of the run.")
@click.option("--overwrite", is_flag=True, help="Discard the run that the folder holds and start again.")
@click.option(
    "--allow-code-execution",
    is_flag=True,
    help="Allow code that the model wrote to run, in a sandbox; benchmarks such as humaneval need it.",
)
@flags.with_options(_HOW, _TALK)
def run_study(name: str, out: str, **given: Any) -> int:
    """Run a study, or continue an interrupted run of it.

    Writes results.json, samples and the self-contained page report.html to the folder RUN, and prints the
    tables. Scored documents are kept: the same command continues where it was stopped.
    """
    from ..study import run

    talk, how = split(given)
    with Documents(quiet=talk.quiet) as bar:
        results = run(name, out, progress=bar, command=_command(), **how)
    _show_results(talk, results, Path(out) / "report.html")
    return 0


def _command() -> str:
    """The command line as the report prints it, with `~` for the home directory: reports are shared."""
    home = str(Path.home())
    given = [f"~{one.removeprefix(home)}" if one.startswith(f"{home}/") else one for one in sys.argv[1:]]
    return shlex.join(["taskvec", *given])


@click.command()
@click.argument("results", metavar="RESULTS")
@flags.with_options(_TALK)
def report(results: str, **given: Any) -> int:
    """Make the report of a run again.

    RESULTS is the folder of a run, finished or not, or a results.json alone. Of a folder, results.json is
    first made again from the samples. Writes report.html beside results.json and prints the tables.
    """
    from ..study import report as rebuilt

    talk, _ = split(given)
    _show_results(talk, *rebuilt(results))
    return 0


def _show_results(talk: Any, results: Results, page: Path) -> None:
    from ..study.reporting.terminal import lines

    def told() -> Iterator[str]:
        yield from lines(results)
        yield ""
        yield f"The report is {page}; open it in a browser."

    show(talk, results.to_json(), told())


def _described(study: Study) -> Iterator[str]:
    from ..study.spec.arms import arms
    from ..study.spec.asked import asked

    yield f"{study.name}: {study.about}"
    yield f"  target      {study.target}"
    if study.donors is not None:
        yield f"  minuend     {study.donors.minuend}"
        yield f"  subtrahend  {study.donors.subtrahend}"
    else:
        yield f"  vector      {study.vector}"
    yield f"  α           {study.alpha:g}, rounding {study.rounding}"
    yield f"  arms        {'; '.join(arm.label for arm in arms(study))}"
    yield f"  think line  {study.think}"
    for one in asked(study):
        cap = f", at most {one.cap} new tokens" if one.cap else ""
        first = f", the first {one.limit:,} documents" if one.limit else ""
        only = ", baseline and +v only" if one.derived else ""
        yield f"  benchmark   {one.id}: {one.name} ({one.task}{cap}{first}{only})"
