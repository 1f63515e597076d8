"""What a group would send, held until its log records are durable (pure; rule 7).

Messages to one peer leave in the order in which they were posted as far as they wait for
the same records; an append that continues the one before it is joined to it, so that one
turn sends one message however many commands it made.
"""

from __future__ import annotations

from dataclasses import dataclass

from kv.internal.v1 import raft_pb2


@dataclass(slots=True)
class Outgoing:
    """A message and the sequence number of the log record that must be durable before it leaves.

    Several may have the same message, each for another peer: nobody changes it.
    """

    after: int
    peer: str
    message: raft_pb2.RaftMessage
    bulk: bool


@dataclass(slots=True)
class _Tail:
    """The last append posted to a peer: where it ends and how large it is."""

    outgoing: Outgoing
    end: int
    size: int
    own: bool = False
    """Whether its message is a copy that may be added to."""


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
            end = append.prev_index + len(append.entries)
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
        before = tail.outgoing.message.append
        if not before.entries and append.commit_index >= before.commit_index:
            # It says all that the heartbeat before it said.
            tail.outgoing.message, tail.own = outgoing.message, False
        else:
            if not tail.own:
                copy = raft_pb2.RaftMessage()
                copy.CopyFrom(tail.outgoing.message)
                tail.outgoing.message, tail.own = copy, True
                before = copy.append
            before.entries.extend(append.entries)
            before.commit_index = max(before.commit_index, append.commit_index)
        tail.outgoing.after = max(tail.outgoing.after, outgoing.after)
        tail.end += len(append.entries)
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
