"""The leader's side of replication: what goes to each follower, and what each has proved.

The core says what it would send; what leaves is decided here (rules 18 and 19, the send
window, the size of messages), and what comes back is told to the core only as far as it is
proved and on our own disk (rules 5 and 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kv.internal.v1 import raft_pb2
from kv.raft.api import Entry
from kv.raft.core import Message
from kv.raft.guard import AckBook, Contradiction, SendWindow
from kv.raft.rest import EVER_S

if TYPE_CHECKING:
    from kv.raft.group import Group

APPEND_BYTES_MAX = 1 << 20
"""Entries of one append message, in bytes (at least one entry)."""
SEND_WINDOW_BYTES_MAX = 8 << 20
"""Entries sent to one follower and not yet proved."""


COMMIT_NOTICE_S_MAX = 0.020
"""A follower that lacks nothing is told so much later at most what was committed: the next append mostly tells it."""
NOTICE_S_MIN = 0.000_5
"""Nobody waits again for less: timers are no finer."""
NOTICE_INTERVALS = 1.5
"""It is waited for as long as so many of the intervals between appends, which must fit into the bound: a lone command
is told of at once."""
INTERVAL_SMOOTHING = 1 / 4
"""Weight of the newest interval between appends with entries."""

_Head = tuple[int, int, int, int]
"""What an append says beside its entries: the leader's term, prev_index, prev_term and commit_index."""


class Replication:
    """One group's book of its followers, for the term that it leads."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.book_term = -1
        self.last_append_at = group.now
        self._acks = AckBook()
        self._window = SendWindow(SEND_WINDOW_BYTES_MAX)
        self._sent_at: dict[str, float] = {}
        self._told: dict[str, int] = {}
        """By peer, the commit index of the last append."""
        self._carried_last, self._carried_at = 0, group.now
        """The newest entry that was sent to anyone in this term, and when."""
        self._interval_s = 1.0
        """Between appends with new entries, smoothed."""
        self._notices: dict[str, tuple[int, int]] = {}
        """Peers that are still to be told of a commit, and the entry (index, term) on which the append stands."""
        self._notices_since = group.now
        """When the first of them began to wait."""
        self._made: dict[_Head, tuple[raft_pb2.RaftMessage, Sequence[tuple[int, bytes]]]] = {}
        """Appends with entries that are not durable here: mostly all followers get the same."""

    def behind(self, index: int) -> tuple[str, ...]:
        """Leader: the members that have not proved in this term that their disk holds the log up to `index`."""
        group = self._group
        match = self._acks.match if self.book_term == group.term else {}
        own = () if group.journal.durable_index >= index else (group.me,)
        return (*own, *(peer for peer in group.peers if match.get(peer, 0) < index))

    def all_durable_index(self) -> int:
        """Leader: up to here every member has proved so."""
        group = self._group
        match = self._acks.match if self.book_term == group.term else {}
        return min([group.journal.durable_index, *(match.get(peer, 0) for peer in group.peers)])

    def connection_reset(self, peer: str) -> None:
        """Whatever was in flight to `peer` may be lost."""
        self._window.forget(peer)
        self._notices.pop(peer, None)

    def after_sync(self) -> None:
        """Our own copies became durable: followers' copies may count now (rule 6)."""
        group = self._group
        self._made.clear()
        if group.core.is_leader and self.book_term == group.term:
            for peer, next_index in self._acks.after_sync(group.journal.durable_index):
                group.core.acknowledged(peer, next_index, group.now)

    def on_append_reply(self, message: raft_pb2.RaftMessage) -> None:
        """A follower proved how far its log agrees, or says from where to send."""
        group = self._group
        core, peer, reply = group.core, message.sender, message.append_reply
        if message.term > core.term:
            core.raise_term(peer, message.term, group.now)
            return
        if not core.is_leader or (message.term != core.term and group.rules.current_acks):
            return
        next_index = reply.next_index
        if not reply.success:
            next_index = self._acks.rejection(peer, next_index, group.journal.last)
            self._window.reset(peer, next_index)
            core.send_from(peer, next_index, group.now)
            return
        if next_index - 1 > group.journal.last and group.rules.current_acks:
            raise Contradiction(f"{peer} acknowledges entry {next_index - 1}, beyond the leader's log")
        moved = next_index - 1 > self._acks.match.get(peer, 0)
        if group.tracer is not None and moved:
            group.tracer.note("acknowledged", next_index - 1, peer)
        allowed = self._acks.success(peer, next_index, group.journal.durable_index, group.rules)
        core.acknowledged(peer, allowed, group.now)
        may_commit = allowed - 1 > core.commit_index
        group.transfers.proved(peer, next_index - 1)
        go_on = self._window.proved(peer, self._acks.match[peer])
        if go_on is not None:
            core.send_from(peer, max(go_on, self._acks.match[peer] + 1), group.now)
        # What was committed already is not committed again, nor what our own disk lacks: then the core has only the time
        # of the answer from it, and nobody waits for it but writes at level ALL.
        group.wants_turn = (
            go_on is not None
            or not group.core.is_leader
            or (moved and (may_commit or group.machine.overdue(EVER_S)))
        )

    def send_append(self, peer: str, message: Message) -> None:
        """The core would send this append: decides what of it leaves."""
        assert "transmission" not in message, "the core must never split an entry"
        if self.book_term != self._group.term:
            self._new_book()
        if "serialized" in message:
            self.last_append_at = self._group.now
            self._group.transfers.begin(peer)
            return
        prev, prev_term, entries = message["prevLogIdx"], message["prevLogTerm"], message["entries"]
        if prev is None:
            self.last_append_at = self._group.now
            return
        if entries and prev < self._group.journal.base:  # these entries are gone: only a snapshot has them
            self._group.transfers.begin(peer)
            entries = []
        if self._group.transfers.sending(peer) and self._group.rules.snapshot_heartbeats:
            entries = []
        if entries:
            prev, prev_term, entries = self._not_yet_carried(peer, prev, prev_term, entries)
        if not entries and self._window.deferred(peer):
            prev, prev_term = self._carried(peer, prev, prev_term)
        if not entries and self._is_notice(peer, prev, message["commit_index"]):
            first = not self._notices
            self._notices[peer] = (prev, prev_term)
            if first:
                self._notices_since = self._group.now
                self._group.host.remind(self._group, self._interval_s * NOTICE_INTERVALS)
            return
        self.last_append_at = self._group.now
        self._post_append(peer, prev, prev_term, entries, message["commit_index"])

    def _is_notice(self, peer: str, prev: int, commit: int) -> bool:
        """Whether an append without entries can wait: it says only what was committed, and another is expected soon."""
        group = self._group
        return (
            self._interval_s * NOTICE_INTERVALS <= COMMIT_NOTICE_S_MAX
            and commit > self._told.get(peer, commit)
            and prev <= max(self._window.carried(peer), self._acks.match.get(peer, 0))
            and group.now - self._sent_at[peer] < group.config.heartbeat_s / 2
        )

    def reminded(self) -> float:
        """Tell of a commit, unless an append has done so meanwhile and what waits now has not waited long enough.

        Returns for how many seconds more it is to wait, 0 for not at all.
        """
        if not self._notices:
            return 0.0
        wait_s = self._interval_s * NOTICE_INTERVALS - (self._group.now - self._notices_since)
        if NOTICE_S_MIN < wait_s <= COMMIT_NOTICE_S_MAX:
            return wait_s
        self.tell_commit()
        return 0.0

    def tell_commit(self) -> None:
        """Tell those that still wait for it what was committed."""
        notices, self._notices = self._notices, {}
        group = self._group
        if notices and group.core.is_leader and self.book_term == group.term:
            self.last_append_at = group.now
            for peer, (prev, prev_term) in notices.items():
                self._append_message(peer, prev, prev_term, [], 0, group.core.commit_index)

    def _not_yet_carried(
        self, peer: str, prev: int, prev_term: int, entries: list[Entry]
    ) -> tuple[int, int, list[Entry]]:
        """Rule 18: leaves out what this connection carries already, and what its window cannot take."""
        carried = self._window.carried(peer)
        if self._group.rules.send_once and carried > prev:
            skip = min(carried, entries[-1][1]) - prev
            prev, prev_term, entries = entries[skip - 1][1], entries[skip - 1][2], entries[skip:]
        if entries and (self._window.full(peer) or self._window.deferred(peer)):
            self._window.defer(peer, entries[0][1])
            return prev, prev_term, []
        return prev, prev_term, entries

    def _carried(self, peer: str, prev: int, prev_term: int) -> tuple[int, int]:
        """Where a heartbeat may stand while entries are held back: at what was sent, not at our end."""
        carried = self._window.carried(peer)
        term = self._group.journal.term_at(carried)
        return (prev, prev_term) if term is None else (carried, term)

    def _post_append(self, peer: str, prev: int, prev_term: int, entries: list[Entry], commit: int) -> None:
        """Posts the entries in messages of bounded size; one without entries is a heartbeat."""
        if not entries:
            self._append_message(peer, prev, prev_term, [], 0, commit)
            return
        parts: list[tuple[int, bytes]] = []
        size = 0
        for data, index, term in entries:
            if self._window.full(peer):
                self._window.defer(peer, index)
                break
            whole = data if len(data) > 1 else self._group.data(index)
            parts.append((term, whole))
            size += len(whole)
            self._window.sent(peer, index, len(whole))
            if size >= APPEND_BYTES_MAX:
                self._append_message(peer, prev, prev_term, parts, size, commit)
                prev, prev_term, parts, size = index, term, [], 0
        if parts:
            self._append_message(peer, prev, prev_term, parts, size, commit)
        carried = self._window.carried(peer)
        if carried > self._carried_last:  # once for all peers
            self._carried_last = carried
            self._note_interval()

    def _note_interval(self) -> None:
        now = self._group.now
        interval_s = min(now - self._carried_at, 1.0)
        self._interval_s += (interval_s - self._interval_s) * INTERVAL_SMOOTHING
        self._carried_at = now

    def _append_message(
        self,
        peer: str,
        prev: int,
        prev_term: int,
        parts: Sequence[tuple[int, bytes]],
        size: int,
        commit: int,
    ) -> None:
        group = self._group
        self._sent_at[peer], self._told[peer] = group.now, commit
        self._notices.pop(peer, None)
        message, entries = self._made_append(prev, prev_term, parts, commit)
        group.post(peer, message, size=size, entries=entries)

    def _made_append(
        self, prev: int, prev_term: int, entries: Sequence[tuple[int, bytes]], commit: int
    ) -> tuple[raft_pb2.RaftMessage, Sequence[tuple[int, bytes]]]:
        """Return the message and its entries; those that were made for another follower, if they are the same."""
        group = self._group
        head = (group.core.term, prev, prev_term, commit)
        made = self._made.get(head)
        if made is not None and made[1] == entries:
            return made
        message = group.envelope()
        append = message.append
        append.prev_index, append.prev_term, append.commit_index = prev, prev_term, commit
        if entries and prev + len(entries) > self._carried_last:
            self._made[head] = message, entries
        return message, entries

    def _new_book(self) -> None:
        """A new term of ours begins: what was proved or sent in another counts for nothing."""
        self.book_term = self._group.term
        self._acks = AckBook()
        self._window.clear()
        self._sent_at, self._told, self._notices = {}, {}, {}
        self._carried_last = 0
        self._group.transfers.end_all()
