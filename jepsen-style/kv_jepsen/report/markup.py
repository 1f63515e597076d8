"""Markup that is safe by construction: whatever is not markup already is escaped.

Pure. HTML and SVG elements as strings; no page lives here, and no style.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final, TypeAlias

VOID: Final = frozenset({"br", "hr", "img", "meta", "input"})
"""Elements without an end tag."""


class Markup(str):
    """A string that is markup and is not escaped again."""

    __slots__ = ()


Attributes: TypeAlias = Mapping[str, object]


def tag(name: str, attributes: Attributes | None = None, *children: object) -> Markup:
    """One element. Children that are no markup are escaped; attributes that are None are left out."""
    given = "".join(f' {k}="{escape(text(v))}"' for k, v in (attributes or {}).items() if v is not None)
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Markup:
    """The children one after another; None is nothing."""
    return Markup("".join(c if isinstance(c, Markup) else escape(text(c)) for c in children if c is not None))


def text(value: object) -> str:
    """A value as text; numbers without needless digits."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short(value: object, chars_max: int = 40) -> str:
    """A value as people read it, cut to so many characters."""
    if isinstance(value, tuple):
        shown = "[" + ", ".join(short(item) for item in value) + "]"
    elif isinstance(value, Mapping):
        shown = "{" + ", ".join(f"{short(k)}: {short(v)}" for k, v in value.items()) + "}"
    else:
        shown = "nil" if value is None else str(value)
    return shown if len(shown) <= chars_max else shown[: chars_max - 1] + "…"


def table(head: Iterable[object], rows: Iterable[Iterable[object]], kind: str = "") -> Markup:
    """A table in a box that scrolls sideways where it is too wide."""
    header = tag("tr", None, *(tag("th", None, cell) for cell in head))
    body = (tag("tr", None, *(tag("td", None, cell) for cell in row)) for row in rows)
    inner = tag("table", {"class": kind or None}, tag("thead", None, header), tag("tbody", None, *body))
    return tag("div", {"class": "wide"}, inner)


def badge(valid: object) -> Markup:
    """A verdict as a word in a box of its colour."""
    kinds: dict[object, tuple[str, str]] = {True: ("good", "valid"), False: ("bad", "invalid")}
    kind, word = kinds.get(valid, ("unsure", "unknown"))
    return tag("span", {"class": f"badge {kind}"}, word)
