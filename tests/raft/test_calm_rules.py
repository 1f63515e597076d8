"""What each rule for liveness and calm of the guard is worth: the same schedule with it and without it.

Nothing here is about safety (`test_rules` is); what is compared is terms, leaders, rounds and bytes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from kv.internal.v1 import raft_pb2
from kv.raft.guard import Rules
from tests.raft.harness import CONFIG, EPOCH, GROUP, HEARTBEAT_S, Cluster, terms

both_ways = pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
PATIENT = replace(CONFIG, leader_fallback_s=1e6)
"""A leader that is not looked at for long does not step down by itself: its clock may be slow."""


def without(rule: str, on: bool) -> Rules:
    """All rules, or all but one."""
    return replace(Rules(), **{rule: on})


def entries_sent(cluster: Cluster, to: str) -> int:
    """Entries in all appends that left for a member."""
    return sum(len(message.append.entries) for _, target, message in cluster.sent if target == to)


@both_ways
def test_rule_2_a_leader_of_a_lower_term_is_told(on: bool) -> None:
    """A deposed leader steps down on the first answer of any member of the new term."""
    cluster = Cluster(3, rules=without("terms", on), config=PATIENT)
    cluster.lead("n1")
    cluster.disconnect("n1", "n2")
    cluster.disconnect("n1", "n3")
    cluster.elect("n2", "n3")
    cluster.exchange("n2", "n3")
    cluster.connect("n1", "n3")
    cluster.timer("n1", advance_s=HEARTBEAT_S)
    cluster.exchange("n1", "n3")
    assert cluster["n1"].is_leader == (not on)
    assert cluster["n1"].term == (2 if on else 1)


@both_ways
def test_rule_15_a_member_that_is_cut_off_does_not_raise_its_term(on: bool) -> None:
    """A member that nobody hears asks in vain for pre-votes, and comes back without deposing the leader."""
    cluster = Cluster(3, rules=without("pre_vote", on))
    cluster.lead("n1")
    for _ in range(100):
        cluster.timer("n1", "n3", advance_s=HEARTBEAT_S)
        cluster.drop("n3")
        cluster.exchange("n1", "n2")
    assert (cluster["n3"].term == 1) == on
    assert cluster["n1"].is_leader
    for _ in range(3):
        cluster.timer("n1", advance_s=HEARTBEAT_S)
        cluster.exchange(*cluster.names)
    assert (cluster["n1"].term == 1) == on


@both_ways
def test_rule_16_a_vote_request_is_no_news_while_a_leader_lives(on: bool) -> None:
    """A member that heard a leader just now ignores candidates: its term stays, and so does the leader."""
    cluster = Cluster(3, rules=replace(without("sticky_leader", on), pre_vote=False))
    cluster.lead("n1")
    for _ in range(20):  # n1 and n2 hear each other, n3 nobody
        cluster.drop("n3")
        cluster.beat("n1", "n2")
    cluster.drop()
    cluster.timer("n3")
    cluster.sync("n3")
    assert cluster["n3"].term == 2
    cluster.deliver("n3", "n2")
    cluster.sync("n2")
    cluster.deliver("n2", "n3")
    assert cluster["n2"].term == (1 if on else 2)
    assert cluster["n3"].is_leader == (not on)


@pytest.mark.parametrize("transfer", [True, False])
def test_rule_16_a_transfer_of_leadership_is_let_through(transfer: bool) -> None:
    """A vote request that the leader itself has asked for is granted although the leader lives."""
    cluster = Cluster(3)
    cluster.lead("n1")
    last, term = cluster["n3"].last_index, cluster["n3"].term
    vote = raft_pb2.Vote(last_index=last, last_term=term, transfer=transfer)
    message = raft_pb2.RaftMessage(group=GROUP, epoch=EPOCH, sender="n3", term=term + 1, vote=vote)
    cluster.receive("n3", "n2", (message.SerializeToString(), False))
    assert (cluster["n2"].term == term + 1) == transfer


def test_rule_16_a_restarted_member_grants_no_pre_vote_at_once() -> None:
    """A member that has just started assumes that it heard a leader just before."""
    cluster = Cluster(3)
    cluster.lead("n1")
    cluster.crash("n2")
    cluster.now += CONFIG.election_max_s
    cluster.restart("n2")
    cluster.drop()
    cluster.timer("n3")
    cluster.deliver("n3", "n2")
    cluster.deliver("n2", "n3")
    assert cluster["n3"].term == 1
    cluster.elect("n3", "n2")  # after an election timeout it does


def diverge(cluster: Cluster, count: int) -> None:
    """Give n3 `count` entries of term 1 that nobody else has, and n1 and n2 as many of term 2."""
    cluster.lead("n3")
    for _ in range(count):
        cluster.command("n3")
    cluster.sync("n3")
    cluster.drop()
    cluster.elect("n1", "n2")
    for _ in range(count):
        cluster.command("n1")
    cluster.exchange("n1", "n2")
    cluster.beat("n1", "n2")
    cluster.connect("n1", "n3")


@both_ways
def test_rule_17_a_divergent_tail_is_repaired_in_one_step(on: bool) -> None:
    """A follower's hint names where its conflicting term begins, however long its tail is."""
    cluster = Cluster(3, rules=without("hints", on))
    diverge(cluster, 40)
    rounds = 0
    while terms(cluster["n3"]) != terms(cluster["n1"]):
        cluster.beat("n1", "n2", "n3")
        rounds += 1
    assert rounds <= 3 if on else rounds > 30
    cluster.beat("n1", "n2", "n3")
    cluster.check_converged()


@both_ways
def test_rule_18_what_a_connection_carries_is_not_sent_again(on: bool) -> None:
    """Acknowledgements that come late move the core back, but each entry travels to each follower once."""
    cluster = Cluster(3, rules=without("send_once", on))
    cluster.lead("n1")
    before = entries_sent(cluster, "n2")
    for _ in range(20):
        cluster.command("n1")
        cluster.sync("n1")
        cluster.deliver("n1", "n2", 1)  # far behind
        cluster.sync("n2")
        cluster.deliver("n2", "n1", 1)
    cluster.exchange(*cluster.names)
    times = (entries_sent(cluster, "n2") - before) / 20
    assert times == 1 if on else times > 3
    cluster.beat("n1", "n2", "n3")
    cluster.check_converged()


def test_rule_18_a_reset_connection_carries_nothing() -> None:
    """What was in flight when a connection broke is sent again."""
    cluster = Cluster(3)
    cluster.lead("n1")
    cluster.command("n1")
    cluster.connect("n1", "n2")  # the command was on its way
    for _ in range(2):
        cluster.beat("n1", "n2", "n3")
    cluster.check_converged()
    assert cluster.checker.acknowledged


@both_ways
def test_rule_19_heartbeats_are_empty_while_a_snapshot_travels(on: bool) -> None:
    """A follower that waits for a snapshot is not sent the entries after it, and answers: its leader stays."""
    cluster = Cluster(3, rules=without("snapshot_heartbeats", on))
    cluster.lead("n1")
    cluster.crash("n3")
    for _ in range(10):
        cluster.command("n1")
    cluster.exchange("n1", "n2")
    cluster.beat("n1", "n2")
    cluster.checkpoint("n1")
    for _ in range(5):
        cluster.command("n1")
    cluster.exchange("n1", "n2")
    cluster.crash("n2")
    cluster.restart("n3")
    before = entries_sent(cluster, "n3")
    for _ in range(20):  # twice the leader's fallback time; the copy of the checkpoint takes that long
        cluster.timer("n1", advance_s=HEARTBEAT_S)
        cluster.exchange("n1", "n3", jobs=False)
    assert cluster["n1"].transfers.sending("n3")
    assert cluster["n1"].is_leader
    wasted = entries_sent(cluster, "n3") - before
    assert wasted == 0 if on else wasted > 20
    for _ in range(3):
        cluster.beat("n1", "n3")
    cluster.check_converged(["n1", "n3"])
