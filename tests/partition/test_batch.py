"""What a request may contain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import InvalidArgument, KVError, RequestTooLarge
from kv.ids import KEY_BYTES_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX
from kv.partition.batch import (
    APPEND,
    BATCH_OPERATIONS_MAX,
    BATCHES_KEPT_MAX,
    DELETE,
    DELETE_PREVIOUS,
    GET,
    INCREMENT,
    KEPT_BYTES_MAX,
    OUTCOME,
    PAGE,
    PUT,
    PUT_PREVIOUS,
    RANGE,
    REFUSED,
    Operation,
    decode_again,
    decode_batch,
)
from kv.v1 import kv_pb2
from tests.partition.tools import (
    append,
    ask_outcome,
    batch,
    delete,
    get,
    increment,
    open_session,
    page,
    put,
    scan,
    txn,
)


def reason(operation: Operation) -> str:
    """Return the reason of a refused operation."""
    assert operation[0] == REFUSED
    (result,) = kv_pb2.BatchResponse.FromString(operation[1]).results
    assert result.error.definite
    return result.error.reason


def test_operations_decode() -> None:
    """Each kind of operation keeps its parts."""
    decoded = decode_batch(batch(put(b"p", b"v", revision=0), get(b"g"), delete(b"d", present=True)))
    assert decoded.operations == (
        (PUT, b"p", b"v", ("revision", 0)),
        (GET, b"g"),
        (DELETE, b"d", ("present", True)),
    )
    assert decoded.writes
    reading = decode_batch(batch(scan(b"a", b"b", 5, keys_only=True), stale=True))
    assert reading.operations == ((RANGE, b"a", b"b", 5, True),)
    assert (reading.writes, reading.stale) == (False, True)


def test_newer_operations_decode() -> None:
    """Increments, appends, outcome queries and what a write held before keep their parts."""
    decoded = decode_batch(
        batch(
            increment(b"i", -5, revision=3),
            append(b"a", b"tail"),
            put(b"p", b"v", previous=True),
            delete(b"d", previous=True, present=True),
        )
    )
    assert decoded.operations == (
        (INCREMENT, b"i", -5, ("revision", 3)),
        (APPEND, b"a", b"tail", None),
        (PUT_PREVIOUS, b"p", b"v", None),
        (DELETE_PREVIOUS, b"d", ("present", True)),
    )
    assert list(decoded.keys()) == list(decoded.written()) == [b"i", b"a", b"p", b"d"]
    assert decode_batch(batch(ask_outcome(3, 4))).operations == ((OUTCOME, 3, 4),)
    assert decode_batch(batch(page(b"a", b"b", 5, snapshot=9))).operations == (
        (PAGE, b"a", b"b", 5, False, True, 9),
    )


def test_nested_txn() -> None:
    """A transaction may hold transactions; their keys, writes and operations count as its own."""
    inner = txn([kv_pb2.Compare(key=b"c", exists=True)], [increment(b"i"), get(b"g")], [delete(b"d")])
    decoded = decode_batch(batch(txn((), [put(b"p", b""), inner])))
    assert list(decoded.keys()) == [b"p", b"c", b"i", b"g", b"d"]
    assert list(decoded.written()) == [b"p", b"i", b"d"]
    assert decoded.operations[0][4], "an increment inside can fail"
    many = [get(b"k")] * (BATCH_OPERATIONS_MAX - 2)
    assert decode_batch(batch(txn((), [txn((), many)]))).writes
    with pytest.raises(RequestTooLarge):
        decode_batch(batch(txn((), [txn((), many), get(b"k")])))


@pytest.mark.parametrize(("session", "sequence"), [(0, 1), (1, 0)])
def test_outcome_of_nothing(session: int, sequence: int) -> None:
    """An outcome query that names no session or no sequence is refused."""
    assert reason(decode_batch(batch(ask_outcome(session, sequence))).operations[0]) == "INVALID_ARGUMENT"


def test_outcome_stands_alone() -> None:
    """An outcome query beside anything else is refused, the other goes on; so is one about its own request."""
    operations = decode_batch(batch(ask_outcome(1, 1), put(b"k", b"v"))).operations
    assert (reason(operations[0]), operations[1][0]) == ("INVALID_ARGUMENT", PUT)
    with pytest.raises(InvalidArgument):
        decode_batch(batch(ask_outcome(5, 7), request=(5, 7, 0)))
    assert decode_batch(batch(ask_outcome(5, 6), request=(5, 7, 0))).writes


def test_snapshot_range_stands_alone() -> None:
    """A range with a snapshot beside anything else is refused: a response speaks of one index."""
    operations = decode_batch(batch(page(), get(b"k"))).operations
    assert (reason(operations[0]), operations[1][0]) == ("INVALID_ARGUMENT", GET)
    assert reason(decode_batch(batch(page(), put(b"k", b"v"))).operations[0]) == "INVALID_ARGUMENT"


def test_keys_are_all_found() -> None:
    """Ownership is checked for every key, those of compares and of both lists of a transaction included."""
    compare = kv_pb2.Compare(key=b"c", exists=True)
    raw = batch(put(b"p", b""), scan(), get(b""), txn([compare], [put(b"t", b"")], [get(b"e")]), delete(b"d"))
    assert list(decode_batch(raw).keys()) == [b"p", b"c", b"t", b"e", b"d"]


@pytest.mark.parametrize(
    ("key_bytes", "value_bytes", "expected"),
    [
        (0, 0, "KEY_EMPTY"),
        (1, 0, None),
        (KEY_BYTES_MAX, VALUE_BYTES_MAX, None),
        (KEY_BYTES_MAX + 1, 0, "KEY_TOO_LONG"),
        (1, VALUE_BYTES_MAX + 1, "VALUE_TOO_LARGE"),
    ],
)
def test_key_and_value_limits(key_bytes: int, value_bytes: int, expected: str | None) -> None:
    """Keys and values at their limits pass, one byte more is a definite error of that operation alone."""
    key, value = bytes(key_bytes), bytes(value_bytes)
    operations = decode_batch(batch(put(key, value), get(b"other"))).operations
    assert operations[1] == (GET, b"other")
    assert operations[0] == (PUT, key, value, None) if expected is None else reason(operations[0]) == expected
    if value_bytes == 0:
        for operation in decode_batch(batch(get(key), delete(key))).operations:
            assert operation[1] == key if expected is None else reason(operation) == expected
    (appended,) = decode_batch(batch(append(key, value))).operations
    assert appended == (APPEND, key, value, None) if expected is None else reason(appended) == expected


def test_operations_max() -> None:
    """A batch of the limit passes, one more is refused whole; operations inside transactions count."""
    assert len(decode_batch(batch(*[get(b"k")] * BATCH_OPERATIONS_MAX)).operations) == BATCH_OPERATIONS_MAX
    with pytest.raises(RequestTooLarge):
        decode_batch(batch(*[get(b"k")] * (BATCH_OPERATIONS_MAX + 1)))
    inner = [get(b"k")] * (BATCH_OPERATIONS_MAX - 1)
    assert decode_batch(batch(txn((), inner))).writes
    with pytest.raises(RequestTooLarge):
        decode_batch(batch(txn((), inner, [get(b"k")])))


def test_bytes_max() -> None:
    """A batch above the request limit is refused whole."""
    raw = batch(*[put(b"k", bytes(VALUE_BYTES_MAX))] * 4)
    assert len(raw) > REQUEST_BYTES_MAX
    with pytest.raises(RequestTooLarge):
        decode_batch(raw)


@pytest.mark.parametrize(
    "bad",
    [
        put(b"", b"v"),
        get(bytes(KEY_BYTES_MAX + 1)),
        put(b"k", b"v", absent=True),
        delete(b"k", present=True),
        increment(b"k", 1, absent=True),
        append(b"k", b"v", present=True),
        open_session(),
        ask_outcome(1, 1),
        scan(),
        page(),
        txn((), [txn()]),
        kv_pb2.Operation(),
    ],
)
def test_txn_is_refused_whole(bad: kv_pb2.Operation) -> None:
    """A bad, conditional, twice nested or unknown operation in either list refuses the whole transaction."""
    for raw in (batch(txn((), [put(b"k", b"v"), bad])), batch(txn((), [put(b"k", b"v")], [bad]))):
        decoded = decode_batch(raw)
        assert reason(decoded.operations[0]) in ("INVALID_ARGUMENT", "KEY_EMPTY", "KEY_TOO_LONG")
        assert not decoded.writes


@pytest.mark.parametrize(
    "compare",
    [
        kv_pb2.Compare(key=b"", version=1),
        kv_pb2.Compare(key=b"k"),
        kv_pb2.Compare(key=b"k", version=1, comparator=9),  # type: ignore[arg-type]
    ],
)
def test_bad_compare(compare: kv_pb2.Compare) -> None:
    """A compare without a key, a target or a known comparator refuses its transaction."""
    assert decode_batch(batch(txn([compare]))).operations[0][0] == REFUSED


def test_empty_condition() -> None:
    """A condition that says nothing is refused, not ignored: the write would happen unconditionally."""
    empty = kv_pb2.Operation(put=kv_pb2.PutOperation(key=b"k", condition=kv_pb2.Condition()))
    for operation in (empty, put(b"k", b"", absent=False), delete(b"k", present=False)):
        assert reason(decode_batch(batch(operation)).operations[0]) == "INVALID_ARGUMENT"


def test_logged_batches_hold_no_range() -> None:
    """A range beside a write is refused, the write goes on; a range beside gets is fine."""
    operations = decode_batch(batch(scan(), put(b"k", b"v"))).operations
    assert (reason(operations[0]), operations[1][0]) == ("INVALID_ARGUMENT", PUT)
    assert [operation[0] for operation in decode_batch(batch(scan(), get(b"k"))).operations] == [RANGE, GET]


def test_open_session_stands_alone() -> None:
    """An open_session beside anything else is refused; then nothing is left that needs the log."""
    decoded = decode_batch(batch(open_session(), get(b"k")))
    assert reason(decoded.operations[0]) == "INVALID_ARGUMENT"
    assert not decoded.writes


@pytest.mark.parametrize(("sequence", "acknowledged"), [(0, 0), (3, 3), (3, 4)])
def test_malformed_request_id(sequence: int, acknowledged: int) -> None:
    """A sequence of 0, or one that the request itself acknowledges, is refused before it is logged."""
    with pytest.raises(InvalidArgument):
        decode_batch(batch(put(b"k", b""), request=(1, sequence, acknowledged)))
    assert decode_batch(batch(put(b"k", b""), request=(1, 3, 2))).sequence == 3


def test_request_id_is_merged() -> None:
    """A request id put behind the bytes of a batch is the batch's: routers add theirs without decoding."""
    raw = batch(put(b"k", b"v")) + batch(request=(5, 7, 6))
    decoded = decode_batch(raw)
    assert (decoded.session, decoded.sequence, decoded.acknowledged) == (5, 7, 6)
    assert decoded.operations == ((PUT, b"k", b"v", None),)


def test_unknown_operation() -> None:
    """An operation that this version does not know is refused alone."""
    newer = batch(get(b"k")) + b"\x0a\x03\xa2\x06\x00"  # operations { field 100: "" }
    operations = decode_batch(newer).operations
    assert (operations[0][0], reason(operations[1])) == (GET, "INVALID_ARGUMENT")


@given(st.binary(max_size=60))
def test_any_bytes(raw: bytes) -> None:
    """Whatever arrives decodes or ends in a definite error."""
    failure = None
    try:
        decode_batch(raw)
    except KVError as error:
        failure = error
    assert failure is None or failure.definite


def test_what_comes_again_is_decoded_once() -> None:
    """`decode_again` gives what `decode_batch` gives, and the same object for equal bytes of bounded size and number."""
    short = batch(put(b"k", b"v"))
    known = decode_again(short)
    assert known == decode_batch(short)
    assert decode_again(bytes(bytearray(short))) is known
    long = batch(put(b"k", b"v" * KEPT_BYTES_MAX))
    assert decode_again(long) == decode_batch(long)
    assert decode_again(long) is not decode_again(long)
    for number in range(BATCHES_KEPT_MAX):
        decode_again(batch(get(b"%d" % number)))
    assert decode_again(short) is not known


def test_what_is_refused_is_refused_again() -> None:
    """`decode_again` remembers no error."""
    for _ in range(2):
        with pytest.raises(InvalidArgument):
            decode_again(b"\xff")
