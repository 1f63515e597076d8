"""Frames between two nodes; how a stream is cut into frames is tested in `tests/test_frames.py`."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kv.frames import FrameReader
from kv.internal.v1 import peer_pb2, raft_pb2
from kv.raft.frames import KEEPALIVE, PREFACE, payload_of, raw_of


def test_a_keepalive_is_an_empty_frame() -> None:
    """It carries nothing, and passes the checks of every frame."""
    assert list(FrameReader(PREFACE, 0).feed(PREFACE + KEEPALIVE)) == [b""]


@given(
    st.lists(
        st.builds(
            raft_pb2.RaftMessage,
            group=st.integers(0, 3),
            sender=st.text(max_size=5),
            append=st.builds(
                raft_pb2.Append,
                entries=st.lists(st.builds(raft_pb2.Entry, data=st.binary(max_size=40)), max_size=3),
            ),
        ),
        max_size=4,
    ),
    st.sampled_from([0, 90, 16_000, 70_000]),
)
def test_a_payload_is_the_frame_of_its_messages(
    messages: list[raft_pb2.RaftMessage], more_bytes: int
) -> None:
    """The bytes are those that protobuf writes for a frame of these messages, whatever their lengths."""
    messages.append(raft_pb2.RaftMessage(sender="x" * more_bytes))
    raws = [message.SerializeToString() for message in messages]
    assert payload_of(raws) == peer_pb2.RaftFrame(messages=messages).SerializeToString()


@pytest.mark.parametrize(
    "length", [0, 124, 125, 126, 16_379, 16_380, 16_381, 2_097_146, 2_097_147, 2_097_148]
)
def test_a_payload_says_how_long_each_message_is(length: int) -> None:
    """At each number of bytes that a length takes, the messages are read back as they were."""
    message = raft_pb2.RaftMessage(sender="x" * length)
    payload = payload_of([message.SerializeToString()] * 2)
    assert list(peer_pb2.RaftFrame.FromString(payload).messages) == [message, message]


@given(
    group=st.integers(0, 2**32 - 1),
    term=st.integers(0, 2**64 - 1),
    prev=st.integers(0, 2**64 - 1),
    commit=st.integers(0, 2**64 - 1),
    entries=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=300)), max_size=4),
)
@example(group=0, term=0, prev=0, commit=0, entries=[(0, b"")])
@example(group=1, term=2, prev=3, commit=4, entries=[(5, bytes(1 << 20)), (6, b"x")])
def test_entries_behind_an_append_are_read_as_its_own(
    group: int, term: int, prev: int, commit: int, entries: list[tuple[int, bytes]]
) -> None:
    """What is written by hand is read as the message that Protobuf would write of them all."""
    head = raft_pb2.Append(prev_index=prev, commit_index=commit)
    message = raft_pb2.RaftMessage(group=group, sender="n1", term=term, append=head)
    read = raft_pb2.RaftMessage.FromString(raw_of(message, entries))
    for entry_term, data in entries:
        message.append.entries.add(term=entry_term, data=data)
    assert read == message
