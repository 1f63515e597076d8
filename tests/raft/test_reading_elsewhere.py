"""Reads of whole groups at replicas that do not lead."""

from __future__ import annotations

import pytest

from kv.internal.v1 import raft_pb2
from kv.raft import reading
from kv.raft.api import ReadProof
from tests.raft.checks import Violation
from tests.raft.harness import CONFIG, EPOCH, GROUP, HEARTBEAT_S, Cluster
from tests.raft.storm import Storm
from tests.raft.test_rules import PATIENT, both_ways, violates, without


def asked(cluster: Cluster, *texts: str) -> Cluster:
    """n1 leads a group in which these commands are acknowledged, and known everywhere."""
    cluster.lead("n1")
    cluster.propose("n1", *texts)
    cluster.exchange(*cluster.names)
    cluster.beat("n1", "n2", "n3")
    return cluster


def test_a_follower_reads_what_was_acknowledged_before() -> None:
    """It asks the leader, which asks a quorum, and waits until it has applied that much itself."""
    cluster = asked(Cluster(3), "a")
    cluster.propose("n1", "b")
    cluster.drop("n3")
    cluster.exchange("n1", "n2")  # acknowledged, and n3 has not even heard of it
    began = cluster.now
    proofs: list[ReadProof | None] = []
    served = cluster.read("n3", proofs=proofs)
    cluster.exchange(*cluster.names)
    assert cluster["n3"].proof == ReadProof(cluster["n1"].commit_index, began)
    assert served == [], "it knows the index, and has not applied it"
    cluster.connect("n1", "n3")
    for _ in range(3):
        cluster.beat("n1", "n2", "n3")
    assert served == [cluster["n1"].commit_index]
    assert proofs == [ReadProof(cluster["n1"].commit_index, began)]


def test_reads_that_wait_together_ask_once() -> None:
    """However many reads come while a question is open, one more question serves them all."""
    cluster = asked(Cluster(3), "a")
    served = [cluster.read("n2")]
    served += [cluster.read("n2") for _ in range(10)]
    cluster.exchange(*cluster.names)
    assert all(it == [cluster["n1"].commit_index] for it in served)
    questions = [m for _, _, m in cluster.sent if m.HasField("read_index_request")]
    assert len(questions) == 2


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_what_is_lost_is_asked_again(lost: str) -> None:
    """A question or an answer that is lost without a word costs a heartbeat."""
    cluster = asked(Cluster(3), "a")
    served = cluster.read("n3")
    if lost == "answer":
        cluster.deliver("n3", "n1")
        cluster.deliver("n1", "n2")
        cluster.deliver("n2", "n1")
        assert cluster.links["n1", "n3"]
    cluster.drop()
    cluster.timer("n3", advance_s=HEARTBEAT_S)
    cluster.exchange(*cluster.names)
    assert served == [cluster["n1"].commit_index]


@both_ways
def test_rule_24_a_late_answer_is_not_taken_for_another(on: bool) -> None:
    """An answer that arrives again, late, does not tell a read that began since how far it must see."""
    cluster = asked(Cluster(3, rules=without("answers_matched", on)), "a")
    cluster.read("n3")
    cluster.exchange("n1", "n2")
    cluster.deliver("n3", "n1")
    cluster.exchange("n1", "n2")
    answers = cluster.take("n1", "n3")
    for wire in answers:
        cluster.receive("n1", "n3", wire)
    cluster.propose("n1", "b")
    cluster.exchange("n1", "n2")
    cluster.drop("n3")
    assert cluster.checker.acknowledged_index() == cluster["n1"].last_index
    with violates("stale read", on):
        served = cluster.read("n3")
        for wire in answers:
            cluster.receive("n1", "n3", wire)
        assert served == []
        cluster.connect("n1", "n3")  # what was asked over the old connection is given up
        assert served == [None]


def test_a_late_question_is_answered_with_an_index_of_then() -> None:
    """A question that arrives twice, or long after it was asked, is answered by a round that began after it arrived."""
    cluster = asked(Cluster(3), "a")
    served = cluster.read("n3")
    questions = cluster.take("n3", "n1")
    cluster.propose("n1", "b")
    cluster.exchange("n1", "n2", "n3")
    for wire in questions * 2:
        cluster.receive("n3", "n1", wire)
    cluster.exchange(*cluster.names)
    cluster.beat("n1", "n2", "n3")
    assert served == [cluster["n1"].last_index]
    assert len([m for _, _, m in cluster.sent if m.HasField("read_index_reply")]) == 1


def test_a_leader_without_a_quorum_gives_no_index() -> None:
    """Cut off together, a leader and its follower serve no read: it is given up after an election timeout."""
    cluster = Cluster(5, config=PATIENT)
    cluster.lead("n1")
    minority = ("n1", "n2")
    for name in ("n3", "n4", "n5"):
        for cut in minority:
            cluster.disconnect(name, cut)
    cluster.elect("n3", "n4", "n5")
    cluster.propose("n3", "a")
    cluster.exchange("n3", "n4", "n5")
    cluster.beat("n1", "n2")  # n2 hears n1, and nobody else
    assert cluster.checker.acknowledged_index()
    served = cluster.read("n2")
    for _ in range(round(CONFIG.election_min_s / HEARTBEAT_S)):
        cluster.exchange(*minority)
        assert served == []
        cluster.timer(*minority, advance_s=HEARTBEAT_S)
    cluster.timer(*minority, advance_s=HEARTBEAT_S)
    assert served == [None]


def test_a_deposed_leader_says_that_it_has_no_index() -> None:
    """When it learns of the next term, it tells whoever asked, which learns of that term too."""
    cluster = Cluster(3, config=PATIENT)
    asked(cluster, "a")
    served = cluster.read("n3")
    cluster.deliver("n3", "n1")
    cluster["n1"].suspend(True, cluster.now)
    cluster.turn("n1")
    cluster.sync("n1")
    assert served == []
    cluster.deliver("n1", "n3")
    assert served == [None]
    assert cluster["n3"].term == cluster["n1"].term == 2


def test_who_does_not_lead_says_so() -> None:
    """A question that reaches another replica than the leader is refused at once, and its reads with it."""
    cluster = asked(Cluster(3, config=PATIENT), "a")
    served = [cluster.read("n3"), cluster.read("n3")]
    number = next(m for _, _, m in reversed(cluster.sent) if m.HasField("read_index_request"))
    cluster.drop()
    reply = raft_pb2.RaftMessage(
        group=GROUP,
        epoch=EPOCH,
        sender="n1",
        term=1,
        read_index_reply=raft_pb2.ReadIndexReply(sequence=number.read_index_request.sequence),
    )
    cluster.receive("n1", "n3", (reply.SerializeToString(), False))
    assert served == [[None], [None]]
    question = raft_pb2.RaftMessage(
        group=GROUP,
        epoch=EPOCH,
        sender="n3",
        term=1,
        read_index_request=raft_pb2.ReadIndexRequest(sequence=5),
    )
    cluster.receive("n3", "n2", (question.SerializeToString(), False))
    answer = cluster.sent[-1][2]
    assert answer.read_index_reply == raft_pb2.ReadIndexReply(sequence=5)
    question.term = 0
    cluster.receive("n3", "n2", (question.SerializeToString(), False))
    assert cluster.sent[-1][2].HasField("stale_term")


def test_a_new_term_ends_what_was_asked() -> None:
    """A read that waits for the leader of a term is told as soon as that term is over."""
    cluster = asked(Cluster(3, config=PATIENT), "a")
    served = cluster.read("n3")
    cluster.drop()
    cluster.elect("n2", "n3")
    assert served == [None]
    cluster.exchange("n2", "n3")
    again = cluster.read("n3")
    cluster.exchange("n2", "n3")
    assert again == [cluster["n2"].commit_index]


def test_an_answer_to_the_process_before_is_none_to_this_one() -> None:
    """After a restart a replica is not told what it had asked before: that may be older than its new reads."""
    cluster = asked(Cluster(3), "a")
    cluster.read("n3")
    cluster.deliver("n3", "n1")  # n1's round is open, n2 has not answered
    before = cluster["n1"].commit_index
    held = cluster.take("n1", "n2")
    cluster.crash("n3")
    cluster.restart("n3")
    cluster.propose("n1", "b")
    cluster.exchange("n1", "n2")
    assert cluster.checker.acknowledged_index() > before
    for wire in held:
        cluster.receive("n1", "n2", wire)
    cluster.exchange("n1", "n2")
    assert not any(m.HasField("read_index_reply") for m in queued(cluster, "n1", "n3"))
    cluster.beat("n1", "n2", "n3")
    served = cluster.read("n3")
    cluster.exchange(*cluster.names)
    assert served == [cluster["n1"].commit_index]


def queued(cluster: Cluster, source: str, target: str) -> list[raft_pb2.RaftMessage]:
    """What is on a link."""
    return [raft_pb2.RaftMessage.FromString(wire[0]) for wire in cluster.links[source, target]]


def test_of_each_follower_one_question_is_open() -> None:
    """A newer question takes the place of the one before, whose round is not taken for an answer to it."""
    cluster = asked(Cluster(3), "a")
    for sequence in (10, 11, 9):
        question = raft_pb2.RaftMessage(
            group=GROUP,
            epoch=EPOCH,
            sender="n3",
            term=1,
            read_index_request=raft_pb2.ReadIndexRequest(sequence=sequence),
        )
        cluster.receive("n3", "n1", (question.SerializeToString(), False))
    cluster.exchange(*cluster.names)
    replies = [m.read_index_reply for _, _, m in cluster.sent if m.HasField("read_index_reply")]
    assert [(reply.sequence, reply.confirmed) for reply in replies] == [(11, True)]


def test_a_replica_that_knows_no_leader_or_cannot_reach_it_refuses_at_once() -> None:
    """Nothing is asked where no answer can come."""
    cluster = asked(Cluster(3), "a")
    cluster.disconnect("n1", "n3")
    assert cluster.read("n3") == [None]
    cluster.now += CONFIG.election_min_s
    assert cluster["n2"].leader is None
    assert cluster.read("n2") == [None]
    fresh = Cluster(3)
    assert fresh.read("n1") == [None]


def test_reads_end_with_the_connection_to_the_leader() -> None:
    """Who was asked is gone: its reads need not wait for the election timeout."""
    cluster = asked(Cluster(3), "a")
    served = cluster.read("n3")
    cluster.disconnect("n2", "n3")
    assert served == []
    cluster.disconnect("n1", "n3")
    assert served == [None]


def test_a_stopped_replica_answers_its_reads() -> None:
    """Waiting reads are told that nothing was proved; so are those that come later."""
    cluster = asked(Cluster(3), "a")
    waiting = cluster.read("n3")
    cluster["n3"].stop("for the test")
    assert waiting == [None]
    assert cluster.read("n3") == [None]


def test_a_replica_whose_state_is_being_replaced_serves_no_read() -> None:
    """From the moment that a snapshot is about to be installed, until it is, nothing is read and nothing asked."""
    cluster = asked(Cluster(3), "a")
    cluster.drop("n3")
    cluster.propose("n1", "b", "c")
    cluster.exchange("n1", "n2")
    cluster.beat("n1", "n2")
    cluster.checkpoint("n1")
    cluster.connect("n1", "n3")
    waiting: list[int | None] = []
    for _ in range(40):
        if cluster["n3"].installing:
            break
        waiting = waiting or cluster.read("n3")
        cluster.timer("n1", advance_s=HEARTBEAT_S / 4)
        cluster.sync("n1")
        while cluster.work("n1") or cluster.work("n3"):
            pass
        cluster.deliver("n1", "n3")
        cluster.deliver("n3", "n1")
    assert waiting == [None]
    assert cluster.read("n3") == [None]
    assert cluster["n3"].install.snapshots_installed == 0
    cluster.exchange(*cluster.names)
    assert cluster["n3"].install.snapshots_installed == 1
    cluster.beat("n1", "n2", "n3")  # its fresh core learns who leads
    served = cluster.read("n3")
    for _ in range(3):
        cluster.beat("n1", "n2", "n3")
    assert served == [cluster["n1"].commit_index]


def test_reads_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound a read is refused at once, on a follower, on the leader, and what a follower asks of it."""
    cluster = asked(Cluster(3), "a")
    monkeypatch.setattr(reading, "READS_WAITING_MAX", 3)
    for name in ("n3", "n1"):
        waiting = [cluster.read(name) for _ in range(3)]
        assert waiting == [[], [], []]
        assert cluster.read(name) == [None]
    refused = cluster.read("n2")
    cluster.deliver("n2", "n1")
    cluster.deliver("n1", "n2")
    assert refused == [None]


def test_a_proof_outlives_its_term_and_never_gets_older() -> None:
    """What was acknowledged before it began stays so, whoever leads; a newer proof takes its place."""
    cluster = asked(Cluster(3, config=PATIENT), "a")
    for name in ("n1", "n3"):
        assert cluster[name].proof is None
        cluster.read(name)
        cluster.exchange(*cluster.names)
    first = {name: cluster[name].proof for name in ("n1", "n3")}
    assert first["n3"] == ReadProof(cluster["n1"].commit_index, cluster.now)
    cluster.drop()
    cluster.elect("n2", "n3")
    assert cluster["n3"].proof == first["n3"]
    cluster.exchange(*cluster.names)
    cluster.beat("n2", "n1", "n3")
    cluster.read("n3")
    cluster.exchange(*cluster.names)
    newer = cluster["n3"].proof
    assert newer is not None
    assert first["n3"] is not None
    assert newer.began_at > first["n3"].began_at
    assert newer.index >= first["n3"].index
    assert cluster["n1"].proof == first["n1"]


@pytest.mark.parametrize("size", [3, 5])
def test_any_schedule_of_reads_anywhere_is_safe(size: int, seed: int) -> None:
    """No replica, leading or not, serves a read without all that was acknowledged before it came."""
    cluster = Cluster(size, seed=seed, config=PATIENT)
    Storm(cluster, seed).run_deposing(1000, 4)
    leader = cluster.heal()
    served = [cluster.read(name) for name in cluster.names]
    cluster.exchange(*cluster.names)
    for name in cluster.names:
        if name != leader:
            cluster.beat(leader, *(other for other in cluster.names if other != leader))
    assert all(it == [cluster[leader].commit_index] for it in served)


def test_a_storm_finds_that_answers_must_match() -> None:
    """Without rule 24 some of a few fixed seeds end in a stale read."""
    rules = without("answers_matched", False)

    def storms() -> None:
        for seed in range(10):
            Storm(Cluster(3, seed=seed, rules=rules, config=PATIENT), seed).run_deposing(1000, 6)

    with pytest.raises(Violation, match=r"^stale read"):
        storms()
