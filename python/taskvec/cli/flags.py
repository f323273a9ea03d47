"""The options of the command line, in words for someone who sees them for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from click import Choice, option

from .. import options

if TYPE_CHECKING:
    from collections.abc import Callable

Group = tuple[Any, ...]
"""Options that go together."""

TALK: Group = (
    option("--quiet", is_flag=True, help="No progress, notes or result table; warnings and errors remain."),
    option("--verbose", is_flag=True, help="Also notes, how inputs are read and why, threads and windows."),
    option("--debug", is_flag=True, expose_value=False, help="A Python traceback with every error."),
    option("--json", "as_json", is_flag=True, help="Print the result as one JSON document, not as a table."),
)
"""How much to say, and in which form."""

QUIET, VERBOSE, DEBUG, JSON = TALK

ENGINE: Group = (
    option(
        "--memory",
        metavar="SIZE",
        help="Most memory for buffers and headers, as 256MiB or 1GB."
        "  [default: 256MiB, or a quarter of the machine's memory if that is less]",
    ),
    option("--threads", type=int, metavar="N", help="Worker threads.  [default: the cores at hand]"),
    option(
        "--io",
        type=Choice(get_args(options.Io)),
        default="auto",
        show_default=True,
        help="How inputs are read; the output is the same whichever is chosen.",
    ),
)
"""How the work is done; never what comes out."""

NAMES: Group = (
    option("--include", multiple=True, metavar="REGEX", help="Only tensors whose name matches (repeatable)."),
    option("--exclude", multiple=True, metavar="REGEX", help="No tensors whose name matches (repeatable)."),
)
"""Which tensors take part; in a merge the others are copied from the target."""

MATCHING: Group = (
    *NAMES,
    option(
        "--vocab",
        type=Choice(get_args(options.Vocab)),
        default="strict",
        show_default=True,
        help="Vocabularies of different lengths: refuse, or combine the leading rows that all inputs have.",
    ),
    option(
        "--base",
        metavar="REF",
        help="The checkpoint that LoRA adapters among the donors are on, whatever they say themselves.",
    ),
    option(
        "--strip-prefix",
        multiple=True,
        metavar="PREFIX",
        help="Wrapper prefix to take off tensor names before they are matched, as 'module.' (repeatable).",
    ),
)
"""How tensors of different checkpoints find each other."""

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
        help="How float32 results become the output dtype; stochastic keeps small changes on average.",
    ),
    option("--seed", type=int, default=0, show_default=True, help="Seed of stochastic rounding."),
    option(
        "--alpha-rule",
        "alpha_rules",
        multiple=True,
        metavar="REGEX=α",
        help="Another α for tensors whose name matches (repeatable; the last that matches wins).",
    ),
)
"""What becomes of the numbers."""

ALPHA: Group = (
    option("--alpha", default="1.0", show_default=True, metavar="α", help="Factor of v; may be negative."),
)
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
        help="Read donors from the Hub piece by piece while they are combined, and store nothing of them.",
    ),
)
"""How models on the Hub are read."""

OUTPUT: Group = (
    option("-o", "--out", required=True, metavar="DIR", help="The folder to write."),
    option(
        "--no-sync", is_flag=True, help="Do not wait until the output is on the disk; for scratch output."
    ),
    option(
        "--sha256", is_flag=True, help="Put SHA-256 digests of inputs and output in the manifest (slower)."
    ),
    option("--overwrite", is_flag=True, help="Replace the output folder if there is one."),
    option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Go on where an interrupted run of the same command stopped.",
    ),
    option("--dry-run", is_flag=True, help="Show what would be done, and write nothing."),
)
"""Where the output goes, and how."""

PUSH: Group = (
    option("--private", is_flag=True, help="Make a new repository that only you and your organisation see."),
    option("--revision", metavar="BRANCH", help="The branch to push to; made if need be.  [default: main]"),
)
"""Where an upload goes."""


def with_options(*groups: Group) -> Callable[[Any], Any]:
    """Gives a command the options of all groups; `--help` lists them in this order."""

    def decorate(command: Any) -> Any:
        for one in reversed([one for group in groups for one in group]):
            command = one(command)
        return command

    return decorate
