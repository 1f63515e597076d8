"""How bytes, times and sizes are read from a command line and shown to a person. Pure.

Nothing here prints, reads a clock or knows a command.
"""

from __future__ import annotations

import base64
import os
from typing import Final

CELL_CHARS_MAX: Final = 200
"""A longer key or value is cut in a table; `-o raw` and `-o json` never cut."""

_CUT_MARK: Final = "..."


def to_bytes(argument: str) -> bytes:
    """Return the very bytes that the shell passed, whether they are UTF-8 or not."""
    return os.fsencode(argument)


def show(data: bytes, chars_max: int | None = CELL_CHARS_MAX) -> str:
    r"""Return `data` as text that is safe to print: UTF-8 where it is printable, else escapes such as `\xff`.

    A backslash is doubled, so that what is shown has one meaning.
    """
    escaped = "".join(_escape(char) for char in data.decode("utf-8", "surrogateescape"))
    if chars_max is None or len(escaped) <= chars_max:
        return escaped
    return f"{escaped[: chars_max - len(_CUT_MARK)]}{_CUT_MARK} ({len(data)} bytes)"


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, in the form of PEP 383
        return f"\\x{code - 0xDC00:02x}"
    if char == "\\":
        return "\\\\"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def json_field(name: str, data: bytes) -> dict[str, str]:
    """Return `{name: text}`, or `{name_base64: ...}` when `data` is not UTF-8."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode("ascii")}


def show_duration(seconds: float) -> str:
    """Return a time in the unit in which it reads best."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def show_size(size_bytes: int) -> str:
    """Return a size with a binary unit."""
    size, units = float(size_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def show_hash(value: int) -> str:
    """Return a key hash or range bound as 16 hexadecimal digits; 2^64, the end of the space, has 17."""
    return f"{value:016x}"
