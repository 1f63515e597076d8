"""Reads of whole groups by the leader's lease, and the rules of elections that a lease rests on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kv.errors import NotLeader
from kv.internal.v1.raft_pb2 import RaftMessage
from kv.raft.api import ReadProof
from kv.raft.reading import LEASE_RENEWED_S
from tests.raft.checks import Violation
from tests.raft.harness import CONFIG, HEARTBEAT_S, Cluster
from tests.raft.storm import Storm
from tests.raft.test_rules import PATIENT, both_ways, violates, without
from tests.raft.virtual import cluster as engines
from tests.raft.virtual import leader as elected

# ------------------------------------------------------------ a leader reads by its lease


def leased(cluster: Cluster, name: str) -> ReadProof | None:
    """Read by the lease; the proof, if it came at once and by the lease."""
    proofs: list[ReadProof | None] = []
    before = probes(cluster)
    cluster.read(name, lease=True, proofs=proofs)
    at_once = bool(proofs) and proofs[0] is not None and proofs[0].leased
    assert not at_once or probes(cluster) == before, "a leased read asks nobody"
    return proofs[0] if at_once else None


def probes(cluster: Cluster) -> int:
    """How many probes have left."""
    return sum(message.HasField("probe") for _, _, message in cluster.sent)


def give_lease(cluster: Cluster, name: str) -> None:
    """A first read by the lease finds none, and its round gives one."""
    proofs: list[ReadProof | None] = []
    cluster.read(name, lease=True, proofs=proofs)
    cluster.exchange(*(n for n in cluster.names if cluster.members[n].up))
    assert [proof and proof.leased for proof in proofs] == [False]


def test_a_leased_read_asks_nobody() -> None:
    """The first read makes a round, which gives the lease; the next ones are answered at once, at the commit index."""
    cluster = Cluster(3)
    cluster.lead("n1")
    give_lease(cluster, "n1")
    cluster.now += 0.5
    proof = leased(cluster, "n1")
    assert proof == ReadProof(cluster["n1"].commit_index, cluster.now, leased=True)
    assert cluster["n1"].lease_allowed


def test_a_lease_that_ran_out_falls_back_to_a_round() -> None:
    """The read is served all the same, and is not called leased."""
    cluster = Cluster(3)
    cluster.lead("n1")
    give_lease(cluster, "n1")
    cluster.now += CONFIG.lease_s
    proofs: list[ReadProof | None] = []
    cluster.read("n1", lease=True, proofs=proofs)
    assert proofs == []
    cluster.exchange(*cluster.names)
    assert proofs == [ReadProof(cluster["n1"].commit_index, cluster.now)]


def test_without_leases_in_the_configuration_every_read_is_a_round() -> None:
    """A lease that the bounds on clocks do not allow is never used."""
    cluster = Cluster(3, config=replace(CONFIG, lease_s=0.95))
    cluster.lead("n1")
    assert not cluster["n1"].lease_allowed
    give_lease(cluster, "n1")
    give_lease(cluster, "n1")


def test_a_leased_read_waits_until_its_index_is_applied() -> None:
    """What is committed and not applied yet, for want of room in the store, is waited for."""
    cluster = Cluster(3)
    cluster.lead("n1")
    give_lease(cluster, "n1")
    cluster.members["n1"].ledger.store_full = True
    cluster.propose("n1", "a")
    cluster.exchange(*cluster.names)
    proofs: list[ReadProof | None] = []
    served = cluster.read("n1", lease=True, proofs=proofs)
    assert served == []
    cluster.members["n1"].ledger.store_full = False
    cluster.turn("n1")
    assert served == [cluster["n1"].commit_index]
    assert [proof and proof.leased for proof in proofs] == [True]


def test_a_leased_read_waits_for_the_end_of_a_checkpoint() -> None:
    """Its index is applied, and there is nothing to read from meanwhile."""
    cluster = Cluster(3)
    cluster.lead("n1")
    give_lease(cluster, "n1")
    cluster.members["n1"].ledger.checkpointing = True
    proofs: list[ReadProof | None] = []
    served = cluster.read("n1", lease=True, proofs=proofs)
    cluster.turn("n1")
    assert served == []
    cluster.members["n1"].ledger.checkpointing = False
    cluster.turn("n1")
    assert served == [cluster["n1"].commit_index]
    assert [proof and proof.leased for proof in proofs] == [True]


def test_a_new_leader_has_no_lease_before_its_first_commit() -> None:
    """Rule 14 holds for a lease as well: a confirmed leader need not know what its predecessor had committed."""
    cluster = Cluster(3)
    cluster.lead("n1")
    cluster.drop()
    cluster.elect("n2", "n3")
    cluster["n2"].reading._send_probes(cluster["n2"].reading.queue.take_sequence())
    cluster.turn("n2")
    cluster.deliver("n2", "n3")
    cluster.deliver("n3", "n2")  # n3 confirms the term, but its log is not synced yet
    assert cluster["n2"].reading.lease.valid(cluster["n2"].term, cluster.now)
    assert leased(cluster, "n2") is None
    assert cluster["n2"].proof is None


def test_a_leader_that_learns_a_higher_term_has_no_lease() -> None:
    """It serves nothing from then on, however long its lease would have lasted."""
    cluster = Cluster(3)
    cluster.lead("n1")
    give_lease(cluster, "n1")
    assert leased(cluster, "n1") is not None
    cluster["n1"].suspend(True, cluster.now)
    assert cluster.read("n1", lease=True) == [None]
    assert not cluster["n1"].reading.lease.valid(cluster["n1"].term, cluster.now)


def test_leases_are_renewed_while_they_are_used_and_not_for_ever() -> None:
    """With a read now and then no read falls back; some seconds after the last one the probes end."""
    cluster = Cluster(3)
    cluster.lead("n1")
    give_lease(cluster, "n1")
    for _ in range(40):
        cluster.beat("n1", "n2", "n3")
        assert leased(cluster, "n1") is not None
    last, used = cluster.now, probes(cluster)
    while cluster.now - last < LEASE_RENEWED_S - 2 * HEARTBEAT_S:
        cluster.beat("n1", "n2", "n3")
    assert probes(cluster) > used + 2 * 30
    for _ in range(4):
        cluster.beat("n1", "n2", "n3")
    ended = probes(cluster)
    for _ in range(10):
        cluster.beat("n1", "n2", "n3")
    assert probes(cluster) == ended


def test_a_short_lease_is_renewed_three_times_in_its_time() -> None:
    """A lease shorter than some heartbeats does not run out between two of them."""
    cluster = Cluster(3, config=replace(CONFIG, lease_s=0.12))
    cluster.lead("n1")
    give_lease(cluster, "n1")
    for _ in range(40):
        cluster.timer("n1", advance_s=0.05)  # half a heartbeat: how often the engine looks
        cluster.exchange(*cluster.names)
        assert leased(cluster, "n1") is not None


def test_nobody_is_asked_for_a_lease_that_nobody_uses() -> None:
    """A group without such reads sends no probes."""
    cluster = Cluster(3)
    cluster.lead("n1")
    for _ in range(20):
        cluster.beat("n1", "n2", "n3")
    assert probes(cluster) == 0


def test_a_read_after_a_pause_of_the_process_does_not_use_the_time_before_it() -> None:
    """The lease is looked at with a time taken after the read came, also in a turn that began long ago."""
    world = engines()
    head = leader = elected(world)
    world.run(1.0)
    got: list[ReadProof | None] = []
    head.group().read_index(got.append, lease=True)  # the group rests, and its beats gave the lease
    assert [proof and proof.leased for proof in got] == [True]
    pump = head.ledgers[1].pump

    def slow() -> None:
        """This turn takes longer than the lease, and the read comes at its end."""
        world.now += CONFIG.lease_s
        head.group().read_index(got.append, lease=True)
        pump()

    head.ledgers[1].pump = slow  # type: ignore[method-assign]
    head.group().settle(world.now)
    assert len(got) == 1
    head.ledgers[1].pump = pump  # type: ignore[method-assign]
    assert leader.group().reading.queue.open_sequence is not None


# ------------------------------------------------------------ rules 22 and 23


def cut_off(cluster: Cluster) -> None:
    """n1 leads with a fresh lease, and then nobody hears it any more."""
    cluster.lead("n1")
    give_lease(cluster, "n1")
    cluster.disconnect("n1", "n2")
    cluster.disconnect("n1", "n3")


@both_ways
def test_rule_22_a_lease_ends_before_another_leader_is_elected(on: bool) -> None:
    """Once its members may vote again, a leader that nobody hears answers no read by its lease."""
    cluster = Cluster(3, rules=without("lease_bounded", on), config=PATIENT)
    cut_off(cluster)
    assert leased(cluster, "n1") is not None
    cluster.elect("n2", "n3")
    cluster.propose("n2", "a")
    cluster.exchange("n2", "n3")
    assert cluster.checker.acknowledged_index() == cluster["n2"].last_index
    with violates("stale read", on):
        assert cluster.read("n1", lease=True) == []


@both_ways
def test_rule_22_a_lease_begins_with_what_was_confirmed(on: bool) -> None:
    """A leader that goes on sending probes which nobody answers has no lease from them."""
    cluster = Cluster(3, rules=without("lease_confirmed", on), config=PATIENT)
    cut_off(cluster)
    for _ in range(20):
        cluster.timer("n1", advance_s=HEARTBEAT_S)
    cluster.elect("n2", "n3")
    cluster.propose("n2", "a")
    cluster.exchange("n2", "n3")
    assert cluster.checker.acknowledged_index() == cluster["n2"].last_index
    cluster.timer("n1")
    with violates("stale read", on):
        assert cluster.read("n1", lease=True) == []


def won_before(cluster: Cluster) -> list[tuple[bytes, bool]]:
    """n5 of five has asked for pre-votes, has n3's, and lacks one that is on its way from n4. Returns it."""
    term = cluster["n5"].term
    cluster.drop()
    cluster.stand("n5")  # all have been quiet for an election timeout
    cluster.deliver("n5", "n3")
    cluster.deliver("n5", "n4")
    cluster.deliver("n3", "n5")
    late = cluster.take("n4", "n5")
    cluster.drop()
    assert cluster["n5"].term == term
    return late


def elect_late(cluster: Cluster, late: list[tuple[bytes, bool]]) -> None:
    """The pre-vote arrives at n5, which asks n3 and n4 for their votes, and if they give them writes."""
    term = cluster["n5"].term
    for wire in late:
        cluster.receive("n4", "n5", wire)
    cluster.sync("n5")
    assert cluster["n5"].term == term + 1
    cluster.exchange("n3", "n4", "n5")
    cluster.propose("n5", "a")
    cluster.exchange("n3", "n4", "n5")


@both_ways
def test_rule_23_a_member_that_restarts_still_holds_its_vote_back(on: bool) -> None:
    """It cannot know whom it heard just before: it votes for nobody until an election timeout after its start."""
    cluster = Cluster(5, rules=without("votes_held_back", on), config=PATIENT)
    cluster.lead("n1")
    late = won_before(cluster)
    cluster.read("n1", lease=True)
    cluster.exchange("n1", "n2", "n3")  # these three, no more, have heard the leader just now
    cluster.crash("n3")
    cluster.restart("n3")
    elect_late(cluster, late)
    assert cluster["n5"].is_leader == (not on)
    with violates("stale read", on):
        assert leased(cluster, "n1") is not None


@both_ways
def test_rule_23_a_member_that_heard_probes_only_holds_its_vote_back(on: bool) -> None:
    """A leader whose entries have not come yet counts on who answered its probe, and does not know its name."""
    cluster = Cluster(5, rules=without("votes_held_back", on), config=PATIENT)
    cluster.lead("n1")
    cluster.drop()
    cluster.elect("n2", "n3", "n5")
    cluster.exchange("n1", "n2", "n3", "n5")
    cluster.beat("n2", "n1", "n3", "n5")
    late = won_before(cluster)
    cluster.read("n2", lease=True)
    to_n4 = [wire for wire in cluster.take("n2", "n4") if RaftMessage.FromString(wire[0]).HasField("probe")]
    cluster.receive("n2", "n4", to_n4[0])
    cluster.sync("n4")
    cluster.exchange("n1", "n2")
    cluster.deliver("n4", "n2")
    assert (cluster["n4"].term, cluster["n4"].core.leader) == (2, None)
    elect_late(cluster, late)
    assert cluster["n5"].is_leader == (not on)
    with violates("stale read", on):
        assert leased(cluster, "n2") is not None


def test_a_new_cluster_and_one_that_restarted_elect_a_leader() -> None:
    """Votes that are held back after a start cost one election timeout, not the election."""
    cluster = Cluster(3)
    began = cluster.now
    while not any(cluster[name].is_leader for name in cluster.names):
        cluster.timer(*cluster.names, advance_s=0.05)
        cluster.exchange(*cluster.names)
    assert cluster.now - began < 2 * CONFIG.election_max_s
    for name in cluster.names:
        cluster.crash(name)
    for name in cluster.names:
        cluster.restart(name)
    began = cluster.now
    while not any(cluster[name].is_leader for name in cluster.names):
        cluster.timer(*cluster.names, advance_s=0.05)
        cluster.exchange(*cluster.names)
    assert cluster.now - began < 2 * CONFIG.election_max_s


def test_a_leader_that_steps_down_is_followed_by_another() -> None:
    """After a leader without room gave up, the others, which heard it just now, elect one in two timeouts."""
    cluster = Cluster(3)
    cluster.lead("n1")
    cluster["n1"].suspend(True, cluster.now)
    began = cluster.now
    while not any(cluster[name].is_leader for name in ("n2", "n3")):
        cluster.timer(*cluster.names, advance_s=0.05)
        cluster.exchange(*cluster.names)
    assert cluster.now - began < 2 * CONFIG.election_max_s + CONFIG.election_min_s
    with pytest.raises(NotLeader):
        cluster["n3" if cluster["n2"].is_leader else "n2"].propose(b"\x01x")


# ------------------------------------------------------------ any schedule


@pytest.mark.parametrize("run", range(3))
def test_any_schedule_is_safe_with_clocks_at_the_ends_of_their_drift(run: int, seed: int) -> None:
    """Leased reads of leaders, and reads of followers, see all that was acknowledged before, on clocks that differ."""
    seed += run
    drift = CONFIG.clock_drift_max
    rates = {"n1": 1 - drift, "n2": 1 + drift, "n3": 1 + drift if seed % 2 else 1 - drift}
    cluster = Cluster(3, seed=seed, rates=rates, config=replace(PATIENT, lease_s=0.9))
    assert cluster["n1"].lease_allowed
    Storm(cluster, seed).run_deposing(1000, 5)
    cluster.heal()
    cluster.check_converged()


@pytest.mark.parametrize("rule", ["lease_bounded", "lease_confirmed"])
def test_a_storm_finds_what_a_missing_rule_of_leases_breaks(rule: str) -> None:
    """The schedules are hard enough: without one of these rules some of a few fixed seeds end in a stale read."""

    def storms() -> None:
        for seed in range(10):
            Storm(Cluster(3, seed=seed, rules=without(rule, False), config=PATIENT), seed).run_deposing(
                1000, 6
            )

    with pytest.raises(Violation, match=r"^stale read"):
        storms()
