"""The sessions of a partition: which requests were applied, and with what result.

Here lives what makes a write safe to send again ("linearizable semantics for clients", Raft
dissertation, section 6.3), and the stored form of a session. Pure: time is the time of commands,
so that each replica forgets the same sessions at the same entry. The limits are part of the state
machine for that reason: they must be equal on all replicas of a partition.

A session is identified by the entry that opened it. Within a session each request has a sequence;
requests may arrive in any order. `acknowledged` is the client's word that it will not repeat a
sequence up to there; `forgotten` is where the table itself had to give up. A fence stands for a sequence
that was asked about before it was applied: the answer was "not applied", so it must stay true.
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
_FORMAT_FENCED: Final = 2
"""As 1, then the number of fences and the fences. Used only by a session that has some."""
_HEADER: Final = Struct("<BQQQQII")
"""Format, stamp, time_ms, acknowledged, forgotten, number of results, number of tombstones."""
_RESULT: Final = Struct("<QI")
"""Sequence, length; followed by the result."""
_TOMBSTONE: Final = Struct("<Q")
"""Sequence."""
_FENCES: Final = Struct("<I")
"""Number of fences; each is stored as a tombstone is."""


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
    FENCED = "fenced"
    """Never applied, and an outcome query was told so: it never will be."""


class Fate(Enum):
    """What the table knows of a request whose outcome was asked for."""

    APPLIED = "applied"
    """Applied once; the result is no longer kept. While it is kept, the result itself is the answer."""
    FENCED = "fenced"
    """Not applied, and it never will be."""
    UNKNOWN = "unknown"
    """The session is unknown, acknowledged the request, or is too full to remember it."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of the table. At each bound the oldest goes."""

    sessions_max: int
    session_results_max: int
    """Results and fences kept for each session together, and as many tombstones again."""
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
    fences: dict[int, None] = field(default_factory=dict)
    """Sequences that must never be applied."""

    def encode(self) -> bytes:
        """Return the stored form."""
        counts = len(self.results), len(self.tombstones)
        version = _FORMAT_FENCED if self.fences else _FORMAT
        head = (version, self.stamp, self.time_ms, self.acknowledged, self.forgotten, *counts)
        parts = [_HEADER.pack(*head)]
        parts.extend(_RESULT.pack(seq, len(result)) + result for seq, result in self.results.items())
        parts.extend(_TOMBSTONE.pack(sequence) for sequence in self.tombstones)
        if self.fences:
            parts.append(_FENCES.pack(len(self.fences)))
            parts.extend(_TOMBSTONE.pack(sequence) for sequence in self.fences)
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
        if encoded[:1] not in (bytes((_FORMAT,)), bytes((_FORMAT_FENCED,))):
            raise ValueError("not a session of a format that this version knows: upgrade this node")
        version, stamp, time_ms, acknowledged, forgotten, results, tombstones = _HEADER.unpack_from(encoded)
        session = Session(stamp, time_ms, acknowledged, forgotten)
        offset = _HEADER.size
        for _ in range(results):
            sequence, length = _RESULT.unpack_from(encoded, offset)
            offset += _RESULT.size
            if sequence in session.results:
                raise ValueError(f"a session of {len(encoded)} bytes has two results of sequence {sequence}")
            session.keep(sequence, encoded[offset : offset + length])
            offset += length
        session.tombstones, offset = _sequences(encoded, offset, tombstones)
        if version == _FORMAT_FENCED:
            (fences,) = _FENCES.unpack_from(encoded, offset)
            session.fences, offset = _sequences(encoded, offset + _FENCES.size, fences)
        if offset != len(encoded) or (version == _FORMAT_FENCED and not session.fences):
            raise ValueError(f"a session of {len(encoded)} bytes should end at {offset}")
        return session

    def acknowledge(self, sequence: int) -> None:
        """Forget the results, tombstones and fences up to `sequence`."""
        if sequence <= self.acknowledged:
            return
        if sequence - self.acknowledged < len(self.results) + len(self.tombstones) + len(self.fences):
            gone: Iterable[int] = range(self.acknowledged + 1, sequence + 1)
        else:  # a jump: look through what is known rather than through what was jumped over
            known_ones = (*self.results, *self.tombstones, *self.fences)
            gone = [known for known in known_ones if known <= sequence]
        for known in gone:
            self.result_bytes -= len(self.results.pop(known, b""))
            self.tombstones.pop(known, None)
            self.fences.pop(known, None)
        self.acknowledged = sequence

    def keep(self, sequence: int, result: bytes) -> None:
        """Remember the result of `sequence`."""
        assert sequence not in self.results, "a request is applied once"
        assert sequence not in self.fences, "what was declared not applied never is"
        self.results[sequence] = result
        self.result_bytes += len(result)

    def trim(self, results_max: int, bytes_max: int) -> None:
        """Give up what is oldest, down to the bounds: results become tombstones; fences go after all results.

        A tombstone or fence that goes takes all lower sequences with it that are not known otherwise: the
        table then answers for them that it cannot tell, and applies none of them.
        """
        while self.results and (
            len(self.results) + len(self.fences) > results_max or self.result_bytes > bytes_max
        ):
            oldest = next(iter(self.results))
            self.result_bytes -= len(self.results.pop(oldest))
            self.tombstones[oldest] = None
        for known in (self.fences, self.tombstones):
            while len(known) > results_max:
                oldest = next(iter(known))
                del known[oldest]
                self.forgotten = max(self.forgotten, oldest)


def _sequences(encoded: bytes, offset: int, count: int) -> tuple[dict[int, None], int]:
    """Return `count` sequences from `offset` on, in order, and the offset behind them. Raises `ValueError`."""
    end = offset + count * _TOMBSTONE.size
    if end > len(encoded):
        raise ValueError(f"a session of {len(encoded)} bytes should have {count} sequences at {offset}")
    found = {sequence: None for (sequence,) in _TOMBSTONE.iter_unpack(encoded[offset:end])}
    if len(found) != count:
        raise ValueError(f"a session of {len(encoded)} bytes has a sequence twice")
    return found, end


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
        if sequence in session.fences:
            return Verdict.FENCED
        if sequence in session.tombstones or sequence <= session.acknowledged:
            return Verdict.EVICTED
        return Verdict.FORGOTTEN if sequence <= session.forgotten else Verdict.NEW

    def outcome(self, session_id: int, sequence: int) -> Fate | bytes:
        """Return the result of a request, or its fate; one that was not applied is fenced.

        Does not count as a use: whoever asks need not be the one who uses the session.
        """
        session = self._sessions.get(session_id)
        if session is None:
            return Fate.UNKNOWN
        result = session.results.get(sequence)
        if result is not None:
            return result
        if sequence in session.tombstones:
            return Fate.APPLIED
        if sequence in session.fences:
            return Fate.FENCED
        if sequence <= max(session.acknowledged, session.forgotten):
            return Fate.UNKNOWN
        session.fences[sequence] = None
        self._changed.add(session_id)
        self._trim(session)
        return Fate.FENCED

    def record(self, session_id: int, sequence: int, result: bytes) -> None:
        """Remember the result of a request that `check` called NEW in the same command."""
        session = self._sessions.get(session_id)
        if session is None:  # the request itself opened one session too many, and this was the oldest
            return
        session.keep(sequence, result)
        self._trim(session)

    def _trim(self, session: Session) -> None:
        session.trim(self.limits.session_results_max, self.limits.session_result_bytes_max)

    def _drop(self, session_id: int) -> None:
        del self._sessions[session_id]
        self._changed.add(session_id)
