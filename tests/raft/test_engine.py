"""The engine's turns: one flush for all, durable before sent, a full disk, a failed disk, compaction."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from kv.errors import DiskFull
from kv.internal.v1 import raft_pb2
from kv.raft.api import ReadProof
from kv.raft.engine import FULL_RETRY_S, MAINTENANCE_S
from kv.raft.group import APPLY_ENTRIES_MAX, Group
from kv.raft.replication import COMMIT_NOTICE_S_MAX
from kv.raft.wal import WalFailed
from tests.raft.harness import CONFIG, texts
from tests.raft.ledger import Ledger
from tests.raft.virtual import LATENCY_S, SYNC_S, Node, World, cluster, leader


def followers(world: World, head: Node) -> list[Node]:
    """The other nodes."""
    return [node for node in world.nodes.values() if node is not head]


# ------------------------------------------------------------ turns


def test_a_command_needs_no_timer() -> None:
    """From proposal to reply: one way to a follower, its sync, one way back. Nothing waits for a period."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    began = world.now
    head.propose("a")
    world.wait(lambda: texts(head.ledgers[1].entries) == ["a"])
    assert world.now - began <= 2 * LATENCY_S + 2 * SYNC_S
    world.wait(lambda: all(texts(node.ledgers[1].entries) == ["a"] for node in world.nodes.values()))
    assert world.now - began <= 3 * LATENCY_S + 3 * SYNC_S


def test_one_flush_serves_all_groups() -> None:
    """The work that many groups do in a turn becomes durable with one sync."""
    world = cluster(1, groups=20)
    node = world.nodes["n1"]
    for number in range(1, 21):
        leader(world, number)
    world.run(1.0)
    before = node.disk.syncs
    for number in range(1, 21):
        node.propose("a", group=number)
    world.run(0.1)
    assert all(texts(node.ledgers[number].entries) == ["a"] for number in range(1, 21))
    assert node.disk.syncs == before + 1


def test_what_comes_while_a_flush_runs_goes_with_the_next() -> None:
    """At most one flush runs; commands that arrive meanwhile share the next one, and wait for no timer."""
    world = cluster(1)
    node = leader(world)
    world.run(1.0)
    before = node.disk.syncs
    for text in ("a", "b", "c", "d"):
        node.propose(text)
        world.run(SYNC_S / 10)
    world.run(2 * SYNC_S)
    assert texts(node.ledgers[1].entries) == ["a", "b", "c", "d"]
    assert node.disk.syncs == before + 2


def test_a_leaders_appends_leave_while_its_own_log_syncs() -> None:
    """With two fast disks of three the leader's entry is on its way and stored before its own disk has it."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    head.hold()
    head.propose("a")
    world.run(0.05)
    assert all(node.group().durable_index == head.group().last_index for node in followers(world, head))
    assert texts(head.ledgers[1].entries) == [], "its own copy counts, and is not on its disk"
    head.release()
    world.run(0.0)
    assert texts(head.ledgers[1].entries) == ["a"]


def test_an_acknowledgement_leaves_after_the_flush() -> None:
    """A follower with a slow disk answers nothing about an entry before the disk has it."""
    world = cluster()
    head = leader(world)
    slow, other = followers(world, head)
    world.run(1.0)
    slow.hold()
    other.engine.stop()
    head.propose("a")
    said = len(world.sent)
    world.run(0.05)
    assert not any(m.HasField("append_reply") for source, _, m in world.sent[said:] if source == slow.name)
    assert texts(head.ledgers[1].entries) == []
    slow.release()
    world.run(0.05)
    assert texts(head.ledgers[1].entries) == ["a"]


def test_a_round_of_a_read_takes_turns_of_the_leader_only() -> None:
    """The members answer the probe at once, and the leader has a turn to ask and one when a quorum has answered."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    before = {node.name: node.ledgers[1].pumps for node in world.nodes.values()}
    proofs: list[ReadProof | None] = []
    head.group().read_index(proofs.append)
    world.run(0.01)
    assert [proof is not None for proof in proofs] == [True]
    turns = {node.name: node.ledgers[1].pumps - before[node.name] for node in world.nodes.values()}
    assert turns == {node.name: 2 if node is head else 0 for node in world.nodes.values()}


def test_a_command_takes_two_turns_of_its_leader_and_one_of_each_member() -> None:
    """The leader has a turn to propose and one to commit; a member syncs it and applies the one before in one turn."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    head.propose("a")
    world.run(0.001)  # so that another command is expected soon, and no notice of the commit goes out at once
    for _ in range(40):
        head.propose("b")
        world.run(0.005)
    before = {node.name: node.ledgers[1].pumps for node in world.nodes.values()}
    said = len(world.sent)
    head.propose("c")
    world.run(0.005)
    turns = {node.name: node.ledgers[1].pumps - before[node.name] for node in world.nodes.values()}
    assert turns == {node.name: 2 if node is head else 1 for node in world.nodes.values()}
    assert len(world.sent) - said == 4, (
        "an append to each member and its acknowledgement; the next one tells the commit"
    )
    assert texts(head.ledgers[1].entries)[-1] == "c"


def test_the_commit_of_the_last_of_many_commands_is_told_in_time() -> None:
    """When the appends that would have told of it do not come any more, a notice does, within its bound."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    for _ in range(40):
        head.propose("a")
        world.run(0.005)
    head.propose("last")
    world.wait(lambda: texts(head.ledgers[1].entries)[-1] == "last")
    world.run(COMMIT_NOTICE_S_MAX + LATENCY_S)
    assert all(texts(node.ledgers[1].entries)[-1] == "last" for node in world.nodes.values())


def test_groups_that_wait_again_are_reminded_when_the_first_of_them_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One timer serves all groups: a group that has long to wait does not hold up another, whichever asked first."""
    world = cluster(1, groups=3)
    node = world.nodes["n1"]
    began = world.now
    due = {number: began + after_s for number, after_s in ((1, 0.039), (2, 0.021), (3, 0.030))}
    told: dict[int, float] = {}

    def reminded(group: Group) -> float:
        left_s = due[group.group_id] - world.now
        if left_s > 1e-9:
            return left_s
        told[group.group_id] = world.now
        return 0.0

    monkeypatch.setattr(Group, "reminded", reminded)
    for number in due:
        node.engine.remind(node.group(number), 0.020)
    world.run(0.1)
    assert told == pytest.approx(due)


def test_an_acknowledgement_of_what_is_committed_asks_for_no_turn() -> None:
    """A second member's answer to the first of two commands can commit nothing, though the second is open still."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    late = followers(world, head)[1]
    late.hold()
    head.propose("a")
    world.wait(lambda: texts(head.ledgers[1].entries) == ["a"])
    followers(world, head)[0].hold()
    head.propose("b")
    world.run(0.02)
    before, said = head.ledgers[1].pumps, len(world.sent)
    held, late.held = late.held, []
    assert held, "the disk of the late one has not written the first command yet"
    for work, then in held:
        late._work(work, then)
    world.run(2 * LATENCY_S)
    answers = [m for source, _, m in world.sent[said:] if source == late.name and m.HasField("append_reply")]
    assert answers, "it has answered"
    assert head.ledgers[1].pumps == before
    assert texts(head.ledgers[1].entries) == ["a"]


def test_a_long_tail_is_applied_over_many_turns() -> None:
    """Replay goes in slices, and asks for turns until it is done, without any event."""
    world = cluster(1)
    node = leader(world)
    node.propose(*("x" for _ in range(3 * APPLY_ENTRIES_MAX)))
    pumps = node.ledgers[1].pumps
    world.run(0.05)
    assert len(texts(node.ledgers[1].entries)) == 3 * APPLY_ENTRIES_MAX
    assert node.ledgers[1].pumps - pumps >= 3


def test_messages_of_unknown_groups_are_ignored() -> None:
    """A message for a group that this node does not run moves nothing."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    term = head.group().term
    stray = raft_pb2.RaftMessage(group=99, epoch=1, sender="n9", term=50, stale_term=raft_pb2.StaleTerm())
    head.deliver("n9", [stray.SerializeToString()])
    world.run(0.5)
    assert list(head.engine.groups) == [1]
    assert head.group().term == term
    assert head.group().is_leader


def test_a_group_that_comes_later_knows_the_connections() -> None:
    """A group that is added when the links are up elects and commits as the others do."""
    world = cluster()
    leader(world)
    for node in list(world.nodes.values()):
        node.add(2, list(world.nodes))
    head = leader(world, 2)
    assert head.engine.connected == sorted(node.name for node in followers(world, head))
    head.propose("a", group=2)
    world.wait(lambda: all(texts(node.ledgers[2].entries) == ["a"] for node in world.nodes.values()))


def test_a_stopped_engine_is_silent() -> None:
    """After `stop` nothing is flushed or sent, whatever arrives, as in a crash."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    head.propose("a")
    head.engine.stop()
    syncs, said = head.disk.syncs, len(world.sent)
    world.run(3.0)
    assert head.disk.syncs == syncs
    assert all(source != head.name for source, _, _ in world.sent[said:])
    assert leader(world, besides=head) is not head


def test_a_broken_connection_is_forgotten_and_repaired() -> None:
    """What was in flight when a connection broke is sent again over the next one."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    peer = followers(world, head)[0]
    head.engine.connection(peer.name, False)
    peer.engine.connection(head.name, False)
    head.propose("a", "b")
    world.run(0.05)
    assert texts(peer.ledgers[1].entries) == []
    head.engine.connection(peer.name, True)
    peer.engine.connection(head.name, True)
    world.run(1.0)
    assert texts(peer.ledgers[1].entries) == ["a", "b"]


# ------------------------------------------------------------ a full disk, a full store


def test_a_full_disk_steps_its_leader_down_until_there_is_room() -> None:
    """A leader whose log has no room leads nothing and refuses; another takes over; with room it takes part again."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    head.disk.full = True
    head.propose("lost or not")
    world.wait(lambda: head.engine.disk_full)
    assert not head.group().is_leader
    with pytest.raises(DiskFull):
        head.group().propose(b"\x01x")
    new = leader(world, besides=head)
    new.propose("a")
    world.wait(lambda: "a" in texts(new.ledgers[1].entries))
    world.run(5 * CONFIG.election_max_s)
    assert new.group().is_leader, "a member without room must not disturb"
    assert (head.engine.disk_full, len(head.fatal)) == (True, 0)
    head.disk.full = False
    world.run(2 * FULL_RETRY_S)
    assert (head.engine.disk_full, len(head.fatal)) == (False, 0)
    world.run(3.0)
    entries = {tuple(texts(node.ledgers[1].entries)) for node in world.nodes.values()}
    assert len(entries) == 1
    assert "a" in entries.pop()


def test_a_full_disk_suspends_all_groups_of_the_node() -> None:
    """Groups share the log: none of them leads while it has no room, and each leads again afterwards."""
    world = cluster(1, groups=3)
    node = world.nodes["n1"]
    for number in (1, 2, 3):
        leader(world, number)
    node.disk.full = True
    node.propose("a", group=2)
    world.wait(lambda: node.engine.disk_full)
    assert not any(group.is_leader for group in node.engine.groups.values())
    node.disk.full = False
    for number in (1, 2, 3):
        leader(world, number)
    world.run(1.0)
    assert texts(node.ledgers[2].entries) == ["a"], "it was in the log, and nothing overwrote it"


def test_a_full_store_steps_its_replica_down() -> None:
    """A replica whose state cannot be written leads nothing until it can; other groups of the node go on."""
    world = cluster(1, groups=2)
    node = world.nodes["n1"]
    leader(world, 1)
    leader(world, 2)
    node.ledgers[1].store_full = True
    node.group(1).wake()
    world.run(0.01)
    assert not node.group(1).is_leader
    assert node.group(2).is_leader
    node.ledgers[1].store_full = False
    leader(world, 1)


# ------------------------------------------------------------ a failed disk


def test_a_failed_sync_is_fatal_and_nothing_is_sent_after_it() -> None:
    """A log that cannot be made durable ends the process: told once, and never a word more."""
    world = cluster()
    head = leader(world)
    world.run(1.0)
    head.disk.sync_error = errno.EIO
    head.propose("a")
    world.wait(lambda: bool(head.fatal))
    said = len(world.sent)
    world.run(5.0)
    assert len(head.fatal) == 1
    assert isinstance(head.fatal[0], WalFailed)
    assert all(source != head.name for source, _, _ in world.sent[said:])
    assert texts(head.ledgers[1].entries) == []


# ------------------------------------------------------------ compaction


def fill(node: Node, world: World, commands: int) -> None:
    """Commit commands of about 1 KB."""
    for number in range(commands):
        node.propose(f"{number}".ljust(1000, "."))
        world.run(5 * SYNC_S)


def compact(ledger: Ledger) -> None:
    """Make a checkpoint, and let the log drop what it covers."""
    assert ledger.group is not None
    ledger.checkpoint()
    ledger.group.compact(ledger.checkpoint_index)


def test_segments_are_removed_after_the_records_that_free_them_are_durable() -> None:
    """A plan is made at maintenance; its segments go only when the log has what the plan wrote."""
    world = cluster(1)
    node = leader(world)
    fill(node, world, 60)
    before = node.engine.wal.segments
    assert len(before) > 3
    compact(node.ledgers[1])
    node.hold()
    world.run(2 * MAINTENANCE_S)
    assert node.engine.wal.segments == before, "the record of the compaction is not durable yet"
    node.release()
    world.run(3 * MAINTENANCE_S)
    assert len(node.engine.wal.segments) <= 2
    assert set(node.disk.names()) == set(node.engine.wal.segments)
    node.propose("after")
    world.run(1.0)
    assert texts(node.ledgers[1].entries)[-1] == "after"


def test_the_log_stays_small_while_it_is_used() -> None:
    """With checkpoints now and then the disk space of the log is bounded, however much is written."""
    world = cluster(1)
    node = leader(world)
    largest = 0
    for _ in range(10):
        fill(node, world, 20)
        compact(node.ledgers[1])
        world.run(2 * MAINTENANCE_S)
        largest = max(largest, node.engine.wal.bytes_on_disk)
    assert largest <= 5 * CONFIG.segment_bytes


def test_a_segment_that_cannot_be_removed_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the directory's removal of a segment fails the process ends: what is on disk is not known any more."""
    world = cluster(1)
    node = leader(world)
    fill(node, world, 60)
    compact(node.ledgers[1])
    node.disk.sync_directory_error = errno.EIO
    world.wait(lambda: bool(node.fatal))
    assert isinstance(node.fatal[0], OSError)


def test_all_followers_are_sent_the_same_append() -> None:
    """It is made and serialized once, however many it goes to."""
    world = cluster(5)
    head = leader(world)
    world.run(1.0)
    sent: dict[str, list[bytes]] = {}
    send = head.send

    def note(peer: str, messages: Sequence[bytes], bulk: bool) -> None:
        sent.setdefault(peer, []).extend(messages)
        send(peer, messages, bulk)

    vars(head)["send"] = note
    head.propose("a")
    world.run(LATENCY_S / 2)
    assert sorted(sent) == [node.name for node in followers(world, head)]
    assert len({id(messages[0]) for messages in sent.values()}) == 1
