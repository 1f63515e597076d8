"""The offer of the direct way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.direct import METADATA_KEY, PORT_MAX, TOKEN_BYTES, Offer, read_offer


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
