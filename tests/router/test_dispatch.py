"""The router in virtual time: any node, hints, lost replies, deadlines, sessions, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import (
    DeadlineExceeded,
    NoLeader,
    Overloaded,
    ReplicaStopped,
    RequestTooLarge,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
    WrongPartition,
)
from kv.ids import REQUEST_BYTES_MAX
from kv.router.limits import RouterConfig
from kv.v1 import kv_pb2
from tests.router.world import Inbox, VirtualWorld, batch, get, keys_of_distinct_partitions, put

KEY = b"key"


def execute(world: VirtualWorld, node: str, request: kv_pb2.BatchRequest, *, timeout_ms: int = 5000) -> Inbox:
    """Send a batch to `node` to be routed by its keys."""
    inbox = Inbox()
    router = world.routers[node]
    router.execute(request, request.SerializeToString(), router.deadline(timeout_ms), inbox)
    return inbox


def submit(
    world: VirtualWorld, node: str, request: kv_pb2.BatchRequest, partition: int, *, timeout_ms: int = 5000
) -> Inbox:
    """Send a batch to `node` for the partition that the client names."""
    inbox = Inbox()
    router = world.routers[node]
    router.submit(request.SerializeToString(), partition, router.deadline(timeout_ms), inbox)
    return inbox


def quiet(world: VirtualWorld) -> None:
    """Assert that no router keeps anything of what has ended."""
    for router in world.routers.values():
        assert router.in_flight == 0


@pytest.mark.parametrize("node", ["n1", "n2", "n3", "n4"])
def test_any_node_accepts_any_request(node: str) -> None:
    """Whichever node is asked, with or without a replica, the leader applies the write once."""
    world = VirtualWorld(nodes=4, partitions=4)
    keys = keys_of_distinct_partitions(world.ring, 4)
    written = execute(world, node, batch(*(put(key, b"1") for key in keys)))
    assert [result.put.version for result in written.response.results] == [1] * 4
    read = execute(world, node, batch(*(get(key) for key in keys)))
    assert [result.get.item.value for result in read.response.results] == [b"1"] * 4
    assert len(read.response.evidence) == 4
    assert all(group.writes_applied == 1 for group in world.groups.values())
    quiet(world)


def test_hints_are_followed_to_the_leader() -> None:
    """A follower with a stale idea of the leader costs hops, not the request."""
    world = VirtualWorld(partitions=1)
    [group] = world.groups.values()
    group.leader = "n3"
    world.nodes["n1"].replicas[1].believes = "n2"
    assert execute(world, "n1", batch(put(KEY))).response.results[0].put.version == 1
    assert [node for node, _ in group.submitted][-2:] == ["n2", "n3"]


def test_hints_in_a_circle_end_in_pauses_and_no_leader() -> None:
    """Two replicas that name each other neither spin nor lose the request before its deadline."""
    world = VirtualWorld(partitions=1)
    [group] = world.groups.values()
    group.leader = None
    world.nodes["n2"].replicas[1].believes = "n3"
    world.nodes["n3"].replicas[1].believes = "n2"
    inbox = execute(world, "n1", batch(get(KEY)), timeout_ms=1000)
    world.time.advance(0.5)
    assert inbox.empty
    group.leader = "n1"
    world.time.advance(0.5)
    assert inbox.response.evidence[0].node == "n1"
    assert len(group.submitted) < 60
    quiet(world)


def test_a_request_waits_for_an_election() -> None:
    """While there is no leader the request is tried again, and succeeds when there is one."""
    world = VirtualWorld(partitions=1)
    world.lead(None)
    inbox = execute(world, "n1", batch(put(KEY)))
    world.time.advance(1.0)
    assert inbox.empty
    world.lead("n2")
    world.time.advance(0.25)
    assert inbox.response.results[0].put.version == 1
    quiet(world)


def test_without_a_leader_a_write_ends_definite() -> None:
    """A write that no replica accepted before its deadline certainly did not happen."""
    world = VirtualWorld(partitions=1)
    world.lead(None)
    inbox = execute(world, "n1", batch(put(KEY)), timeout_ms=800)
    world.time.advance(0.9)
    assert inbox.error.definite
    assert isinstance(inbox.error, NoLeader | DeadlineExceeded | Unavailable)
    world.time.advance(5.0)  # the open of the router's session has a time of its own
    quiet(world)


def test_an_unreachable_leader_is_looked_for_elsewhere() -> None:
    """A refused connection costs the request nothing if another node leads by now."""
    world = VirtualWorld(nodes=4, partitions=1)
    [info] = world.map.partitions
    outsider = next(name for name in world.nodes if name not in info.replicas)
    world.nodes[outsider].forwarder(info.replicas[0])
    world.nodes[outsider].forwarders[info.replicas[0]].mode = "down"
    world.lead(info.replicas[1])
    assert execute(world, outsider, batch(put(KEY))).response.results[0].put.version == 1


def test_a_lost_reply_does_not_apply_twice() -> None:
    """A write without a request id is protected by the router's session: repeated, applied once."""
    world = VirtualWorld(partitions=1)
    world.lead("n2")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    [group] = world.groups.values()
    group.lose_replies = 2
    before = group.writes_applied
    inbox = execute(world, "n1", batch(put(KEY)))
    world.time.advance(0.5)
    assert inbox.response.results[0].put.version == 1
    assert group.writes_applied == before + 1
    sent = [raw for _, raw in group.submitted if b"key" in raw]
    assert len(sent) >= 3
    assert len(set(sent)) == 1, "every attempt is the identical request"
    quiet(world)


def test_a_stream_lost_after_the_write_was_applied_is_answered_from_the_session() -> None:
    """The forward stream breaks with the reply on it; the second attempt gets the first result."""
    world = VirtualWorld(partitions=1)
    world.lead("n2")
    forwarder = world.nodes["n1"].forwarder("n2")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    link = world.nodes["n1"].forwarders["n2"]
    assert forwarder is link
    link.mode = "lossy"
    inbox = execute(world, "n1", batch(put(KEY)))
    link.mode = "up"
    world.time.advance(0.5)
    assert inbox.response.results[0].put.version == 1
    assert world.group_of(KEY).writes_applied == 2


def test_a_bare_write_to_a_named_partition_is_unknown_after_a_lost_reply() -> None:
    """A batch that passes through undecoded is not repeated without a request id, and the caller is told."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    [group] = world.groups.values()
    group.lose_replies = 1
    inbox = submit(world, "n1", batch(put(KEY)), 1)
    assert isinstance(inbox.error, UnknownOutcome)
    assert len(group.submitted) == 1


def test_a_named_partition_with_a_request_id_is_repeated() -> None:
    """The client's own session protects the write, so the router repeats it for the client."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    [group] = world.groups.values()
    opened = submit(world, "n1", batch(kv_pb2.Operation(open_session=kv_pb2.OpenSessionOperation())), 1)
    session = opened.response.results[0].open_session.session
    group.lose_replies = 1
    identity = kv_pb2.RequestId(session=session, sequence=1)
    inbox = submit(world, "n1", batch(put(KEY), request_id=identity), 1)
    world.time.advance(0.1)
    assert inbox.response.results[0].put.version == 1
    assert group.writes_applied == 1


def test_an_expired_session_of_the_router_is_replaced() -> None:
    """When the partition has forgotten the router's session, the write goes under a new one."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    [group] = world.groups.values()
    assert execute(world, "n1", batch(put(b"warm"))).ok
    group.expire_sessions()
    assert execute(world, "n1", batch(put(KEY))).response.results[0].put.version == 1
    quiet(world)


def test_an_expired_session_after_a_lost_reply_is_unknown() -> None:
    """The first attempt may have been applied: a new session could apply it twice, so nobody tries."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    [group] = world.groups.values()
    assert execute(world, "n1", batch(put(b"warm"))).ok
    group.lose_replies = 1
    group.hold_replies = True
    inbox = execute(world, "n1", batch(put(KEY)))
    group.expire_sessions()
    group.hold_replies = False
    group.release()
    world.time.advance(1.0)
    assert isinstance(inbox.error, UnknownOutcome)
    assert inbox.error.metadata["last_reason"] == "SESSION_EXPIRED"
    assert group.writes_applied == 2


def test_a_clients_expired_session_is_the_clients_business() -> None:
    """SESSION_EXPIRED of a session that the router does not own is passed on."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    identity = kv_pb2.RequestId(session=12345, sequence=1)
    assert isinstance(execute(world, "n1", batch(put(KEY), request_id=identity)).error, SessionExpired)


def test_a_stale_read_is_answered_here_without_a_leader() -> None:
    """Any replica serves a stale read, decoded or not, even in a minority."""
    world = VirtualWorld(partitions=1)
    world.lead(None)
    request = batch(get(KEY), level=kv_pb2.READ_LEVEL_STALE)
    for inbox in (execute(world, "n2", request), submit(world, "n2", request, 1)):
        assert inbox.response.evidence[0].node == "n2"
        assert inbox.response.evidence[0].level == kv_pb2.READ_LEVEL_STALE


def test_a_deadline_with_an_attempt_at_a_replica_is_indefinite_for_a_write_only() -> None:
    """A write that the leader holds may yet happen; a read never has."""
    world = VirtualWorld(partitions=1, replication_factor=1, nodes=1)
    [group] = world.groups.values()
    group.leader = "n1"
    assert execute(world, "n1", batch(put(b"warm"))).ok
    group.hold_replies = True
    write = execute(world, "n1", batch(put(KEY)), timeout_ms=300)
    read = execute(world, "n1", batch(get(KEY)), timeout_ms=300)
    world.time.advance(0.29)
    assert write.empty
    world.time.advance(0.03)
    assert isinstance(write.error, DeadlineExceeded)
    assert not write.error.definite
    assert isinstance(read.error, DeadlineExceeded)
    assert read.error.definite
    group.release()  # the late replies find nobody
    quiet(world)


def test_a_deadline_of_a_write_that_was_never_sent_is_definite() -> None:
    """A request that still waits for the stream at its deadline is taken back."""
    world = VirtualWorld(partitions=1)
    world.lead("n2")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    link = world.nodes["n1"].forwarders["n2"]
    link.mode = "waiting"
    inbox = execute(world, "n1", batch(put(KEY)), timeout_ms=1000)
    world.time.advance(1.1)
    assert isinstance(inbox.error, DeadlineExceeded)
    assert inbox.error.definite
    assert world.group_of(KEY).writes_applied == 1
    quiet(world)


def test_a_write_stuck_at_a_leader_that_was_cut_off_is_answered_by_its_successor() -> None:
    """Once this node knows another leader, a repeatable request goes there and is applied once."""
    world = VirtualWorld(partitions=1)
    world.lead("n2")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    world.nodes["n1"].forwarders["n2"].mode = "stuck"
    inbox = execute(world, "n1", batch(put(KEY)))
    world.time.advance(1.4)
    assert inbox.empty
    world.lead("n3")
    world.time.advance(0.2)
    assert inbox.response.results[0].put.version == 1
    assert world.group_of(KEY).writes_applied == 2
    quiet(world)


def test_a_slow_leader_that_is_still_the_leader_gets_no_copies() -> None:
    """Patience that ends sends nothing while this node still takes the same one for the leader."""
    world = VirtualWorld(partitions=1)
    world.lead("n2")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    [group] = world.groups.values()
    group.hold_replies = True
    inbox = execute(world, "n1", batch(put(KEY)))
    before = len(group.submitted)
    world.time.advance(4.0)
    assert len(group.submitted) == before
    group.release()
    assert inbox.response.results[0].put.version == 1


def test_a_stopped_replica_is_left_for_the_next() -> None:
    """REPLICA_STOPPED at one node is no reason to fail while another leads."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    [group] = world.groups.values()
    group.refusals = [ReplicaStopped("x")]
    inbox = execute(world, "n1", batch(get(KEY)))
    world.time.advance(0.5)
    assert inbox.response.evidence[0].node == "n1"


def test_unknown_partitions_and_missing_maps_are_definite() -> None:
    """A partition that the map does not have is WRONG_PARTITION; without a map nothing is routed yet."""
    world = VirtualWorld(partitions=1)
    assert isinstance(submit(world, "n1", batch(get(KEY)), 99).error, WrongPartition)
    world.nodes["n1"].map = None
    for inbox in (submit(world, "n1", batch(get(KEY)), 1), execute(world, "n1", batch(get(KEY)))):
        assert isinstance(inbox.error, Unavailable)


def test_a_wrong_partition_goes_back_to_the_caller() -> None:
    """A batch whose keys are not where the client says is refused, not rerouted behind its back."""
    world = VirtualWorld(partitions=4)
    wrong = next(p.id for p in world.map.partitions if p.id != world.ring.partition_of(KEY))
    assert isinstance(submit(world, "n1", batch(get(KEY)), wrong).error, WrongPartition)


def test_a_request_that_is_too_large_is_refused_before_anything_else() -> None:
    """The size limit holds for both ways in."""
    world = VirtualWorld(partitions=1)
    inbox, router = Inbox(), world.routers["n1"]
    router.submit(b"\0" * (REQUEST_BYTES_MAX + 1), 1, router.deadline(0), inbox)
    assert isinstance(inbox.error, RequestTooLarge)


def test_requests_in_flight_are_bounded() -> None:
    """At the bound the next request is refused; when one ends there is room again."""
    world = VirtualWorld(
        partitions=1, config=RouterConfig(requests_in_flight_max=3, scan_fetches_max=1, backoff_ms=10)
    )
    world.lead("n1")
    [group] = world.groups.values()
    group.hold_replies = True
    held = [execute(world, "n1", batch(get(KEY))) for _ in range(3)]
    assert isinstance(execute(world, "n1", batch(get(KEY))).error, Overloaded)
    group.hold_replies = False
    group.release()
    assert all(inbox.ok for inbox in held)
    assert execute(world, "n1", batch(get(KEY))).ok


def test_timeouts_are_bounded() -> None:
    """No timeout means the default, and a longer one than the limit is cut."""
    config = RouterConfig(request_timeout_ms=100, request_timeout_max_ms=200)
    world = VirtualWorld(partitions=1, config=config)
    router, now = world.routers["n1"], world.time.now
    assert router.deadline(0) == pytest.approx(now + 0.1)
    assert router.deadline(50) == pytest.approx(now + 0.05)
    assert router.deadline(10**9) == pytest.approx(now + 0.2)


def test_close_ends_everything_as_what_it_is() -> None:
    """A node that stops answers what it holds: unknown for a write at a replica, definite for the rest."""
    world = VirtualWorld(partitions=1)
    world.lead("n1")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    [group] = world.groups.values()
    group.hold_replies = True
    write, read = execute(world, "n1", batch(put(KEY))), execute(world, "n1", batch(get(KEY)))
    world.routers["n1"].close()
    assert isinstance(write.error, UnknownOutcome)
    assert isinstance(read.error, Unavailable)
    assert isinstance(execute(world, "n1", batch(get(KEY))).error, Unavailable)
    group.release()
    quiet(world)


@given(st.integers(min_value=0, max_value=2**32))
def test_under_random_faults_each_write_is_applied_at_most_once(seed: int) -> None:
    """Counters under leader changes, cut links and lost replies: acknowledged once means applied once.

    Each write appends to the version of its own key, so a key's version is the number of times that
    its write was applied: 1 if acknowledged, 0 if its error is definite, 0 or 1 otherwise.
    """
    from random import Random

    rng = Random(seed)
    world = VirtualWorld(nodes=4, partitions=2)
    inboxes: dict[bytes, Inbox] = {}
    for number in range(30):
        for node in world.nodes.values():
            for link in node.forwarders.values():
                link.mode = rng.choice(["up", "up", "up", "down", "lossy", "stuck", "waiting"])
        for group in world.groups.values():
            group.leader = rng.choice(["n1", "n2", "n3", "n4", None])
            group.lose_replies = rng.choice([0, 0, 1])
            if rng.random() < 0.1:
                group.expire_sessions()
        key = b"w%d" % number
        inboxes[key] = execute(world, rng.choice(sorted(world.nodes)), batch(put(key)), timeout_ms=2000)
        world.time.advance(rng.random() * 0.5)
    world.time.advance(3.0)
    for key, inbox in inboxes.items():
        record = world.group_of(key).state.get(key)
        version = int.from_bytes(record[16:24], "little") if record else 0
        [outcome] = inbox.outcomes
        if isinstance(outcome, bytes):
            assert version == 1
        elif outcome.definite:
            assert version == 0
        else:
            assert version <= 1
    world.time.advance(5.0)  # the opens of the routers' sessions have times of their own
    quiet(world)


def test_a_late_error_of_an_attempt_that_was_given_up_starts_nothing() -> None:
    """Only the end of the latest attempt decides what follows."""
    world = VirtualWorld(partitions=1)
    world.lead("n2")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    [group] = world.groups.values()
    group.hold_replies = True
    group.refusals = [NoLeader("late")]
    inbox = execute(world, "n1", batch(put(KEY)))
    world.lead("n3")
    world.time.advance(1.6)
    attempts = len(group.submitted)
    late, *others = group.held
    group.held = others
    late()
    world.time.advance(0.5)
    assert len(group.submitted) == attempts
    group.release()
    assert inbox.response.results[0].put.version == 1


def test_a_late_success_of_an_attempt_that_was_given_up_counts() -> None:
    """It is the same request, so its first answer is the answer."""
    world = VirtualWorld(partitions=1)
    world.lead("n2")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    [group] = world.groups.values()
    group.hold_replies = True
    inbox = execute(world, "n1", batch(put(KEY)))
    world.lead("n3")
    world.time.advance(1.6)
    assert len(group.held) == 2
    group.held[0]()
    assert inbox.response.results[0].put.version == 1
    group.held[1]()
    quiet(world)


def test_the_end_of_a_request_frees_its_place_in_the_stream() -> None:
    """A request that ended at its deadline is not waited for by the forwarder either."""
    world = VirtualWorld(partitions=1)
    world.lead("n2")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    link = world.nodes["n1"].forwarders["n2"]
    link.mode = "stuck"
    inbox = execute(world, "n1", batch(put(KEY)), timeout_ms=200)
    assert link.live == 1
    world.time.advance(0.3)
    assert isinstance(inbox.error, DeadlineExceeded)
    assert not inbox.error.definite
    assert link.live == 0


def test_the_end_of_a_request_frees_the_places_of_its_earlier_attempts_too() -> None:
    """An attempt that was given up at a leader that never answers is forgotten when another one succeeds."""
    world = VirtualWorld(partitions=1)
    world.lead("n2")
    assert execute(world, "n1", batch(put(b"warm"))).ok
    link = world.nodes["n1"].forwarders["n2"]
    link.mode = "stuck"
    inbox = execute(world, "n1", batch(put(KEY)))
    world.lead("n3")
    world.time.advance(1.6)
    assert inbox.ok
    assert link.live == 0


def test_a_node_without_a_replica_remembers_who_answered() -> None:
    """After one hint the next requests go straight to the leader, until it does not answer as one."""
    world = VirtualWorld(nodes=4, partitions=1)
    [info] = world.map.partitions
    [group] = world.groups.values()
    outsider = next(name for name in world.nodes if name not in info.replicas)
    world.lead(info.replicas[2])
    assert execute(world, outsider, batch(get(KEY))).ok
    before = len(group.submitted)
    assert execute(world, outsider, batch(get(KEY))).ok
    assert [node for node, _ in group.submitted[before:]] == [info.replicas[2]]
    world.lead(info.replicas[1])
    assert execute(world, outsider, batch(get(KEY))).ok
    before = len(group.submitted)
    assert execute(world, outsider, batch(get(KEY))).ok
    assert [node for node, _ in group.submitted[before:]] == [info.replicas[1]]
