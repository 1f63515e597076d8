"""Writes whose outcome is unknown: their tokens, and that nobody makes the partition forget them."""

from __future__ import annotations

from kv.errors import DeadlineExceeded, OutcomeDecided, UnknownOutcome
from kv.ids import GroupId
from kv.outcome import OutcomeToken
from kv.v1 import kv_pb2
from tests.router.world import Group, Inbox, VirtualWorld, batch, get, keys_of_distinct_partitions, put

KEY = b"key"


def execute(world: VirtualWorld, request: kv_pb2.BatchRequest, *, timeout_ms: int = 5000) -> Inbox:
    """Send a batch to n1 to be routed by its keys."""
    inbox, router = Inbox(), world.routers["n1"]
    router.execute(request, request.SerializeToString(), router.deadline(timeout_ms), inbox)
    return inbox


def submit(world: VirtualWorld, request: kv_pb2.BatchRequest, partition: GroupId = 1) -> Inbox:
    """Send a batch to n1 for a named partition."""
    inbox, router = Inbox(), world.routers["n1"]
    router.submit(request.SerializeToString(), partition, router.deadline(300), inbox)
    return inbox


def identity_of(group: Group) -> kv_pb2.RequestId:
    """Return the request id of the last request that the partition got."""
    return kv_pb2.BatchRequest.FromString(group.submitted[-1][1]).request_id


def led_world(partitions: int = 1) -> VirtualWorld:
    """Return a world in which n1 leads and its router has a session."""
    world = VirtualWorld(partitions=partitions)
    world.lead("n1")
    for key in keys_of_distinct_partitions(world.ring, partitions):
        assert execute(world, batch(put(key))).ok
    return world


def test_a_write_that_never_ended_has_a_token_and_its_sequence_is_never_acknowledged() -> None:
    """After the deadline new writes take another session, and those of the old one acknowledge nothing beyond."""
    world = led_world()
    group = world.groups[1]
    group.hold_replies = True
    lost, beside = execute(world, batch(put(KEY)), timeout_ms=300), execute(world, batch(put(b"other")))
    asked = kv_pb2.BatchRequest.FromString(group.submitted[-2][1]).request_id
    world.time.advance(0.4)
    assert isinstance(lost.error, DeadlineExceeded)
    assert lost.error.token == str(OutcomeToken(1, asked.session, asked.sequence))
    group.hold_replies = False
    group.release()
    assert beside.ok, "what was in flight ends in its session"
    for number in range(3):
        assert execute(world, batch(put(b"later%d" % number))).ok
        assert identity_of(group).session != asked.session
    sent = [kv_pb2.BatchRequest.FromString(raw).request_id for _, raw in group.submitted]
    assert all(each.acknowledged < asked.sequence for each in sent if each.session == asked.session)


def test_a_definite_end_keeps_the_session_and_has_no_token() -> None:
    """A refused write did not happen, so that there is nothing to ask for."""
    world = led_world()
    conflict = kv_pb2.Operation(
        put=kv_pb2.PutOperation(key=KEY, value=b"", condition=kv_pb2.Condition(present=True))
    )
    before = identity_of(world.groups[1]).session
    [result] = execute(world, batch(conflict)).response.results
    assert result.error.reason == "CONDITION_FAILED"
    world.groups[1].leader = None
    inbox = execute(world, batch(put(KEY)), timeout_ms=200)
    world.time.advance(0.3)
    assert inbox.error.definite
    assert inbox.error.token is None
    world.groups[1].leader = "n1"
    assert execute(world, batch(put(KEY))).ok
    assert identity_of(world.groups[1]).session == before


def test_a_clients_own_session_is_named_by_the_token() -> None:
    """Undecoded or not, the token of a write that came with a request id names that one."""
    world = led_world()
    group = world.groups[1]
    opened = submit(world, batch(kv_pb2.Operation(open_session=kv_pb2.OpenSessionOperation())))
    session = opened.response.results[0].open_session.session
    for sequence, trace in ((1, False), (2, True)):
        group.hold_replies = True
        identity = kv_pb2.RequestId(session=session, sequence=sequence)
        inbox = submit(world, batch(put(KEY), request_id=identity, trace=trace))
        world.time.advance(0.4)
        assert inbox.error.token == str(OutcomeToken(1, session, sequence))
        group.hold_replies = False
        group.release()


def test_a_bare_write_and_a_read_have_no_token() -> None:
    """Without a session nobody can ask, and a read has no outcome."""
    world = led_world()
    world.groups[1].lose_replies = 1
    bare = submit(world, batch(put(KEY)))
    assert isinstance(bare.error, UnknownOutcome)
    assert bare.error.token is None
    world.groups[1].hold_replies = True
    read = submit(world, batch(get(KEY), request_id=kv_pb2.RequestId(session=3, sequence=1)))
    world.time.advance(0.4)
    assert read.error.token is None


def test_each_operation_of_a_split_batch_has_a_token_of_its_own() -> None:
    """The errors of a part that never ended name the place of each operation in that part's request."""
    world = led_world(2)
    first, second = keys_of_distinct_partitions(world.ring, 2)
    group = world.group_of(first)
    group.hold_replies = True
    inbox = execute(world, batch(put(first, b"1"), put(second), put(first, b"2")), timeout_ms=300)
    world.time.advance(0.4)
    identity = identity_of(group)
    one, other, two = inbox.response.results
    assert other.HasField("put")
    for position, result in enumerate((one, two)):
        [token] = [detail.value for detail in result.error.details if detail.key == "token"]
        assert OutcomeToken.parse(token) == OutcomeToken(
            group.partition, identity.session, identity.sequence, position, 1
        )


def test_a_write_under_way_when_the_node_stops_has_a_token() -> None:
    """UNKNOWN_OUTCOME of a node that stops can be asked for at another."""
    world = led_world()
    world.groups[1].hold_replies = True
    inbox = execute(world, batch(put(KEY)))
    world.routers["n1"].close()
    assert isinstance(inbox.error, UnknownOutcome)
    assert inbox.error.token is not None


def test_a_decided_outcome_is_definite_even_after_a_lost_attempt() -> None:
    """OUTCOME_DECIDED says of every copy that it was not and never will be applied."""
    world = led_world()
    group = world.groups[1]
    opened = submit(world, batch(kv_pb2.Operation(open_session=kv_pb2.OpenSessionOperation())))
    identity = kv_pb2.RequestId(session=opened.response.results[0].open_session.session, sequence=1)
    group.refusals = [UnknownOutcome("lost"), OutcomeDecided("fenced")]
    inbox = submit(world, batch(put(KEY), request_id=identity))
    world.time.advance(0.2)
    assert isinstance(inbox.error, OutcomeDecided)
    assert inbox.error.definite
