"""The small EDN reader and writer: what is written is read back, and what is no EDN is refused with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen.edn import DEPTH_MAX, EdnError, Keyword, read_forms, written
from kv_jepsen.history import FrozenMap, Value

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.frozensets(inner, max_size=4)
        | st.dictionaries(inner, inner, max_size=4).map(FrozenMap)
    ),
    max_leaves=12,
)


@given(values)
def test_what_is_written_is_read_back(value: Value) -> None:
    """Any value of a history survives a round trip, as the only form of its text."""
    assert [form for _, form in read_forms(written(value))] == [value]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nil", None),
        (":timed-out", "timed-out"),
        ("[1 -2, 3.5 7N 2M]", (1, -2, 3.5, 7, 2.0)),
        ("(1 2)", (1, 2)),
        ("#{1}", frozenset([1])),
        ('{:a "x\\"\\n\\u0041"}', {"a": 'x"\nA'}),
        ("; a comment\n [1 #_ [2 3] 4] #_ 5", (1, 4)),
        ("#jepsen.history.Op{:f :read}", {"f": "read"}),
        ('#inst "2026"', "2026"),
        ("\\newline", "\n"),
        ("\\u0041", "A"),
        ("some/symbol", "some/symbol"),
    ],
)
def test_forms_are_read(text: str, value: Value) -> None:
    """Each kind of form that histories use, and those that surround it in Jepsen's files."""
    assert [form for _, form in read_forms(text)] == [value]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("{:a 1\n:b}", 1, "without a value"),
        ("[1\n2", 2, "the text ends"),
        ("1\n]", 2, "closes nothing"),
        ("[1 }", 1, "closes nothing"),
        ('"abc', 1, "cannot read"),
        ('"\\q"', 1, "unknown escape"),
        (": x", 1, "without a name"),
        ("#_", 1, "the text ends"),
        ("[" * (DEPTH_MAX + 1), 1, "nested deeper"),
    ],
)
def test_what_is_no_edn_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    """An error names the line and what is wrong there."""
    with pytest.raises(EdnError, match=words) as caught:
        list(read_forms(text))
    assert caught.value.line == line


def test_the_deepest_nesting_allowed_is_read() -> None:
    """At the limit the form is still read."""
    assert list(read_forms("[" * DEPTH_MAX + "]" * DEPTH_MAX))


@pytest.mark.parametrize("value", [object(), float("nan"), float("inf")])
def test_what_no_history_holds_is_not_written(value: Value) -> None:
    """Objects and numbers that EDN has no sign for are an error, not a wrong text."""
    with pytest.raises(ValueError, match="cannot be written"):
        written(value)


def test_keywords_are_written_with_their_colon() -> None:
    """A keyword stays one; a text that could not be a keyword is written as a string."""
    assert written((Keyword("read"), "read", Keyword("two words"))) == '[:read "read" "two words"]'
