"""Frames: bytes on a plain TCP connection of ours."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.frames import EMPTY, HEADER, JOINED_BYTES_MAX, BadFrame, FrameReader, frame_of, write_frame

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


class Written:
    """A sink that keeps what is written, write by write."""

    def __init__(self) -> None:
        self.writes: list[list[bytes]] = []

    def write(self, data: bytes, /) -> None:
        self.writes.append([data])

    def writelines(self, pieces: Iterable[bytes], /) -> None:
        self.writes.append(list(pieces))


@pytest.mark.parametrize("size", [0, 1, JOINED_BYTES_MAX - 1, JOINED_BYTES_MAX, 3 * JOINED_BYTES_MAX])
def test_a_frame_of_pieces_is_the_frame_of_all_of_them(size: int) -> None:
    """It is written at once: joined if it is small, and piece by piece, without a copy, if it is not."""
    sink, large = Written(), bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    write_frame(sink, (b"a", large, b""))
    (pieces,) = sink.writes
    assert b"".join(pieces) == frame_of(b"a" + large)
    assert any(piece is large for piece in pieces) == (size >= JOINED_BYTES_MAX)


@given(
    sizes=st.lists(st.sampled_from([0, 1, 4095, 4096, 70_000, 300_000]), max_size=4),
    cuts=st.lists(st.sampled_from([1, 7, 8, 100, 4095, 4096, 65_536, 262_144]), max_size=30),
)
def test_large_frames_survive_any_cutting(sizes: list[int], cuts: list[int]) -> None:
    """As small ones do: what comes in large pieces is kept as it came, what comes in small ones is joined."""
    payloads = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    stream = PREFACE + b"".join(map(frame_of, payloads))
    reader = FrameReader(PREFACE, 300_000)
    read: list[bytes] = []
    for size in (*cuts, len(stream)):
        read += reader.feed(stream[:size])
        stream = stream[size:]
    assert read == payloads


def test_a_frame_that_comes_byte_by_byte_takes_no_more_than_its_bytes() -> None:
    """A sender of single bytes does not make the reader keep an object for each of them."""
    size = 100_000
    frame = frame_of(bytes(size))[:-1]
    reader = FrameReader(b"", size)
    tracemalloc.start()
    try:
        for place in range(len(frame)):
            assert list(reader.feed(frame[place : place + 1])) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * size
    assert list(reader.feed(b"\0")) == [bytes(size)]
