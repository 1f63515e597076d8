"""Markup that is safe by construction."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.bench.markup import Markup, join, table, tag


@given(st.text())
def test_text_is_escaped_once(text: str) -> None:
    """Text becomes no element or attribute, wherever it stands, and markup is not escaped again."""
    made = tag("p", {"class": text}, text)
    for found in (made, table([text], [[text]]), join([text])):
        assert found.count("<") == found.count(">")
    inner = made.removeprefix("<p").removesuffix("</p>")
    assert "<" not in inner
    assert inner.count('"') == 2
    assert tag("div", None, made) == f"<div>{made}</div>"


def test_what_is_none_is_left_out() -> None:
    """A None is no attribute and no child; a number is text; an element without an end has none."""
    assert tag("p", {"class": None, "id": 3}, None, 1.5) == '<p id="3">1.5</p>'
    assert tag("meta", {"charset": "utf-8"}) == '<meta charset="utf-8">'
    assert isinstance(tag("p"), Markup)
