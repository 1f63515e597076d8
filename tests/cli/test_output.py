"""Printing: what stands on standard output is exactly the results."""

from __future__ import annotations

import json

import pytest

from kv.cli.data import ScanPrinter
from kv.cli.output import Output, record, table
from kv.client.types import Item

ITEMS = [Item(b"a", b"[red]1[/red]", 1, 2, 3), Item(b"\xff", b"\x00\xfe", 4, 5, 6)]


def scanned(capfdbinary: pytest.CaptureFixture[bytes], form: Output, keys_only: bool = False) -> bytes:
    """Return what a scan of `ITEMS` prints."""
    printer = ScanPrinter(form, keys_only)
    for item in ITEMS:
        printer.add(item)
    printer.finish()
    return capfdbinary.readouterr().out


def test_raw_scan_is_bytes(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """-o raw writes keys and values byte for byte."""
    assert scanned(capfdbinary, Output.RAW) == b"a\t[red]1[/red]\n\xff\t\x00\xfe\n"
    assert scanned(capfdbinary, Output.RAW, keys_only=True) == b"a\n\xff\n"


def test_json_scan_is_one_object_a_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """-o json writes a line for each item, and base64 where bytes are no text."""
    first, second = map(json.loads, scanned(capfdbinary, Output.JSON).splitlines())
    assert first == {"key": "a", "value": "[red]1[/red]", "revision": 2, "create_revision": 1, "version": 3}
    assert second["key_base64"] == "/w=="
    assert second["value_base64"] == "AP4="
    keys = [json.loads(line) for line in scanned(capfdbinary, Output.JSON, keys_only=True).splitlines()]
    assert all("value" not in fields and "value_base64" not in fields for fields in keys)


def test_table_scan_escapes_and_reads_no_markup(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A table shows text from the store as it is, aligned under one header."""
    lines = scanned(capfdbinary, Output.TABLE).decode().splitlines()
    assert lines[0].split() == ["key", "value", "revision", "version"]
    assert lines[1].split() == ["a", "[red]1[/red]", "2", "3"]
    assert lines[2].split() == [r"\xff", r"\x00\xfe", "5", "6"]


def test_a_long_table_has_one_header(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan longer than a slice prints slices under the first header, each item once."""
    monkeypatch.setattr("kv.cli.data.SCAN_ROWS_PER_TABLE", 2)
    printer = ScanPrinter(Output.TABLE, keys_only=True)
    for number in range(5):
        printer.add(Item(b"k%d" % number, b"", 1, 1, 1))
    printer.finish()
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["key", "k0", "k1", "k2", "k3", "k4"]


def test_tables_in_a_pipe_are_never_cut(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A wide row stays on its line when nobody watches."""
    table(("a", "b"), [("x" * 300, "y" * 300)])
    assert capfdbinary.readouterr().out.splitlines()[1].split() == [b"x" * 300, b"y" * 300]


def test_records_are_utf8_json(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """JSON keeps text readable."""
    record({"key": "grüß"})
    assert capfdbinary.readouterr().out == '{"key": "grüß"}\n'.encode()
