"""Snapshot transfers of one group: those that it sends as leader, the one that it receives.

Rule 10: a snapshot is installed only if it is ahead of the commit index and not contained in
the log, and as one log record; rule 19: heartbeats go on meanwhile (`replication.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kv.internal.v1 import raft_pb2
from kv.raft.guard import could_be_a_log
from kv.raft.snapshot import SnapshotReceiver, SnapshotSender

if TYPE_CHECKING:
    from kv.raft.group import Group


class Transfers:
    """The snapshots of one group that are on their way."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.senders: dict[str, SnapshotSender] = {}
        """By the peer to which a snapshot is on its way."""
        self._receiver: SnapshotReceiver | None = None
        self.sent = 0

    @property
    def idle(self) -> bool:
        """Whether no snapshot is on its way, out or in."""
        return not self.senders and self._receiver is None

    def sending(self, peer: str) -> bool:
        """Whether a snapshot is on its way to `peer`."""
        return peer in self.senders

    def held_index(self) -> int | None:
        """The lowest index from which a receiver will go on: the log must keep what follows it."""
        return min((sender.source.index for sender in self.senders.values() if sender.ready), default=None)

    def proved(self, peer: str, match: int) -> None:
        """A follower proved its log up to `match`: a snapshot at or below it has arrived."""
        sender = self.senders.get(peer)
        if sender is not None and sender.ready and match >= sender.source.index:
            self._end(peer)

    def connection_reset(self, peer: str) -> None:
        """The connection is gone; a later append begins again."""
        self._end(peer)

    def end_all(self) -> None:
        """Leadership or the term is over: nothing is sent any more."""
        for peer in list(self.senders):
            self._end(peer)

    def stop(self) -> None:
        """The replica stops."""
        self.end_all()
        self._drop_receiver()

    def begin(self, peer: str) -> None:
        """Starts a snapshot to `peer`, unless one is on its way."""
        if peer in self.senders or peer not in self._group.connected:
            return
        source = self._group.machine.snapshot_source()
        sender = SnapshotSender(
            source,
            self._group.config.snapshot_chunk_bytes,
            self._group.config.snapshot_window,
            self._group.now,
        )
        self.senders[peer] = sender
        self.sent += 1
        self._group.log.info("snapshot begins", peer=peer)
        self._group.host.run_blocking(source.prepare, lambda error: self._transfer_ready(peer, sender, error))

    def _transfer_ready(self, peer: str, sender: SnapshotSender, error: BaseException | None) -> None:
        if self.senders.get(peer) is not sender:
            sender.source.close()
            return
        if error is not None:
            self._group.log.warning("snapshot failed", peer=peer, error=repr(error))
            self._end(peer)
            return
        sender.start(self._group.now)
        self._send_chunks(peer, sender)
        self._group.wake()

    def _send_chunks(self, peer: str, sender: SnapshotSender) -> None:
        for chunk in sender.chunks():
            message = self._group.envelope()
            message.snapshot_chunk.CopyFrom(chunk)
            self._group.post(peer, message, bulk=True)

    def _end(self, peer: str) -> None:
        sender = self.senders.pop(peer, None)
        if sender is not None and sender.ready:
            sender.source.close()

    def check(self) -> None:
        """Sends again after a silence, gives up after a long one."""
        for peer, sender in list(self.senders.items()):
            if not sender.check(self._group.now):
                self._group.log.warning("snapshot given up", peer=peer)
                self._end(peer)
            else:
                self._send_chunks(peer, sender)

    def on_reply(self, message: raft_pb2.RaftMessage) -> None:
        """The follower has more of the snapshot, or wants it again."""
        sender = self.senders.get(message.sender)
        reply = message.snapshot_reply
        if message.term > self._group.term:
            self._group.core.raise_term(message.sender, message.term, self._group.now)
        elif sender is not None and sender.ready and reply.index == sender.source.index:
            sender.confirmed(reply.next_offset, self._group.now)
            self._send_chunks(message.sender, sender)

    def on_chunk(self, message: raft_pb2.RaftMessage) -> None:
        """The leader sends a piece of a snapshot."""
        chunk, leader = message.snapshot_chunk, message.sender
        if not self._group.is_from_leader(message) or self._group.suspended:
            return
        if not chunk.total_bytes or not could_be_a_log(chunk.previous_term, [chunk.index_term], message.term):
            return
        self._group.core.raise_term(leader, message.term, self._group.now)
        if self._has(chunk.index, chunk.index_term) and self._group.rules.snapshot_guard:
            proved = max(chunk.index, min(self._group.core.commit_index, self._group.journal.last))
            proved = proved if chunk.index <= self._group.core.commit_index else chunk.index
            self._drop_receiver()
            self._group.appends.acknowledge(leader, proved + 1)
            return
        self._take_chunk(chunk, leader, message.term)

    def _has(self, index: int, term: int) -> bool:
        """Whether the log or the state covers this already: installing it would be a step back."""
        return (
            index <= self._group.core.commit_index
            or index <= self._group.machine.applied_index
            or self._group.journal.term_at(index) == term
        )

    def _take_chunk(self, chunk: raft_pb2.SnapshotChunk, leader: str, term: int) -> None:
        receiver = self._receiver
        if receiver is not None and receiver.finishing:
            return
        if receiver is None or not receiver.continues(chunk, term):
            if chunk.offset != 0:
                self._reply_chunk(leader, chunk.index, 0)
                return
            self._drop_receiver()
            sink = self._group.machine.snapshot_sink(chunk.index, chunk.total_bytes)
            receiver = self._receiver = SnapshotReceiver(sink, chunk, term, leader)
        try:
            complete = receiver.take(chunk)
        except OSError as error:
            self._group.log.warning("snapshot not stored", error=repr(error))
            self._drop_receiver()
            return
        self._reply_chunk(leader, chunk.index, receiver.next_offset)
        if complete:
            receiver.finishing = True
            self._group.host.run_blocking(receiver.sink.finish, lambda error: self._received(receiver, error))

    def _reply_chunk(self, leader: str, index: int, next_offset: int) -> None:
        message = self._group.envelope()
        reply = message.snapshot_reply
        reply.index, reply.next_offset = index, next_offset
        self._group.post(leader, message, bulk=True)

    def _drop_receiver(self) -> None:
        receiver = self._receiver
        # While it finishes, a worker thread has its file: `_received` decides.
        if receiver is not None and not receiver.finishing:
            self._receiver = None
            receiver.sink.abort()

    def _received(self, receiver: SnapshotReceiver, error: BaseException | None) -> None:
        """The snapshot is durable as a file. Next: one record in the log, then the state itself."""
        assert self._receiver is receiver, "one snapshot at a time"
        self._receiver = None
        known = self._group.rules.snapshot_guard and self._has(receiver.index, receiver.index_term)
        if error is not None or known or self._group.failure is not None:
            if error is not None:
                self._group.log.warning("snapshot refused", error=repr(error))
            receiver.sink.abort()
            return
        self._group.install.begin(receiver)
