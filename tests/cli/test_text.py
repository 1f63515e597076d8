"""Bytes, times and sizes as a person reads and writes them."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.cli.text import CELL_CHARS_MAX, json_field, show, show_duration, show_hash, show_size, to_bytes


@given(st.binary())
def test_arguments_keep_their_bytes(data: bytes) -> None:
    """Whatever bytes the shell passed are the bytes of the key, UTF-8 or not."""
    assert to_bytes(os.fsdecode(data)) == data


@given(st.binary(max_size=100))
def test_what_is_shown_is_printable_and_has_one_meaning(data: bytes) -> None:
    """No control character reaches the terminal, and the bytes can be told from what is shown."""
    shown = show(data, None)
    assert shown.isprintable()
    if data.decode("utf-8", "ignore").encode() == data and data.decode().isascii():
        assert shown.encode().decode("unicode_escape").encode("latin-1") == data


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain", "plain"),
        ("grüß".encode(), "grüß"),
        (b"\xff\x00", r"\xff\x00"),
        (b"a\nb\x1b[31m", r"a\nb\x1b[31m"),
        (b"a\\b", r"a\\b"),
        (b"", ""),
        ("\u202e".encode(), r"\u202e"),
    ],
)
def test_show(data: bytes, shown: str) -> None:
    """Text stays text; what is not printable is escaped."""
    assert show(data) == shown


def test_long_values_are_cut_in_tables_only() -> None:
    """A cell at its limit is whole, a longer one is cut and says how many bytes there are."""
    assert show(b"x" * CELL_CHARS_MAX) == "x" * CELL_CHARS_MAX
    cut = show(b"x" * (CELL_CHARS_MAX + 1))
    assert cut.startswith("x" * (CELL_CHARS_MAX - 3) + "...")
    assert cut.endswith(f"({CELL_CHARS_MAX + 1} bytes)")
    assert show(b"x" * 1000, None) == "x" * 1000


@given(st.binary())
def test_json_fields_lose_nothing(data: bytes) -> None:
    """A JSON field holds all bytes, as text where that is possible."""
    ((name, text),) = json_field("value", data).items()
    assert (text.encode() if name == "value" else base64.b64decode(text)) == data


def test_times_sizes_and_hashes() -> None:
    """Figures are shown in the unit in which they read best."""
    assert [show_duration(t) for t in (0.0123, 1.5, 125, 7260)] == [
        "12 ms",
        "1.5 s",
        "2 min 5 s",
        "2 h 1 min",
    ]
    assert [show_size(n) for n in (0, 1023, 1024, 64 << 20)] == ["0 B", "1023 B", "1.0 KiB", "64.0 MiB"]
    assert show_hash(255) == "00000000000000ff"
    assert show_hash(1 << 64) == "10000000000000000"
