"""Frames: bytes on a connection between two nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.internal.v1 import peer_pb2, raft_pb2
from kv.raft.frames import HEADER, KEEPALIVE, PREFACE, BadFrame, FrameReader, frame_of, payload_of


@given(payloads=st.lists(st.binary(max_size=200)), cuts=st.lists(st.integers(1, 40)))
def test_frames_survive_any_cutting(payloads: list[bytes], cuts: list[int]) -> None:
    """However the bytes are cut on their way, the reader gives the payloads that were sent, in order."""
    stream = PREFACE + b"".join(map(frame_of, payloads))
    reader = FrameReader(200)
    read: list[bytes] = []
    for size in (*cuts, len(stream)):
        read += reader.feed(stream[:size])
        stream = stream[size:]
    assert read == payloads


@given(payload=st.binary(min_size=1, max_size=50), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_a_frame(payload: bytes, place: int, bit: int) -> None:
    """Whichever bit is wrong, the payload is not given out: the reader refuses, or waits for more."""
    stream = bytearray(PREFACE + frame_of(payload))
    stream[place % len(stream)] ^= 1 << bit
    reader = FrameReader(1000)
    try:
        assert list(reader.feed(bytes(stream))) == []
    except BadFrame:
        return


def test_a_frame_at_the_bound_passes_and_one_above_does_not() -> None:
    """The bound is on the payload, and is held before the payload has come."""
    assert list(FrameReader(10).feed(PREFACE + frame_of(bytes(10)))) == [bytes(10)]
    with pytest.raises(BadFrame, match="above 10"):
        list(FrameReader(10).feed(PREFACE + HEADER.pack(11, 0)))


def test_another_protocol_is_refused_at_its_first_wrong_byte() -> None:
    """What does not begin as it must is no connection of ours; nothing is waited for."""
    with pytest.raises(BadFrame, match="instead of"):
        list(FrameReader(10).feed(b"PRI"))
    assert list(FrameReader(10).feed(PREFACE[:2])) == []


def test_a_keepalive_is_an_empty_frame() -> None:
    """It carries nothing, and passes the checks of every frame."""
    assert list(FrameReader(0).feed(PREFACE + KEEPALIVE)) == [b""]


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
    assert payload_of(messages) == peer_pb2.RaftFrame(messages=messages).SerializeToString()


@pytest.mark.parametrize(
    "length", [0, 124, 125, 126, 16_379, 16_380, 16_381, 2_097_146, 2_097_147, 2_097_148]
)
def test_a_payload_says_how_long_each_message_is(length: int) -> None:
    """At each number of bytes that a length takes, the messages are read back as they were."""
    message = raft_pb2.RaftMessage(sender="x" * length)
    assert list(peer_pb2.RaftFrame.FromString(payload_of([message, message])).messages) == [message, message]
