"""The installation of a received snapshot: one record in the log, then another state and a fresh core on it.

How the snapshot comes is in `transfers.py`. While one waits for its record to be durable the group takes no
message and does nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kv.raft.snapshot import SnapshotReceiver

if TYPE_CHECKING:
    from kv.raft.group import Group


class Install:
    """One group's state machine, as a received snapshot replaces it."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.receiver: SnapshotReceiver | None = None
        """The snapshot that is about to replace the state."""
        self.snapshots_installed = 0

    def begin(self, receiver: SnapshotReceiver) -> None:
        """The snapshot is durable as a file. Next: one record in the log, then the state itself."""
        group = self._group
        self.receiver = receiver
        group.reading.drop()
        group.outbox.clear()
        group.journal.install_snapshot(receiver.index, receiver.index_term, receiver.previous_term)
        group.wake()

    def after_sync(self, receiver: SnapshotReceiver) -> None:
        """A sync of the log ended: goes on if it made the log's mark durable."""
        if self._group.journal.durable_index >= receiver.index:
            self._install(receiver)

    def _install(self, receiver: SnapshotReceiver) -> None:
        """The log's mark is durable: replace the state and start a fresh core on it."""
        group = self._group
        group.machine.reset_pending(group.not_leader())
        group.machine.install(receiver.sink, receiver.index)
        self.receiver = None
        if group.machine.failure is not None:
            group.stop(group.machine.failure)
            return
        group.restart_core(receiver.index)
        self.snapshots_installed += 1
        group.campaign.timer.heard_leader(group.now)
        group.log.info("snapshot installed", index=receiver.index)
        group.appends.acknowledge(receiver.leader, receiver.index + 1)
        group.notice_leadership()
