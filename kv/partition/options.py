"""What a request may ask for besides its operations: read levels and their bounds, write levels, a trace.

Here live the checks of those fields and their decoded form. They never change what an entry does to the
state: the machine does not look at them. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kv.errors import InvalidArgument
from kv.v1 import kv_pb2

AS_STALE: Final = frozenset(
    (kv_pb2.READ_LEVEL_STALE, kv_pb2.READ_LEVEL_QUORUM, kv_pb2.READ_LEVEL_ALL),
)
"""Levels at which one replica answers from what it has; for QUORUM and ALL the router asks several."""


@dataclass(frozen=True, slots=True)
class Options:
    """The rare fields of a batch, decoded."""

    max_age_ms: int = 0
    """BOUNDED: how old the answer may be."""
    after: tuple[tuple[int, int], ...] = ()
    """SESSION: (partition, index) pairs; the answer is not older."""
    local: bool = False
    """The asked replica should serve, whether it leads or not."""
    node: str = ""
    """The node whose replica should serve."""
    all_replicas: bool = False
    """Write level ALL."""
    all_timeout_s: float = 0.0
    """ALL: how long to wait for every replica; 0: the default."""
    trace: bool = False
    tells_revision: bool = True
    """A write that has a revision to tell: not the opening of a session, not an outcome query."""

    def after_index(self, partition: int) -> int:
        """Return the index at or above which this partition must be read; 0: any."""
        return max((index for named, index in self.after if named == partition), default=0)


PLAIN: Final = Options()
"""Those of a batch that asks for nothing special."""


def write_options(message: kv_pb2.BatchRequest, *, tells_revision: bool) -> Options:
    """Return the options of a batch that writes. Raises `InvalidArgument`: so nothing that raises is ever logged."""
    if message.write_level not in kv_pb2.WriteLevel.values():
        raise InvalidArgument(f"{message.write_level} is no write level of this version: use QUORUM or ALL")
    return Options(
        all_replicas=message.write_level == kv_pb2.WRITE_LEVEL_ALL,
        all_timeout_s=message.all_timeout_ms / 1000,
        trace=message.trace,
        tells_revision=tells_revision,
    )


def read_options(message: kv_pb2.BatchRequest) -> Options:
    """Return the options of a batch that reads. Raises `InvalidArgument`."""
    level, read = message.level, message.read
    if level not in kv_pb2.ReadLevel.values():
        raise InvalidArgument(
            f"{level} is no read level of this version: use LINEARIZABLE or another known one"
        )
    if level == kv_pb2.READ_LEVEL_BOUNDED and not read.max_age_ms:
        raise InvalidArgument("a BOUNDED read needs max_age_ms above 0: say how old the answer may be")
    if read.preference not in kv_pb2.ReplicaPreference.values():
        raise InvalidArgument(f"{read.preference} is no replica preference of this version: leave it out")
    return Options(
        max_age_ms=read.max_age_ms,
        after=tuple((bound.partition, bound.index) for bound in read.after),
        local=read.preference == kv_pb2.REPLICA_PREFERENCE_LOCAL,
        node=read.node,
        trace=message.trace,
    )
