"""Snapshots on their way: chunks, windows, damage, repetition, competition with the log, crashes in between."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import google_crc32c
import pytest

from kv.internal.v1 import raft_pb2
from kv.raft.snapshot import GIVE_UP_S, RETRY_S, SnapshotReceiver, SnapshotSender
from tests.raft.harness import CONFIG, EPOCH, GROUP, HEARTBEAT_S, Cluster
from tests.raft.ledger import LedgerDisk, LedgerSink, LedgerSource

ENTRIES = [(b"\x01entry %d" % i, i, 1) for i in range(3, 40)]
CHUNK_BYTES = 50
WINDOW = 3


def sender(disk: LedgerDisk) -> SnapshotSender:
    """A transfer of a checkpoint of some entries, ready to go at time 0."""
    disk.checkpoint = list(ENTRIES)
    transfer = SnapshotSender(LedgerSource(disk), CHUNK_BYTES, WINDOW, 0.0)
    assert list(transfer.chunks()) == [], "not before it is prepared"
    transfer.source.prepare()
    transfer.start(0.0)
    return transfer


def receiver(chunk: raft_pb2.SnapshotChunk) -> tuple[SnapshotReceiver, LedgerDisk]:
    """The other end, at its first chunk."""
    disk = LedgerDisk()
    return SnapshotReceiver(LedgerSink(disk, chunk.index), chunk, 1, "n1"), disk


# ------------------------------------------------------------ the two ends


def test_the_window_bounds_what_is_on_its_way() -> None:
    """No more than the window is sent without confirmation; each confirmation lets as much more out."""
    transfer = sender(LedgerDisk())
    assert [chunk.offset for chunk in transfer.chunks()] == [0, 50, 100]
    assert list(transfer.chunks()) == []
    transfer.confirmed(100, 0.1)
    assert [chunk.offset for chunk in transfer.chunks()] == [150, 200]


def test_a_transfer_arrives_whole_whatever_is_lost_or_repeated(seed: int) -> None:
    """With loss, repetition and disorder, and a rewind after each silence, the very bytes arrive in the end."""
    random = Random(seed)
    for _ in range(20):
        transfer = sender(LedgerDisk())
        flying = list(transfer.chunks())
        other, disk = receiver(flying[0])
        now, complete = 0.0, False
        while not complete:
            if not flying:
                now += RETRY_S
                assert transfer.check(now)
                flying = list(transfer.chunks())
            chunk = flying.pop(random.randrange(len(flying)))
            if random.random() < 0.15:
                continue
            if random.random() < 0.15:
                flying.append(chunk)
            complete = other.take(chunk)
            transfer.confirmed(other.next_offset, now)
            flying += transfer.chunks()
        other.sink.finish()
        assert disk.finished[other.index] == ENTRIES


def test_a_damaged_chunk_is_not_written() -> None:
    """A chunk whose crc does not fit is as good as lost."""
    first = next(sender(LedgerDisk()).chunks())
    other, _ = receiver(first)
    damaged = raft_pb2.SnapshotChunk()
    damaged.CopyFrom(first)
    damaged.data = bytes([first.data[0] ^ 1]) + first.data[1:]
    assert not other.take(damaged)
    assert other.next_offset == 0
    other.take(first)
    assert other.next_offset == CHUNK_BYTES


def test_a_silent_transfer_is_repeated_then_given_up() -> None:
    """After `RETRY_S` without progress what was not confirmed goes again; after `GIVE_UP_S` the transfer ends."""
    transfer = sender(LedgerDisk())
    sent = [chunk.offset for chunk in transfer.chunks()]
    assert transfer.check(RETRY_S - 0.1)
    assert list(transfer.chunks()) == []
    assert transfer.check(RETRY_S)
    assert [chunk.offset for chunk in transfer.chunks()] == sent
    assert transfer.check(GIVE_UP_S - 0.1)
    assert not transfer.check(GIVE_UP_S)


def test_a_receiver_that_began_again_is_served_again() -> None:
    """A follower that restarted asks from the beginning, and gets it."""
    transfer = sender(LedgerDisk())
    list(transfer.chunks())
    transfer.confirmed(150, 0.1)
    list(transfer.chunks())
    transfer.confirmed(0, 0.2)
    assert next(iter(transfer.chunks())).offset == 0


@pytest.mark.parametrize("change", [{"index": 99}, {"index_term": 9}, {"total_bytes": 1}])
def test_chunks_of_another_snapshot_do_not_continue_a_transfer(change: dict[str, int]) -> None:
    """Index, term and size say which snapshot a chunk belongs to; so does the term of its leader."""
    first = next(sender(LedgerDisk()).chunks())
    other, _ = receiver(first)
    assert other.continues(first, 1)
    assert not other.continues(first, 2)
    for name, value in change.items():
        setattr(first, name, value)
    assert not other.continues(first, 1)


# ------------------------------------------------------------ in a cluster


def behind(config_chunk_bytes: int = 64) -> Cluster:
    """n1 leads and has compacted its log; n3 comes back to it and needs the snapshot. n2 is up to date."""
    cluster = Cluster(3, config=replace(CONFIG, snapshot_chunk_bytes=config_chunk_bytes))
    cluster.lead("n1")
    cluster.crash("n3")
    for _ in range(20):
        cluster.command("n1")
    cluster.exchange("n1", "n2")
    cluster.beat("n1", "n2")
    cluster.checkpoint("n1")
    cluster.restart("n3")
    return cluster


def test_a_member_far_behind_gets_the_snapshot_and_then_the_log() -> None:
    """What was compacted comes as a snapshot, what came after it as entries; its own reply ends the transfer."""
    cluster = behind()
    cluster.command("n1")
    for _ in range(3):
        cluster.beat("n1", "n2", "n3")
    assert cluster["n3"].install.snapshots_installed == 1
    assert cluster["n3"].journal.base == cluster["n1"].journal.base
    assert not cluster["n1"].transfers.sending("n3")
    assert all(source.closed for source in cluster.members["n1"].ledger.sources)
    cluster.check_converged()


def test_the_log_keeps_what_follows_a_snapshot_on_its_way() -> None:
    """Compaction stops at the snapshot that is being sent, so that its receiver can go on from the log."""
    cluster = behind()
    cluster.timer("n1", advance_s=HEARTBEAT_S)
    cluster.exchange("n1", "n3", jobs=False)
    cluster.timer("n1", advance_s=HEARTBEAT_S)
    assert cluster.work("n1")
    base = cluster["n1"].journal.base
    for _ in range(5):
        cluster.command("n1")
    cluster.exchange("n1", "n2")
    cluster.checkpoint("n1")
    assert cluster["n1"].journal.base == base
    for _ in range(3):
        cluster.beat("n1", "n2", "n3")
    cluster.check_converged()
    cluster.checkpoint("n1")
    assert cluster["n1"].journal.base > base


@pytest.mark.parametrize("moment", ["file finished", "mark in memory", "mark on disk"])
def test_a_crash_during_an_installation_loses_nothing(moment: str) -> None:
    """Wherever a receiver dies, it comes back with either the old state or the new one, and catches up."""
    cluster = behind(4096)
    member = cluster.members["n3"]
    for _ in range(3):
        cluster.timer("n1", advance_s=HEARTBEAT_S)
        cluster.exchange("n1", "n2")
        cluster.deliver("n1", "n3")
        cluster.sync("n3")
        cluster.deliver("n3", "n1")
    assert len(member.jobs) == 1
    if moment == "file finished":
        member.jobs.popleft()[0]()
    else:
        cluster.work("n3")
        assert cluster["n3"].journal.base == cluster["n1"].journal.base
    if moment == "mark on disk":
        cluster.begin_sync("n3")
    assert cluster["n3"].install.snapshots_installed == 0
    cluster.crash("n3", power_loss=moment != "mark in memory")
    cluster.restart("n3")
    expected = cluster["n1"].journal.base if moment == "mark on disk" else 2
    assert cluster["n3"].journal.base == expected
    for _ in range(4):
        cluster.beat("n1", "n2", "n3")
    cluster.check_converged()


def test_a_member_being_installed_hears_nothing() -> None:
    """Between the mark and the new state no message, timer or sync of others moves the replica."""
    cluster = behind(4096)
    for _ in range(3):
        cluster.timer("n1", advance_s=HEARTBEAT_S)
        cluster.exchange("n1", "n2")
        cluster.deliver("n1", "n3")
        cluster.sync("n3")
        cluster.deliver("n3", "n1")
    cluster.work("n3")
    term = cluster["n3"].term
    stale = raft_pb2.RaftMessage(
        group=GROUP, epoch=EPOCH, sender="n2", term=term + 5, stale_term=raft_pb2.StaleTerm()
    )
    cluster.receive("n2", "n3", (stale.SerializeToString(), False))
    cluster.timer("n3", advance_s=2 * CONFIG.election_max_s)
    assert cluster["n3"].term == term
    assert cluster.members["n3"].ledger.applied_index == 2
    cluster.sync("n3")
    assert cluster["n3"].install.snapshots_installed == 1
    assert cluster["n3"].commit_index == cluster["n3"].journal.base


def test_a_source_that_fails_ends_its_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader without room for the copy goes on; a later heartbeat tries again."""
    cluster = behind()

    def fail(self: LedgerSource) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LedgerSource, "prepare", fail)
    for _ in range(2):
        cluster.beat("n1", "n2", "n3")
    assert cluster["n1"].transfers.sent >= 1
    assert cluster["n1"].is_leader
    monkeypatch.undo()
    for _ in range(4):
        cluster.beat("n1", "n2", "n3")
    cluster.check_converged()


def test_a_snapshot_that_does_not_fit_is_refused() -> None:
    """A file that is not a snapshot at its index is thrown away, and the log stays as it was."""
    cluster = behind()
    data = raft_pb2.Append(prev_index=1).SerializeToString()
    chunk = raft_pb2.SnapshotChunk(
        index=50,
        index_term=1,
        previous_term=1,
        total_bytes=len(data),
        crc32c=google_crc32c.value(data),
        data=data,
    )
    message = raft_pb2.RaftMessage(group=GROUP, epoch=EPOCH, sender="n1", term=1, snapshot_chunk=chunk)
    cluster.receive("n1", "n3", (message.SerializeToString(), True))
    assert cluster.work("n3")
    assert cluster.members["n3"].ledger.sinks[-1].aborted
    assert cluster["n3"].journal.base == 2


@pytest.mark.parametrize("finishing", [False, True])
def test_a_new_leaders_snapshot_waits_for_a_file_being_finished(finishing: bool) -> None:
    """A transfer that a leader change interrupts is dropped; one that is complete is installed: the state is the same."""
    cluster = behind(4096 if finishing else 16)
    for _ in range(2):
        cluster.timer("n1", advance_s=HEARTBEAT_S)
        cluster.exchange("n1", "n2")
        cluster.deliver("n1", "n3")
        cluster.sync("n3")
        cluster.deliver("n3", "n1")
    first = cluster.members["n3"].ledger.sinks[-1]
    assert len(cluster.members["n3"].jobs) == finishing
    cluster.checkpoint("n2")
    cluster.crash("n1")
    cluster.elect("n2", "n3")
    for _ in range(3):
        cluster.timer("n2", advance_s=HEARTBEAT_S)
        cluster.work("n2")
        cluster.deliver("n2", "n3")
        cluster.sync("n3")
        cluster.deliver("n3", "n2")
    assert (cluster.members["n3"].ledger.sinks[-1] is first) == finishing
    assert first.aborted == (not finishing)
    for _ in range(4):
        cluster.beat("n2", "n3")
    assert cluster["n3"].install.snapshots_installed == 1
    cluster.check_converged(["n2", "n3"])


def test_a_replica_that_stopped_installs_nothing() -> None:
    """A snapshot that is complete when its replica stops is removed."""
    cluster = behind(4096)
    for _ in range(3):
        cluster.timer("n1", advance_s=HEARTBEAT_S)
        cluster.exchange("n1", "n2")
        cluster.deliver("n1", "n3")
        cluster.sync("n3")
        cluster.deliver("n3", "n1")
    cluster["n3"].stop("for the test")
    assert cluster.work("n3")
    assert cluster.members["n3"].ledger.sinks[-1].aborted
    assert cluster["n3"].journal.base == 2


def test_a_snapshot_that_the_log_contains_is_answered() -> None:
    """A member that has the entry at the snapshot's index proves it, and the leader goes on with entries."""
    cluster = behind()
    for _ in range(3):
        cluster.beat("n1", "n2", "n3")
    cluster.command("n1")
    cluster.exchange(*cluster.names)
    old = next(m for _, to, m in cluster.sent if to == "n3" and m.HasField("snapshot_chunk"))
    said, sinks = len(cluster.sent), len(cluster.members["n3"].ledger.sinks)
    cluster.receive("n1", "n3", (old.SerializeToString(), True))
    (reply,) = [m.append_reply for source, _, m in cluster.sent[said:] if source == "n3"]
    assert reply.success
    assert reply.next_index == cluster["n3"].commit_index + 1
    assert len(cluster.members["n3"].ledger.sinks) == sinks
