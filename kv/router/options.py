"""What a request may ask of its reads and writes: levels and options, checked once at the door.

Pure. Here live the rules on `ReadLevel`, `ReadOptions` and `WriteLevel`. What a level promises is kept by the
replica (`kv.partition`) and, for QUORUM and ALL, by `kv.router.quorum`; where a read goes is in `kv.router.target`.
"""

from __future__ import annotations

from typing import Final

from kv.errors import InvalidArgument
from kv.ids import GroupId, check_node_id
from kv.v1 import kv_pb2

ANYWHERE: Final = frozenset(
    {
        kv_pb2.READ_LEVEL_STALE,
        kv_pb2.READ_LEVEL_SESSION,
        kv_pb2.READ_LEVEL_BOUNDED,
        kv_pb2.READ_LEVEL_QUORUM,
        kv_pb2.READ_LEVEL_ALL,
    }
)
"""Levels that any replica may serve."""

FANNED_OUT: Final = frozenset({kv_pb2.READ_LEVEL_QUORUM, kv_pb2.READ_LEVEL_ALL})
"""Levels that one replica alone cannot serve: the router asks several."""

_LEVELS: Final = frozenset(kv_pb2.ReadLevel.values())
_PREFERENCES: Final = frozenset(kv_pb2.ReplicaPreference.values())
_WRITE_LEVELS: Final = frozenset(kv_pb2.WriteLevel.values())


def check_read(level: kv_pb2.ReadLevel.ValueType, read: kv_pb2.ReadOptions) -> None:
    """Raise `InvalidArgument` unless the level exists and has the options that it needs."""
    if level not in _LEVELS:
        raise InvalidArgument(f"there is no read level {level}", metadata={"level": level})
    if read.preference not in _PREFERENCES:
        raise InvalidArgument(
            f"there is no replica preference {read.preference}", metadata={"preference": read.preference}
        )
    if level == kv_pb2.READ_LEVEL_BOUNDED and not read.max_age_ms:
        raise InvalidArgument("a BOUNDED read says by max_age_ms how old the answer may be: set it above 0")
    if read.node:
        check_node_id(read.node)


def check_write(level: kv_pb2.WriteLevel.ValueType) -> None:
    """Raise `InvalidArgument` unless the write level exists."""
    if level not in _WRITE_LEVELS:
        raise InvalidArgument(f"there is no write level {level}", metadata={"write_level": level})


def check_reach(level: kv_pb2.ReadLevel.ValueType, read: kv_pb2.ReadOptions, replication_factor: int) -> None:
    """Raise `InvalidArgument` if a QUORUM read asks for more replicas than a partition has."""
    if level == kv_pb2.READ_LEVEL_QUORUM and read.replicas > replication_factor:
        raise InvalidArgument(
            f"a QUORUM read of {read.replicas} replicas where a partition has {replication_factor}: "
            "ask for fewer, or 0 for a majority",
            metadata={"replicas": read.replicas, "replication_factor": replication_factor},
        )


def replicas_wanted(level: kv_pb2.ReadLevel.ValueType, asked: int, replicas: int) -> int:
    """Return how many of `replicas` must answer a QUORUM (`asked`; 0: a majority) or ALL read."""
    if level == kv_pb2.READ_LEVEL_ALL:
        return replicas
    return asked or replicas // 2 + 1


def share_of(read: kv_pb2.ReadOptions, partition: GroupId) -> kv_pb2.ReadOptions:
    """Return the options with what they say of that partition, and of no other."""
    share = kv_pb2.ReadOptions()
    share.CopyFrom(read)
    del share.after[:]
    share.after.extend(pair for pair in read.after if pair.partition == partition)
    return share
