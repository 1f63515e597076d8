"""A member's side of replication: what it makes of a leader's appends, and how it answers them.

Whether and how an append meets this log is decided in `guard.py` (rules 3, 4, 13 and 17); here the decision
meets the core. An acknowledgement waits in the outbox until the log holds durably what it proves (rule 7).
What the leader makes of the answers is in `replication.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kv.internal.v1 import raft_pb2
from kv.raft.api import ENTRY_PREFIX, Entry
from kv.raft.core import Message
from kv.raft.guard import AppendPlan, could_be_a_log, plan_append

if TYPE_CHECKING:
    from kv.raft.group import Group


class Appends:
    """One group's appends, as this replica receives them."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._reply_as: AppendPlan | None = None

    def on_append(self, message: raft_pb2.RaftMessage) -> None:
        """A leader sent entries, or a heartbeat without any."""
        group, append = self._group, message.append
        # Each once: what is read of a message is a copy.
        parts = [(entry.term, entry.data) for entry in append.entries]
        terms = [term for term, _ in parts]
        if not group.is_from_leader(message) or not self._may_store(append, parts, terms, message.term):
            return
        plan = plan_append(
            group.journal,
            group.core.commit_index,
            append.prev_index,
            append.prev_term,
            terms,
            append.commit_index,
            group.rules,
        )
        if self._is_known(message, plan):
            self.acknowledge(message.sender, plan.prev + 1 if plan.proved is None else plan.proved + 1)
            group.wants_turn = False  # nothing changed but the time at which the leader was heard
            return
        entries: list[Entry] = []
        if plan.skip is not None:
            kept = parts[plan.skip :]
            entries = [(data, plan.prev + 1 + i, term) for i, (term, data) in enumerate(kept)]
        self._reply_as = plan
        group.core.append(
            message.sender, message.term, plan.prev, plan.prev_term, entries, plan.commit, group.now
        )
        self._reply_as = None

    def _is_known(self, message: raft_pb2.RaftMessage, plan: AppendPlan) -> bool:
        """Whether the core would do nothing but agree: a heartbeat of the leader that it follows."""
        core = self._group.core
        return (
            plan.skip is None
            and plan.hint is None
            and plan.commit <= core.commit_index
            and message.term == core.term
            and message.sender == core.leader
        )

    def _may_store(
        self,
        append: raft_pb2.Append,
        parts: Sequence[tuple[int, bytes]],
        terms: Sequence[int],
        leader_term: int,
    ) -> bool:
        """Rule 13, and no new entries while the log cannot be written."""
        group = self._group
        if group.suspended and parts:
            return False
        if not group.rules.entry_limits:
            return True
        if not terms:
            return append.prev_term <= leader_term
        bytes_max = group.config.entry_bytes_max
        for _, data in parts:
            if data[:1] != ENTRY_PREFIX or len(data) > bytes_max:
                return False
        return could_be_a_log(append.prev_term, terms, leader_term)

    # ------------------------------------------------------------ answers

    def send_reply(self, peer: str, message: Message) -> None:
        """The core answers an append: what leaves says what the guard found proved, or where to go on."""
        next_index, success = message["next_node_idx"], message["success"]
        plan = self._reply_as
        if plan is not None and success and plan.proved is not None:
            next_index = plan.proved + 1
        if plan is not None and not success and plan.hint is not None:
            next_index = plan.hint
        if success:
            self.acknowledge(peer, next_index)
            return
        self._reply(peer, next_index, success=False)

    def acknowledge(self, peer: str, next_index: int) -> None:
        """Tells a leader that our log agrees with its own below `next_index`."""
        self._reply(peer, next_index, success=True)

    def _reply(self, peer: str, next_index: int, *, success: bool) -> None:
        group = self._group
        message = group.envelope()
        reply = message.append_reply
        reply.next_index, reply.success = next_index, success
        group.post(peer, message, after=group.journal.seq)
