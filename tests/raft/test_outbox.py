"""What a group would send, held until its records are durable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.internal.v1 import raft_pb2
from kv.raft.outbox import Outbox, Outgoing

LIMIT = 100


def append(
    prev: int, count: int, *, after: int = 0, peer: str = "b", term: int = 1, commit: int = 0
) -> Outgoing:
    """An append of `count` entries after `prev`."""
    body = raft_pb2.Append(prev_index=prev, commit_index=commit)
    entries = [(term, b"\x01%d" % (prev + 1 + i)) for i in range(count)]
    return Outgoing(after, peer, raft_pb2.RaftMessage(term=term, append=body), False, entries)


def data_of(outgoing: Outgoing) -> list[bytes]:
    """The data of the entries of an append, as its receiver reads them."""
    return [entry.data for entry in raft_pb2.RaftMessage.FromString(outgoing.raw).append.entries]


def probe(*, after: int = 0, peer: str = "b", bulk: bool = False) -> Outgoing:
    """A message that is no append."""
    return Outgoing(after, peer, raft_pb2.RaftMessage(probe=raft_pb2.Probe(sequence=1)), bulk)


def test_a_message_waits_for_its_record() -> None:
    """What depends on a record that is not durable yet stays; what does not may overtake it."""
    outbox = Outbox(LIMIT)
    late, early = probe(after=5), probe(after=3)
    outbox.post(late, 0)
    outbox.post(early, 0)
    assert outbox.take(4) == [early]
    assert len(outbox) == 1
    assert outbox.take(4) == []
    assert outbox.take(5) == [late]
    assert len(outbox) == 0


def test_appends_that_follow_each_other_leave_as_one() -> None:
    """An append that goes on where the one before ended is joined to it, with the later commit index and record."""
    outbox = Outbox(LIMIT)
    outbox.post(append(4, 2, after=1, commit=4), 20)
    outbox.post(append(6, 1, after=2, commit=5), 10)
    assert outbox.take(1) == []
    (joined,) = outbox.take(2)
    assert data_of(joined) == [b"\x015", b"\x016", b"\x017"]
    assert (joined.message.append.prev_index, joined.message.append.commit_index) == (4, 5)


def test_what_does_not_continue_is_not_joined() -> None:
    """A gap, another term, another peer, too many bytes, or another message between: each leaves on its own."""
    outbox = Outbox(LIMIT)
    outbox.post(append(1, 1), 60)
    outbox.post(append(2, 1), 41)  # beyond the limit
    outbox.post(append(9, 1), 10)  # a gap
    outbox.post(append(10, 1, term=2), 10)
    outbox.post(append(11, 1, term=2, peer="c"), 10)
    outbox.post(probe(), 0)
    outbox.post(append(11, 1, term=2), 10)
    assert [len(data_of(o)) for o in outbox.take(9)] == [1, 1, 1, 1, 1, 0, 1]


def test_exactly_the_limit_is_joined() -> None:
    """The limit on a message's bytes includes the limit."""
    outbox = Outbox(LIMIT)
    outbox.post(append(1, 1), 60)
    outbox.post(append(2, 1), 40)
    assert len(outbox.take(0)) == 1


def test_bulk_between_appends_does_not_part_them() -> None:
    """Chunks of a snapshot take another lane."""
    outbox = Outbox(LIMIT)
    outbox.post(append(1, 1), 10)
    outbox.post(probe(bulk=True), 0)
    outbox.post(append(2, 1), 10)
    assert [o.bulk for o in outbox.take(0)] == [False, True]


def test_nothing_is_joined_to_what_has_left() -> None:
    """After a release the next append begins a message of its own."""
    outbox = Outbox(LIMIT)
    outbox.post(append(1, 1), 10)
    (left,) = outbox.take(0)
    outbox.post(append(2, 1), 10)
    assert len(data_of(left)) == 1
    assert len(outbox.take(0)) == 1


def test_a_reset_connection_loses_what_waits_for_it() -> None:
    """What waits for one peer is dropped with its connection; what waits for others stays."""
    outbox = Outbox(LIMIT)
    outbox.post(append(1, 1), 10)
    outbox.post(append(1, 1, peer="c"), 10)
    outbox.forget("b")
    outbox.post(append(2, 1), 10)
    assert [(o.peer, o.message.append.prev_index) for o in outbox.take(0)] == [("c", 1), ("b", 2)]
    outbox.post(probe(), 0)
    outbox.clear()
    assert outbox.take(9) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), max_size=30))
def test_the_entries_for_a_peer_leave_in_order(posts: list[tuple[int, int, bool]]) -> None:
    """With appends that depend on the same records, each entry leaves once and in order, however they are joined."""
    outbox, left, prev, durable = Outbox(LIMIT), list[bytes](), 0, 0
    for count, size, take in posts:
        outbox.post(append(prev, count, after=1), size * 10)
        prev += count
        durable |= take
        left += [data for o in outbox.take(durable) for data in data_of(o)]
    left += [data for o in outbox.take(1) for data in data_of(o)]
    assert left == [b"\x01%d" % (index + 1) for index in range(prev)]


def test_what_is_joined_to_a_message_goes_to_its_own_peer_only() -> None:
    """Two peers may be sent the same message: what is added for the one is not added for the other."""
    outbox = Outbox(LIMIT)
    first = append(1, 1)
    outbox.post(first, 10)
    outbox.post(Outgoing(0, "c", first.message, False, first.entries), 10)
    outbox.post(append(2, 1), 10)
    outbox.post(append(3, 1), 10)
    left = {o.peer: data_of(o) for o in outbox.take(0)}
    assert left == {"b": [b"\x012", b"\x013", b"\x014"], "c": [b"\x012"]}
