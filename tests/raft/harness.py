"""A cluster of real groups on real logs whose every step is scheduled by the test.

What lives here: `Cluster`, which moves messages (each is serialized and parsed again), syncs disks, runs
blocking work, lets time pass, and crashes and restarts members only when told. After each step it checks
the properties of `checks`. What must not: decisions about the order of steps; that is the test's.

A step leaves nothing half done: after whatever a member was told it has its turn (`settle`), and what its
outbox may release for the records that are durable is put on the links. Its log is synced only by `sync`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from kv.config import RaftConfig
from kv.internal.v1 import raft_pb2
from kv.raft.api import ENTRY_PREFIX, Entry, ReadProof
from kv.raft.group import Group
from kv.raft.guard import Rules
from kv.raft.wal import Flush, Wal
from kv.sim.disk import MemoryFiles
from tests.raft.checks import Checker, Copy, Violation
from tests.raft.ledger import Ledger, LedgerDisk

GROUP = 7
EPOCH = 3
HEARTBEAT_S = 0.11
"""A little more than a heartbeat's interval: the core sends only after it."""
ROUNDS_MAX = 200
"""Rounds of `exchange` after which a cluster that never comes to rest is an error."""

CONFIG = RaftConfig(
    heartbeat_s=0.1,
    election_min_s=1.0,
    election_max_s=2.0,
    leader_fallback_s=1.0,
    lease_s=0.8,
    clock_drift_max=0.05,
    segment_bytes=16_384,
    entry_bytes_max=4096,
    log_cache_bytes_max=1 << 20,
    log_retain_bytes=1 << 20,
    log_retain_entries=1000,
    snapshot_chunk_bytes=64,
    snapshot_window=4,
)

Then = Callable[[BaseException | None], None]
Wire = tuple[bytes, bool]
"""A serialized message, and whether it travels with the bulk."""


@dataclass
class Member:
    """One node: its disks, and while it is up its log, state machine and group. The group's `Host`."""

    name: str
    now: Callable[[], float]
    """The member's steady clock, seconds."""
    files: MemoryFiles = field(default_factory=MemoryFiles)
    disk: LedgerDisk = field(default_factory=LedgerDisk)
    up: bool = False
    jobs: deque[tuple[Callable[[], None], Then]] = field(default_factory=deque)
    flush: Flush | None = None
    woken: bool = False
    seen_commit: int = 0
    left: dict[int, int] = field(default_factory=dict)
    """Index to term on disk at the last crash, at least; what a snapshot covers has term 0."""
    wal: Wal = field(init=False)
    ledger: Ledger = field(init=False)
    group: Group = field(init=False)

    def wake(self, group: Group) -> None:
        self.woken = True

    def remind(self, group: Group, delay_s: float) -> None:
        group.replication.tell_commit()  # each step of a test shows all that it leads to

    def roused(self, group: Group) -> None:
        raise AssertionError("nobody puts a group to rest here")

    def run_blocking(self, work: Callable[[], None], then: Then) -> None:
        self.jobs.append((work, then))

    def copy(self) -> Copy:
        """What the disk holds for sure."""
        if not self.up:
            return self.left.get
        journal = self.group.journal
        base, durable = journal.base, journal.durable_index
        return lambda i: None if i > durable else 0 if i <= base else journal.term_at(i)

    def holds(self, index: int) -> int | None:
        """What the log in memory holds: its term, 0 for what a snapshot covers."""
        journal = self.group.journal
        return 0 if index <= journal.base else journal.term_at(index)


class Cluster:
    """See the file's docstring. Members are called n1, n2, ...; time is in seconds."""

    def __init__(
        self,
        size: int,
        *,
        rules: Rules | None = None,
        config: RaftConfig = CONFIG,
        seed: int = 0,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        """`rates`: by how much the clocks of these members run faster than the test's; 1.0 by default."""
        self.names = [f"n{i + 1}" for i in range(size)]
        self.now = 1.0
        self.rates = rates or {}
        self.members = {name: Member(name, partial(self.clock, name)) for name in self.names}
        self.rules, self.config = rules or Rules(), config
        self.random = Random(seed)
        self.links: dict[tuple[str, str], deque[Wire]] = {
            (a, b): deque() for a in self.names for b in self.names if a != b
        }
        self.sent: list[tuple[str, str, raft_pb2.RaftMessage]] = []
        """Every message that left, in order."""
        self.checker = Checker(size // 2 + 1)
        self.commands = 0
        for name in self.names:
            self.restart(name)

    def __getitem__(self, name: str) -> Group:
        return self.members[name].group

    def clock(self, name: str) -> float:
        """What the clock of a member shows."""
        return self.now * self.rates.get(name, 1.0)

    # ------------------------------------------------------------ life of a member

    def restart(self, name: str) -> None:
        """Start a member on what its disks hold, and connect it to all that are up."""
        member = self.members[name]
        assert not member.up
        member.wal = Wal.open(
            member.files, salt=self.random.getrandbits(64), segment_bytes=self.config.segment_bytes
        )
        journal = member.wal.journal(GROUP)
        if not journal.base:
            journal.bootstrap()
            self._flush(member)
        member.ledger = Ledger(member.disk, lambda entry: self._applies(member, entry))
        member.ledger.recover(journal.base)
        if not journal.base <= member.ledger.applied_index <= journal.last:
            raise Violation(
                f"state and log apart: {name} has applied {member.ledger.applied_index}, and its log is"
                f" {journal.base} to {journal.last}"
            )
        member.jobs.clear()
        member.flush, member.seen_commit, member.up = None, journal.base, True
        member.group = Group(
            group_id=GROUP,
            epoch=EPOCH,
            me=name,
            members=self.names,
            journal=journal,
            machine=member.ledger,
            config=self.config,
            host=member,
            rng=Random(self.random.getrandbits(32)).random,
            now=member.now(),
            rules=self.rules,
        )
        for peer in self.names:
            if peer != name and self.members[peer].up:
                self.connect(name, peer)
        self._turn(member)

    def crash(self, name: str, *, power_loss: bool = True) -> None:
        """Kill a member; with `power_loss` any part of what it did not sync may be gone."""
        member = self.members[name]
        copy = member.copy()
        member.left = {i: t for i in range(1, member.group.journal.last + 1) if (t := copy(i)) is not None}
        member.up = False
        if power_loss:
            member.files.power_loss(self.random)
        for peer in self.names:
            if peer != name:
                self._disconnect(name, peer)

    def connect(self, a: str, b: str) -> None:
        """A new connection between two members; whatever the old one carried is lost."""
        self._disconnect(a, b)
        for me, peer in ((a, b), (b, a)):
            self.members[me].group.connection(peer, True)

    def disconnect(self, a: str, b: str) -> None:
        """The connection breaks, and both notice."""
        self._disconnect(a, b)

    def _disconnect(self, a: str, b: str) -> None:
        for me, peer in ((a, b), (b, a)):
            self.links[me, peer].clear()
            if self.members[me].up:
                self.members[me].group.connection(peer, False)

    # ------------------------------------------------------------ steps

    def deliver(self, source: str, target: str, count: int | None = None) -> int:
        """Deliver the first `count` messages of a link (all that are there now); returns how many."""
        link = self.links[source, target]
        count = len(link) if count is None else min(count, len(link))
        for _ in range(count):
            self.receive(source, target, link.popleft())
        return count

    def receive(self, source: str, target: str, wire: Wire) -> None:
        """Hand one message to a member, as the connection to `source` would."""
        member = self.members[target]
        if member.up:
            member.group.receive(raft_pb2.RaftMessage.FromString(wire[0]), source)
            self._turn(member)

    def take(self, source: str, target: str) -> list[Wire]:
        """Take all messages off a link: to hold them back, to deliver them twice, or to lose them."""
        link = self.links[source, target]
        wires = list(link)
        link.clear()
        return wires

    def drop(self, *names: str) -> None:
        """Lose everything on the links from and to these members, or on all links."""
        for (source, target), link in self.links.items():
            if not names or source in names or target in names:
                link.clear()

    def begin_sync(self, name: str) -> bool:
        """The disk has what the log holds now, but the member has not been told; False if it had it."""
        member = self.members[name]
        if member.flush is None:
            member.flush = member.wal.begin_flush()
            if member.flush is None:
                return False
            member.flush.run()
        return True

    def end_sync(self, name: str) -> None:
        """The member learns that its last sync is done."""
        member = self.members[name]
        assert member.flush is not None
        member.wal.end_flush(member.flush)
        member.flush = None
        member.group.synced()
        self._turn(member)

    def sync(self, *names: str) -> bool:
        """Sync the logs of these members until nothing is left to sync; False if there was nothing."""
        any_synced = False
        for name in names:
            while self.begin_sync(name):
                self.end_sync(name)
                any_synced = True
        return any_synced

    def work(self, name: str) -> bool:
        """Run one piece of blocking work; False if there is none."""
        member = self.members[name]
        if not member.jobs:
            return False
        work, then = member.jobs.popleft()
        error: BaseException | None = None
        try:
            work()
        except (OSError, ValueError) as caught:
            error = caught
        then(error)
        self._turn(member)
        return True

    def timer(self, *names: str, advance_s: float = 0.0) -> None:
        """Let time pass, then let these members look at the clock."""
        self.now += advance_s
        for name in names:
            member = self.members[name]
            if member.group.timer(member.now()) or len(member.group.outbox):
                self._turn(member)

    def turn(self, name: str) -> None:
        """Give a member a turn."""
        self._turn(self.members[name])

    def propose(self, name: str, *texts: str) -> None:
        """Hand commands to a member's state machine, and give it a turn."""
        member = self.members[name]
        member.ledger.waiting += [ENTRY_PREFIX + text.encode() for text in texts]
        self._turn(member)

    def command(self, name: str) -> None:
        """Propose a command unlike any other."""
        self.commands += 1
        self.propose(name, f"command {self.commands}")

    def read(
        self, name: str, *, lease: bool = False, proofs: list[ReadProof | None] | None = None
    ) -> list[int | None]:
        """Begin a linearizable read; the list receives the index it is served at, or None; `proofs` all of it."""
        proofs = [] if proofs is None else proofs
        member, begun_at = self.members[name], self.checker.acknowledged_index()
        served: list[int | None] = []

        def done(proof: ReadProof | None) -> None:
            served.append(None if proof is None else proof.index)
            proofs.append(proof)
            if proof is not None:
                self.checker.reads(name, begun_at, member.ledger.applied_index)

        member.group.read_index(done, lease=lease)
        self._turn(member)
        return served

    def checkpoint(self, name: str, *, keep: int = 0) -> None:
        """Make a checkpoint, and let the log drop all but the last `keep` entries below it."""
        member = self.members[name]
        member.ledger.checkpoint()
        member.group.compact(member.ledger.checkpoint_index - keep)
        self._turn(member)

    # ------------------------------------------------------------ many steps

    def exchange(self, *names: str, jobs: bool = True) -> int:
        """Sync, work and deliver among these members until nothing is left to do; returns the rounds."""
        for rounds in range(ROUNDS_MAX):
            busy = self.sync(*names)
            for name in names:
                while jobs and self.work(name):
                    busy = True
            for source in names:
                for target in names:
                    if source != target and self.deliver(source, target):
                        busy = True
            if not busy:
                return rounds
        raise AssertionError("the cluster does not come to rest")

    def beat(self, leader: str, *followers: str) -> None:
        """A heartbeat's time passes; the leader sends, these followers answer, all come to rest."""
        self.timer(leader, advance_s=HEARTBEAT_S)
        self.exchange(leader, *followers)

    def stand(self, name: str) -> None:
        """An election timeout passes, and this member's timer alone runs out; its records are synced."""
        self.timer(name, advance_s=self.config.election_max_s)
        self.sync(name)

    def elect(self, name: str, *voters: str) -> None:
        """Make a member leader with these votes; its first appends are on the links."""
        self.stand(name)
        for _ in range(2):
            for voter in voters:
                self.deliver(name, voter)
                self.sync(voter)
            for voter in voters:
                if not self[name].is_leader:
                    self.deliver(voter, name)
                    self.sync_vote(name)
        assert self[name].is_leader, f"{name} is not elected by {voters}"

    def sync_vote(self, name: str) -> None:
        """Sync a candidate, but not the log of one that has just won."""
        if not self[name].is_leader:
            self.sync(name)

    def lead(self, name: str) -> None:
        """Make a member the leader of a cluster at rest, all up to date."""
        others = [peer for peer in self.names if peer != name and self.members[peer].up]
        self.elect(name, *others)
        self.exchange(name, *others)
        self.beat(name, *others)

    def heal(self, rounds: int = 80) -> str:
        """Restart and connect all, let time pass until one leads and all have applied alike; who leads."""
        for name in self.names:
            if not self.members[name].up:
                self.restart(name)
        for i, a in enumerate(self.names):
            for b in self.names[i + 1 :]:
                self.connect(a, b)
        for _ in range(rounds):
            self.timer(*self.names, advance_s=HEARTBEAT_S)
            self.exchange(*self.names)
        leaders = [name for name in self.names if self[name].is_leader]
        assert len(leaders) == 1, f"leaders after calm: {leaders}"
        return leaders[0]

    def check_converged(self, names: Iterable[str] | None = None) -> None:
        """All of these applied the same, and all that was acknowledged."""
        for name in names or self.names:
            self.checker.survives(name, self.members[name].ledger.entries)
        states = [self.members[name].ledger.entries for name in names or self.names]
        assert all(state == states[0] for state in states), [len(state) for state in states]

    # ------------------------------------------------------------ details

    def _turn(self, member: Member) -> None:
        member.woken = True
        while member.woken:
            member.woken = False
            member.group.settle(member.now())
            self._look(member)
            self._release(member)
            member.woken = member.woken or (member.group.busy and not member.ledger.store_full)

    def _release(self, member: Member) -> None:
        for outgoing in member.group.outbox.take(member.wal.durable_seq):
            raw = outgoing.raw
            self.sent.append((member.name, outgoing.peer, raft_pb2.RaftMessage.FromString(raw)))
            if outgoing.peer in member.group.connected:
                wire = (raw, outgoing.bulk)
                self.links[member.name, outgoing.peer].append(wire)

    def _flush(self, member: Member) -> None:
        flush = member.wal.begin_flush()
        assert flush is not None
        flush.run()
        member.wal.end_flush(flush)

    def _look(self, member: Member) -> None:
        group = member.group
        if group.failure is not None:
            return
        if group.is_leader:
            self.checker.leads(member.name, group.term, member.holds)
        if group.commit_index < member.seen_commit:
            raise Violation(f"went back: {member.name} knew commit index {member.seen_commit}")
        if group.commit_index > member.seen_commit:
            copies = [other.copy() for other in self.members.values()]
            for index in range(max(member.seen_commit, group.journal.base) + 1, group.commit_index + 1):
                term = group.journal.entry(index)[2]
                self.checker.commits(member.name, (group.data(index), index, term), copies, group.term)
            member.seen_commit = group.commit_index

    def _applies(self, member: Member, entry: Entry) -> None:
        self.checker.applies(member.name, entry)
        if member.group.is_leader and member.ledger.proposed.get(entry[1]) is entry[0]:
            self.checker.acknowledges(entry)


def texts(entries: Sequence[Entry]) -> list[str]:
    """The commands among entries, without the no-ops."""
    return [data[1:].decode() for data, _, _ in entries if len(data) > 1]


def terms(group: Group) -> list[int]:
    """The terms of a group's log above the head of a new group."""
    journal = group.journal
    return [journal.entry(i)[2] for i in range(max(journal.base, 2) + 1, journal.last + 1)]
