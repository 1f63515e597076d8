"""The table of sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.partition.session import Fate, Session, SessionLimits, SessionTable, Verdict

LIMITS = SessionLimits(sessions_max=2, session_results_max=3, session_result_bytes_max=100, ttl_ms=1000)


def table(**changes: int) -> SessionTable:
    """Return a table with session 1 open since time 0."""
    values = {
        "sessions_max": 2,
        "session_results_max": 3,
        "session_result_bytes_max": 100,
        "ttl_ms": 1000,
    }
    made = SessionTable(SessionLimits(**(values | changes)))
    made.open(1, 0)
    return made


def ask(
    sessions: SessionTable, sequence: int, acknowledged: int = 0, result: bytes = b"r"
) -> Verdict | bytes:
    """Send a request of session 1 and record its result if it is new."""
    verdict = sessions.check(1, sequence, acknowledged, stamp=100, time_ms=0)
    if verdict is Verdict.NEW:
        sessions.record(1, sequence, result)
    return verdict


def test_golden() -> None:
    """The stored form of a session never changes: it is on disks."""
    session = Session(stamp=5 << 16, time_ms=7, acknowledged=1, forgotten=2, tombstones={3: None})
    session.keep(5, b"late")
    session.keep(4, b"")
    assert session.encode().hex() == (
        "01"
        "0000050000000000"
        "0700000000000000"
        "0100000000000000"
        "0200000000000000"
        "02000000"
        "01000000"
        "0500000000000000"
        "04000000"
        "6c617465"
        "0400000000000000"
        "00000000"
        "0300000000000000"
    )
    assert Session.decode(session.encode()) == session


@pytest.mark.parametrize("cut", [slice(0, 10), slice(0, -1), slice(1, None)])
def test_damaged_session(cut: slice) -> None:
    """Bytes that are no whole session are refused."""
    session = Session(1, 2)
    session.keep(1, b"result")
    session.tombstones[9] = None
    with pytest.raises(ValueError, match="session"):
        Session.decode(session.encode()[cut])


def test_repetition() -> None:
    """A repeated sequence gives the first result, in any order of arrival."""
    sessions = table()
    assert ask(sessions, 2, result=b"two") is Verdict.NEW
    assert ask(sessions, 1, result=b"one") is Verdict.NEW
    assert (ask(sessions, 1), ask(sessions, 2)) == (b"one", b"two")


def test_empty_result_is_a_result() -> None:
    """The result of an empty batch is remembered like any other."""
    sessions = table()
    ask(sessions, 1, result=b"")
    assert ask(sessions, 1) == b""


def test_acknowledged_is_never_applied_again() -> None:
    """What the client acknowledged is forgotten, and refused if it comes again after all."""
    sessions = table()
    ask(sessions, 1)
    ask(sessions, 2)
    assert ask(sessions, 10, acknowledged=2) is Verdict.NEW
    assert (ask(sessions, 1), ask(sessions, 2)) == (Verdict.EVICTED, Verdict.EVICTED)
    assert ask(sessions, 3) is Verdict.NEW


def test_acknowledge_far_ahead() -> None:
    """A jump over 2^60 sequences costs no more than what is known."""
    sessions = table()
    ask(sessions, 1)
    assert ask(sessions, 2**60 + 1, acknowledged=2**60) is Verdict.NEW
    assert ask(sessions, 2**59) is Verdict.EVICTED


def test_results_max() -> None:
    """The oldest result above the limit becomes a tombstone: refused, not applied again."""
    sessions = table(session_results_max=3)
    for sequence in (1, 2, 3):
        ask(sessions, sequence)
    assert ask(sessions, 1) == b"r"
    ask(sessions, 4)
    assert (ask(sessions, 1), ask(sessions, 2)) == (Verdict.EVICTED, b"r")


def test_result_bytes_max() -> None:
    """Results are kept up to the byte limit; one above it is not kept at all."""
    sessions = table(session_result_bytes_max=10)
    ask(sessions, 1, result=bytes(5))
    ask(sessions, 2, result=bytes(5))
    assert ask(sessions, 1) == bytes(5)
    ask(sessions, 3, result=bytes(11))
    assert [ask(sessions, sequence) for sequence in (1, 2, 3)] == [Verdict.EVICTED] * 3


def test_tombstones_are_bounded() -> None:
    """Above as many tombstones as results the oldest goes: sequences up to there may or may not be applied."""
    sessions = table(session_results_max=3)
    for sequence in range(2, 9):
        ask(sessions, sequence)
    assert ask(sessions, 1) is Verdict.FORGOTTEN
    assert ask(sessions, 3) is Verdict.EVICTED
    assert ask(sessions, 6) == b"r"


def test_least_recently_used_goes() -> None:
    """Above sessions_max the least recently used session is dropped, not the oldest."""
    sessions = table(sessions_max=2)
    sessions.open(2, 0)
    ask(sessions, 1)
    sessions.open(3, 0)
    assert sessions.check(2, 1, 0, 200, 0) is Verdict.EXPIRED
    assert ask(sessions, 1) == b"r"
    assert len(sessions) == 2


def test_ttl() -> None:
    """A session lives while it is used more often than its time to live, and is gone at that time."""
    sessions = table(ttl_ms=1000)
    sessions.expire(999)
    assert sessions.check(1, 1, 0, 100, 999) is Verdict.NEW
    sessions.expire(1998)
    assert len(sessions) == 1
    sessions.expire(1999)
    assert sessions.check(1, 1, 0, 100, 1999) is Verdict.EXPIRED


def fence(sessions: SessionTable, sequence: int) -> Fate | bytes:
    """Ask for the outcome of a request of session 1."""
    return sessions.outcome(1, sequence)


def test_golden_with_fences() -> None:
    """A session with fences has a stored form of its own, which never changes either."""
    session = Session(stamp=1, time_ms=2, fences={9: None, 8: None})
    session.keep(5, b"r")
    assert session.encode().hex() == (
        "02"
        "0100000000000000"
        "0200000000000000"
        "0000000000000000"
        "0000000000000000"
        "01000000"
        "00000000"
        "0500000000000000"
        "01000000"
        "72"
        "02000000"
        "0900000000000000"
        "0800000000000000"
    )
    again = Session.decode(session.encode())
    assert again == session
    assert list(again.fences) == [9, 8]


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: stored[:-1],
        lambda stored: stored + b"\0",
        lambda stored: stored[:-20] + stored[-8:] + stored[-8:],
        lambda stored: stored[:-20] + bytes(4),
    ],
)
def test_damaged_fences(damage: Callable[[bytes], bytes]) -> None:
    """Fences that are cut off, doubled, or none although there should be some, are refused."""
    session = Session(1, 2, fences={9: None, 8: None})
    with pytest.raises(ValueError, match="session"):
        Session.decode(damage(session.encode()))


def test_fence() -> None:
    """A request that was not applied when it was asked for never is, however often either is repeated."""
    sessions = table()
    assert [fence(sessions, 4), ask(sessions, 4), fence(sessions, 4), ask(sessions, 4)] == [
        Fate.FENCED,
        Verdict.FENCED,
        Fate.FENCED,
        Verdict.FENCED,
    ]
    assert ask(sessions, 3) is Verdict.NEW, "its neighbours are free"


def test_fate_of_an_applied_request() -> None:
    """An applied request is answered with its result while that is kept, then as applied, then as unknown."""
    sessions = table(session_results_max=2)
    ask(sessions, 1, result=b"one")
    assert fence(sessions, 1) == b"one"
    for sequence in (2, 3):
        ask(sessions, sequence)
    assert fence(sessions, 1) is Fate.APPLIED
    for sequence in (4, 5):
        ask(sessions, sequence)
    assert fence(sessions, 1) is Fate.UNKNOWN


def test_fate_unknown() -> None:
    """Of an unknown session, or of what the client acknowledged, nothing is claimed, and nothing is fenced."""
    sessions = table()
    assert sessions.outcome(99, 1) is Fate.UNKNOWN
    ask(sessions, 5, acknowledged=2)
    assert [fence(sessions, sequence) for sequence in (1, 2)] == [Fate.UNKNOWN, Fate.UNKNOWN]
    assert not Session.decode(dict(sessions.take_changes())[1] or b"").fences


def test_acknowledged_fence() -> None:
    """A client that acknowledges a fenced sequence has no more use for the fence."""
    sessions = table()
    fence(sessions, 1)
    assert ask(sessions, 2, acknowledged=1) is Verdict.NEW
    assert fence(sessions, 1) is Fate.UNKNOWN
    assert ask(sessions, 1) is Verdict.EVICTED


def test_fences_are_bounded() -> None:
    """Fences and results together keep to session_results_max: results go first, a fence only for another fence."""
    sessions = table(session_results_max=3)
    for sequence in (1, 2, 3):
        ask(sessions, sequence)
    fence(sessions, 11)
    assert [ask(sessions, 1), ask(sessions, 2)] == [Verdict.EVICTED, b"r"]
    fence(sessions, 12)
    fence(sessions, 13)
    assert [ask(sessions, 2), ask(sessions, 3)] == [Verdict.EVICTED, Verdict.EVICTED]
    assert [fence(sessions, sequence) for sequence in (11, 12, 13)] == [Fate.FENCED] * 3
    fence(sessions, 14)
    assert ask(sessions, 11) is Verdict.FORGOTTEN, "the oldest went, and still is not applied"
    assert fence(sessions, 11) is Fate.UNKNOWN
    assert [fence(sessions, sequence) for sequence in (12, 13, 14)] == [Fate.FENCED] * 3


def test_outcome_is_no_use() -> None:
    """Asking, even where it fences, does not keep a session alive, nor save it from being the least recently used."""
    sessions = table(ttl_ms=1000, sessions_max=2)
    sessions.open(2, 0)
    fence(sessions, 1)
    sessions.open(3, 0)
    assert fence(sessions, 1) is Fate.UNKNOWN, "it was still the least recently used"
    assert sessions.outcome(2, 1) is Fate.FENCED
    sessions.expire(1000)
    assert sessions.outcome(2, 1) is Fate.UNKNOWN


def test_fences_are_checkpointed() -> None:
    """A session that was only fenced counts as changed; one that was only asked about does not."""
    sessions = table()
    ask(sessions, 1)
    sessions.take_changes()
    fence(sessions, 1)
    assert sessions.take_changes() == []
    fence(sessions, 2)
    ((session_id, stored),) = sessions.take_changes()
    assert session_id == 1
    assert list(Session.decode(stored or b"").fences) == [2]


def test_record_after_own_eviction() -> None:
    """A request that opens one session too many may push out its own session: nothing is recorded."""
    sessions = table(sessions_max=1)
    assert sessions.check(1, 1, 0, 100, 0) is Verdict.NEW
    sessions.open(2, 0)
    sessions.record(1, 1, b"r")
    assert sessions.check(1, 1, 0, 100, 0) is Verdict.EXPIRED


def test_changes_are_taken_once() -> None:
    """A checkpoint gets each changed session once, and a dropped one as gone."""
    sessions = table(sessions_max=1)
    assert [session_id for session_id, _ in sessions.take_changes()] == [1]
    assert sessions.take_changes() == []
    sessions.open(2, 5)
    changes = dict(sessions.take_changes())
    assert changes[1] is None
    assert changes[2] == Session(2, 5).encode()


STEPS = st.one_of(
    st.tuples(st.just("open"), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("ask"), st.integers(0, 4), st.integers(1, 9), st.integers(0, 8)),
    st.tuples(st.just("fence"), st.integers(0, 4), st.integers(1, 9), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 600), st.just(0), st.just(0)),
)


@given(st.lists(STEPS, max_size=60), st.data())
def test_reload_changes_nothing(steps: list[tuple[Any, ...]], data: st.DataObject) -> None:
    """A table that is stored and loaded at any points answers and forgets as one that never was."""
    steady, reloaded = SessionTable(LIMITS), SessionTable(LIMITS)
    stored: dict[int, bytes] = {}
    opened: list[int] = []
    time_ms = 0
    for stamp, (kind, first, sequence, acknowledged) in enumerate(steps, start=1):
        answers: list[Verdict | Fate | bytes] = []
        if kind == "wait":
            time_ms += first
        for sessions in (steady, reloaded):
            sessions.expire(time_ms)
            if kind == "open":
                sessions.open(stamp, time_ms)
            elif kind == "ask" and first < len(opened):
                verdict = sessions.check(
                    opened[first], sequence, min(acknowledged, sequence - 1), stamp, time_ms
                )
                if verdict is Verdict.NEW:
                    sessions.record(opened[first], sequence, b"%d" % stamp)
                answers.append(verdict)
            elif kind == "fence" and first < len(opened):
                answers.append(sessions.outcome(opened[first], sequence))
        if kind == "open":
            opened.append(stamp)
        assert answers[:1] == answers[1:]
        if data.draw(st.booleans(), label="reload"):
            _store(reloaded, stored)
            reloaded.load(stored.items())
    final: dict[int, bytes] = {}
    _store(steady, final)
    _store(reloaded, stored)
    assert stored == final


def _store(sessions: SessionTable, stored: dict[int, bytes]) -> None:
    for session_id, encoded in sessions.take_changes():
        if encoded is None:
            stored.pop(session_id, None)
        else:
            stored[session_id] = encoded


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(0, 11), st.binary(max_size=40) | st.none()), max_size=60
    )
)
def test_never_new_twice(requests: list[tuple[int, int, bytes | None]]) -> None:
    """No sequence is called new twice, an answer is the first one, and what a fate says stays true."""
    sessions = table()
    first: dict[int, bytes] = {}
    denied: set[int] = set()
    for sequence, acknowledged, result in requests:
        if result is None:
            fate = fence(sessions, sequence)
            assert fate is not Fate.APPLIED or sequence in first
            assert not isinstance(fate, bytes) or fate == first[sequence]
            if fate is Fate.FENCED:
                assert sequence not in first
                denied.add(sequence)
            continue
        verdict = ask(sessions, sequence, min(acknowledged, sequence - 1), result)
        if verdict is Verdict.NEW:
            assert sequence not in first
            assert sequence not in denied
            first[sequence] = result
        elif isinstance(verdict, bytes):
            assert verdict == first[sequence]
