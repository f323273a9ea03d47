"""`taskvec merge`, and what it shows of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import taskvec

from . import flags
from .console import show, split
from .flags import with_options
from .outcome import write

if TYPE_CHECKING:
    from collections.abc import Iterator

_VALUES = flags.VALUES[:3]
# Everything about the output but the folder itself, which `--explain` does without.
_REST = flags.OUTPUT[1:]


@click.command()
@click.argument("config", metavar="CONFIG.yml")
@click.option("-o", "--out", metavar="DIR", help="The folder to write.")
@click.option("--explain", is_flag=True, help="Show what each group of tensors will get, and write nothing.")
@with_options(_VALUES, _REST, flags.HUB, flags.ENGINE, flags.TALK)
def merge(config: str, out: str | None, explain: bool, **given: Any) -> int:
    """Write what a recipe in mergekit's format asks for.

    Models are folders, or models on the Hub. --seed is also that of DARE and DELLA.
    """
    if explain:
        talk, how = split(given)
        how.pop("dry_run")
        groups = taskvec.explain_merge(config, **how)
        document = {
            "schema": "taskvec/merge-groups/1",
            "groups": [{name: getattr(one, name) for name in one.__slots__} for one in groups],
        }
        show(talk, document, _table(groups))
        return 0
    if out is None:
        raise click.UsageError("missing option '-o' / '--out', the folder to write")
    return write(given, taskvec.dry_run.merge, taskvec.merge, config, out)


def _table(groups: tuple[taskvec.MergeGroup, ...]) -> Iterator[str]:
    rows = [("tensors", "layers", "such as", "get")]
    rows += [(f"{one.tensors:,}", one.layers or "–", one.example, one.parameters) for one in groups]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
