"""Who waits for every replica's disk, and until when."""

from __future__ import annotations

from kv.partition.acknowledgement import Acknowledgements, Held, not_on_all
from kv.partition.batch import decode_batch
from kv.partition.queue import Request
from tests.partition.tools import batch, put


def request(timeout_ms: int = 0) -> Request:
    """Return a write at level ALL."""
    raw = batch(put(b"k", b"v"), write_level=2, all_timeout_ms=timeout_ms)
    return Request(raw, decode_batch(raw), lambda _: None)


def indexes(taken: list[Held]) -> list[int]:
    """Return the indexes of what was taken."""
    return [held.index for held in taken]


def test_each_is_taken_once() -> None:
    """What is proved, overdue or given up is taken exactly once, in order of arrival."""
    waiting = Acknowledgements(1.0)
    for index, timeout_ms in ((5, 0), (3, 0), (4, 9000), (9, 0)):
        waiting.hold(request(timeout_ms), index, index, b"", now=0.0)
    assert indexes(waiting.take_proved(2)) == []
    assert indexes(waiting.take_proved(4)) == [3, 4]
    assert indexes(waiting.take_overdue(0.999)) == []
    assert indexes(waiting.take_overdue(1.0)) == [5, 9]
    assert len(waiting) == 0
    waiting.hold(request(), 10, 10, b"", now=2.0)
    assert indexes(waiting.take_all()) == [10]
    assert waiting.take_all() == []


def test_error() -> None:
    """The error says that the write stands, at which revision, and who is missing."""
    held = Held(request(), 5, 4, b"", 1.0)
    error = not_on_all(held, "the time for it is over", ["n2", "n3"])
    assert (error.applied, error.definite) == (True, False)
    assert error.metadata == {"revision": "4", "missing": "n2,n3"}
