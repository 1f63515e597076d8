"""What a request asks for beside its operations: read level, replica preference, write level. Pure.

Values with a text form each, the same in a `kv://` address, on the command line and over HTTP; `parse` refuses
what is not understood and names what is. How a level is kept is the servers' business; which address the client
asks for it is `kv.client.replicas`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, TypeAlias

from kv.client.duration import parse_duration_s
from kv.client.types import ReadLevel, WriteLevel
from kv.errors import InvalidArgument
from kv.ids import check_node_id
from kv.v1 import kv_pb2

AGE_MS_MAX: Final = 3_600_000
"""A bound above an hour is a mistake: STALE is meant, or a unit was confused."""

TEXTS_REMEMBERED_MAX: Final = 256
"""Levels that were read from text lately: a program says the same few again and again."""

REPLICAS_MAX: Final = 9
"""More replicas than this no partition has (`NodeConfig.replication_factor`)."""

LEVEL_TEXTS: Final = "linearizable, lease, session, bounded:200ms, stale, quorum, quorum:2, all"
PREFERENCE_TEXTS: Final = "leader, nearest, least-loaded, local, or the id of a node"
WRITE_LEVEL_TEXTS: Final = "quorum, all"

_NODE_MARK: Final = "node:"


@dataclass(frozen=True, slots=True)
class Level:
    """What a read promises, with its bound. Raises `InvalidArgument` if it contradicts itself."""

    kind: ReadLevel
    max_age_ms: int = 0
    """BOUNDED: how old the answer may be, 1 to `AGE_MS_MAX`; else 0."""
    replicas: int = 0
    """QUORUM: how many replicas answer, up to `REPLICAS_MAX`; 0: a majority. Else 0."""

    def __post_init__(self) -> None:
        if self.kind is ReadLevel.BOUNDED:
            if not 1 <= self.max_age_ms <= AGE_MS_MAX:
                raise InvalidArgument(
                    f"a bounded read needs an age of 1 to {AGE_MS_MAX} ms, not {self.max_age_ms}:"
                    " give it as in bounded:200ms"
                )
        elif self.max_age_ms:
            raise InvalidArgument(f"an age goes with bounded only, not with {self.kind.name.lower()}")
        if self.replicas and self.kind is not ReadLevel.QUORUM:
            raise InvalidArgument(
                f"a number of replicas goes with quorum only, not with {self.kind.name.lower()}"
            )
        if not 0 <= self.replicas <= REPLICAS_MAX:
            raise InvalidArgument(
                f"a quorum read asks 1 to {REPLICAS_MAX} replicas, or 0 for a majority, not {self.replicas}"
            )

    @staticmethod
    def parse(text: str) -> Level:
        """Return the level that `text` names, such as "lease", "bounded:200ms" or "quorum:2", in any case."""
        return _parse_level(text)

    def __str__(self) -> str:
        name = self.kind.name.lower()
        if self.kind is ReadLevel.BOUNDED:
            return f"{name}:{self.max_age_ms}ms"
        return f"{name}:{self.replicas}" if self.replicas else name


LINEARIZABLE: Final = Level(ReadLevel.LINEARIZABLE)
"""The default."""

LevelLike: TypeAlias = Level | ReadLevel | str
"""How a caller may say it: a `Level`, the bare `ReadLevel` where it needs no bound, or the text."""


def level_of(value: LevelLike) -> Level:
    """Return the level that `value` means; raise `InvalidArgument` if there is none."""
    if isinstance(value, Level):
        return value
    return Level(value) if isinstance(value, ReadLevel) else Level.parse(_text(value, "level"))


@lru_cache(maxsize=TEXTS_REMEMBERED_MAX)
def _parse_level(text: str) -> Level:
    name, mark, bound = text.lower().partition(":")
    kind = _KINDS.get(name)
    if kind is None:
        raise InvalidArgument(f"there is no read level {text!r}: give one of {LEVEL_TEXTS}")
    if kind is ReadLevel.BOUNDED:
        return Level(kind, max_age_ms=_age_ms(text, bound))
    if kind is ReadLevel.QUORUM and mark:
        return Level(kind, replicas=_replicas(text, bound))
    if mark:
        raise InvalidArgument(f"the read level {name} takes no {bound!r}: give one of {LEVEL_TEXTS}")
    return Level(kind)


def _age_ms(text: str, bound: str) -> int:
    if not bound:
        raise InvalidArgument(f"the read level {text!r} lacks its age: give it as in bounded:200ms")
    milliseconds = parse_duration_s(bound) * 1000
    age_ms = round(milliseconds)
    if age_ms < 1 or abs(milliseconds - age_ms) > _ROUNDING_MS:
        raise InvalidArgument(f"the age in {text!r} is not a whole number of milliseconds")
    return age_ms


_ROUNDING_MS: Final = 1e-6
"""What the conversion of a unit may add to a whole number."""


def _replicas(text: str, bound: str) -> int:
    if not (bound.isascii() and bound.isdigit() and 1 <= int(bound[:4]) <= REPLICAS_MAX and len(bound) < 4):
        raise InvalidArgument(f"the number of replicas in {text!r} is not 1 to {REPLICAS_MAX}")
    return int(bound)


class PreferenceKind(Enum):
    """By what the replica is chosen."""

    LEADER = "leader"
    """The leader."""
    NEAREST = "nearest"
    """The one that answered the fastest of late."""
    LEAST_LOADED = "least-loaded"
    """The one with the fewest of this client's requests in flight."""
    LOCAL = "local"
    """That of the node which is asked: the first address that the user gave; over HTTP the node itself."""
    NODE = "node"
    """That of a named node."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Which replica should serve a read. Followed where the level allows it and the replica answers."""

    kind: PreferenceKind
    node: str = ""
    """Of NODE: its id. Else empty."""

    def __post_init__(self) -> None:
        if self.kind is PreferenceKind.NODE:
            check_node_id(self.node)
        elif self.node:
            raise InvalidArgument(f"a node id goes with a preference for a node, not with {self.kind.value}")

    @staticmethod
    def parse(text: str) -> Preference:
        """Return what `text` names; a node whose id is one of the words is written "node:ID"."""
        kind = _PREFERENCES.get(text)
        if kind is not None:
            return Preference(kind)
        try:
            return Preference(PreferenceKind.NODE, text.removeprefix(_NODE_MARK))
        except InvalidArgument as error:
            raise InvalidArgument(
                f"there is no preference {text[:80]!r}: give one of {PREFERENCE_TEXTS}"
            ) from error

    def __str__(self) -> str:
        if self.kind is not PreferenceKind.NODE:
            return str(self.kind.value)
        return f"{_NODE_MARK}{self.node}" if self.node in _PREFERENCES else self.node


PreferenceLike: TypeAlias = Preference | str


def preference_of(value: PreferenceLike) -> Preference:
    """Return the preference that `value` means; raise `InvalidArgument` if there is none."""
    return value if isinstance(value, Preference) else Preference.parse(_text(value, "prefer"))


WriteLevelLike: TypeAlias = WriteLevel | str


def write_level_of(value: WriteLevelLike) -> WriteLevel:
    """Return the write level that `value` means (any case); raise `InvalidArgument` if there is none."""
    if isinstance(value, WriteLevel):
        return value
    found = _WRITE_LEVELS.get(_text(value, "write_level").lower())
    if found is None:
        raise InvalidArgument(f"there is no write level {value!r}: give one of {WRITE_LEVEL_TEXTS}")
    return found


def read_options(level: Level, preference: Preference | None) -> kv_pb2.ReadOptions:
    """Return what travels beside the level; a SESSION read's indexes are the caller's to add."""
    options = kv_pb2.ReadOptions(max_age_ms=level.max_age_ms, replicas=level.replicas)
    match preference.kind if preference is not None else None:
        case None:
            pass
        case PreferenceKind.LEADER:
            options.preference = kv_pb2.REPLICA_PREFERENCE_LEADER
        case PreferenceKind.NODE:
            assert preference is not None, "matched above"
            options.node = preference.node
        case _:  # the one that is asked is the one that was chosen
            options.preference = kv_pb2.REPLICA_PREFERENCE_LOCAL
    return options


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text or one of our values, not {type(value).__name__}")
    return value


_KINDS: Final = {level.name.lower(): level for level in ReadLevel}
_PREFERENCES: Final = {kind.value: kind for kind in PreferenceKind if kind is not PreferenceKind.NODE}
_WRITE_LEVELS: Final = {level.name.lower(): level for level in WriteLevel}
