"""The sessions of a partition: which requests were applied, and with what result.

Here lives what makes a write safe to send again ("linearizable semantics for clients", Raft
dissertation, section 6.3), and the stored form of a session. Pure: time is the time of commands,
so that each replica forgets the same sessions at the same entry. The limits are part of the state
machine for that reason: they must be equal on all replicas of a partition.

A session is identified by the entry that opened it. Within a session each request has a sequence;
requests may arrive in any order. `acknowledged` is the client's word that it will not repeat a
sequence up to there; `forgotten` is where the table itself had to give up.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from struct import Struct
from typing import Final

ORDINAL_BITS: Final = 16
"""A stamp is (log index << ORDINAL_BITS) | ordinal of the batch in its command: unique, and it grows."""

_FORMAT: Final = 1
_HEADER: Final = Struct("<BQQQQII")
"""Format, stamp, time_ms, acknowledged, forgotten, number of results, number of tombstones."""
_RESULT: Final = Struct("<QI")
"""Sequence, length; followed by the result."""
_TOMBSTONE: Final = Struct("<Q")
"""Sequence."""


class Verdict(Enum):
    """What the table knows of a request that was not, or cannot be, applied now."""

    NEW = "new"
    """Never applied: apply it, then `record` it."""
    EXPIRED = "expired"
    """The session is unknown: never opened, unused for too long, or the least recently used of too many."""
    EVICTED = "evicted"
    """Applied, or acknowledged by the client; the result is no longer kept."""
    FORGOTTEN = "forgotten"
    """So old that the table cannot tell whether it was applied."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of the table. At each bound the oldest goes."""

    sessions_max: int
    session_results_max: int
    """Results kept for each session, and as many tombstones again."""
    session_result_bytes_max: int
    """Bytes of results kept for each session."""
    ttl_ms: int


@dataclass(slots=True)
class Session:
    """One session. Results and tombstones are in the order in which they came to be."""

    stamp: int
    """Of the last use."""
    time_ms: int
    """Of the last use."""
    acknowledged: int = 0
    forgotten: int = 0
    results: dict[int, bytes] = field(default_factory=dict)
    tombstones: dict[int, None] = field(default_factory=dict)
    """Applied sequences whose results were evicted. A dict for its order."""
    result_bytes: int = 0

    def encode(self) -> bytes:
        """Return the stored form."""
        counts = len(self.results), len(self.tombstones)
        head = (_FORMAT, self.stamp, self.time_ms, self.acknowledged, self.forgotten, *counts)
        parts = [_HEADER.pack(*head)]
        parts.extend(_RESULT.pack(seq, len(result)) + result for seq, result in self.results.items())
        parts.extend(_TOMBSTONE.pack(sequence) for sequence in self.tombstones)
        return b"".join(parts)

    @staticmethod
    def decode(encoded: bytes) -> Session:
        """Return the session that `encoded` holds. Raises `ValueError` if it is not one."""
        try:
            return Session._decode(encoded)
        except struct.error as error:
            raise ValueError(f"a session of {len(encoded)} bytes is damaged: {error}") from error

    @staticmethod
    def _decode(encoded: bytes) -> Session:
        if encoded[:1] != bytes((_FORMAT,)):
            raise ValueError("not a session of a format that this version knows: upgrade this node")
        _, stamp, time_ms, acknowledged, forgotten, results, tombstones = _HEADER.unpack_from(encoded)
        session = Session(stamp, time_ms, acknowledged, forgotten)
        offset = _HEADER.size
        for _ in range(results):
            sequence, length = _RESULT.unpack_from(encoded, offset)
            offset += _RESULT.size
            if sequence in session.results:
                raise ValueError(f"a session of {len(encoded)} bytes has two results of sequence {sequence}")
            session.keep(sequence, encoded[offset : offset + length])
            offset += length
        if offset + tombstones * _TOMBSTONE.size != len(encoded):
            raise ValueError(
                f"a session of {len(encoded)} bytes should have {tombstones} tombstones at {offset}"
            )
        session.tombstones = {sequence: None for (sequence,) in _TOMBSTONE.iter_unpack(encoded[offset:])}
        if len(session.tombstones) != tombstones:
            raise ValueError(f"a session of {len(encoded)} bytes has a tombstone twice")
        return session

    def acknowledge(self, sequence: int) -> None:
        """Forget the results and tombstones up to `sequence`."""
        if sequence <= self.acknowledged:
            return
        if sequence - self.acknowledged < len(self.results) + len(self.tombstones):
            gone: Iterable[int] = range(self.acknowledged + 1, sequence + 1)
        else:  # a jump: look through what is known rather than through what was jumped over
            gone = [known for known in (*self.results, *self.tombstones) if known <= sequence]
        for known in gone:
            self.result_bytes -= len(self.results.pop(known, b""))
            self.tombstones.pop(known, None)
        self.acknowledged = sequence

    def keep(self, sequence: int, result: bytes) -> None:
        """Remember the result of `sequence`."""
        assert sequence not in self.results, "a request is applied once"
        self.results[sequence] = result
        self.result_bytes += len(result)

    def trim(self, results_max: int, bytes_max: int) -> None:
        """Turn the oldest results into tombstones, and give up the oldest tombstones, down to the bounds."""
        while len(self.results) > results_max or self.result_bytes > bytes_max:
            oldest = next(iter(self.results))
            self.result_bytes -= len(self.results.pop(oldest))
            self.tombstones[oldest] = None
        while len(self.tombstones) > results_max:
            oldest = next(iter(self.tombstones))
            del self.tombstones[oldest]
            self.forgotten = max(self.forgotten, oldest)


class SessionTable:
    """All sessions of a partition, least recently used first."""

    def __init__(self, limits: SessionLimits) -> None:
        self.limits = limits
        self._sessions: OrderedDict[int, Session] = OrderedDict()
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    def load(self, stored: Iterable[tuple[int, bytes]]) -> None:
        """Replace the table by what a checkpoint holds, as (session id, stored form)."""
        decoded = [(session_id, Session.decode(encoded)) for session_id, encoded in stored]
        decoded.sort(key=lambda pair: pair[1].stamp)
        self._sessions = OrderedDict(decoded)
        self._changed.clear()

    def take_changes(self) -> list[tuple[int, bytes | None]]:
        """Return what changed since the last call, for the checkpoint; None for a session that is gone."""
        changes: list[tuple[int, bytes | None]] = []
        for session_id in sorted(self._changed):
            session = self._sessions.get(session_id)
            changes.append((session_id, None if session is None else session.encode()))
        self._changed.clear()
        return changes

    def expire(self, time_ms: int) -> None:
        """Drop the sessions that were not used for `ttl_ms`. Called before each command."""
        while self._sessions:
            oldest = next(iter(self._sessions))
            if time_ms - self._sessions[oldest].time_ms < self.limits.ttl_ms:
                return
            self._drop(oldest)

    def open(self, session_id: int, time_ms: int) -> None:
        """Open a session; its id is also the stamp of its first use."""
        assert session_id not in self._sessions, "session ids are unique"
        self._sessions[session_id] = Session(stamp=session_id, time_ms=time_ms)
        self._changed.add(session_id)
        while len(self._sessions) > self.limits.sessions_max:
            self._drop(next(iter(self._sessions)))

    def check(
        self, session_id: int, sequence: int, acknowledged: int, stamp: int, time_ms: int
    ) -> Verdict | bytes:
        """Return the first result if the request is a repetition, else a verdict. Counts as a use."""
        session = self._sessions.get(session_id)
        if session is None:
            return Verdict.EXPIRED
        self._sessions.move_to_end(session_id)
        self._changed.add(session_id)
        session.stamp, session.time_ms = stamp, time_ms
        session.acknowledge(acknowledged)
        result = session.results.get(sequence)
        if result is not None:
            return result
        if sequence in session.tombstones or sequence <= session.acknowledged:
            return Verdict.EVICTED
        return Verdict.FORGOTTEN if sequence <= session.forgotten else Verdict.NEW

    def record(self, session_id: int, sequence: int, result: bytes) -> None:
        """Remember the result of a request that `check` called NEW in the same command."""
        session = self._sessions.get(session_id)
        if session is None:  # the request itself opened one session too many, and this was the oldest
            return
        session.keep(sequence, result)
        session.trim(self.limits.session_results_max, self.limits.session_result_bytes_max)

    def _drop(self, session_id: int) -> None:
        del self._sessions[session_id]
        self._changed.add(session_id)
