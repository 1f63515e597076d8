"""Groups at rest, in whole engines: what is sent, what wakes them, and what holds meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from kv.internal.v1 import raft_pb2
from kv.raft.api import ReadProof
from kv.raft.group import Group
from kv.raft.pulse import BEATS_GROUP
from tests.raft.harness import CONFIG, texts
from tests.raft.virtual import LATENCY_S, SYNC_S, Node, World, cluster, leader

AWHILE_S = 1.0
"""An idle group rests by then, and no election timer may have run out."""


def others(world: World, *besides: Node) -> list[Node]:
    """The nodes but these."""
    return [node for node in world.nodes.values() if node not in besides]


def at_rest(groups: int = 1) -> tuple[World, Node]:
    """Three nodes, all groups at rest everywhere; the leader of the first."""
    world = cluster(groups=groups)
    for number in range(1, groups + 1):
        leader(world, number)
    world.wait(lambda: all(group.rest.dozing for node in world.nodes.values() for group in groups_of(node)))
    return world, leader(world)


def groups_of(node: Node) -> list[Group]:
    """All groups of a node."""
    return list(node.engine.groups.values())


def kinds(world: World, seconds: float) -> Counter[str]:
    """What is sent in this time, by kind."""
    world.sent.clear()
    world.run(seconds)
    return Counter(str(message.WhichOneof("body")) for _, _, message in world.sent)


def between(one: str, other: str) -> Callable[[str, str, raft_pb2.RaftMessage], bool]:
    """Nothing passes between these two, either way."""
    return lambda source, target, _: {source, target} == {one, other}


def proof(node: Node, *, lease: bool = False) -> list[ReadProof | None]:
    """Asks a node for a proof; the list is filled when the answer is there."""
    got: list[ReadProof | None] = []
    node.group().read_index(got.append, lease=lease)
    return got


# ------------------------------------------------------------ what is sent


@pytest.mark.parametrize("groups", [1, 40])
def test_one_message_a_node_pair_and_heartbeat_however_many_groups_rest(groups: int) -> None:
    """Nothing is sent but beats and their answers, at most one each way, and they do not carry the groups."""
    world, _ = at_rest(groups)
    world.run(AWHILE_S)
    found = kinds(world, AWHILE_S)
    heads = {node.name for node in world.nodes.values() if any(group.is_leader for group in groups_of(node))}
    pairs = len(heads) * 2
    beats = AWHILE_S / CONFIG.heartbeat_s
    assert set(found) == {"beat", "beat_reply"}
    assert pairs * (beats - 2) <= found["beat"] <= pairs * (beats + 1)
    assert max(message.ByteSize() for _, _, message in world.sent) < 64


def test_an_idle_group_of_one_member_rests_too() -> None:
    """It sends no beats, has no turns, and writes as fast as ever."""
    world = cluster(1)
    node = leader(world)
    world.wait(lambda: node.group().rest.dozing)
    assert kinds(world, AWHILE_S) == {}
    node.propose("a")
    world.run(2 * SYNC_S)
    assert texts(node.ledgers[1].entries) == ["a"]


def test_a_write_wakes_its_group_and_waits_for_no_beat() -> None:
    """From proposal to reply it takes what it takes in a group that is awake; then the group rests again."""
    world, head = at_rest(groups=3)
    head.propose("a")
    world.run(2 * LATENCY_S + 2 * SYNC_S)
    assert texts(head.ledgers[1].entries) == ["a"]
    assert not head.group().rest.resting
    world.wait(lambda: all(node.group().rest.dozing for node in world.nodes.values()))
    assert all(texts(node.ledgers[1].entries) == ["a"] for node in world.nodes.values())


def test_a_group_that_wakes_leaves_the_others_asleep() -> None:
    """Beats go on for the groups that rest while one among them is busy."""
    world, _ = at_rest(groups=5)
    terms = [group.term for node in world.nodes.values() for group in groups_of(node)]
    for number in range(40):
        leader(world).propose(f"{number}")
        world.run(0.05)
        resting = [group for node in world.nodes.values() for group in groups_of(node) if group.group_id > 1]
        assert all(group.rest.resting for group in resting)
    assert terms == [group.term for node in world.nodes.values() for group in groups_of(node)]


# ------------------------------------------------------------ what ends a rest


def test_the_leader_is_missed_when_its_node_falls_silent() -> None:
    """Its members wake by an election timeout after its last beat, and elect another, in every group."""
    world, head = at_rest(groups=4)
    head.engine.stop()
    began = world.now
    for number in range(1, 5):
        assert leader(world, number, besides=head) is not head
    assert world.now - began >= CONFIG.election_min_s - CONFIG.heartbeat_s


def test_a_leader_that_nobody_answers_steps_down_in_its_fallback_time() -> None:
    """Cut off while its group rests, it leads no longer than one that was awake would."""
    world, head = at_rest()
    world.lost = lambda source, _, __: source != head.name
    began = world.now
    world.wait(lambda: not head.group().is_leader)
    assert world.now - began <= CONFIG.leader_fallback_s + 2 * CONFIG.heartbeat_s


def test_one_member_that_hears_nothing_disturbs_nobody() -> None:
    """It wakes and stands; who hears the leader's beats refuses, and goes on resting."""
    world, head = at_rest()
    deaf, hearing = others(world, head)
    term = head.group().term
    world.lost = between(head.name, deaf.name)
    world.run(3 * CONFIG.election_max_s)
    assert not deaf.group().rest.resting
    assert head.group().is_leader
    assert hearing.group().term == term
    world.lost = lambda *_: False
    world.wait(lambda: all(node.group().rest.dozing for node in world.nodes.values()))
    assert head.group().term == term


def test_a_member_that_cannot_be_reached_sleeps_through_it_and_is_brought_up() -> None:
    """The others rest without it; when it is back it gets what it lacks, and rests with them."""
    world, head = at_rest()
    away, near = others(world, head)
    for one, other in ((away, head), (away, near)):
        one.engine.connection(other.name, False)
        other.engine.connection(one.name, False)
    world.lost = lambda source, target, _: away.name in (source, target)
    head.propose("a")
    world.wait(lambda: head.group().rest.dozing and near.group().rest.dozing)
    world.lost = lambda *_: False
    for one, other in ((away, head), (away, near)):
        one.engine.connection(other.name, True)
        other.engine.connection(one.name, True)
    world.wait(lambda: texts(away.ledgers[1].entries) == ["a"])
    world.wait(lambda: all(node.group().rest.dozing for node in world.nodes.values()))


def test_a_peer_that_answers_no_beats_gets_heartbeats() -> None:
    """A group does not rest at a node of an older version, and nobody's timer runs out."""
    world = cluster()
    world.lost = lambda _, __, message: message.group == BEATS_GROUP
    head = leader(world)
    term = head.group().term
    found = kinds(world, 3 * CONFIG.election_max_s)
    assert found["append"] >= 2 * 3 * CONFIG.election_max_s / (2 * CONFIG.heartbeat_s)
    assert not any(node.group().rest.resting for node in world.nodes.values())
    assert (head.group().is_leader, head.group().term) == (True, term)


def test_a_lost_answer_costs_a_beat_and_nothing_else() -> None:
    """Every second beat is lost: the group goes on resting."""
    world, head = at_rest()
    world.lost = lambda _, __, message: message.HasField("beat") and message.beat.sequence // 2 % 2 == 0
    for _ in range(30):
        world.run(CONFIG.heartbeat_s)
        assert all(node.group().rest.resting for node in world.nodes.values())
    assert head.group().is_leader


def test_who_restarts_is_found_out_by_its_roll() -> None:
    """A member that wakes by itself is put to rest again, or its leader wakes: the rolls come to agree."""
    world, head = at_rest(groups=3)
    member = others(world, head)[0]
    mine = [group for group in groups_of(head) if group.is_leader]
    for group in mine:
        member.group(group.group_id).rest.end()
    world.run(3 * CONFIG.heartbeat_s)
    assert all(member.group(group.group_id).rest.resting for group in mine)
    for group in mine:
        member.group(group.group_id).rest.allowed = False
        member.group(group.group_id).rest.end()
    world.wait(lambda: not any(group.rest.resting for group in mine))


def test_a_full_disk_wakes_and_keeps_awake() -> None:
    """A member that may acknowledge nothing does not rest; what it leads others lead."""
    world, head = at_rest()
    head.disk.full = True
    head.propose("a")
    world.wait(lambda: head.engine.disk_full)
    assert not head.group().rest.resting
    assert leader(world, besides=head) is not head


def test_a_replica_that_stops_wakes_the_others() -> None:
    """Beats go on for the node's other groups, and this one elects another leader."""
    world, head = at_rest(groups=2)
    head.group().stop("broken by the test")
    assert leader(world, besides=head).group().is_leader


# ------------------------------------------------------------ reads at rest


def test_reads_do_not_wake() -> None:
    """A round, and a follower's question, are answered while the group rests."""
    world, head = at_rest()
    index = head.group().commit_index
    for node in world.nodes.values():
        got = proof(node)
        world.run(6 * LATENCY_S)
        assert [one and one.index for one in got] == [index], node.name
    assert all(node.group().rest.resting for node in world.nodes.values())
    assert head.group().is_leader


def test_a_lease_is_renewed_by_beats() -> None:
    """At rest a leader answers by its lease without asking anybody, and not once nobody answers its beats."""
    world, head = at_rest()
    world.run(AWHILE_S)
    world.sent.clear()
    got = proof(head, lease=True)
    assert [one and one.leased for one in got] == [True]
    assert not any(message.HasField("probe") for _, _, message in world.sent)
    world.lost = lambda source, _, __: source != head.name
    world.run(CONFIG.lease_s)
    assert proof(head, lease=True) == []


def test_every_member_at_rest_has_a_young_proof() -> None:
    """A follower's is not older than two beats, a leader's than one, and a bit for the way; it is of all that is committed."""
    world, head = at_rest()
    world.run(AWHILE_S)
    for _ in range(20):
        world.run(0.037)
        for node in world.nodes.values():
            found = node.group().proof
            assert found is not None
            assert (found.index, found.leased) == (head.group().commit_index, False)
            beats = 1 if node is head else 2
            assert world.now - found.began_at <= beats * CONFIG.heartbeat_s + 8 * LATENCY_S


def test_a_member_that_is_cut_off_has_no_new_proof() -> None:
    """Its last one stays, and grows old."""
    world, head = at_rest()
    member = others(world, head)[0]
    world.run(AWHILE_S)
    world.lost = between(head.name, member.name)
    world.run(2 * LATENCY_S)
    before = member.group().proof
    world.run(5 * CONFIG.heartbeat_s)
    assert member.group().proof == before


def test_in_a_group_of_five_a_member_must_ask() -> None:
    """A leader and one member are no quorum there: a beat alone proves nothing to the member."""
    world = cluster(5)
    head = leader(world)
    world.wait(lambda: all(node.group().rest.dozing for node in world.nodes.values()))
    world.run(AWHILE_S)
    assert all(node.group().proof is None for node in others(world, head))
    found = head.group().proof
    assert found is not None
    assert world.now - found.began_at <= CONFIG.heartbeat_s + 8 * LATENCY_S


# ------------------------------------------------------------ votes


def test_rule_27_who_wakes_refuses_votes_as_long_as_after_a_heartbeat() -> None:
    """A member that woke just after a beat grants no pre-vote for an election timeout."""
    world, head = at_rest()
    world.run(AWHILE_S)
    for node in others(world, head):
        heard = world.now
        node.group().rest.end()
        assert not node.group().campaign.timer.quiet(heard + CONFIG.election_min_s - 2 * CONFIG.heartbeat_s)
        assert not node.group().campaign.timer.due(heard + CONFIG.election_min_s - 2 * CONFIG.heartbeat_s)
        assert node.group().campaign.timer.quiet(heard + CONFIG.election_min_s)
