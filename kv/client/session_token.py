"""Session tokens: how far a reader has seen, as text that another process may take over. Pure.

A token holds for each partition the highest log index that its owner has seen, and a mark of the cluster, because
indexes of one mean nothing in another. It is no secret and proves nothing: whoever sends one with a SESSION read
only asks that the answer is not older (read your writes and monotonic reads; Terry et al., PDIS 1994).

    s1-CCCCCCCC-P.I-P.I...   mark of the cluster and indexes in hexadecimal, partitions in decimal
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from zlib import crc32

from kv.errors import InvalidArgument
from kv.ids import GroupId

TOKEN_PARTITIONS_MAX: Final = 4096
"""As many as a cluster may have (`kv.config.PARTITIONS_MAX`)."""

TOKEN_CHARS_MAX: Final = 16 + TOKEN_PARTITIONS_MAX * len("-4096.ffffffffffffffff")
"""A longer text is no token."""

PARTITION_MAX: Final = 2**32 - 1
INDEX_MAX: Final = 2**63 - 1
"""Higher ones no log reaches."""

NO_CLUSTER: Final = "00000000"
"""The mark of a token that has seen nothing yet."""

_FORMAT = re.compile(r"s1-([0-9a-f]{8})((?:-[0-9]{1,10}\.[0-9a-f]{1,16})*)")


def cluster_mark(cluster: str) -> str:
    """Return the mark of the cluster of that name; two names may share one, which is unlikely and harmless."""
    return f"{crc32(cluster.encode()) or 1:08x}"


def write_token(mark: str, seen: Mapping[GroupId, int]) -> str:
    """Return the token for the indexes seen; partitions in their order."""
    return "-".join([f"s1-{mark}", *(f"{part}.{seen[part]:x}" for part in sorted(seen))])


def parse_token(text: str) -> tuple[str, dict[GroupId, int]]:
    """Return the mark and the indexes of a token; raise `InvalidArgument` if it is none."""
    found = _FORMAT.fullmatch(text) if len(text) <= TOKEN_CHARS_MAX else None
    if found is None:
        raise InvalidArgument(
            f"{text[:40]!r} is not a session token: take it whole from session_token() or its header"
        )
    seen: dict[GroupId, int] = {}
    for entry in found[2].split("-")[1:]:
        partition, _, index = entry.partition(".")
        if not (1 <= int(partition) <= PARTITION_MAX and 1 <= int(index, 16) <= INDEX_MAX):
            raise InvalidArgument(f"the session token has a partition or an index out of range: {entry!r}")
        if int(partition) in seen:
            raise InvalidArgument(f"the session token names partition {int(partition)} twice")
        seen[int(partition)] = int(index, 16)
    if len(seen) > TOKEN_PARTITIONS_MAX:
        raise InvalidArgument(
            f"the session token names {len(seen)} partitions, more than {TOKEN_PARTITIONS_MAX}"
        )
    if seen and found[1] == NO_CLUSTER:
        raise InvalidArgument("the session token has indexes of no cluster: take it whole")
    return found[1], seen


class Seen:
    """The highest index seen in each partition. Indexes only grow."""

    __slots__ = ("_mark", "indexes")

    def __init__(self) -> None:
        """Start with nothing seen, in no cluster."""
        self._mark = NO_CLUSTER
        self.indexes: dict[GroupId, int] = {}

    def note(self, partition: GroupId, index: int) -> None:
        """Take what an answer proves."""
        if index > self.indexes.get(partition, 0):
            self.indexes[partition] = index

    def bind(self, cluster: str) -> None:
        """Take the cluster's name; raise `InvalidArgument`, and forget, if a token was of another one."""
        mark, known = cluster_mark(cluster), self._mark
        self._mark = mark
        if known not in (NO_CLUSTER, mark):
            self.indexes.clear()
            raise InvalidArgument(
                f"the session token that was observed is not of cluster {cluster!r}: its indexes are dropped"
            )

    def observe(self, token: str) -> None:
        """Take over what another reader has seen; raise `InvalidArgument` for what is no token of this cluster."""
        mark, seen = parse_token(token)
        if self._mark != NO_CLUSTER and mark not in (NO_CLUSTER, self._mark):
            raise InvalidArgument("the session token is of another cluster: use each with its own")
        if mark != NO_CLUSTER:
            self._mark = mark
        for partition, index in seen.items():
            self.note(partition, index)

    def token(self) -> str:
        """Return what was seen, for another reader."""
        return write_token(self._mark, self.indexes)
