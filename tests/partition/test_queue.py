"""The queue of requests and its bounds."""

from __future__ import annotations

import pytest

from kv.errors import Overloaded
from kv.partition.batch import decode_batch
from kv.partition.queue import BATCH_FRAME_BYTES, COMMAND_FRAME_BYTES, Request, RequestQueue
from kv.v1 import kv_pb2
from tests.partition.tools import batch, command, delete, get, put


def request(raw: bytes) -> Request:
    """Return a request whose answer goes nowhere."""
    return Request(raw, decode_batch(raw), lambda _: None)


WRITE = batch(put(b"k", b"v"))
READ = batch(get(b"k"))


def test_requests_max() -> None:
    """Reads and writes count alike, those taken but not answered too; an answer makes room."""
    queue = RequestQueue(2, 1000)
    first, second, third = request(WRITE), request(READ), request(WRITE)
    assert queue.admit(first) is None
    assert queue.admit(second) is None
    queue.take_command(1000)
    queue.take_reads()
    assert isinstance(queue.admit(third), Overloaded)
    queue.answered(first)
    assert queue.admit(third) is None


def test_bytes_max() -> None:
    """Requests are taken up to the byte limit exactly."""
    queue = RequestQueue(100, 2 * len(WRITE))
    assert queue.admit(request(WRITE)) is None
    assert isinstance(queue.admit(request(batch(put(b"k", b"v1")))), Overloaded)
    assert queue.admit(request(WRITE)) is None
    assert isinstance(queue.admit(request(READ)), Overloaded)


def test_one_large_request_is_taken_alone() -> None:
    """A request above the byte limit is taken when nothing else waits: it could never be taken otherwise."""
    queue = RequestQueue(100, 1)
    assert queue.admit(request(WRITE)) is None
    assert isinstance(queue.admit(request(READ)), Overloaded)


def test_answered_once() -> None:
    """Counting an answer twice is a defect."""
    queue = RequestQueue(2, 1000)
    only = request(WRITE)
    queue.admit(only)
    queue.answered(only)
    with pytest.raises(AssertionError):
        queue.answered(only)


@pytest.mark.parametrize(("room", "expected"), [(-1, 1), (0, 2), (100, 2)])
def test_take_command(room: int, expected: int) -> None:
    """A command takes what fits, in order; what it takes really fits into its bytes."""
    queue = RequestQueue(100, 1000)
    requests = [request(WRITE), request(batch(put(b"j", b"v")))]
    for one in requests:
        queue.admit(one)
    bytes_max = COMMAND_FRAME_BYTES + 2 * (len(WRITE) + BATCH_FRAME_BYTES) + room
    taken = queue.take_command(bytes_max)
    assert taken == requests[:expected]
    assert len(command(*[one.raw for one in taken], time_ms=2**62)) <= bytes_max


def test_one_key_one_command() -> None:
    """Two requests that write one key, in a transaction or not, never share a command, nor do later ones overtake."""
    move = kv_pb2.TxnOperation(then_operations=[put(b"a", b"v"), put(b"k", b"v")])
    raws = [
        batch(put(b"a", b"v")),
        batch(put(b"b", b"v")),
        batch(kv_pb2.Operation(txn=move)),
        batch(put(b"c", b"v")),
        batch(delete(b"k")),
        batch(put(b"c", b"v")),
    ]
    queue = RequestQueue(100, 10_000)
    requests = [request(raw) for raw in raws]
    for one in requests:
        queue.admit(one)
    commands = [[requests.index(one) for one in queue.take_command(10_000)] for _ in range(3)]
    assert commands == [[0, 1], [2, 3], [4, 5]]
    assert not queue.writes


def test_take_all() -> None:
    """Everything that waits is taken once; what was taken before is not."""
    queue = RequestQueue(100, 1000)
    taken, write, read = request(WRITE), request(WRITE), request(READ)
    queue.admit(taken)
    assert queue.take_command(1) == [taken]
    queue.admit(write)
    queue.admit(read)
    assert set(queue.take_all()) == {write, read}
    assert queue.take_all() == []


def test_take_of_leader() -> None:
    """Of all that waits, the reads for which it does not matter who leads stay, in order."""
    queue = RequestQueue(100, 1000)
    stale = batch(get(b"k"), stale=True)
    waiting = [request(raw) for raw in (READ, stale, WRITE, stale)]
    for one in waiting:
        queue.admit(one)
    assert queue.take_of_leader(lambda one: one.stale) == [waiting[0], waiting[2]]
    assert queue.take_all() == [waiting[1], waiting[3]]
    assert queue.pending_requests == len(waiting), "taken is not answered"
