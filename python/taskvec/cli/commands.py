"""The commands that write, inspect, compare, verify and push; each calls the verb of the same name."""

from __future__ import annotations

from typing import Any

import click

import taskvec

from .._core import version
from ..options import TRIED
from ..records import briefly
from . import flags, render
from .console import print_inspected, put, show, split
from .flags import with_options
from .job_commands import commit, plan, run, status
from .merge_command import merge
from .outcome import only_alphas, show_plan, warn, write
from .progress_bar import Bar, Documents
from .study_commands import report, study


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version, prog_name="taskvec", message="%(prog)s %(version)s")
def cli() -> None:
    """Task arithmetic on safetensors checkpoints: v = MINUEND − SUBTRAHEND, OUT = TARGET + α·v.

    Every model is a folder as transformers saves it, or a model on the Hub: org/name[@revision][:subfolder].
    `taskvec demo` shows the commands at work on small models.
    """


@cli.command()
@click.argument("minuend")
@click.argument("subtrahend")
@with_options(flags.ENCODING, flags.OUTPUT, flags.MATCHING, flags.STREAM, flags.ENGINE, flags.TALK)
def extract(minuend: str, subtrahend: str, out: str, **given: Any) -> int:
    """Write the vector MINUEND − SUBTRAHEND."""
    return write(given, taskvec.dry_run.extract, taskvec.extract, minuend, subtrahend, out)


@cli.command()
@click.argument("target")
@click.argument("vectors", nargs=-1, required=True)
@with_options(flags.ALPHAS, flags.SWEEP, flags.OUTPUT, flags.VALUES, flags.AGAIN, flags.MATCHING)
@with_options(flags.STREAM, flags.ENGINE, flags.TALK)
def apply(
    target: str,
    vectors: tuple[str, ...],
    out: str,
    alpha: tuple[str, ...],
    alphas: str | None,
    **given: Any,
) -> int:
    """Write TARGET + α·VECTOR, or the sum over several vectors."""
    inputs = target, vectors, out
    if alphas is None:
        given["alpha"] = alpha
        return write(given, taskvec.dry_run.apply, taskvec.apply, *inputs)
    only_alphas(alpha)
    given["alphas"] = alphas
    return write(given, taskvec.dry_run.sweep_apply, taskvec.sweep_apply, *inputs)


@cli.command()
@click.argument("target")
@click.argument("minuend")
@click.argument("subtrahend")
@with_options(flags.ALPHA, flags.SWEEP, flags.OUTPUT, flags.VALUES, flags.AGAIN, flags.MATCHING)
@with_options(flags.STREAM, flags.ENGINE, flags.TALK)
def transfer(
    target: str,
    minuend: str,
    subtrahend: str,
    out: str,
    alpha: str | None,
    alphas: str | None,
    **given: Any,
) -> int:
    """Write TARGET + α·(MINUEND − SUBTRAHEND).

    It takes one pass and does not store the vector; the output is that of extract and apply, byte for byte.
    """
    inputs = target, minuend, subtrahend, out
    if alphas is None:
        if alpha is not None:
            given["alpha"] = alpha
        return write(given, taskvec.dry_run.transfer, taskvec.transfer, *inputs)
    only_alphas(alpha)
    given["alphas"] = alphas
    return write(given, taskvec.dry_run.sweep_transfer, taskvec.sweep_transfer, *inputs)


@cli.command(cls=flags.Ordered)
@click.argument("target")
@click.argument("donor")
@with_options(flags.TAKE, flags.OUTPUT, flags.STREAM, flags.ENGINE, flags.TALK)
@click.pass_context
def graft(
    context: click.Context,
    target: str,
    donor: str,
    out: str,
    take: tuple[str, ...],
    donors: tuple[str, ...],
    **given: Any,
) -> int:
    """Write TARGET with weights of DONOR, each copied byte for byte.

    Weights may be of any type; quantised ones are copied with their scales.
    """
    (_, first), *more = flags.Ordered.pairs(context, donor, take, donors)
    given |= {"take": first, "more": more}
    return write(given, taskvec.dry_run.graft, taskvec.graft, target, donor, out)


@cli.command()
@click.argument("vector")
@with_options(flags.ENCODING, flags.OUTPUT, flags.HUB, flags.ENGINE, flags.TALK)
def convert(vector: str, out: str, **given: Any) -> int:
    """Write VECTOR with another encoding, exactly."""
    return write(given, taskvec.dry_run.convert, taskvec.convert, vector, out)


@cli.command()
@click.argument("vectors", nargs=-1, required=True)
@with_options(flags.ALPHAS, flags.ENCODING, flags.OUTPUT, flags.HUB, flags.ENGINE, flags.TALK)
def combine(vectors: tuple[str, ...], out: str, alpha: tuple[str, ...], **given: Any) -> int:
    """Write the sum of α·VECTOR over several vectors, as a vector."""
    return write({"alpha": alpha, **given}, taskvec.dry_run.combine, taskvec.combine, vectors, out)


@cli.command()
@click.argument("vector")
@click.option("--seed", type=int, default=0, show_default=True, help="What the numbers are drawn from.")
@with_options(flags.ENCODING, flags.NOT_PLANNED, flags.HUB, flags.ENGINE, flags.TALK)
def randomize(vector: str, out: str, seed: int, **given: Any) -> int:
    """Write random numbers as a vector, each tensor with the norm that it has in VECTOR.

    If that brings a gain too, the gain is not due to VECTOR. Needs pip install "taskvec[eval]".
    """
    return write({"dry_run": False, "seed": seed, **given}, None, taskvec.randomize, vector, out)


@cli.command()
@click.argument("target")
@click.argument("donors", nargs=-1, required=True)
@click.option("-o", "--out", metavar="DIR", help="Also show the free space on the disk of this folder.")
@with_options(flags.ALPHAS, flags.VALUES, flags.MATCHING, flags.STREAM, flags.ENGINE, flags.TALK)
def check(target: str, donors: tuple[str, ...], out: str | None, alpha: tuple[str, ...], **given: Any) -> int:
    """Say whether DONORS fit TARGET, reading no weights.

    DONORS are a MINUEND and a SUBTRAHEND, or one or more vectors. Exit code 0 if they fit, 1 if they do not.
    """
    talk, how = split(given)
    with briefly(wanted=not (talk.as_json or talk.verbose)):
        plan = taskvec.check(target, *donors, out=out, alpha=alpha, **how)
    return show_plan(talk, plan)


@cli.command()
@click.argument("target")
@click.argument("donors", nargs=-1, required=True)
@click.option("--alphas", default=TRIED, show_default=True, metavar="α,…", help="The factors to try.")
@with_options((flags.DTYPE, flags.SEED), flags.MATCHING, flags.STREAM, flags.ENGINE, flags.TALK)
def advise(target: str, donors: tuple[str, ...], alphas: str, **given: Any) -> int:
    """Show what each of a list of α would do to TARGET after rounding.

    DONORS are a MINUEND and a SUBTRAHEND, or one vector. Reads them once and writes nothing. With --verbose
    also for attention, MLP and other parts of the model.
    """
    talk, how = split(given)
    with Bar(quiet=talk.quiet) as bar:
        result = taskvec.advise(target, *donors, alphas=alphas, progress=bar, **how)
    warn(result)
    show(talk, result.to_json(), render.advised(result, every=talk.verbose))
    return 0


@cli.command()
@click.argument("path", metavar="REF")
@with_options(flags.HUB, flags.TALK)
def inspect(path: str, **given: Any) -> int:
    """Show what is in a checkpoint, vector or adapter.

    With --verbose every tensor is listed.
    """
    talk, how = split(given)
    if talk.as_json:
        return print_inspected(path, how)
    with briefly(wanted=not talk.verbose):
        result = taskvec.inspect(path, **how)
    warn(result)
    show(talk, result.to_json(), render.inspected(result, every=talk.verbose))
    return 0


@cli.command()
@click.argument("a")
@click.argument("b")
@with_options(flags.NAMES, flags.HUB, flags.ENGINE, flags.TALK)
def diff(a: str, b: str, **given: Any) -> int:
    """Show how checkpoint B differs from A.

    With --verbose every tensor that differs is listed, not only those that differ most.
    """
    talk, how = split(given)
    with Bar(quiet=talk.quiet) as bar:
        result = taskvec.diff(a, b, progress=bar, **how)
    warn(result)
    show(talk, result.to_json(), render.compared(result, every=talk.verbose))
    return 0


@cli.command()
@click.argument("out")
@with_options(flags.HUB, flags.ENGINE, flags.TALK)
def verify(out: str, **given: Any) -> int:
    """Check OUT against the digests in its manifest.

    It reads every byte again. Exit code 0 if every file is as it was written, 1 if not.
    """
    talk, how = split(given)
    with Bar(quiet=talk.quiet) as bar:
        result = taskvec.verify(out, progress=bar, **how)
    show(talk, result.to_json(), render.verified(result))
    return 0 if result.ok else 1


@cli.command()
@click.argument("out")
@click.argument("repo", metavar="ORG/NAME")
@with_options(flags.PUSH, flags.TALK)
def push(out: str, repo: str, private: bool, revision: str | None, **given: Any) -> int:
    """Upload OUT to the model repository ORG/NAME on the Hub.

    OUT is a folder that extract, apply or transfer wrote; it is verified first, and uploaded with its model
    card. Log in with `hf auth login` or set HF_TOKEN. Data that the Hub already has is not sent again.
    """
    talk, _ = split(given)
    with Bar(quiet=talk.quiet) as bar:
        result = taskvec.push(out, repo, private=private, revision=revision, progress=bar)
    show(talk, result.to_json(), render.pushed(result))
    return 0


@cli.command()
@click.option(
    "-o", "--out", default="taskvec-demo", show_default=True, metavar="DIR", help="The folder to make."
)
@click.option("--overwrite", is_flag=True, help="Write into the folder even if it exists.")
@flags.DEBUG
def demo(out: str, overwrite: bool) -> int:
    """Show the commands at work on four small trained models.

    Runs check, extract, apply, transfer, diff and verify, then a study of what the vector does. The study
    takes some minutes and needs pip install "taskvec[eval]". Exit code 1 if a result is not as promised.
    """
    from . import demo as mission

    with Documents(quiet=False) as bar:
        return 0 if mission.run(out, overwrite=overwrite, say=put, progress=bar) else 1


cli.add_command(merge)
for one in (plan, run, status, commit):
    cli.add_command(one)
cli.add_command(study)
cli.add_command(report)
