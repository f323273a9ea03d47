"""The commands `plan`, `run`, `status` and `commit`: one job on several machines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import taskvec

from ..text import readable
from . import flags, render
from .console import say, show, split
from .flags import with_options
from .progress_bar import Bar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..results import WriteResult


@click.group()
def plan() -> None:
    """Plan a job in parts, for several machines.

    Takes the arguments of the verb and writes JOB/plan.json. Then `taskvec run JOB --part I` does a part, on
    any machine that sees the same folders, and `taskvec commit JOB` makes the output.
    """


@plan.command("transfer")
@click.argument("target")
@click.argument("minuend")
@click.argument("subtrahend")
@with_options(flags.ALPHA, flags.JOB_OUTPUT, flags.JOB, flags.VALUES, flags.AGAIN, flags.MATCHING)
@with_options(flags.STREAM, flags.ENGINE, flags.TALK)
def plan_transfer(target: str, minuend: str, subtrahend: str, alpha: str | None, **given: Any) -> int:
    """Plan to write TARGET + α·(MINUEND − SUBTRAHEND)."""
    if alpha is not None:
        given["alpha"] = alpha
    return _planned(given, "transfer", target, minuend, subtrahend)


@plan.command("apply")
@click.argument("target")
@click.argument("vectors", nargs=-1, required=True)
@with_options(flags.ALPHAS, flags.JOB_OUTPUT, flags.JOB, flags.VALUES, flags.AGAIN, flags.MATCHING)
@with_options(flags.STREAM, flags.ENGINE, flags.TALK)
def plan_apply(target: str, vectors: tuple[str, ...], **given: Any) -> int:
    """Plan to write TARGET + α·VECTOR, or the sum over several vectors."""
    return _planned(given, "apply", target, vectors)


@plan.command("graft", cls=flags.Ordered)
@click.argument("target")
@click.argument("donor")
@with_options(flags.TAKE, flags.JOB_OUTPUT, flags.JOB, flags.STREAM, flags.ENGINE, flags.TALK)
@click.pass_context
def plan_graft(
    context: click.Context,
    target: str,
    donor: str,
    take: tuple[str, ...],
    donors: tuple[str, ...],
    **given: Any,
) -> int:
    """Plan to write TARGET with weights of DONOR, each copied byte for byte."""
    (_, first), *more = flags.Ordered.pairs(context, donor, take, donors)
    return _planned(given | {"take": first, "more": more}, "graft", target, donor)


@plan.command("extract")
@click.argument("minuend")
@click.argument("subtrahend")
@with_options(flags.ENCODING, flags.JOB_OUTPUT, flags.JOB, flags.MATCHING, flags.STREAM, flags.ENGINE)
@with_options(flags.TALK)
def plan_extract(minuend: str, subtrahend: str, **given: Any) -> int:
    """Plan to write the vector MINUEND − SUBTRAHEND, packed."""
    return _planned(given, "extract", minuend, subtrahend)


@click.command()
@click.argument("job")
@click.option(
    "--part", metavar="I[/N]", help="The part to run, counted from 0; N has to be that of the plan."
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Run all missing parts on Ray (default: the cluster of RAY_ADDRESS, or this machine), and commit.",
)
@with_options(flags.ENGINE, flags.TALK)
def run(job: str, part: str | None, ray: str | None, **given: Any) -> int:
    """Run one part of JOB: on any machine, in any order, as often as you like.

    A part that is done is left as it is. One that was stopped is continued.
    """
    talk, how = split(given)
    how = _chosen(how)
    if (part is None) == (ray is None):
        raise taskvec.UsageError("name one part with --part I, or run all parts with --ray")
    opened = taskvec.open_job(job)
    if part is None:
        from ..jobs.cluster import run_on_ray

        with Bar(quiet=talk.quiet) as bar:
            result = run_on_ray(opened, ray or None, progress=bar, **how)
        return _committed(talk, result)
    number = _part(part, opened)
    with Bar(quiet=talk.quiet) as bar:
        done = opened.run(number, progress=bar, **how)
    _say(done.warnings, "warning")
    if talk.verbose and not done.already:
        say(f"{done.threads} threads, {done.simd}, {done.io} reads, {readable(done.window_bytes)} a window")
    show(talk, done.to_json(), _ran(done))
    return 0


@click.command()
@click.argument("job")
@with_options(flags.TALK)
def status(job: str, **given: Any) -> int:
    """Show what is done of JOB and what is missing.

    Exit code 0 if all parts are done, 1 if not.
    """
    talk, _ = split(given)
    found = taskvec.open_job(job).status()
    show(talk, found.to_json(), _told(found))
    return 0 if found.done == found.parts else 1


@click.command()
@click.argument("job")
@click.option(
    "--verify", is_flag=True, help="Read all weight files first, and compare them with their records."
)
@with_options(flags.ENGINE, flags.TALK)
def commit(job: str, verify: bool, **given: Any) -> int:
    """Make the output of JOB, once all its parts are done."""
    talk, how = split(given)
    how = _chosen(how)
    opened = taskvec.open_job(job)
    if opened.status().committed:
        say("the job is committed already")
    with Bar(quiet=talk.quiet) as bar:
        result = opened.commit(verify=verify, progress=bar, **how)
    return _committed(talk, result)


def _chosen(how: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; the others are as the job was planned."""
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in how.items() if source(name) is ParameterSource.COMMANDLINE}


def _planned(given: dict[str, Any], verb: str, *inputs: Any) -> int:
    talk, how = split(given)
    made = taskvec.plan(verb, *inputs, **how).planned
    assert made is not None
    _say(made.warnings, "warning")
    if talk.verbose:
        _say(made.notes, "note")
    show(talk, made.to_json(), _made(made))
    return 0


def _committed(talk: Any, result: WriteResult) -> int:
    _say(result.warnings, "warning")
    if talk.verbose:
        _say(result.notes, "note")
    show(talk, result.to_json(), render.written(result))
    return 0


def _part(text: str, job: taskvec.Job) -> int:
    match = re.fullmatch(r"(\d{1,9})(?:/(\d{1,9}))?", text)
    if match is None:
        raise taskvec.UsageError(
            f"--part {text!r} is not of the form I or I/N; write it as 3 or 3/{job.parts}"
        )
    if match[2] is not None and int(match[2]) != job.parts:
        raise taskvec.UsageError(
            f"--part {text}: the job in {job.folder} has {job.parts} parts, not {match[2]}"
        )
    return int(match[1])


def _say(lines: Iterable[str], kind: str) -> None:
    for line in lines:
        say(f"{kind}: {line}")


def _made(found: taskvec.JobPlan) -> Iterator[str]:
    again = " (planned before)" if found.already else ""
    yield f"planned {found.verb} in {found.parts:,} parts{again}: {found.job}"
    yield f"  output  {found.out} ({_files(found.files)}, {readable(found.bytes)})"
    yield f"  largest part  {readable(found.largest_part)}"


def _ran(found: taskvec.PartResult) -> Iterator[str]:
    what = f"part {found.part} of {found.parts} ({_files(found.files)}, {readable(found.bytes)})"
    if found.already:
        yield f"{what} is done already"
        return
    kept = f", {readable(found.resumed_bytes)} kept from an earlier attempt" if found.resumed_bytes else ""
    yield f"{what} is done, in {found.seconds:.2f} s{kept}"


def _files(number: int) -> str:
    return f"{number:,} weight file" + ("" if number == 1 else "s")


def _told(found: taskvec.JobStatus) -> Iterator[str]:
    done = f"{found.done:,} of {found.parts:,} parts done"
    yield f"{done}, {readable(found.bytes_done)} of {readable(found.bytes)}"
    if found.committed:
        yield f"committed: {found.out}"
    if found.missing:
        yield f"missing: {found.missing}"
    for one in found.problems:
        yield f"part {one.part}: {one.why}"
