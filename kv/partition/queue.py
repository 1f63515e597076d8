"""The requests of one replica that have no answer yet, with the bounds on them.

Here lives the counting and the joining of what waits into commands (step 4 of the path of a
write): whatever arrives while a proposal is in flight becomes the next command, and nothing ever
waits for a timer. Nothing here decides what an answer is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from kv.errors import KVError, Overloaded
from kv.partition.batch import Batch
from kv.partition.machine import COMMAND_BATCHES_MAX

Reply: TypeAlias = Callable[[bytes | KVError], None]
"""Takes a serialized `kv.v1.BatchResponse`, or the error. Called exactly once, on the loop thread; must not raise."""

BATCH_FRAME_BYTES: Final = 6
"""Tag and length of one batch in a command."""

COMMAND_FRAME_BYTES: Final = 16
"""The entry's prefix and the time of a command."""


@dataclass(slots=True, eq=False)
class Request:
    """One batch and where its answer goes. Compared by identity; not frozen, for speed, but never changed."""

    raw: bytes
    batch: Batch
    reply: Reply


class RequestQueue:
    """Waiting reads and writes; counts also those that were taken but not answered."""

    def __init__(self, requests_max: int, bytes_max: int) -> None:
        self._requests_max = requests_max
        self._bytes_max = bytes_max
        self.pending_requests = 0
        self.pending_bytes = 0
        self.writes: deque[Request] = deque()
        self.reads: list[Request] = []

    def admit(self, request: Request) -> Overloaded | None:
        """Take in a request, or say why not."""
        if self.pending_requests >= self._requests_max:
            return Overloaded(
                f"{self.pending_requests} requests of the partition wait, the limit is {self._requests_max}"
            )
        if self.pending_requests and self.pending_bytes + len(request.raw) > self._bytes_max:
            return Overloaded(
                f"{self.pending_bytes} bytes of requests of the partition wait, the limit is {self._bytes_max}"
            )
        self.pending_requests += 1
        self.pending_bytes += len(request.raw)
        (self.writes if request.batch.writes else self.reads).append(request)
        return None

    def answered(self, request: Request) -> None:
        """Count an admitted request as gone."""
        self.pending_requests -= 1
        self.pending_bytes -= len(request.raw)
        assert self.pending_requests >= 0, "a request is answered once"
        assert self.pending_bytes >= 0

    def take_command(self, command_bytes_max: int) -> list[Request]:
        """Take the writes that go into the next command: at least one, in order of arrival.

        All writes of a command share its index as their revision. Two requests that write the same key
        therefore go into two commands, or a condition on the revision that one of them was given would
        hold although the other wrote after it.
        """
        taken = [self.writes.popleft()]
        written = set(taken[0].batch.written())
        room = command_bytes_max - COMMAND_FRAME_BYTES - len(taken[0].raw) - BATCH_FRAME_BYTES
        while self.writes and len(taken) < COMMAND_BATCHES_MAX:
            room -= len(self.writes[0].raw) + BATCH_FRAME_BYTES
            if room < 0:
                break
            keys = tuple(self.writes[0].batch.written())
            if not written.isdisjoint(keys):
                break
            written.update(keys)
            taken.append(self.writes.popleft())
        return taken

    def take_reads(self) -> list[Request]:
        """Take all waiting reads: one confirmation of leadership serves them all."""
        taken, self.reads = self.reads, []
        return taken

    def take_of_leader(self, needs_no_leadership: Callable[[Batch], bool]) -> list[Request]:
        """Take all that waits but the reads that a follower may serve too."""
        kept = [request for request in self.reads if needs_no_leadership(request.batch)]
        left = dict.fromkeys(kept)
        taken = [request for request in self.take_all() if request not in left]
        self.reads = kept
        return taken

    def take_all(self) -> list[Request]:
        """Take all that waits."""
        taken = [*self.take_reads(), *self.writes]
        self.writes.clear()
        return taken
