"""What others may know of a replica: its role, its log, its proofs.

Here lives what is read and nothing that acts; the parts that know are the group's, which fills them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kv.config import RaftConfig
from kv.raft.api import ReadProof
from kv.raft.core import Core
from kv.raft.guard import Rules
from kv.raft.journal import Journal

if TYPE_CHECKING:
    from kv.raft.campaign import Campaign
    from kv.raft.host import Host
    from kv.raft.install import Install
    from kv.raft.reading import Reading
    from kv.raft.replication import Replication
    from kv.raft.rest import Rest


class View:
    """The part of a `Group` that only tells."""

    me: str
    peers: tuple[str, ...]
    config: RaftConfig
    rules: Rules
    host: Host
    journal: Journal
    core: Core
    failure: str | None
    campaign: Campaign
    install: Install
    reading: Reading
    replication: Replication
    rest: Rest

    @property
    def members(self) -> Sequence[str]:
        """All members, this one first."""
        return (self.me, *self.peers)

    @property
    def entry_bytes_max(self) -> int:
        """The largest `data` that `propose` takes, in bytes."""
        return self.config.entry_bytes_max

    @property
    def is_leader(self) -> bool:
        """Whether this replica leads, as far as it knows."""
        return self.failure is None and self.core.is_leader

    @property
    def term(self) -> int:
        """Current term."""
        return self.core.term

    @property
    def leader(self) -> str | None:
        """The leader of the current term, if known; None once it was silent for an election timeout."""
        if not self.core.is_leader and self.campaign.timer.quiet(self.now):
            return None
        return self.core.leader

    @property
    def commit_index(self) -> int:
        """Highest index known to be committed; that of a single member when its disk has it (rule 21)."""
        committed = self.core.commit_index
        if self.peers or not self.rules.apply_durable:
            return committed
        return min(committed, self.journal.durable_index)

    @property
    def first_index(self) -> int:
        """First index that the log stands on."""
        return self.journal.first

    @property
    def last_index(self) -> int:
        """Last index of the log."""
        return self.journal.last

    @property
    def durable_index(self) -> int:
        """Last index that is on this disk."""
        return self.journal.durable_index

    @property
    def now(self) -> float:
        """Seconds on the node's steady clock, as it shows at this moment."""
        now = self.host.now  # what an engine holds is no method of its class: called as one it takes longer
        return now()

    @property
    def installing(self) -> bool:
        """Whether a received snapshot is about to replace the state."""
        return self.install.receiver is not None

    @property
    def lease_allowed(self) -> bool:
        """Whether the configured bounds on clocks allow a leader to answer from its lease."""
        return self.reading.lease_allowed

    @property
    def proof(self) -> ReadProof | None:
        """The newest proof that this replica was given, if any; none rests on a lease."""
        self.rest.learn()
        return self.reading.proof

    @property
    def all_durable_index(self) -> int:
        """Leader: up to here every member has proved in this term that its disk holds the log; otherwise 0."""
        return self.replication.all_durable_index() if self.is_leader else 0

    @property
    def lagging(self) -> Sequence[str]:
        """Leader: the members that hold `all_durable_index` back. Otherwise empty."""
        return self.behind(min(self.all_durable_index + 1, self.journal.last))

    def behind(self, index: int) -> Sequence[str]:
        """Leader: the members that have not proved in this term that they hold `index`. Otherwise empty."""
        return self.replication.behind(index) if self.is_leader else ()
