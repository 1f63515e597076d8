"""Frames: bytes on a plain TCP connection of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.frames import EMPTY, HEADER, BadFrame, FrameReader, frame_of

PREFACE = b"KVT1"


@given(payloads=st.lists(st.binary(max_size=200)), cuts=st.lists(st.integers(1, 40)))
def test_frames_survive_any_cutting(payloads: list[bytes], cuts: list[int]) -> None:
    """However the bytes are cut on their way, the reader gives the payloads that were sent, in order."""
    stream = PREFACE + b"".join(map(frame_of, payloads))
    reader = FrameReader(PREFACE, 200)
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
    reader = FrameReader(PREFACE, 1000)
    try:
        assert list(reader.feed(bytes(stream))) == []
    except BadFrame:
        return


def test_a_frame_that_comes_whole_and_alone_is_checked_like_any_other() -> None:
    """Length and checksum of the usual frame are looked at too, and what follows it is cut as ever."""
    reader = FrameReader(PREFACE, 10)
    assert list(reader.feed(PREFACE)) == []
    assert list(reader.feed(frame_of(b"one"))) == [b"one"]
    assert list(reader.feed(EMPTY)) == [b""]
    assert list(reader.feed(frame_of(b"two")[:5])) == []
    assert list(reader.feed(frame_of(b"two")[5:])) == [b"two"]
    assert list(reader.feed(frame_of(bytes(10)))) == [bytes(10)]
    with pytest.raises(BadFrame, match="above 10"):
        list(reader.feed(frame_of(bytes(11))))
    with pytest.raises(BadFrame, match="checksum"):
        list(reader.feed(frame_of(b"one")[:-1] + b"f"))


def test_bounds_of_frames() -> None:
    """A payload at the bound passes, one above is refused before it has come; another protocol at its first byte."""
    assert list(FrameReader(PREFACE, 10).feed(PREFACE + frame_of(bytes(10)) + EMPTY)) == [bytes(10), b""]
    with pytest.raises(BadFrame, match="above 10"):
        list(FrameReader(PREFACE, 10).feed(PREFACE + HEADER.pack(11, 0)))
    with pytest.raises(BadFrame, match="instead of"):
        list(FrameReader(PREFACE, 10).feed(b"PRI"))
