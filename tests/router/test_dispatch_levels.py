"""Read levels through the router: which replica serves, what follows its refusal, and how the read ends."""

from __future__ import annotations

import pytest

from kv.errors import (
    BehindSession,
    DeadlineExceeded,
    InvalidArgument,
    LeaseRefused,
    NotOnAllReplicas,
    TooStale,
    Unavailable,
)
from kv.v1 import kv_pb2
from tests.router.world import Inbox, VirtualWorld, batch, get, keys_of_distinct_partitions, put

KEY = b"key"
LINEARIZABLE = kv_pb2.READ_LEVEL_LINEARIZABLE
LEASE = kv_pb2.READ_LEVEL_LEASE
SESSION = kv_pb2.READ_LEVEL_SESSION
BOUNDED = kv_pb2.READ_LEVEL_BOUNDED
STALE = kv_pb2.READ_LEVEL_STALE
LOCAL = kv_pb2.REPLICA_PREFERENCE_LOCAL
LEADER = kv_pb2.REPLICA_PREFERENCE_LEADER


def send(
    world: VirtualWorld,
    at: str,
    level: int,
    read: kv_pb2.ReadOptions | None = None,
    *,
    named: bool = False,
    timeout_ms: int = 5000,
    trace: bool = False,
) -> Inbox:
    """Read the key through the router of node `at`, by the key or by the named partition 1."""
    inbox, router = Inbox(), world.routers[at]
    request = batch(get(KEY), level=level, read=read, trace=trace)
    raw = request.SerializeToString()
    if named:
        router.submit(raw, 1, router.deadline(timeout_ms), inbox)
    else:
        router.execute(request, raw, router.deadline(timeout_ms), inbox)
    return inbox


def server(inbox: Inbox) -> str:
    """Return who served."""
    [proof] = inbox.response.evidence
    return proof.node


def cut(world: VirtualWorld, sender: str, receiver: str, mode: str = "down") -> None:
    """Break the way from one node to another."""
    world.nodes[sender].forwarder(receiver)
    world.nodes[sender].forwarders[receiver].mode = mode


@pytest.mark.parametrize("named", [False, True])
def test_a_linearizable_read_is_served_where_it_is_wished(named: bool) -> None:
    """By the leader, by the own follower with LOCAL, by any named node; the evidence says which."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    assert server(send(world, "n2", LINEARIZABLE, named=named)) == "n1"
    local = kv_pb2.ReadOptions(preference=LOCAL)
    assert server(send(world, "n2", LINEARIZABLE, local, named=named)) == "n2"
    other = kv_pb2.ReadOptions(node="n3")
    assert server(send(world, "n2", LINEARIZABLE, other, named=named)) == "n3"
    assert world.routers["n2"]._leaders.get(1) in (None, "n1"), "a follower's answer shows no leader"


def test_a_preferred_replica_that_is_gone_is_replaced_by_the_leader() -> None:
    """The named node does not answer: the leader does, at once."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    cut(world, "n2", "n3")
    assert server(send(world, "n2", LINEARIZABLE, kv_pb2.ReadOptions(node="n3"))) == "n1"
    assert server(send(world, "n2", STALE, kv_pb2.ReadOptions(node="n3"))) == "n1"


def test_a_preferred_replica_that_is_silent_is_replaced_after_its_patience() -> None:
    """A follower that never answers costs a linearizable read one attempt's patience."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    cut(world, "n2", "n3", "stuck")
    inbox = send(world, "n2", LINEARIZABLE, kv_pb2.ReadOptions(node="n3"))
    world.time.advance(1.6)
    assert server(inbox) == "n1"


def test_a_node_that_has_no_replica_is_no_error() -> None:
    """A preference that cannot be followed is not: the usual replica serves, and the evidence tells."""
    world = VirtualWorld(nodes=4, partitions=1)
    [info] = world.map.partitions
    outsider = next(name for name in world.nodes if name not in info.replicas)
    world.lead(info.replicas[1])
    for name in (outsider, "n99"):
        inbox = send(world, info.replicas[0], LINEARIZABLE, kv_pb2.ReadOptions(node=name))
        assert server(inbox) == info.replicas[1]
    local = send(world, outsider, STALE, kv_pb2.ReadOptions(preference=LOCAL))
    assert server(local) == info.replicas[0]


@pytest.mark.parametrize("named", [False, True])
def test_a_lease_read_goes_to_the_leader_and_its_refusal_is_final(named: bool) -> None:
    """LEASE_REFUSED is a matter of configuration: nobody else is asked."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    local = kv_pb2.ReadOptions(preference=LOCAL)
    assert server(send(world, "n2", LEASE, local, named=named)) == "n1"
    world.nodes["n1"].replicas[1].lease_allowed = False
    before = len(world.groups[1].submitted)
    assert isinstance(send(world, "n1", LEASE, named=named).error, LeaseRefused)
    assert len(world.groups[1].submitted) == before + 1


def test_reads_that_any_replica_serves_are_served_here_without_a_leader() -> None:
    """SESSION, BOUNDED and STALE work in a minority, as far as the own replica can promise."""
    world = VirtualWorld(partitions=1)
    world.lead(None)
    for level, read in (
        (SESSION, kv_pb2.ReadOptions(after=[kv_pb2.PartitionIndex(partition=1, index=2)])),
        (BOUNDED, kv_pb2.ReadOptions(max_age_ms=1)),
        (STALE, kv_pb2.ReadOptions()),
    ):
        inbox = send(world, "n2", level, read)
        assert (server(inbox), inbox.response.evidence[0].level) == ("n2", level)
    assert server(send(world, "n2", STALE, kv_pb2.ReadOptions(node="n3"), named=True)) == "n3"


@pytest.mark.parametrize("named", [False, True])
def test_a_replica_behind_the_session_is_replaced_by_the_leader(named: bool) -> None:
    """BEHIND_SESSION of the own replica leads to the leader at once, then to the others."""
    world = VirtualWorld(partitions=1)
    world.lead("n3")
    for node in ("n1", "n2"):
        world.nodes[node].replicas[1].fall_behind()
    world.groups[1].index = 9
    seen = kv_pb2.ReadOptions(after=[kv_pb2.PartitionIndex(partition=1, index=9)])
    before = len(world.groups[1].submitted)
    assert server(send(world, "n2", SESSION, seen, named=named)) == "n3"
    assert [node for node, _ in world.groups[1].submitted[before:]] == ["n2", "n3"]


def test_a_bound_is_kept_by_another_replica_or_refused_as_too_stale() -> None:
    """Each replica is asked before a second one is asked again; at the deadline the error is TOO_STALE, definite."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    bound = kv_pb2.ReadOptions(max_age_ms=100)
    for node in ("n1", "n2"):
        world.nodes[node].replicas[1].age_ms = None
    assert server(send(world, "n2", BOUNDED, bound)) == "n3"
    assert [node for node, _ in world.groups[1].submitted] == ["n2", "n1", "n3"]
    world.nodes["n3"].replicas[1].age_ms = 101
    cut(world, "n2", "n1")
    inbox = send(world, "n2", BOUNDED, bound, timeout_ms=800)
    world.time.advance(0.5)
    assert inbox.empty, "a leader may come"
    world.time.advance(0.4)
    assert isinstance(inbox.error, TooStale)
    assert inbox.error.definite
    assert world.routers["n2"].in_flight == 0


def test_a_bound_at_the_age_is_kept() -> None:
    """Just as old as allowed is not too old."""
    world = VirtualWorld(partitions=1)
    world.nodes["n2"].replicas[1].age_ms = 100
    assert server(send(world, "n2", BOUNDED, kv_pb2.ReadOptions(max_age_ms=100))) == "n2"


def test_behind_the_session_everywhere_ends_as_behind_session() -> None:
    """A bound that no replica has reached by the deadline, as after a loss, is named in the error."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    seen = kv_pb2.ReadOptions(after=[kv_pb2.PartitionIndex(partition=1, index=10**6)])
    inbox = send(world, "n2", SESSION, seen, timeout_ms=300)
    world.time.advance(0.4)
    assert isinstance(inbox.error, BehindSession)


def test_a_silent_replica_of_a_stale_read_is_replaced() -> None:
    """A read that any replica serves does not wait for one, even if that one leads."""
    world = VirtualWorld(nodes=4, partitions=1)
    [info] = world.map.partitions
    outsider = next(name for name in world.nodes if name not in info.replicas)
    world.lead(info.replicas[0])
    assert server(send(world, outsider, LINEARIZABLE)) == info.replicas[0]
    cut(world, outsider, info.replicas[0], "stuck")
    inbox = send(world, outsider, STALE)
    world.time.advance(1.6)
    assert server(inbox) == info.replicas[1]


def test_leader_preference_is_followed_by_any_level() -> None:
    """LEADER sends a stale read to the leader, and home again if that is gone."""
    world = VirtualWorld(partitions=1)
    world.lead("n3")
    read = kv_pb2.ReadOptions(preference=LEADER)
    assert server(send(world, "n2", STALE, read)) == "n3"
    cut(world, "n2", "n3")
    inbox = send(world, "n2", STALE, read)
    assert server(inbox) in ("n1", "n2")


@pytest.mark.parametrize(
    ("level", "read"),
    [
        (99, None),
        (BOUNDED, None),
        (BOUNDED, kv_pb2.ReadOptions(preference=LOCAL)),
        (STALE, kv_pb2.ReadOptions(node="not a name")),
        (kv_pb2.READ_LEVEL_QUORUM, kv_pb2.ReadOptions(replicas=4)),
    ],
)
def test_bad_options_of_a_named_partition_are_refused_here(
    level: int, read: kv_pb2.ReadOptions | None
) -> None:
    """What is not plain is decoded and checked before a replica sees it."""
    world = VirtualWorld(partitions=1)
    assert isinstance(send(world, "n1", level, read, named=True).error, InvalidArgument)
    assert not world.groups[1].submitted


def test_each_partition_is_told_its_own_bound() -> None:
    """A SESSION read over partitions carries to each the index of that one only."""
    world = VirtualWorld(partitions=2)
    keys = keys_of_distinct_partitions(world.ring, 2)
    after = [kv_pb2.PartitionIndex(partition=p, index=p) for p in world.groups]
    request = batch(*(get(key) for key in keys), level=SESSION, read=kv_pb2.ReadOptions(after=after))
    inbox, router = Inbox(), world.routers["n1"]
    router.execute(request, request.SerializeToString(), router.deadline(0), inbox)
    assert len(inbox.response.evidence) == 2
    for partition, group in world.groups.items():
        [(_, raw)] = group.submitted
        [pair] = kv_pb2.BatchRequest.FromString(raw).read.after
        assert (pair.partition, pair.index) == (partition, partition)


def test_the_level_of_a_batch_that_writes_is_ignored_in_every_part() -> None:
    """Its reads are linearizable and go to the leader, its write level and its trace go along."""
    world = VirtualWorld(partitions=2)
    world.lead("n1")
    first, second = keys_of_distinct_partitions(world.ring, 2)
    request = batch(put(first), get(second), level=STALE, read=kv_pb2.ReadOptions(node="n3"))
    request.write_level, request.all_timeout_ms = kv_pb2.WRITE_LEVEL_ALL, 70
    inbox, router = Inbox(), world.routers["n2"]
    router.execute(request, request.SerializeToString(), router.deadline(0), inbox)
    assert {proof.node for proof in inbox.response.evidence} == {"n1"}
    [sent] = [raw for _, raw in world.group_of(first).submitted if b"v" in raw]
    share = kv_pb2.BatchRequest.FromString(sent)
    assert (share.write_level, share.all_timeout_ms) == (kv_pb2.WRITE_LEVEL_ALL, 70)


def test_a_write_that_is_not_on_all_replicas_is_told_once_and_not_repeated() -> None:
    """NOT_ON_ALL_REPLICAS says that the write stands: no further attempt, no token, no new session."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    inbox, router, request = Inbox(), world.routers["n1"], batch(put(b"warm"))
    router.execute(request, request.SerializeToString(), router.deadline(0), inbox)
    before = len(world.groups[1].submitted)
    world.groups[1].refusals = [NotOnAllReplicas("slow", metadata={"revision": 9, "missing": "n3"})]
    inbox = Inbox()
    router.execute(request, request.SerializeToString(), router.deadline(0), inbox)
    assert isinstance(inbox.error, NotOnAllReplicas)
    assert inbox.error.metadata == {"revision": "9", "missing": "n3"}
    assert len(world.groups[1].submitted) == before + 1


def test_one_node_can_be_addressed_strictly() -> None:
    """A request for one node alone goes to no other: it ends when that node is gone, long before the deadline."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    router, request = world.routers["n2"], batch(get(KEY), level=STALE)

    def ask() -> Inbox:
        inbox = Inbox()
        router.execute(
            request, request.SerializeToString(), router.deadline(0), inbox, partition=1, node="n3"
        )
        return inbox

    assert server(ask()) == "n3"
    cut(world, "n2", "n3")
    before, inbox = len(world.groups[1].submitted), ask()
    world.time.advance(0.5)
    assert isinstance(inbox.error, Unavailable)
    assert len(world.groups[1].submitted) == before
    cut(world, "n2", "n3", "stuck")
    inbox = ask()
    world.time.advance(5.1)
    assert isinstance(inbox.error, DeadlineExceeded)
    assert len(world.groups[1].submitted) == before + 1


@pytest.mark.parametrize("named", [False, True])
def test_a_trace_has_the_routers_steps_behind_the_replicas(named: bool) -> None:
    """Received, routed, each attempt with its end, in the order of time; nothing without the flag."""
    world = VirtualWorld(partitions=1)
    world.lead("n3")
    cut(world, "n2", "n1")
    read = kv_pb2.ReadOptions(node="n1")
    steps = send(world, "n2", LINEARIZABLE, read, named=named, trace=True).response.trace
    assert [(step.component, step.step, step.detail) for step in steps] == [
        ("replica", "served", ""),
        ("router", "received", ""),
        ("router", "routed", "partition 1, leader n3"),
        ("router", "sent", "n1"),
        ("router", "refused", "n1: UNAVAILABLE"),
        ("router", "sent", "n3"),
        ("router", "answered", "n3"),
    ]
    assert all(step.node == "n2" for step in steps[1:])
    assert not send(world, "n2", LINEARIZABLE, read, named=named).response.trace


def test_the_traces_of_all_parts_are_joined() -> None:
    """A batch over two partitions shows the way of each."""
    world = VirtualWorld(partitions=2)
    keys = keys_of_distinct_partitions(world.ring, 2)
    request = batch(*(put(key) for key in keys), trace=True)
    inbox, router = Inbox(), world.routers["n1"]
    router.execute(request, request.SerializeToString(), router.deadline(0), inbox)
    routed = [step.detail for step in inbox.response.trace if step.step == "routed"]
    assert sorted(detail.split(",")[0] for detail in routed) == ["partition 1", "partition 2"]
