"""The offer of the direct way, and the frames on it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.direct import METADATA_KEY, PORT_MAX, PREFACE, TOKEN_BYTES, Offer, read_offer
from kv.frames import EMPTY, HEADER, BadFrame, FrameReader, frame_of


@given(st.integers(1, PORT_MAX), st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES))
def test_an_offer_is_read_as_it_was_written(port: int, token: bytes) -> None:
    """It passes through the metadata among other entries."""
    offer = Offer(port, token)
    assert read_offer([("other", b"\x00"), (METADATA_KEY, offer.encode())]) == offer


@given(st.one_of(st.text(max_size=50), st.from_regex(r"-?[0-9]{1,6} [0-9a-f]{0,40}", fullmatch=True)))
def test_what_is_no_offer_is_none(text: str) -> None:
    """A later version may say something else there: then the stream goes on as it is."""
    offer = read_offer([(METADATA_KEY, text)])
    assert offer is None or (0 < offer.port <= PORT_MAX and len(offer.token) == TOKEN_BYTES)
    assert read_offer([(METADATA_KEY, text.encode())]) is None
    assert read_offer([]) is None


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


def test_bounds_of_frames() -> None:
    """A payload at the bound passes, one above is refused before it has come; another protocol at its first byte."""
    assert list(FrameReader(PREFACE, 10).feed(PREFACE + frame_of(bytes(10)) + EMPTY)) == [bytes(10), b""]
    with pytest.raises(BadFrame, match="above 10"):
        list(FrameReader(PREFACE, 10).feed(PREFACE + HEADER.pack(11, 0)))
    with pytest.raises(BadFrame, match="instead of"):
        list(FrameReader(PREFACE, 10).feed(b"PRI"))
