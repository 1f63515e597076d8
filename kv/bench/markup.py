"""HTML and SVG that is safe by construction: whatever is not markup already is escaped. Pure; no page lives here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

VOID: Final = frozenset({"meta"})
"""Elements without an end tag."""


class Markup(str):
    """A string that is markup and is not escaped again."""

    __slots__ = ()


def tag(name: str, attributes: Mapping[str, object] | None = None, *children: object) -> Markup:
    """Return one element. Children that are no markup are escaped; attributes that are None are left out."""
    given = "".join(
        f' {key}="{escape(str(value))}"' for key, value in (attributes or {}).items() if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Markup:
    """Return the children one after another; None is nothing."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(str(child))
            for child in children
            if child is not None
        )
    )


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> Markup:
    """Return a table in a box that scrolls sideways where it is too wide."""
    header = tag("tr", None, *(tag("th", None, cell) for cell in head))
    body = (tag("tr", None, *(tag("td", None, cell) for cell in row)) for row in rows)
    return tag(
        "div",
        {"class": "wide"},
        tag("table", None, tag("thead", None, header), tag("tbody", None, *body)),
    )
