"""What a run and its processes say to each other."""

from __future__ import annotations

import pytest

from kv.bench.wire import NOTHING, Progress, decode, encode, error_fields, parse_error
from kv.errors import UnknownOutcome


def test_a_message_is_a_line() -> None:
    """A message is one line, whatever text is in it, and is read back as it was."""
    message = {"progress": {"ok": 1}, "text": "a\nb"}
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message


@pytest.mark.parametrize("line", [b"", b"not json\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    """A line that is no object is an error, and not taken for one."""
    with pytest.raises(ValueError):  # noqa: PT011 - the decoder's own texts
        decode(line)


def test_an_error_keeps_what_it_says() -> None:
    """An error of a process is the same error in the run: reason, definiteness, message, metadata."""
    error = UnknownOutcome("no answer", metadata={"token": "1-2-3"})
    parsed = parse_error(error_fields(error)["error"])
    assert type(parsed) is UnknownOutcome
    assert (parsed.message, parsed.metadata, parsed.definite) == (error.message, error.metadata, False)


def test_progress_adds_up() -> None:
    """The progress of a run is that of its processes together."""
    assert sum((Progress(1, 2, 3, 4), Progress(10, 20, 30, 40)), NOTHING) == Progress(11, 22, 33, 44)
