"""Puts and gets in columns: what they do is what their rows would do one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import KVError, RequestTooLarge
from kv.ids import KEY_BYTES_MAX, VALUE_BYTES_MAX
from kv.partition.batch import BATCH_OPERATIONS_MAX, decode_batch
from kv.partition.evidence import revision_of, wrote
from kv.partition.machine import apply_command
from kv.partition.read import PageLimits, read_results
from kv.partition.session import SessionLimits, SessionTable
from kv.v1 import kv_pb2
from tests.partition.tools import (
    DictState,
    Op,
    ask_outcome,
    batch,
    delete,
    get,
    open_session,
    put,
    results,
    txn,
)

LIMITS = SessionLimits(sessions_max=3, session_results_max=4, session_result_bytes_max=100_000, ttl_ms=1000)
PAGES = PageLimits(scan_page_items=5, scan_page_bytes=10_000)
ROWS = st.lists(st.tuples(st.binary(min_size=1, max_size=2), st.binary(max_size=5)), min_size=1, max_size=40)


def put_many(*rows: tuple[bytes, bytes]) -> Op:
    """Return the puts of these rows in columns."""
    made = kv_pb2.PutManyOperation(keys=[key for key, _ in rows], values=[value for _, value in rows])
    return Op(put_many=made)


def get_many(*keys: bytes) -> Op:
    """Return the gets of these keys in a column."""
    return Op(get_many=kv_pb2.GetManyOperation(keys=keys))


def applied(state: DictState, index: int, *raws: bytes, sessions: SessionTable | None = None) -> list[bytes]:
    """Apply one command and return its outcomes, which are no errors."""
    table = SessionTable(LIMITS) if sessions is None else sessions
    outcomes = apply_command(state, table, index, 0, [decode_batch(raw) for raw in raws])
    return [outcome for outcome in outcomes if isinstance(outcome, bytes)]


def read(state: DictState, *operations: Op) -> tuple[list[kv_pb2.OperationResult], int]:
    """Return the results of a batch of reads, and the highest revision in them."""
    raw, revision = read_results(state, decode_batch(batch(*operations)), PAGES)
    return results(raw), revision


@given(st.lists(ROWS, min_size=1, max_size=3))
def test_rows_are_puts(commands: list[list[tuple[bytes, bytes]]]) -> None:
    """Columns leave the same state and tell the same revisions and versions as puts one by one, repeated keys too."""
    one, many = DictState(), DictState()
    for index, rows in enumerate(commands, start=10):
        singly = results(applied(one, index, batch(*(put(*row) for row in rows)))[0])
        (together,) = results(applied(many, index, batch(put_many(*rows)))[0])
        assert [result.put.version for result in singly] == list(together.put_many.versions)
        assert {result.put.revision for result in singly} == {together.put_many.revision}
        assert one.records == many.records


@given(ROWS, st.lists(st.binary(min_size=1, max_size=2), min_size=1, max_size=20))
def test_rows_are_gets(rows: list[tuple[bytes, bytes]], keys: list[bytes]) -> None:
    """A column of keys finds what gets find, and nothing where they find nothing."""
    state = DictState()
    applied(state, 10, batch(put_many(*rows)))
    singly, highest = read(state, *(get(key) for key in keys))
    (together,), revision = read(state, get_many(*keys))
    assert revision == highest
    for place, result in enumerate(singly):
        item, found = result.get.item, together.get_many
        assert item.value == found.values[place]
        assert item.mod_revision == found.mod_revisions[place]
        assert item.create_revision == found.create_revisions[place]
        assert item.version == found.versions[place]


def test_a_full_answer_has_fewer_rows() -> None:
    """Values beyond the room of a response are left out, in order; the rows before them are whole."""
    state = DictState()
    keys = [b"%d" % number for number in range(5)]
    for index, key in enumerate(keys, start=10):
        applied(state, index, batch(put_many((key, key * VALUE_BYTES_MAX))))
    (result,), revision = read(state, get_many(*keys))
    assert [len(value) for value in result.get_many.values] == [VALUE_BYTES_MAX] * 2
    assert list(result.get_many.mod_revisions) == [10, 11]
    assert revision == 11
    first, second = read(state, get_many(*keys), get_many(b"4"))[0]
    assert (len(first.get_many.values), second.error.reason) == (2, "REQUEST_TOO_LARGE")


def test_rows_mix_with_other_operations() -> None:
    """Columns stand among other operations and are applied in their order."""
    state = DictState()
    (raw,) = applied(state, 10, batch(put(b"a", b"1"), put_many((b"a", b"2"), (b"b", b"3")), delete(b"b")))
    first, second, third = results(raw)
    assert (first.put.version, list(second.put_many.versions), third.delete.deleted) == (1, [2, 1], True)
    assert set(state.records) == {b"a"}


@pytest.mark.parametrize(
    ("bad", "reason", "text"),
    [
        (Op(put_many=kv_pb2.PutManyOperation(keys=[b"a"])), "INVALID_ARGUMENT", "1 keys and 0 values"),
        (Op(put_many=kv_pb2.PutManyOperation()), "INVALID_ARGUMENT", "no keys"),
        (get_many(), "INVALID_ARGUMENT", "no keys"),
        (get_many(b"a", b""), "KEY_EMPTY", "empty"),
        (put_many((b"a", b""), (b"k" * (KEY_BYTES_MAX + 1), b"")), "KEY_TOO_LONG", "481"),
        (
            put_many((b"a", b""), (b"b", b"v" * (VALUE_BYTES_MAX + 1))),
            "VALUE_TOO_LARGE",
            str(VALUE_BYTES_MAX),
        ),
        (txn(then=[put_many((b"a", b"1"))]), "INVALID_ARGUMENT", "a transaction holds only"),
        (txn(then=[get_many(b"a")]), "INVALID_ARGUMENT", "a transaction holds only"),
    ],
)
def test_bad_columns_are_refused_alone(bad: Op, reason: str, text: str) -> None:
    """A bad column is a definite error of its own, nothing of it is applied, and the other operations go on."""
    state = DictState()
    (raw,) = applied(state, 10, batch(bad, put(b"z", b"1")))
    refused, good = results(raw)
    assert (refused.error.reason, refused.error.definite) == (reason, True)
    assert text in refused.error.message
    assert good.put.version == 1
    assert set(state.records) == {b"z"}


def test_gets_in_a_column_need_a_batch_that_reads() -> None:
    """Beside a write they are refused, which is written."""
    state = DictState()
    (raw,) = applied(state, 10, batch(put_many((b"a", b"1")), get_many(b"a")))
    written, refused = results(raw)
    assert list(written.put_many.versions) == [1]
    assert "may only read" in refused.error.message


def test_rows_count_as_operations() -> None:
    """The bound on operations of a batch holds for rows."""
    rows = [(b"%d" % number, b"") for number in range(BATCH_OPERATIONS_MAX)]
    assert decode_batch(batch(put_many(*rows))).count == BATCH_OPERATIONS_MAX
    with pytest.raises(RequestTooLarge):
        decode_batch(batch(put_many(*rows), put(b"one", b"more")))


def test_keys_are_told() -> None:
    """Ownership and the rule that requests of a command write different keys see every row."""
    whole = decode_batch(batch(put_many((b"a", b""), (b"b", b""))))
    assert (list(whole.keys()), list(whole.written()), whole.writes) == ([b"a", b"b"], [b"a", b"b"], True)
    reading = decode_batch(batch(get_many(b"a", b"b")))
    assert (list(reading.keys()), list(reading.written()), reading.writes) == ([b"a", b"b"], [], False)


def test_a_repetition_is_answered_from_memory_and_an_outcome_row_by_row() -> None:
    """The session keeps the columns; who asks for the outcome gets a result for each row, so that places fit."""
    state, sessions = DictState(), SessionTable(LIMITS)
    applied(state, 11, batch(open_session()), sessions=sessions)
    raw = batch(put_many((b"a", b"1"), (b"b", b"2")), put(b"c", b"3"), request=(11 << 16, 1, 0))
    (first,) = applied(state, 12, raw, sessions=sessions)
    (again,) = applied(state, 13, raw, sessions=sessions)
    assert first == again
    (asked,) = applied(state, 14, batch(ask_outcome(11 << 16, 1)), sessions=sessions)
    told = results(asked)[0].outcome.results
    assert [(one.put.revision, one.put.version) for one in told] == [(12, 1)] * 3


def test_a_column_of_puts_has_written() -> None:
    """Writes at level ALL wait for it, and its revision is that of the batch."""
    (raw,) = applied(DictState(), 10, batch(put_many((b"a", b"1"))))
    assert revision_of(raw) == 10
    assert wrote(results(raw)[0])


def test_errors_are_errors() -> None:
    """`applied` above hides no error."""
    outcomes = apply_command(
        DictState(),
        SessionTable(LIMITS),
        10,
        0,
        [decode_batch(batch(put_many((b"a", b"")), request=(5, 1, 0)))],
    )
    assert isinstance(outcomes[0], KVError)
