"""The options of the command line and their help texts, written for a first-time user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import click
from click import Choice, option

from .. import options

if TYPE_CHECKING:
    from collections.abc import Callable

Group = tuple[Any, ...]
"""Options that several commands share."""

TALK: Group = (
    option("--quiet", is_flag=True, help="Print warnings and errors only: no progress, notes or results."),
    option("--verbose", is_flag=True, help="Also print notes, how inputs are read and why, and memory use."),
    option("--debug", is_flag=True, expose_value=False, help="Print a Python traceback with every error."),
    option("--json", "as_json", is_flag=True, help="Print the result as one JSON document, not as a table."),
)
"""How much to say, and in which form."""

QUIET, VERBOSE, DEBUG, JSON = TALK

ENGINE: Group = (
    option(
        "--memory",
        metavar="SIZE",
        help="The most memory for buffers and headers, for example 256MiB or 1GB."
        "  [default: 256MiB, or a quarter of the machine's memory if that is less]",
    ),
    option("--threads", type=int, metavar="N", help="Worker threads.  [default: the available cores]"),
    option(
        "--io",
        type=Choice(get_args(options.Io)),
        default="auto",
        show_default=True,
        help="How inputs are read; the output is the same with each.",
    ),
)
"""How the work is done; these options never change the output."""

NAMES: Group = (
    option(
        "--include", multiple=True, metavar="REGEX", help="Use only tensors whose name matches (repeatable)."
    ),
    option("--exclude", multiple=True, metavar="REGEX", help="Omit tensors whose name matches (repeatable)."),
)
"""Which tensors are combined; a merge copies the others from the target."""

MATCHING: Group = (
    *NAMES,
    option(
        "--vocab",
        type=Choice(get_args(options.Vocab)),
        default="strict",
        show_default=True,
        help="If vocabularies differ in length: refuse, or combine the leading rows that all inputs have.",
    ),
    option(
        "--base",
        metavar="REF",
        help="The base model of the donors that are LoRA adapters, instead of the one that they name.",
    ),
    option(
        "--strip-prefix",
        multiple=True,
        metavar="PREFIX",
        help="Prefix to remove from tensor names before they are matched, such as 'module.' (repeatable).",
    ),
    option(
        "--map",
        multiple=True,
        metavar="FROM=TO",
        help="Replace each match of a regex in donors' names; $1 is its first group (repeatable; @FILE reads"
        " such pairs, one a line).",
    ),
)
"""How tensors of different checkpoints are matched."""

VALUES: Group = (
    option(
        "--dtype",
        type=Choice(get_args(options.Dtype)),
        help="Write every float tensor as this dtype.  [default: the target's own]",
    ),
    option(
        "--rounding",
        type=Choice(get_args(options.Rounding)),
        default="nearest",
        show_default=True,
        help="How results are rounded to the output dtype; stochastic keeps small changes on average.",
    ),
    option("--seed", type=int, default=0, show_default=True, help="Seed of stochastic rounding."),
    option(
        "--alpha-rule",
        "alpha_rules",
        multiple=True,
        metavar="REGEX=α",
        help="Another α for tensors whose name matches (repeatable; the last match wins).",
    ),
    option(
        "--schedule",
        metavar="SPEC",
        help="α over the layers: linear:A,B, from A·α at the first to B·α at the last; or lines:A,B (LiNeS).",
    ),
)
"""How values are computed and rounded."""

DTYPE, _, SEED, *_ = VALUES

AGAIN: Group = (
    option(
        "--requantise",
        is_flag=True,
        help="Write a quantised target in its own format again, not as bf16: it keeps little of a vector.",
    ),
    option(
        "--scales",
        type=Choice(get_args(options.Scales)),
        help="With --requantise: keep the target's scales, doubled where needed, or make new ones.",
    ),
)
"""How a quantised target is written."""

ENCODING: Group = (
    option(
        "--encoding",
        type=Choice(get_args(options.Encoding)),
        default="packed",
        show_default=True,
        help="How values are stored, without loss either way: in a few bytes, or for any safetensors reader.",
    ),
)
"""How a vector is stored."""

ALPHA: Group = (option("--alpha", metavar="α", help="Factor of v; may be negative.  [default: 1.0]"),)
"""One α."""

ALPHAS: Group = (
    option(
        "--alpha",
        multiple=True,
        metavar="α",
        help="Factor of the vectors: one for all, or one for each in their order; may be negative."
        "  [default: 1.0]",
    ),
)
"""An α for each vector."""

SWEEP: Group = (
    option(
        "--alphas",
        metavar="α,…",
        help="Several factors of one vector: writes a checkpoint for each, DIR/alpha-0.5 and so on, and"
        " reads the inputs once.",
    ),
)
"""Several outputs from one read."""

HUB: Group = (
    option(
        "--cache-dir",
        metavar="DIR",
        help="Where models from the Hub are kept.  [default: the Hugging Face cache]",
    ),
)
"""Where downloads go."""

STREAM: Group = (
    *HUB,
    option(
        "--stream",
        is_flag=True,
        help="Read donors from the Hub piece by piece while they are combined, without storing them.",
    ),
)
"""How models on the Hub are read."""

JOB_OUTPUT: Group = (
    option("-o", "--out", required=True, metavar="DIR", help="The folder to write."),
    option(
        "--no-sync",
        is_flag=True,
        help="Do not wait until the disk confirms the output: if the machine (not the program) stops soon "
        "after, it may be lost or torn. For scratch output.",
    ),
    option(
        "--sha256", is_flag=True, help="Put SHA-256 digests of inputs and output in the manifest (slower)."
    ),
    option("--overwrite", is_flag=True, help="Replace the output folder if there is one."),
)
"""Where an output is written, and how; a job in parts needs no more."""

OUTPUT: Group = (
    *JOB_OUTPUT,
    option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Continue where an interrupted run of the same command stopped.",
    ),
    option("--dry-run", is_flag=True, help="Show what would be done, and write nothing."),
)
"""Where the output is written, and how."""

NOT_PLANNED: Group = OUTPUT[:-1]
"""The same for a verb that has no dry run."""

JOB: Group = (
    option(
        "--parts", type=int, required=True, metavar="N", help="How many parts; at most one for each file."
    ),
    option("--job", required=True, metavar="JOB", help="The folder of the job, which all machines see."),
)
"""What a plan of parts needs."""

TAKE: Group = (
    option(
        "--take",
        multiple=True,
        required=True,
        metavar="REGEX",
        help="Weights to take: from the DONOR of the last --from before it, or from DONOR (repeatable).",
    ),
    option(
        "--from", "donors", multiple=True, metavar="DONOR", help="One more donor, for the --take after it."
    ),
)
"""What is grafted. Their order matters."""

PUSH: Group = (
    option("--private", is_flag=True, help="Make a new repository private; refuse one that is public."),
    option("--revision", metavar="BRANCH", help="The branch to push to; created if new.  [default: main]"),
)
"""Where an upload goes."""


class Ordered(click.Command):
    """A command that knows in which order `--take` and `--from` were given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses once more than other commands do, and keeps the order of the options."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta["order"] = [one.name for one in order]
        return super().parse_args(ctx, args)

    @staticmethod
    def pairs(
        ctx: click.Context, donor: str, take: tuple[str, ...], donors: tuple[str, ...]
    ) -> list[tuple[str, list[str]]]:
        """Each donor with what is taken from it."""
        found: list[tuple[str, list[str]]] = [(donor, [])]
        patterns, others = iter(take), iter(donors)
        for name in ctx.meta["order"]:
            if name == "take":
                found[-1][1].append(next(patterns))
            elif name == "donors":
                found.append((next(others), []))
        return found


def with_options(*groups: Group) -> Callable[[Any], Any]:
    """Adds the options of all groups to a command; `--help` lists them in this order."""

    def decorate(command: Any) -> Any:
        for one in reversed([one for group in groups for one in group]):
            command = one(command)
        return command

    return decorate
