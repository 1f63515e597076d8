"""Outcome tokens: the name of one write, to ask later what became of it.

Pure: the text form and nothing else. A token is made by whoever owns the session of the write (a client, or a
router for a caller without a session) and understood by every node and client of the cluster; it holds no
secret. `OutcomeToken.parse` refuses what is not a token; a token of another cluster names a session that is
unknown there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kv.errors import InvalidArgument
from kv.ids import GroupId

TOKEN_CHARS_MAX: Final = 80
"""A longer text is no token."""

_FORMAT = re.compile(r"w1-(\d{1,10})-([0-9a-f]{1,16})-([0-9a-f]{1,16})-(\d{1,4})-(\d{1,4})")


@dataclass(frozen=True, slots=True)
class OutcomeToken:
    """Names `count` operations of one request, from `position` on."""

    partition: GroupId
    session: int
    sequence: int
    position: int = 0
    """Place of the first operation in the request's results."""
    count: int = 0
    """How many operations of the request are meant; 0: all from `position` on."""

    def __str__(self) -> str:
        return f"w1-{self.partition}-{self.session:x}-{self.sequence:x}-{self.position}-{self.count}"

    @staticmethod
    def parse(text: str) -> OutcomeToken:
        """Return the token that `text` is; raise `InvalidArgument` if it is none."""
        found = _FORMAT.fullmatch(text) if len(text) <= TOKEN_CHARS_MAX else None
        if found is None:
            raise InvalidArgument(
                f"{text[:TOKEN_CHARS_MAX]!r} is not an outcome token: take it whole from the error of the write"
            )
        partition, session, sequence, position, count = found.groups()
        token = OutcomeToken(int(partition), int(session, 16), int(sequence, 16), int(position), int(count))
        if not (token.partition and token.session and token.sequence):
            raise InvalidArgument(
                "the outcome token names no request: partition, session and sequence start at 1"
            )
        return token
