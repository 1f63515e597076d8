"""What each safety rule of the guard prevents: a schedule that is safe with the rule and not without it.

Each test runs twice. With all rules the property holds, and the schedule ends well; with the one rule
switched off the harness sees the named violation. The numbers are those of DESIGN.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from kv.errors import RequestTooLarge
from kv.internal.v1 import raft_pb2
from kv.raft.api import ENTRY_PREFIX
from kv.raft.guard import TERM_MAX, Rules
from tests.raft.checks import Violation
from tests.raft.harness import CONFIG, EPOCH, GROUP, HEARTBEAT_S, Cluster, terms, texts

both_ways = pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
PATIENT = replace(CONFIG, leader_fallback_s=1e6)
"""A leader that is not looked at for long does not step down by itself: its clock may be slow."""


@contextmanager
def violates(name: str, on: bool) -> Iterator[None]:
    """Nothing happens with the rule; without it the violation of this name is seen."""
    if on:
        yield
        return
    with pytest.raises(Violation, match=f"^{name}"):
        yield


def without(rule: str, on: bool) -> Rules:
    """All rules, or all but one."""
    return replace(Rules(), **{rule: on})


# ------------------------------------------------------------ 1: envelope


@both_ways
def test_rule_1_a_vote_of_another_epoch_is_not_counted(on: bool) -> None:
    """Votes given in another configuration of the group elect nobody in this one."""
    cluster = Cluster(3, rules=without("envelope", on))
    cluster.stand("n1")
    cluster.deliver("n1", "n2")
    cluster.deliver("n2", "n1")  # the pre-vote: n1 is a candidate of term 1 now
    vote = raft_pb2.RaftMessage(
        group=GROUP, epoch=EPOCH - 1, sender="n2", term=1, vote_reply=raft_pb2.VoteReply()
    )
    with violates("two leaders", on):
        cluster.receive("n2", "n1", (vote.SerializeToString(), False))
        cluster.drop()
        cluster.elect("n2", "n3")
    assert on == (not cluster["n1"].is_leader)


@pytest.mark.parametrize(
    "forged",
    [{"group": GROUP + 1}, {"epoch": EPOCH + 1}, {"sender": "n3"}, {"sender": "n9"}, {"term": TERM_MAX + 1}],
    ids=["group", "epoch", "not the connection's", "no member", "term"],
)
def test_rule_1_what_is_not_from_a_member_of_this_group_is_dropped(forged: dict[str, object]) -> None:
    """Group, epoch and sender must fit, and the sender must be the one that the connection belongs to."""
    cluster = Cluster(3)
    fields: dict[str, object] = {"group": GROUP, "epoch": EPOCH, "sender": "n2", "term": 9}
    message = raft_pb2.RaftMessage(stale_term=raft_pb2.StaleTerm(), **(fields | forged))  # type: ignore[arg-type]
    source = "n9" if forged.get("sender") == "n9" else "n2"
    cluster.receive(source, "n1", (message.SerializeToString(), False))
    assert cluster["n1"].term == 0


# ------------------------------------------------------------ 3, 4: appends


@both_ways
def test_rule_3_a_late_append_does_not_truncate_what_was_acknowledged(on: bool) -> None:
    """An append that arrives twice leaves alone the entries that came after it."""
    cluster = Cluster(3, rules=without("keep_agreed", on))
    cluster.lead("n1")
    cluster.propose("n1", "a")
    late = cluster.take("n1", "n2")
    cluster.receive("n1", "n2", late[0])
    for text in ("b", "c", "d"):
        cluster.propose("n1", text)
        cluster.deliver("n1", "n2")
    cluster.sync("n1", "n2")
    cluster.deliver("n2", "n1")
    assert texts(cluster.members["n1"].ledger.entries) == ["a", "b", "c", "d"]
    cluster.receive("n1", "n2", late[0])
    cluster.sync("n2")
    cluster.crash("n1")
    with violates("incomplete leader", on):
        cluster.elect("n2", "n3")
        cluster.exchange("n2", "n3")
        cluster.beat("n2", "n3")
        cluster.check_converged(["n2", "n3"])


def diverge(cluster: Cluster) -> None:
    """Make n2 the leader of term 2, its log compacted at 7, and let n3 hold an entry 8 of term 1.

    Entries 3 to 7 are of term 1 everywhere, and n3 knows that 6 is committed; 8 to 10 are of term 2 on n1
    and n2, and committed. n3 has not heard of term 2.
    """
    cluster.lead("n1")
    cluster.propose("n1", "a", "b", "c")
    cluster.exchange(*cluster.names)
    cluster.beat("n1", "n2", "n3")
    cluster.propose("n1", "d")
    cluster.sync("n1")
    cluster.propose("n1", "lost")  # n1 sends it before its own sync
    cluster.deliver("n1", "n2", 1)
    cluster.deliver("n1", "n3")
    cluster.sync("n2", "n3")
    cluster.crash("n1", power_loss=False)  # what it had not even begun to write is gone
    cluster.restart("n1")
    cluster.drop()
    cluster.elect("n2", "n1")
    cluster.propose("n2", "x", "y")
    cluster.exchange("n1", "n2")
    cluster.beat("n2", "n1")
    cluster.checkpoint("n2", keep=3)
    cluster.drop()
    assert terms(cluster["n3"]) == [1] * 6
    assert [cluster[name].commit_index for name in cluster.names] == [10, 10, 6]
    assert cluster["n2"].journal.base == 7


@both_ways
def test_rule_4_a_heartbeat_does_not_commit_a_tail_that_it_did_not_prove(on: bool) -> None:
    """A follower commits no further than what the message shows to be the leader's own log."""
    cluster = Cluster(3, rules=without("proved_commit", on))
    diverge(cluster)
    with violates("applied sequences differ", on):
        for _ in range(3):  # hints lead below the compacted log: a snapshot is due, heartbeats go on
            cluster.timer("n2", advance_s=HEARTBEAT_S)
            cluster.deliver("n2", "n3")
            cluster.sync("n3")
            cluster.deliver("n3", "n2")
        assert cluster.members["n2"].jobs, "the schedule is about a snapshot that was not sent yet"
        cluster.exchange(*cluster.names)
        cluster.beat("n2", "n1", "n3")
        cluster.check_converged()


# ------------------------------------------------------------ 5, 6, 7: acknowledgements and disks


@both_ways
def test_rule_5_acknowledgements_of_an_old_term_count_for_nothing(on: bool) -> None:
    """Acknowledgements held back until their entries were overwritten, and their leader leads again, prove nothing."""
    cluster = Cluster(5, rules=without("current_acks", on), config=PATIENT)
    cluster.lead("n1")
    cluster.propose("n1", "a", "b", "c")
    cluster.sync("n1")
    cluster.deliver("n1", "n2")
    cluster.sync("n2")
    slow = cluster.take("n2", "n1")  # they wait on a slow link: 4, 5, 6 of term 1 are on n2's disk
    cluster.drop()
    cluster.elect("n3", "n4", "n5")
    cluster.exchange("n3", "n4", "n5")
    cluster.connect("n3", "n1")
    cluster.connect("n3", "n2")
    for _ in range(3):
        cluster.beat("n3", "n1", "n2", "n4", "n5")
    assert [terms(cluster[name]) for name in cluster.names] == [[1, 2]] * 5
    cluster.elect("n1", "n4", "n5")
    cluster.propose("n1", "x", "y", "z")
    cluster.sync("n1")
    cluster.deliver("n1", "n5")
    cluster.sync("n5")
    cluster.deliver("n5", "n1")
    cluster.drop()
    with violates("no durable quorum", on):
        for wire in slow:
            cluster.receive("n2", "n1", wire)
        assert cluster["n1"].commit_index == 4
        cluster.heal()
        cluster.check_converged()


@both_ways
def test_rule_6_the_leaders_own_copy_counts_when_it_is_on_its_disk(on: bool) -> None:
    """With one follower's disk and the leader's memory an entry of three members is not committed."""
    cluster = Cluster(3, rules=without("durable_self", on))
    cluster.lead("n1")
    before = cluster["n1"].commit_index
    cluster.propose("n1", "a")
    cluster.deliver("n1", "n2")
    cluster.sync("n2")
    with violates("no durable quorum", on):
        cluster.deliver("n2", "n1")
        assert cluster["n1"].commit_index == before
        cluster.sync("n1")
        assert cluster["n1"].commit_index == before + 1


@both_ways
def test_rule_7_an_acknowledgement_waits_for_the_disk(on: bool) -> None:
    """A follower acknowledges an entry after it is durable there."""
    cluster = Cluster(3, rules=without("durable_before_sent", on))
    with violates("no durable quorum", on):
        cluster.lead("n1")
        before = cluster["n1"].commit_index
        cluster.propose("n1", "a")
        cluster.sync("n1")
        cluster.deliver("n1", "n2")
        cluster.deliver("n2", "n1")
        assert cluster["n1"].commit_index == before
        cluster.sync("n2")
        cluster.deliver("n2", "n1")
        assert cluster["n1"].commit_index == before + 1


@both_ways
def test_rule_7_a_vote_waits_for_the_disk(on: bool) -> None:
    """A member that forgets its vote in a crash has not sent it."""
    cluster = Cluster(3, rules=without("durable_before_sent", on))
    cluster.stand("n1")
    for _ in range(2):
        cluster.deliver("n1", "n2")
        cluster.deliver("n2", "n1")
        cluster.sync("n1")
    cluster.crash("n2", power_loss=False)  # its vote was not even written
    cluster.restart("n2")
    cluster.drop()
    with violates("two leaders", on):
        cluster.elect("n3", "n2")
    assert on == (not cluster["n1"].is_leader)


# ------------------------------------------------------------ 8, 21: what a restart may trust


@both_ways
def test_rule_8_a_restarted_member_trusts_no_commit_index_but_its_snapshots(on: bool) -> None:
    """What only one disk holds is not committed by a restart; without the rule the core's own check stops it."""
    cluster = Cluster(3, rules=without("commit_from_snapshot", on))
    cluster.lead("n1")
    cluster.propose("n1", "a")
    cluster.sync("n1")
    cluster.drop()
    cluster.crash("n1", power_loss=False)
    if not on:
        with pytest.raises(AssertionError, match="does not stand on the journal's head"):
            cluster.restart("n1")
        return
    cluster.restart("n1")
    assert cluster["n1"].commit_index == 2
    cluster.lead("n1")
    assert texts(cluster.members["n3"].ledger.entries) == ["a"]


@both_ways
def test_rule_21_a_group_of_one_applies_after_its_sync(on: bool) -> None:
    """The core of a single member commits at once; nothing is applied or told before the disk has it."""
    cluster = Cluster(1, rules=without("apply_durable", on))
    with violates("no durable quorum", on):
        cluster.timer("n1", advance_s=CONFIG.election_max_s)
        cluster.propose("n1", "a")
        assert cluster["n1"].is_leader
        assert cluster.members["n1"].ledger.entries == []
        cluster.sync("n1")
        assert texts(cluster.members["n1"].ledger.entries) == ["a"]


@both_ways
def test_rule_21_a_checkpoint_is_never_ahead_of_the_log(on: bool) -> None:
    """A follower applies what its own disk holds, or a crash would leave its log behind its state."""
    cluster = Cluster(3, rules=without("apply_durable", on))
    cluster.lead("n1")
    cluster.propose("n1", "a")
    cluster.drop("n2")
    cluster.exchange("n1", "n3")
    cluster.connect("n1", "n2")
    for _ in range(2):
        cluster.timer("n1", advance_s=HEARTBEAT_S)
        cluster.deliver("n1", "n2")
        cluster.deliver("n2", "n1")
    assert cluster["n2"].commit_index == cluster["n1"].commit_index
    cluster.checkpoint("n2", keep=10)
    cluster.crash("n2", power_loss=False)
    with violates("state and log apart", on):
        cluster.restart("n2")


# ------------------------------------------------------------ 9: votes


@both_ways
def test_rule_9_a_vote_that_arrives_twice_is_one_vote(on: bool) -> None:
    """Two of five votes do not make a leader, however often they arrive."""
    cluster = Cluster(5, rules=without("votes_by_member", on))
    votes = {}
    for candidate, voter in (("n1", "n3"), ("n2", "n4")):
        cluster.stand(candidate)
        for helper in (voter, "n5"):
            cluster.deliver(candidate, helper)
            cluster.deliver(helper, candidate)
        cluster.sync(candidate)
        cluster.deliver(candidate, voter)
        cluster.sync(voter)
        votes[candidate] = (voter, cluster.take(voter, candidate))
        cluster.drop()
    assert cluster["n1"].term == cluster["n2"].term == 1
    with violates("two leaders", on):
        for candidate, (voter, wires) in votes.items():
            for wire in wires * 2:
                cluster.receive(voter, candidate, wire)
        assert not cluster["n1"].is_leader
        assert not cluster["n2"].is_leader


# ------------------------------------------------------------ 10, 11: snapshots and compaction


@both_ways
def test_rule_10_a_late_snapshot_does_not_take_a_member_back(on: bool) -> None:
    """A snapshot that arrives again after more was acknowledged is answered, not installed."""
    cluster = Cluster(3, rules=without("snapshot_guard", on))
    cluster.lead("n1")
    cluster.crash("n3")
    cluster.propose("n1", *"abcdef")
    cluster.exchange("n1", "n2")
    cluster.beat("n1", "n2")
    cluster.checkpoint("n1")
    cluster.restart("n3")
    cluster.beat("n1", "n3")
    assert cluster["n3"].install.snapshots_installed == 1
    chunks = [message for _, to, message in cluster.sent if to == "n3" and message.HasField("snapshot_chunk")]
    cluster.crash("n2")
    cluster.propose("n1", "g")
    cluster.sync("n1")
    cluster.deliver("n1", "n3")
    cluster.sync("n3")
    cluster.deliver("n3", "n1")
    assert cluster.checker.acknowledged_index() == cluster["n1"].last_index
    for chunk in chunks:
        cluster.receive("n1", "n3", (chunk.SerializeToString(), True))
    cluster.work("n3")
    cluster.sync("n3")
    cluster.crash("n1")
    cluster.restart("n2")
    with violates("incomplete leader", on):
        cluster.elect("n3", "n2")
        cluster.exchange("n2", "n3")
        cluster.beat("n3", "n2")
        cluster.check_converged(["n2", "n3"])


@both_ways
def test_rule_11_the_log_keeps_what_no_checkpoint_has(on: bool) -> None:
    """Compaction above the checkpoint is refused: a crash would lose what was applied."""
    cluster = Cluster(3, rules=without("compact_below_checkpoint", on))
    cluster.lead("n1")
    cluster.propose("n1", *"abc")
    cluster.exchange(*cluster.names)
    if on:
        with pytest.raises(AssertionError, match="not checkpointed"):
            cluster["n1"].compact(cluster["n1"].commit_index)
    else:
        cluster["n1"].compact(cluster["n1"].commit_index)
    cluster.sync("n1")
    cluster.crash("n1")
    with violates("state and log apart", on):
        cluster.restart("n1")


# ------------------------------------------------------------ 13: entries


@both_ways
def test_rule_13_an_entry_above_the_limit_is_refused_when_it_is_proposed(on: bool) -> None:
    """No entry is larger than the limit; one of exactly the limit is taken."""
    cluster = Cluster(1, rules=without("entry_limits", on))
    cluster.stand("n1")
    group, largest = cluster["n1"], CONFIG.entry_bytes_max
    group.propose(ENTRY_PREFIX.ljust(largest, b"x"))
    last = group.last_index
    large = ENTRY_PREFIX.ljust(largest + 1, b"x")
    if on:
        with pytest.raises(RequestTooLarge):
            group.propose(large)
    else:
        group.propose(large)
    assert (group.last_index == last) == on


@both_ways
@pytest.mark.parametrize("data", [b"\x03\x80", b"", b"\x00cos\nsystem"], ids=["version", "empty", "regular"])
def test_rule_13_only_no_op_typed_entries_enter_the_log(on: bool, data: bytes) -> None:
    """An entry that the core would look into is dropped; without the rule the journal's own check stops all."""
    cluster = Cluster(3, rules=without("entry_limits", on))
    cluster.lead("n1")
    last, term = cluster["n2"].last_index, cluster["n2"].term
    append = raft_pb2.Append(
        prev_index=last, prev_term=term, commit_index=last, entries=[raft_pb2.Entry(term=term, data=data)]
    )
    message = raft_pb2.RaftMessage(group=GROUP, epoch=EPOCH, sender="n1", term=term, append=append)
    wire = (message.SerializeToString(), False)
    if on:
        cluster.receive("n1", "n2", wire)
    else:
        with pytest.raises(AssertionError):
            cluster.receive("n1", "n2", wire)
    assert cluster["n2"].last_index == last


# ------------------------------------------------------------ 14: reads


@both_ways
def test_rule_14_a_deposed_leader_serves_no_read(on: bool) -> None:
    """A read waits for a quorum's word, given after the read came, that its leader still leads."""
    cluster = Cluster(3, rules=without("confirm_reads", on), config=PATIENT)
    cluster.lead("n1")
    cluster.disconnect("n1", "n2")
    cluster.disconnect("n1", "n3")
    cluster.elect("n2", "n3")
    cluster.propose("n2", "a")
    cluster.exchange("n2", "n3")
    assert cluster.checker.acknowledged_index()
    with violates("stale read", on):
        served = cluster.read("n1")
        assert served == []
        cluster.connect("n1", "n3")
        cluster.timer("n1", advance_s=HEARTBEAT_S)
        cluster.exchange("n1", "n3")
        assert served == [None]


@both_ways
def test_rule_14_a_new_leader_reads_after_its_first_commit(on: bool) -> None:
    """Before it has committed in its own term, a leader does not know what its predecessor had committed."""
    cluster = Cluster(3, rules=without("reads_after_own_commit", on))
    cluster.lead("n1")
    cluster.propose("n1", "a")
    cluster.sync("n1")
    cluster.deliver("n1", "n2")
    cluster.sync("n2")
    cluster.deliver("n2", "n1")
    assert cluster.checker.acknowledged_index() == cluster["n2"].last_index
    cluster.drop("n1")
    cluster.elect("n2", "n3")
    with violates("stale read", on):
        served = cluster.read("n2")
        for _ in range(2):
            cluster.deliver("n2", "n3")
            cluster.deliver("n3", "n2")  # n3 confirms the term, but its log is not synced yet
        assert served == []
        cluster.beat("n2", "n3")
        cluster.beat("n2", "n3")
        assert served == [cluster["n2"].commit_index]
