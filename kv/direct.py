"""The direct way between a client and a node, as both ends know it (pure).

A message on a gRPC stream costs each Python end some hundred microseconds of CPU, a message on a socket some tens. So
a node offers each Pipeline stream a plain TCP connection beside it, for the same messages. The offer stands in the
initial metadata of the stream: a port at the host where the client has reached the node, and a token. A client that takes
it up connects, shows the token, and once it was let in sends its messages there; the gRPC stream stays open, and
its end is the end of both. A client that does not know the offer, or cannot reach the port, loses nothing but speed.

On the connection: the preface, then frames (`kv.frames`). The client's first frame is the token; the node's first is empty
and says that the client is let in. Then each of the client's is a serialized `kv.v1.PipelineRequest`, each of the
node's a `kv.v1.PipelineResponse`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

PREFACE: Final = b"KVP1"
"""The first bytes, both ways. The digit is the version of the format."""
METADATA_KEY: Final = "ringkv-direct"
TOKEN_BYTES: Final = 16
PORT_MAX: Final = 65_535


class Offer(NamedTuple):
    """Where to connect, and what to show there."""

    port: int
    token: bytes

    def encode(self) -> str:
        """Return it as the metadata holds it."""
        return f"{self.port} {self.token.hex()}"


def read_offer(metadata: Iterable[tuple[str, str | bytes]]) -> Offer | None:
    """Return the offer in a stream's initial metadata; None if there is none that this version understands."""
    for key, value in metadata:
        if key == METADATA_KEY and isinstance(value, str):
            port, _, token = value.partition(" ")
            try:
                offer = Offer(int(port), bytes.fromhex(token))
            except ValueError:
                return None
            good = 0 < offer.port <= PORT_MAX and len(offer.token) == TOKEN_BYTES
            return offer if good else None
    return None
