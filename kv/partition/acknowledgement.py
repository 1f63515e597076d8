"""Writes at level ALL that are applied and wait until every replica has them on its disk.

Here lives who waits, for which index, and until when. Pure: `now` is a parameter, in seconds, monotonic. The
write itself stands already: what is decided here is only what its caller is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kv.errors import NotOnAllReplicas, to_proto
from kv.partition.evidence import wrote
from kv.partition.queue import Request
from kv.v1 import kv_pb2

ALL_TIMEOUT_FACTOR_MAX: Final = 60
"""A request may ask for at most so many times the configured patience."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """One answer that waits."""

    request: Request
    index: int
    """Up to here every replica must have the log on its disk."""
    revision: int
    """Of the write, for the error."""
    response: bytes
    deadline: float


class Acknowledgements:
    """The answers that wait. There are no more than the replica has requests without an answer."""

    def __init__(self, all_write_timeout_s: float) -> None:
        self._timeout_s = all_write_timeout_s
        self.waiting: list[Held] = []
        """Whether there are any is asked each turn: so it is no method."""

    def __len__(self) -> int:
        return len(self.waiting)

    def hold(self, request: Request, index: int, revision: int, response: bytes, now: float) -> None:
        """Keep an answer back."""
        asked_s = request.batch.options.all_timeout_s or self._timeout_s
        deadline = now + min(asked_s, ALL_TIMEOUT_FACTOR_MAX * self._timeout_s)
        self.waiting.append(Held(request, index, revision, response, deadline))

    def take_proved(self, all_durable_index: int) -> list[Held]:
        """Take the answers whose index every replica has on its disk."""
        return self._take([held for held in self.waiting if held.index <= all_durable_index])

    def take_overdue(self, now: float) -> list[Held]:
        """Take the answers that waited long enough."""
        return self._take([held for held in self.waiting if held.deadline <= now])

    def overdue(self, now: float) -> bool:
        """Whether an answer waited long enough."""
        return bool(self.waiting) and any(held.deadline <= now for held in self.waiting)

    def take_all(self) -> list[Held]:
        """Take every answer: nobody can prove anything to this replica any more."""
        taken, self.waiting = self.waiting, []
        return taken

    def _take(self, taken: list[Held]) -> list[Held]:
        if taken:
            gone = dict.fromkeys(taken)
            self.waiting = [held for held in self.waiting if held not in gone]
        return taken


def not_proved(held: Held, why: str, missing: Sequence[str]) -> bytes | NotOnAllReplicas:
    """Return the answer to a batch that stands and is not proved to be everywhere.

    The error, if each operation wrote something; else the response, in which it stands in the place of each result of a
    write that was done: the others read, failed or found nothing to change, and their own results stay true.
    """
    error = not_on_all(held, why, missing)
    response = kv_pb2.BatchResponse.FromString(held.response)
    if all(map(wrote, response.results)):
        return error
    for result in filter(wrote, response.results):
        result.error.CopyFrom(to_proto(error))
    return response.SerializeToString()


def not_on_all(held: Held, why: str, missing: Sequence[str]) -> NotOnAllReplicas:
    """Return what the caller is told of a write that stands and is not proved to be everywhere."""
    return NotOnAllReplicas(
        f"the write was applied and a majority has it on disk, but not every replica is known to: {why}",
        metadata={"revision": held.revision, "missing": ",".join(missing)},
    )
