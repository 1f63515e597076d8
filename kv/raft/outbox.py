"""What a group would send, held until its log records are durable (pure; rule 7).

Messages to one peer leave in the order in which they were posted as far as they wait for
the same records; an append that continues the one before it is joined to it, so that one
turn sends one message however many commands it made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kv.internal.v1 import raft_pb2
from kv.raft.frames import raw_of


@dataclass(slots=True)
class Outgoing:
    """A message and the sequence number of the log record that must be durable before it leaves.

    Several may have the same message, each for another peer: nobody changes it, or its entries.
    """

    after: int
    peer: str
    message: raft_pb2.RaftMessage
    bulk: bool
    entries: Sequence[tuple[int, bytes]] = ()
    """Of an append: term and data of each. The message is without them, see `raw_of`."""

    @property
    def raw(self) -> bytes:
        """What goes over the wire."""
        return raw_of(self.message, self.entries)


@dataclass(slots=True)
class _Tail:
    """The last append posted to a peer: where it ends and how large it is."""

    outgoing: Outgoing
    end: int
    size: int


class Outbox:
    """One group's messages that have not left yet."""

    def __init__(self, append_bytes_max: int) -> None:
        self._append_bytes_max = append_bytes_max
        self._held: list[Outgoing] = []
        self.empty = True
        """Whether nothing is held: each turn asks, so it is no method."""
        self._tails: dict[str, _Tail] = {}

    def __len__(self) -> int:
        return len(self._held)

    def post(self, outgoing: Outgoing, size: int) -> None:
        """Adds a message; `size` is the bytes of an append's entries."""
        if outgoing.message.HasField("append"):
            if self._joined(outgoing, size):
                return
            append = outgoing.message.append
            end = append.prev_index + len(outgoing.entries)
            self._tails[outgoing.peer] = _Tail(outgoing, end, size)
        elif self._tails and not outgoing.bulk:
            self._tails.pop(outgoing.peer, None)
        self._held.append(outgoing)
        self.empty = False

    def _joined(self, outgoing: Outgoing, size: int) -> bool:
        tail = self._tails.get(outgoing.peer)
        append = outgoing.message.append
        if (
            tail is None
            or tail.end != append.prev_index
            or tail.outgoing.message.term != outgoing.message.term
            or tail.size + size > self._append_bytes_max
        ):
            return False
        before = tail.outgoing
        if not before.entries and append.commit_index >= before.message.append.commit_index:
            # It says all that the heartbeat before it said.
            before.message, before.entries = outgoing.message, outgoing.entries
        else:
            before.entries = [*before.entries, *outgoing.entries]
            if append.commit_index > before.message.append.commit_index:
                message = raft_pb2.RaftMessage()
                message.CopyFrom(before.message)
                message.append.commit_index = append.commit_index
                before.message = message
        before.after = max(before.after, outgoing.after)
        tail.end += len(outgoing.entries)
        tail.size += size
        return True

    def take(self, durable: int) -> list[Outgoing]:
        """Takes what may leave when the log is durable up to record `durable`."""
        held = self._held
        self._tails.clear()
        for outgoing in held:
            if outgoing.after > durable:
                break
        else:  # mostly nothing has to wait
            self._held, self.empty = [], True
            return held
        self._held = [outgoing for outgoing in held if outgoing.after > durable]
        return [outgoing for outgoing in held if outgoing.after <= durable]

    def forget(self, peer: str) -> None:
        """The connection to `peer` was reset: what waits for it is lost like what was in flight."""
        self._held = [outgoing for outgoing in self._held if outgoing.peer != peer]
        self.empty = not self._held
        self._tails.pop(peer, None)

    def clear(self) -> None:
        """Drops everything."""
        self._held, self._tails, self.empty = [], {}, True
