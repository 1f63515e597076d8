"""Routes: what a request asks for beside its operations, as the client's lanes are keyed by it.

Requests with different options never share a request on the wire, so each route has lanes of its own, one for each
partition. A route says whom to ask and what is written around the operations; it decides nothing else.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from kv.client.levels import LINEARIZABLE, Level, Preference, PreferenceKind, read_options
from kv.client.types import ReadLevel, WriteLevel
from kv.ids import GroupId
from kv.v1 import kv_pb2

if TYPE_CHECKING:
    from kv.client.lane import Lane

RouteKey: TypeAlias = "tuple[Kind, Level, Preference | None, WriteLevel]"
"""What a route is made of."""

_LEADER_ONLY: Final = frozenset({ReadLevel.LEASE})
_BY_LEADER: Final = frozenset({ReadLevel.LINEARIZABLE, ReadLevel.LEASE})
"""The levels that the leader serves unless another replica is preferred."""


class Kind(IntEnum):
    """What may travel together."""

    WRITE = 0
    """Anything that goes through the partition's log; carries a session and a sequence."""
    READ = 1
    """Reads only."""
    ALONE = 2
    """Goes through the log without a session, alone in its request, and may be repeated: a session's opening
    (a second one is an orphan that expires), a question for an outcome."""


class Route:
    """One way of asking, with its lanes by partition."""

    __slots__ = (
        "any_replica",
        "kind",
        "lanes",
        "level",
        "options",
        "plain",
        "preference",
        "to_leader",
        "wire_level",
        "write",
        "write_level",
    )

    def __init__(
        self,
        kind: Kind,
        level: Level = LINEARIZABLE,
        preference: Preference | None = None,
        write_level: WriteLevel = WriteLevel.QUORUM,
    ) -> None:
        """Make a route; a level that only the leader keeps follows no preference."""
        if kind is not Kind.READ or level.kind in _LEADER_ONLY:
            preference = None
        self.kind = kind
        self.level = level
        # The enum numbers are equal (a test holds them so); mypy-protobuf gives them a type of their own.
        self.wire_level = kv_pb2.ReadLevel.ValueType(int(level.kind))
        self.preference = preference
        self.write_level = write_level
        self.write = kind is Kind.WRITE
        """Whether an attempt may change something."""
        by_leader = kind is not Kind.READ or level.kind in _BY_LEADER
        prefers_leader = preference is not None and preference.kind is PreferenceKind.LEADER
        self.to_leader = prefers_leader or (by_leader and preference is None)
        """Whether the leader serves it, so that the evidence tells who leads."""
        self.any_replica = preference is None and not by_leader
        """Whether the replicas are asked in turn."""
        options = read_options(level, preference)
        self.options: kv_pb2.ReadOptions | None = options if options.ByteSize() else None
        """What travels beside the level; None: nothing."""
        self.plain = (
            self.options is None and level.kind is not ReadLevel.SESSION and write_level is not WriteLevel.ALL
        )
        """Whether nothing but the level travels around the operations."""
        self.lanes: dict[GroupId, Lane] = {}
