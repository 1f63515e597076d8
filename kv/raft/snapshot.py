"""Our own snapshot transfer: chunks with term, offset and crc (rule 10).

The core's transfer is never used: it lets a follower commit what it has not verified. A
`SnapshotSender` decides which chunks go out and when; a `SnapshotReceiver` puts them
together. Neither knows the network or the core; the state machine's `SnapshotSource` and
`SnapshotSink` hold the bytes. Whether a snapshot may be installed is `group.py`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

from kv.internal.v1 import raft_pb2
from kv.raft.api import SnapshotSink, SnapshotSource

RETRY_S = 2.0
"""Without progress for this long the chunks that were not confirmed are sent again."""
GIVE_UP_S = 30.0
"""Without progress for this long the transfer ends; the next append starts another."""


class SnapshotSender:
    """One transfer to one follower. Times in seconds, monotonic."""

    def __init__(self, source: SnapshotSource, chunk_bytes: int, window: int, now: float) -> None:
        self.source = source
        self.ready = False
        self._chunk_bytes = chunk_bytes
        self._window_bytes = chunk_bytes * window
        self._sent = 0
        self._confirmed = 0
        self._progress_at = now

    def start(self, now: float) -> None:
        """The source is prepared: chunks may go."""
        self.ready = True
        self._progress_at = now

    def confirmed(self, next_offset: int, now: float) -> None:
        """The follower has everything below `next_offset`; lower than before: it began again."""
        self._confirmed = next_offset
        self._sent = max(self._sent, next_offset) if next_offset else 0
        self._progress_at = now

    def chunks(self) -> Iterator[raft_pb2.SnapshotChunk]:
        """Chunks that the window lets out now."""
        source = self.source
        while self.ready and self._sent < min(source.total_bytes, self._confirmed + self._window_bytes):
            data = source.read(self._sent, self._chunk_bytes)
            yield raft_pb2.SnapshotChunk(
                index=source.index,
                index_term=source.index_term,
                previous_term=source.previous_term,
                offset=self._sent,
                total_bytes=source.total_bytes,
                crc32c=google_crc32c.value(data),
                data=data,
            )
            self._sent += len(data)

    def check(self, now: float) -> bool:
        """Rewinds after a silence; False if the transfer should be given up."""
        silent = now - self._progress_at
        if self.ready and silent >= RETRY_S and self._sent > self._confirmed:
            self._sent = self._confirmed
        return silent < GIVE_UP_S


class SnapshotReceiver:
    """One transfer from the leader."""

    def __init__(self, sink: SnapshotSink, chunk: raft_pb2.SnapshotChunk, term: int, leader: str) -> None:
        self.sink, self.leader = sink, leader
        self.finishing = False  # complete, and on its way to the disk
        self.index, self.index_term, self.previous_term = chunk.index, chunk.index_term, chunk.previous_term
        self._total_bytes, self._term = chunk.total_bytes, term
        self.next_offset = 0

    def continues(self, chunk: raft_pb2.SnapshotChunk, term: int) -> bool:
        """Whether the chunk belongs to this transfer."""
        return (chunk.index, chunk.index_term, chunk.total_bytes, term) == (
            self.index,
            self.index_term,
            self._total_bytes,
            self._term,
        )

    def take(self, chunk: raft_pb2.SnapshotChunk) -> bool:
        """Writes the chunk if it is the next one and whole; True once nothing is missing."""
        fits = chunk.offset + len(chunk.data) <= self._total_bytes
        whole = fits and google_crc32c.value(chunk.data) == chunk.crc32c
        if whole and chunk.offset == self.next_offset and chunk.data:
            self.sink.write(chunk.offset, chunk.data)
            self.next_offset += len(chunk.data)
        return self.next_offset >= self._total_bytes
