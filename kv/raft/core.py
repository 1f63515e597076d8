"""The consensus core: the only file that imports PySyncObj, and all that is used of it.

A `Core` is one `SyncObj` without threads, sockets, poller, files, pickles or a clock of
its own: it is a deterministic object that is told messages and the time, writes to the
journal that it is given, and hands every message that it would send to a callback. It
decides terms, votes, log matching book-keeping and the commit index. What is wrong with
it as shipped, and the rules that make it safe, are in DESIGN.md; they live in `guard.py`
and `group.py`, not here.

What is relied on, held by tests/raft/test_core_contract.py so that another version fails
loudly: the module globals `monotonicTime`, `createJournal`, `createPoller` and
`PIPE_NOTIFIER_ENABLED` of `pysyncobj.syncobj`, and the use of `open` in its serializer; the methods `_isLeader`, `_getLeader` and
`_applyCommand`; the protected callbacks of `Transport`; the shapes of the messages. No
name-mangled attribute is touched.

Every command begins with the byte of the core's no-op type. The core therefore never
looks inside a command, never unpickles one, and has nothing to apply: entries are applied
outside of it, up to its `applied_index`, so nothing that happens there can raise into it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import getitem
from typing import Any

import pysyncobj.serializer as _serializer
import pysyncobj.syncobj as _syncobj
from pysyncobj.config import SyncObjConf
from pysyncobj.journal import Journal as _CoreJournal
from pysyncobj.node import Node as _CoreNode
from pysyncobj.transport import Transport as _CoreTransport

from kv.raft.api import ENTRY_PREFIX, Entry
from kv.raft.journal import Journal

CORE_VERSION = "0.3.17"
_BEYOND_REACH_S = 1e9
_SLICE_ENTRIES_MAX = 1024
"""Rule 20: what one look of the core at the log returns, so that a tick stays short."""
_TICKS_MAX = 64

Message = dict[str, Any]
Send = Callable[[str, Message], None]


class _NoPoller:
    def subscribe(self, *_: object) -> None: ...

    def unsubscribe(self, *_: object) -> None: ...

    def poll(self, _: float) -> None: ...


_NOW = [0.0]
"""The time that all cores of the process see, alone in a list: set before each call into one of them."""
_syncobj.monotonicTime = partial(
    getitem, _NOW, 0
)  # asked for many times a tick: it costs no call of Python code
_syncobj.createJournal = lambda journal: journal
_syncobj.createPoller = lambda kind: _NoPoller()
_syncobj.PIPE_NOTIFIER_ENABLED = False
# When the core would send a snapshot it opens a file to read from; the guard sends its own instead.
_serializer.open = lambda *_: io.BytesIO()


class _Member(int, _CoreNode):
    """One of the core's nodes: a number, so that to hash and compare it costs no call of a method."""

    def __bool__(self) -> bool:
        return True


class _Members:
    """The core's nodes, which are numbers there.

    It keeps them in sets: the hashes of numbers are the same in every process, unlike those of names,
    and with them the order in which it sends.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)
        self._nodes = {name: _Member(number) for number, name in enumerate(self._names)}

    def node(self, name: str) -> _CoreNode:
        return self._nodes[name]

    def name(self, number: int) -> str:
        return self._names[number]

    def number(self, name: str) -> int:
        return int(self._nodes[name].id)


class _Log(_CoreJournal):
    """The core's view of our journal. `add` never raises: it writes to memory only."""

    def __init__(self, journal: Journal, commit_index: int, members: _Members) -> None:
        self._journal = journal
        self._commit_index = commit_index
        self._members = members

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._journal.append(command, idx, term)

    def clear(self) -> None:
        raise AssertionError("the core would wipe a journal that does not stand on its snapshot")

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        self._journal.truncate_from(self._journal.first + entryFrom)

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise AssertionError("compaction is never left to the core")

    def __getitem__(self, item: int | slice) -> Any:
        if item.__class__ is int:
            return self._journal.entries[item]
        assert isinstance(item, slice)
        start, stop = item.start or 0, item.stop
        end = start + _SLICE_ENTRIES_MAX
        return self._journal.entries[start : end if stop is None or stop > end else stop]

    def __len__(self) -> int:
        return len(self._journal.entries)

    def _destroy(self) -> None: ...

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self._commit_index = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        return self._commit_index

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:
        voted_for = None if votedForNodeId is None else self._members.name(votedForNodeId)
        self._journal.set_hard_state(term, voted_for)

    def getCurrentTerm(self) -> int:
        return self._journal.term

    def getVotedForNodeId(self) -> int | None:
        voted_for = self._journal.voted_for
        return None if voted_for is None else self._members.number(voted_for)


class _Consensus(_syncobj.SyncObj):
    """The library's object, spared what it never has to do here."""

    proposed = False
    """Whether a command waits to be appended."""

    def __dir__(self) -> tuple[str, ...]:
        """No method is replicated: the library looks for such among all names when it starts."""
        return ()

    def _checkCommandsToApply(self) -> None:
        if self.proposed:
            self.proposed = False
            super()._checkCommandsToApply()


class _Edge(_CoreTransport):
    """The core's transport: what it sends goes to the guard, what arrives comes from the guard."""

    ready = True
    """Asked twice a tick, so it is no property, as it is above."""

    def __init__(self, send: Send, members: _Members) -> None:
        super().__init__(None, None, None)
        self._send = send
        self._members = members

    def send(self, node: _CoreNode, message: Message) -> bool:
        self._send(self._members.name(node.id), message)
        return True

    def destroy(self) -> None: ...


class Core:
    """One replica's consensus core, standing on the snapshot at its journal's base."""

    is_leader: bool
    """Whether the core is in the leader's state."""
    term: int
    """Current term."""
    commit_index: int
    """Highest index known to be committed."""
    applied_index: int
    """Index up to which the core lets entries be applied."""
    has_news: bool
    """Whether the core was told anything since its last tick that may let it commit: without news, a tick commits nothing."""

    def __init__(
        self,
        me: str,
        peers: Sequence[str],
        journal: Journal,
        send: Send,
        *,
        heartbeat_s: float,
        leader_fallback_s: float,
        commit_index: int,
        now: float,
    ) -> None:
        _NOW[0] = now
        self._journal = journal
        self._members = _Members((me, *peers))
        self._alone = not peers
        self._send = send
        self._edge = _Edge(self._sends, self._members)
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=False,  # an entry leaves when it is appended: see `hold`
            commandsWaitLeader=False,
            useFork=False,
            dynamicMembershipChange=False,
            raftMinTimeout=_BEYOND_REACH_S,
            raftMaxTimeout=2 * _BEYOND_REACH_S,
            connectionTimeout=3 * _BEYOND_REACH_S,
            logCompactionMinEntries=1 << 60,
            logCompactionMinTime=1e15,
            logCompactionBatchSize=1 << 30,
            appendEntriesPeriod=heartbeat_s,
            appendEntriesBatchSizeBytes=1 << 60,  # splitting is the guard's: the core's own is broken
            leaderFallbackTimeout=leader_fallback_s,
            journalFile=_Log(journal, commit_index, self._members),
            # Any file that exists: the core asks `deserializer` only if this is one. It is never read.
            fullDumpFile=__file__,
            serializer=lambda *_: None,
            deserializer=self._head,
        )
        self._conf = conf
        self._core = _Consensus(
            self._members.node(me), [self._members.node(name) for name in peers], conf, transport=self._edge
        )
        self._tick()  # "loads the snapshot" before any message is let in
        assert self.applied_index == journal.base, "the core does not stand on the journal's head"

    def _head(self, _: str) -> tuple[Entry, Entry, None]:
        return self._journal.at(1), self._journal.at(0), None

    def _look(self) -> None:
        """Takes note of the state, which is asked for far more often than it can change."""
        core = self._core
        self.is_leader = core._isLeader()
        self.term = core.raftCurrentTerm
        self.commit_index = core.raftCommitIndex
        self.applied_index = core.raftLastApplied

    def _sends(self, peer: str, message: Message) -> None:
        """The guard must see the state in which the core sends."""
        self._look()
        self._send(peer, message)

    @property
    def leader(self) -> str | None:
        """The node that the core takes for the leader."""
        node = self._core._getLeader()
        return None if node is None else self._members.name(node.id)

    def tick(self, now: float) -> None:
        """Lets the core commit, mark as applicable, send, and append what was proposed."""
        _NOW[0] = now
        self._tick()
        ticks = 1
        while self.applied_index < self.commit_index and ticks < _TICKS_MAX:
            self._tick()
            ticks += 1

    def _tick(self) -> None:
        self.has_news = False
        try:
            self._core.doTick(0)
        finally:
            self._look()

    def propose(self, data: bytes, now: float) -> None:
        """Queues a command and ticks; a core that does not lead drops it."""
        assert data[:1] == ENTRY_PREFIX, "a command of another type would be unpickled by the core"
        self._core.proposed = True
        self._core._applyCommand(data, None)
        self.tick(now)
        # A tick commits first and appends then. What was appended is not committed before another member has it.
        self.has_news = self._alone

    def hold(self, data: bytes) -> None:
        """Append a command that leaves with the next one, which `propose` is given at once. Only while it leads."""
        assert data[:1] == ENTRY_PREFIX, "a command of another type would be unpickled by the core"
        assert self.is_leader, "a core that does not lead appends nothing"
        self._core.proposed = True
        self._core._applyCommand(data, None)
        self._conf.appendEntriesUseBatch = True
        try:
            self._core._checkCommandsToApply()
        finally:
            self._conf.appendEntriesUseBatch = False
        # A group of one commits by its next tick; in others what was appended needs another member first.
        self.has_news |= self._alone

    def elect(self, now: float) -> None:
        """Starts an election at once, by the leadership transfer's message from the known leader."""
        _NOW[0] = now
        message = {"type": "timeout_now", "term": self._core.raftCurrentTerm}
        self._edge._onMessageReceived(self._core._getLeader(), message)
        self._tick()
        self.has_news = True

    def raise_term(self, peer: str, term: int, now: float) -> None:
        """Follows a higher term without side effect: a vote request that no log can satisfy."""
        if term > self.term:
            self.vote_request(peer, term, -1, -1, now)

    def vote_request(self, peer: str, term: int, last_index: int, last_term: int, now: float) -> None:
        """A candidate asks for a vote."""
        self._deliver(
            peer,
            {"type": "request_vote", "term": term, "last_log_index": last_index, "last_log_term": last_term},
            now,
        )

    def vote(self, peer: str, term: int, now: float) -> None:
        """A member gives its vote."""
        self._deliver(peer, {"type": "response_vote", "term": term}, now)

    def append(
        self,
        peer: str,
        term: int,
        prev: int,
        prev_term: int,
        entries: Sequence[Entry],
        commit: int,
        now: float,
    ) -> None:
        """A leader's append, as the guard lets it through."""
        message = {
            "type": "append_entries",
            "term": term,
            "prevLogIdx": prev,
            "prevLogTerm": prev_term,
            "entries": entries,
            "commit_index": commit,
        }
        self._deliver(peer, message, now)

    def acknowledged(self, peer: str, next_index: int, now: float) -> None:
        """A follower's log agrees below `next_index`."""
        news = self.has_news
        self._next_index(peer, next_index, True, now)
        if next_index - 1 <= self.commit_index:  # what is committed is not committed again
            self.has_news = news

    def send_from(self, peer: str, next_index: int, now: float) -> None:
        """A follower asks for entries from `next_index` on."""
        self._next_index(peer, next_index, False, now)

    def _next_index(self, peer: str, next_index: int, success: bool, now: float) -> None:
        message = {
            "type": "next_node_idx",
            "next_node_idx": next_index,
            "reset": not success,
            "success": success,
        }
        self._deliver(peer, message, now)

    def connection(self, peer: str, up: bool) -> None:
        """Tells whether messages to `peer` have a way to go."""
        callback = self._edge._onNodeConnected if up else self._edge._onNodeDisconnected
        callback(self._members.node(peer))

    def destroy(self) -> None:
        """Lets go of the core."""
        self._core.destroy()

    def _deliver(self, peer: str, message: Message, now: float) -> None:
        _NOW[0] = now
        self.has_news = True
        try:
            self._edge._onMessageReceived(self._members.node(peer), message)
        finally:
            self._look()
