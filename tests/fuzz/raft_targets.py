"""Targets for Raft messages: any messages to a real group in one of several states.

An input is a serialized frame (`RaftFrame`). Its hello chooses the state of the group and which of the
messages are followed by a sync. The group is one member of three; the others are the input.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import google_crc32c
from google.protobuf.message import DecodeError

from kv.frames import BadFrame, FrameReader, frame_of
from kv.internal.v1 import peer_pb2, raft_pb2
from kv.raft.api import BOOTSTRAP_INDEX, Entry
from kv.raft.frames import KEEPALIVE, PREFACE
from kv.raft.group import Group
from kv.raft.wal import Wal
from tests.fuzz.engine import Target, plain
from tests.fuzz.mutate import mutate_bytes, mutate_message
from tests.raft.harness import CONFIG, EPOCH, GROUP, Member
from tests.raft.ledger import Ledger, LedgerDisk, LedgerSink

ME, PEERS = "n1", ("n2", "n3")
SALT = 0x5EED
MESSAGES_MAX = 40
"""Messages of one input that are delivered."""

Body = dict[str, object]


class StrictSink(LedgerSink):
    """Holds its caller to what the real sink (`kv.partition.snapshot.FileSink`) demands."""

    def __init__(self, disk: LedgerDisk, index: int, total_bytes: int) -> None:
        assert index > BOOTSTRAP_INDEX
        assert total_bytes > 0
        super().__init__(disk, index)
        self._total_bytes = total_bytes

    def write(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= self._total_bytes
        super().write(offset, data)

    def finish(self) -> None:
        if len(self._blob) != self._total_bytes:
            raise ValueError("a short snapshot")
        try:
            super().finish()
        except DecodeError as error:
            raise ValueError(str(error)) from error


class StrictLedger(Ledger):
    """A ledger with such sinks, that notes an install which goes back."""

    def snapshot_sink(self, index: int, total_bytes: int) -> LedgerSink:
        self.sinks.append(StrictSink(self._disk, index, total_bytes))
        return self.sinks[-1]


class Subject:
    """The group under test: n1, with connections to n2 and n3, and what it has committed so far."""

    def __init__(self) -> None:
        self.member = member = Member(ME, lambda: self.now)
        member.wal = Wal.open(member.files, salt=SALT, segment_bytes=CONFIG.segment_bytes)
        journal = member.wal.journal(GROUP)
        journal.bootstrap()
        self.now = 1.0
        self.committed: dict[int, Entry] = {}
        self.term = self.commit = self.applied = self.installed = 0
        member.ledger = StrictLedger(member.disk, lambda _: None)
        self.group = member.group = Group(
            group_id=GROUP,
            epoch=EPOCH,
            me=ME,
            members=[ME, *PEERS],
            journal=journal,
            machine=member.ledger,
            config=CONFIG,
            host=member,
            rng=Random(1).random,
            now=self.now,
        )
        self.sync()
        for peer in PEERS:
            self.group.connection(peer, True)

    # what happens to it

    def deliver(self, message: raft_pb2.RaftMessage, peer: str) -> None:
        self.group.receive(message, peer)
        self.turn()

    def say(self, peer: str, term: int, **body: object) -> None:
        """A message that a correct peer could send."""
        self.deliver(raft_pb2.RaftMessage(**envelope(peer, term), **body), peer)  # type: ignore[arg-type]

    def turn(self) -> None:
        self.group.settle(self.now)
        while self.member.jobs:
            work, then = self.member.jobs.popleft()
            error: BaseException | None = None
            try:
                work()
            except (OSError, ValueError) as caught:
                error = caught
            then(error)
            self.group.settle(self.now)
        self._release()
        self.look()

    def sync(self) -> None:
        while (flush := self.member.wal.begin_flush()) is not None:
            flush.run()
            self.member.wal.end_flush(flush)
            self.group.synced()
            self.turn()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.group.timer(self.now)
        self.turn()

    # what must hold

    def look(self) -> None:
        """Terms, commit index and state never go back; what was committed stays as it was."""
        group, ledger = self.group, self.member.ledger
        assert group.term >= self.term, "the term went back"
        assert group.commit_index >= self.commit, "the commit index went back"
        assert ledger.applied_index >= self.applied, "the state went back"
        assert group.durable_index <= group.last_index
        self.term, self.commit, self.applied = group.term, group.commit_index, ledger.applied_index
        if group.install.snapshots_installed > self.installed:  # a state that no message can be held against
            self.installed = group.install.snapshots_installed
            self.committed.clear()
        for index in range(group.journal.base + 1, self.commit + 1):
            entry = (group.data(index), index, group.journal.entry(index)[2])
            assert self.committed.setdefault(index, entry) == entry, f"committed entry {index} changed"
        for entry in ledger.entries:
            assert self.committed.get(entry[1], entry) == entry, "what was applied is not what was committed"

    def _release(self) -> None:
        for outgoing in self.group.outbox.take(self.member.wal.durable_seq):
            message = raft_pb2.RaftMessage.FromString(outgoing.raw)
            assert outgoing.peer in PEERS
            assert (message.group, message.epoch, message.sender) == (GROUP, EPOCH, ME)
            if (
                message.WhichOneof("body") != "pre_vote_reply"
            ):  # granted, it names the term that was asked for
                assert message.term <= self.group.term + 1

    def restart(self) -> None:
        """A crash now loses nothing that was durable, and the log can be read."""
        journal = self.group.journal
        durable = {i: journal.term_at(i) for i in range(journal.base + 1, journal.durable_index + 1)}
        term = journal.term if journal.seq <= self.member.wal.durable_seq else 0
        wal = Wal.open(self.member.files.copy(), salt=SALT, segment_bytes=CONFIG.segment_bytes)
        again = wal.journal(GROUP)
        assert again.term >= term
        if journal.seq <= self.member.wal.durable_seq:
            assert {i: again.term_at(i) for i in durable} == durable, "durable entries are lost"


def envelope(peer: str, term: int) -> Body:
    """The head of a message."""
    return {"group": GROUP, "epoch": EPOCH, "sender": peer, "term": term}


def append(prev: int, prev_term: int, commit: int, *terms: int) -> raft_pb2.Append:
    """An append whose entries tell what they are."""
    parts = [raft_pb2.Entry(term=t, data=b"\x01%d/%d" % (prev + 1 + i, t)) for i, t in enumerate(terms)]
    return raft_pb2.Append(prev_index=prev, prev_term=prev_term, commit_index=commit, entries=parts)


# --- states ------------------------------------------------------------------------------------------------


def _fresh(_: Subject) -> None:
    """Nothing has happened yet."""


def _follower(subject: Subject) -> None:
    """A log of two terms, up to 9, of which 6 are committed."""
    subject.say("n2", 1, append=append(2, 0, 2, 1, 1))
    subject.say("n2", 2, append=append(4, 1, 6, 2, 2, 2, 2, 2))
    subject.sync()
    subject.group.read_index(lambda _: None)  # it asks its leader
    subject.turn()


def _compacted(subject: Subject) -> None:
    """The same, with its head at 5."""
    _follower(subject)
    subject.member.ledger.checkpoint()
    subject.group.compact(5)
    subject.sync()


def _leader(subject: Subject) -> None:
    """Leads term 3; its first entries are committed, later ones are not."""
    _follower(subject)
    subject.pass_time(5.0)
    subject.sync()
    subject.say("n3", subject.group.term + 1, pre_vote_reply=raft_pb2.PreVoteReply(granted=True))
    subject.sync()
    subject.say("n3", subject.group.term, vote_reply=raft_pb2.VoteReply())
    assert subject.group.is_leader
    _propose(subject, 2)
    reply = raft_pb2.AppendReply(next_index=subject.group.last_index + 1, success=True)
    subject.say("n3", subject.group.term, append_reply=reply)
    subject.group.read_index(lambda _: None)
    _propose(subject, 2)


def _propose(subject: Subject, count: int) -> None:
    subject.member.ledger.waiting += [b"\x01mine %d" % i for i in range(count)]
    subject.turn()
    subject.sync()


def _candidate(subject: Subject) -> None:
    """Asks for pre-votes."""
    _follower(subject)
    subject.pass_time(5.0)


def _sending(subject: Subject) -> None:
    """Leads and sends a snapshot to n2."""
    _leader(subject)
    subject.member.ledger.checkpoint()
    subject.group.compact(subject.member.ledger.checkpoint_index)
    subject.say("n2", subject.group.term, append_reply=raft_pb2.AppendReply(next_index=3, success=False))
    subject.pass_time(0.2)


def _full(subject: Subject) -> None:
    """Its disk is full."""
    _follower(subject)
    subject.group.suspend(True, subject.now)


STATES: tuple[Callable[[Subject], None], ...] = (
    _fresh, _follower, _compacted, _leader, _candidate, _sending, _full,
)  # fmt: skip


# --- the check ---------------------------------------------------------------------------------------------


def _check(data: bytes) -> str:
    try:
        frame = peer_pb2.RaftFrame.FromString(data)
    except DecodeError:
        return "no frame"  # gRPC ends the stream
    state = STATES[frame.hello.map_epoch % len(STATES)]
    subject = Subject()
    state(subject)
    before = (subject.group.term, subject.commit, subject.group.last_index)
    for number, message in enumerate(frame.messages[:MESSAGES_MAX]):
        subject.deliver(message, message.sender if message.sender in PEERS else PEERS[0])
        if not frame.hello.incarnation >> number % 64 & 1:
            subject.sync()
    subject.restart()
    for seconds in (0.2, 3.0, 3.0):
        subject.pass_time(seconds)
        subject.sync()
    subject.restart()
    return _outcome(subject, state.__name__, before)


def _outcome(subject: Subject, state: str, before: tuple[int, int, int]) -> str:
    group = subject.group
    after = (group.term, subject.commit, group.last_index)
    moves = " ".join("<=>"[(b > a) - (b < a) + 1] for a, b in zip(before, after, strict=True))
    stopped = "stopped" if group.failure else "leads" if group.is_leader else "follows"
    return f"{state}: {moves} {stopped}, installed {group.install.snapshots_installed}"


# --- seeds -------------------------------------------------------------------------------------------------


def snapshot_blob() -> bytes:
    """A snapshot of a ledger at index 12."""
    return append(2, 0, 0, *[1] * 10).SerializeToString()


def _chunks(term: int) -> list[raft_pb2.RaftMessage]:
    blob = snapshot_blob()
    pieces = [(at, blob[at : at + 40]) for at in range(0, len(blob), 40)]
    return [
        raft_pb2.RaftMessage(
            **envelope("n2", term),  # type: ignore[arg-type]
            snapshot_chunk=raft_pb2.SnapshotChunk(
                index=12,
                index_term=1,
                previous_term=1,
                offset=at,
                total_bytes=len(blob),
                crc32c=google_crc32c.value(data),
                data=data,
            ),
        )
        for at, data in pieces
    ]


def _bodies() -> list[tuple[str, int, Body]]:
    """One message of each kind that means something to the states above: (sender, term, body)."""
    return [
        ("n2", 2, {"append": append(9, 2, 9, 2, 2)}),
        ("n2", 2, {"append": append(6, 2, 7)}),
        ("n2", 2, {"append": append(4, 1, 9, 2, 2, 2, 2, 2, 2)}),
        ("n3", 4, {"append": append(7, 2, 8, 4, 4)}),
        ("n3", 4, {"append": append(20, 4, 8, 4)}),
        ("n2", 1, {"append": append(2, 0, 2, 1)}),
        ("n2", 3, {"append_reply": raft_pb2.AppendReply(next_index=12, success=True)}),
        ("n3", 3, {"append_reply": raft_pb2.AppendReply(next_index=5, success=False)}),
        ("n3", 4, {"vote": raft_pb2.Vote(last_index=12, last_term=3, transfer=True)}),
        ("n3", 3, {"vote": raft_pb2.Vote(last_index=9, last_term=2)}),
        ("n3", 3, {"vote_reply": raft_pb2.VoteReply()}),
        ("n3", 4, {"pre_vote": raft_pb2.PreVote(last_index=12, last_term=3)}),
        ("n3", 3, {"pre_vote_reply": raft_pb2.PreVoteReply(granted=True)}),
        ("n2", 3, {"probe": raft_pb2.Probe(sequence=1)}),
        ("n3", 3, {"probe_reply": raft_pb2.ProbeReply(sequence=1)}),
        ("n3", 3, {"read_index_request": raft_pb2.ReadIndexRequest(sequence=1)}),
        ("n2", 2, {"read_index_reply": raft_pb2.ReadIndexReply(sequence=1, index=8, confirmed=True)}),
        ("n3", 7, {"stale_term": raft_pb2.StaleTerm()}),
        ("n2", 3, {"snapshot_reply": raft_pb2.SnapshotReply(index=11, next_offset=64)}),
    ]


def _seeds() -> list[bytes]:
    singles = [
        [raft_pb2.RaftMessage(**envelope(sender, term), **body)]  # type: ignore[arg-type]
        for sender, term, body in _bodies()
    ]
    together = [message for single in singles for message in single]
    won = [singles[10], singles[6], singles[13], singles[14]]
    runs = [*singles, together, [message for single in won for message in single], _chunks(2), _chunks(5)]
    return [
        peer_pb2.RaftFrame(
            hello=peer_pb2.Hello(map_epoch=state, incarnation=unsynced), messages=run
        ).SerializeToString()
        for state in range(len(STATES))
        for unsynced, run in ((0, run) for run in runs)
    ]


FRAME_FUZZ_BYTES_MAX = 300
"""Small, so that frames above it are tried often."""


def _check_frames(data: bytes) -> str:
    """The first byte says how the rest is cut on its way: it must not matter."""
    step, stream = (data[0] % 31 + 1, data[1:]) if data else (1, b"")
    outcomes = []
    for size in (step, len(stream) or 1):
        reader = FrameReader(PREFACE, FRAME_FUZZ_BYTES_MAX)
        payloads: list[bytes] = []
        try:
            for start in range(0, len(stream), size):
                payloads += reader.feed(stream[start : start + size])
            outcome = "open"
        except BadFrame:
            outcome = "refused"
        assert all(len(payload) <= FRAME_FUZZ_BYTES_MAX for payload in payloads)
        outcomes.append((outcome, payloads))
    assert outcomes[0] == outcomes[1], "frames depend on how their bytes arrive"
    return f"{outcomes[0][0]} after {min(len(outcomes[0][1]), 4)}"


def _frame_seeds() -> list[bytes]:
    payloads = [b"", b"a", bytes(FRAME_FUZZ_BYTES_MAX), b"x" * 77]
    streams = [PREFACE, PREFACE + KEEPALIVE * 3, *(PREFACE + frame_of(raw) for raw in payloads)]
    streams.append(PREFACE + b"".join(map(frame_of, payloads)))
    return [bytes([step]) + stream for step in (0, 6, 30) for stream in streams]


TARGETS = (
    Target("raft-frames", "frames are the same however their bytes arrive, or the connection is refused",
           _frame_seeds, plain(_check_frames), mutate_bytes),
    Target("raft", "no message makes a group raise, forget what was committed, or go back", _seeds, plain(_check),
           mutate_message),
)  # fmt: skip
