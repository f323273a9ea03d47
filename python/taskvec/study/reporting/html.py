"""Builds the kinds of HTML elements in a report; text is passed in plain and escaped here."""

from __future__ import annotations

from html import escape
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def element(name: str, text: str, kind: str = "") -> str:
    """An element around plain text."""
    return f"<{name}{_class(kind)}>{escape(text)}</{name}>"


def section(title: str, name: str, inner: str) -> str:
    """A section with the id `name` and a heading, around markup."""
    return f'<section id="{name}">{element("h2", title)}\n{inner}\n</section>'


def listing(items: Iterable[str]) -> str:
    """A list of plain texts, in which warnings are marked."""
    marked = (element("li", item, "warning" if item.startswith("Warning: ") else "") for item in items)
    return f"<ul>{''.join(marked)}</ul>"


def table(caption: str, note: str, columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A table, which scrolls if it is wider than the page; each row begins with its heading."""
    rows = list(rows)
    kinds = rows[0].kinds if rows else []
    head = "".join(
        f'<th scope="col"{_class(kind)}>{escape(one)}</th>'
        for one, kind in zip_longest(columns, ["", *kinds], fillvalue="")
    )
    body = "".join(row.markup() for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption><span>{escape(caption)} <small>{escape(note)}</small></span></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, inner: str) -> str:
    """Markup that is shown when its summary is clicked; in print it is always shown."""
    return f"<details>{element('summary', summary)}{inner}</details>"


class Row:
    """A row of a table, built from left to right."""

    def __init__(self, heading: str, kind: str = "") -> None:
        """Begins with the row's heading."""
        self._kind = kind
        self.kinds: list[str] = []
        """The kinds of the cells after the heading."""
        self._cells = [f'<th scope="row">{escape(heading)}</th>']

    def add(self, text: object, kind: str = "") -> Row:
        """Adds a cell; None gives an empty one."""
        self.kinds.append(kind)
        self._cells.append(f"<td{_class(kind)}>{'' if text is None else escape(str(text))}</td>")
        return self

    def noted(self, text: str, note: str, kind: str = "") -> Row:
        """Adds a cell with a note in smaller letters."""
        self._cells.append(f"<td{_class(kind)}>{escape(text)} {element('small', note)}</td>")
        return self

    def drawn(self, svg: str) -> Row:
        """Adds a cell with a drawing."""
        self._cells.append(f'<td class="plot">{svg}</td>')
        return self

    def link(self, text: str, to: str) -> Row:
        """Adds a cell with a link."""
        self._cells.append(f'<td><a href="{escape(to)}">{escape(text)}</a></td>')
        return self

    def markup(self) -> str:
        """The row as HTML."""
        return f"<tr{_class(self._kind)}>{''.join(self._cells)}</tr>"


def figure(title: str, note: str, described: str, wide: str, narrow: str) -> str:
    """A figure with a caption, drawn twice: the page's style shows the drawing that fits the screen.

    Args:
        title: The title.
        note: A note in smaller letters after the title.
        described: A description for readers who cannot see it.
        wide: The drawing for a wide screen.
        narrow: The drawing for a phone.
    """
    return (
        f"<figure><figcaption>{escape(title)} <small>{escape(note)}</small></figcaption>"
        f'<div role="img" aria-label="{escape(described)}">'
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div></div></figure>'
    )


def terms(pairs: Iterable[tuple[str, object]]) -> str:
    """A list of names and values; names without a value are left out."""
    return (
        "<dl>"
        + "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
            for name, value in pairs
            if value not in (None, "")
        )
        + "</dl>"
    )


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
