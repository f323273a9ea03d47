"""The few kinds of HTML that a report is made of; whatever is text comes in plain and is escaped here."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def element(name: str, text: str, kind: str = "") -> str:
    """An element around plain text."""
    return f"<{name}{_class(kind)}>{escape(text)}</{name}>"


def listing(items: Iterable[str]) -> str:
    """A list of plain texts, warnings marked."""
    marked = (element("li", item, "warning" if item.startswith("Warning: ") else "") for item in items)
    return f"<ul>{''.join(marked)}</ul>"


def table(caption: str, note: str, columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A table that scrolls by itself where it is wider than the page; each row begins with its heading."""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in columns)
    body = "".join(row.markup() for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)} <small>{escape(note)}</small></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


class Row:
    """A row of a table, built from left to right."""

    def __init__(self, heading: str, kind: str = "") -> None:
        """Begins with the row's heading."""
        self._kind = kind
        self._cells = [f'<th scope="row">{escape(heading)}</th>']

    def add(self, text: object, kind: str = "") -> Row:
        """One more cell; None is an empty one."""
        self._cells.append(f"<td{_class(kind)}>{'' if text is None else escape(str(text))}</td>")
        return self

    def link(self, text: str, to: str) -> Row:
        """One more cell, with a link."""
        self._cells.append(f'<td><a href="{escape(to)}">{escape(text)}</a></td>')
        return self

    def markup(self) -> str:
        """The row."""
        return f"<tr{_class(self._kind)}>{''.join(self._cells)}</tr>"


def figure(title: str, note: str, described: str, svg: str) -> str:
    """A figure with a caption; `described` says what it shows to those who do not see it."""
    return (
        f"<figure><figcaption>{escape(title)} <small>{escape(note)}</small></figcaption>"
        f'<div role="img" aria-label="{escape(described)}">{svg}</div></figure>'
    )


def terms(pairs: Iterable[tuple[str, object]]) -> str:
    """Names with what they stand for; those without are left out."""
    return (
        "<dl>"
        + "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
            for name, value in pairs
            if value not in (None, "")
        )
        + "</dl>"
    )


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
