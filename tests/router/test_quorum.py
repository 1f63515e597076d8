"""QUORUM and ALL reads: whom they ask, what they answer, and when they give up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.errors import (
    InvalidArgument,
    KVError,
    NotLeader,
    Overloaded,
    ReplicaStopped,
    TooFewReplicas,
    Unavailable,
    WrongPartition,
)
from kv.router.api import Reply
from kv.router.quorum import ASKED_MAX, FanOut, Poll
from kv.v1 import kv_pb2
from tests.router.world import Inbox, VirtualWorld, batch, get, put

KEY = b"key"
QUORUM = kv_pb2.READ_LEVEL_QUORUM
ALL = kv_pb2.READ_LEVEL_ALL


class Ward:
    """A fan-out whose replicas answer when the test says so."""

    def __init__(self, wanted: int, replicas: int = 3) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.open: dict[str, Reply] = {}
        self.inbox = Inbox()
        self.steps: list[tuple[str, str]] = []
        names = [f"n{i}" for i in range(1, replicas + 1)]
        self.fan_out = FanOut(
            7,
            Poll(names, wanted),
            ask=self._ask,
            note=lambda step, detail: self.steps.append((step, detail)),
            reply=self.inbox,
        )
        self.fan_out.start()

    def _ask(self, node: str, has_spare: bool, reply: Reply) -> None:
        assert node not in self.open, "a replica is asked once at a time"
        self.asked.append((node, has_spare))
        self.open[node] = reply

    def answer(self, node: str, index: int) -> None:
        evidence = [kv_pb2.Evidence(node=node, index=index)]
        item = kv_pb2.KeyValue(key=KEY, value=node.encode())
        result = kv_pb2.OperationResult(get=kv_pb2.GetResult(item=item))
        response = kv_pb2.BatchResponse(results=[result], evidence=evidence)
        self.open.pop(node)(response.SerializeToString())

    def fail(self, node: str, error: KVError) -> None:
        self.open.pop(node)(error)


def test_the_newest_answer_is_given_with_the_evidence_of_all() -> None:
    """The response of the highest index is chosen; its evidence is first."""
    ward = Ward(3)
    assert ward.asked == [("n1", False), ("n2", False), ("n3", False)]
    ward.answer("n1", 5)
    ward.answer("n3", 9)
    assert ward.inbox.empty
    ward.answer("n2", 7)
    response = ward.inbox.response
    assert [result.get.item.value for result in response.results] == [b"n3"]
    assert [proof.node for proof in response.evidence] == ["n3", "n1", "n2"]
    assert ward.steps[-1] == ("chosen", "n3")


def test_no_more_are_asked_than_are_wanted() -> None:
    """A majority of three asks two, and the third only in the place of one that fails."""
    ward = Ward(2)
    assert ward.asked == [("n1", True), ("n2", True)]
    ward.fail("n1", Unavailable("down"))
    assert [node for node, _ in ward.asked] == ["n1", "n2", "n3"]
    ward.answer("n2", 4)
    ward.answer("n3", 4)
    assert [proof.node for proof in ward.inbox.response.evidence] == ["n2", "n3"]


def test_too_few_replicas_say_how_many_answered() -> None:
    """When not even the second question to each brings enough, the end is definite and says why."""
    ward = Ward(2)
    ward.answer("n2", 4)
    for _ in range(ASKED_MAX):
        for node in ("n1", "n3"):
            ward.fail(node, Unavailable(f"{node} is down"))
    error = ward.inbox.error
    assert isinstance(error, TooFewReplicas)
    assert error.definite
    assert (error.metadata["answered"], error.metadata["wanted"]) == ("1", "2")
    assert error.metadata["last_reason"] == "UNAVAILABLE"
    assert "is down" in error.message
    assert not ward.open


def test_an_error_that_all_would_give_ends_the_read() -> None:
    """What is wrong with the request itself is not asked of another replica."""
    ward = Ward(2)
    ward.fail("n1", WrongPartition("not here"))
    assert isinstance(ward.inbox.error, WrongPartition)
    assert len(ward.asked) == 2
    ward.answer("n2", 1)  # the late answer finds nobody


def test_an_answer_that_does_not_parse_counts_as_none() -> None:
    """What a replica sent is not taken on trust: another takes its place."""
    ward = Ward(1)
    ward.open.pop("n1")(b"\xff\xff")
    assert [node for node, _ in ward.asked] == ["n1", "n2"]


@given(st.integers(1, 5), st.data())
def test_every_read_ends_once(replicas: int, data: st.DataObject) -> None:
    """Whatever the replicas answer in whatever order, there is one reply: enough answers, or too few possible."""
    wanted = data.draw(st.integers(1, replicas))
    ward = Ward(wanted, replicas)
    while ward.open:
        node = data.draw(st.sampled_from(sorted(ward.open)))
        if data.draw(st.booleans()):
            ward.answer(node, data.draw(st.integers(0, 3)))
        else:
            error = data.draw(st.sampled_from([Unavailable("x"), Overloaded("x"), ReplicaStopped("x")]))
            ward.fail(node, error)
    if ward.inbox.ok:
        evidence = ward.inbox.response.evidence
        assert len({proof.node for proof in evidence}) == len(evidence) == wanted
        assert evidence[0].index == max(proof.index for proof in evidence)
    else:
        assert isinstance(ward.inbox.error, TooFewReplicas)


# --- through the router ----------------------------------------------------------------------------


def written(world: VirtualWorld) -> None:
    """Write 1 where all replicas apply it, then 2 where only the leader n1 does."""
    world.lead("n1")
    for number, value in enumerate((b"1", b"2")):
        inbox, router, request = Inbox(), world.routers["n1"], batch(put(KEY, value))
        router.execute(request, request.SerializeToString(), router.deadline(0), inbox)
        assert inbox.ok
        for node in ("n2", "n3") if number == 0 else ():
            world.nodes[node].replicas[1].fall_behind()


def read(
    world: VirtualWorld, at: str, level: int, *, named: bool = False, trace: bool = False, **fields: int | str
) -> Inbox:
    """Read the key through the router of node `at`."""
    inbox, router = Inbox(), world.routers[at]
    options = kv_pb2.ReadOptions(**fields)  # type: ignore[arg-type]
    request = batch(get(KEY), level=level, read=options, trace=trace)
    raw = request.SerializeToString()
    if named:
        router.submit(raw, 1, router.deadline(5000), inbox)
    else:
        router.execute(request, raw, router.deadline(5000), inbox)
    return inbox


def test_a_quorum_may_be_behind_and_all_is_not() -> None:
    """A majority without the leader gives the old value, although the new one was acknowledged; ALL finds it."""
    world = VirtualWorld(partitions=1)
    written(world)
    old = read(world, "n2", QUORUM, node="n3").response
    assert old.results[0].get.item.value == b"1"
    assert sorted(proof.node for proof in old.evidence) == ["n2", "n3"]
    for named in (False, True):
        new = read(world, "n2", ALL, named=named).response
        assert new.results[0].get.item.value == b"2"
        assert new.evidence[0].node == "n1"
        assert len(new.evidence) == 3
        assert {proof.level for proof in new.evidence} == {ALL}


def test_a_quorum_of_one_is_the_own_replica() -> None:
    """Asked for one replica the node asks itself."""
    world = VirtualWorld(partitions=1)
    written(world)
    [proof] = read(world, "n3", QUORUM, replicas=1).response.evidence
    assert proof.node == "n3"


def test_a_dead_replica_is_replaced_and_missed_by_all() -> None:
    """One of three is down: a majority is found at once, ALL ends definite as TOO_FEW_REPLICAS within a second."""
    world = VirtualWorld(partitions=1)
    written(world)
    router = world.nodes["n2"]
    router.forwarder("n1")
    router.forwarders["n1"].mode = "down"
    inbox = read(world, "n2", QUORUM)
    world.time.advance(1.0)
    assert sorted(proof.node for proof in inbox.response.evidence) == ["n2", "n3"]
    inbox = read(world, "n2", ALL)
    world.time.advance(1.0)
    assert isinstance(inbox.error, TooFewReplicas)
    assert (inbox.error.metadata["answered"], inbox.error.metadata["wanted"]) == ("2", "3")
    assert world.routers["n2"].in_flight == 0


def test_a_silent_replica_is_replaced_after_its_patience() -> None:
    """A replica that never answers costs a majority one attempt's patience, and ALL the whole deadline."""
    world = VirtualWorld(partitions=1)
    written(world)
    node, [info] = world.nodes["n2"], world.map.partitions
    silent = next(name for name in info.replicas if name != "n2")
    node.forwarder(silent)
    node.forwarders[silent].mode = "stuck"
    quorum, everyone = read(world, "n2", QUORUM), read(world, "n2", ALL)
    world.time.advance(1.4)
    assert quorum.empty
    world.time.advance(0.2)
    assert sorted(proof.node for proof in quorum.response.evidence) == sorted({"n1", "n2", "n3"} - {silent})
    world.time.advance(3.3)
    assert everyone.empty
    world.time.advance(0.2)
    assert isinstance(everyone.error, TooFewReplicas)
    assert everyone.error.metadata["last_reason"] == "DEADLINE_EXCEEDED"
    assert world.routers["n2"].in_flight == 0


def test_a_node_without_a_replica_reads_from_those_that_have_one() -> None:
    """The router fans out wherever it runs."""
    world = VirtualWorld(nodes=4, partitions=1)
    [info] = world.map.partitions
    outsider = next(name for name in world.nodes if name not in info.replicas)
    assert len(read(world, outsider, ALL).response.evidence) == 3


def test_more_replicas_than_there_are_is_refused() -> None:
    """The refusal comes before anybody is asked, for named partitions too."""
    world = VirtualWorld(partitions=1)
    for named in (False, True):
        assert isinstance(read(world, "n1", QUORUM, named=named, replicas=4).error, InvalidArgument)
    assert not world.groups[1].submitted


def test_the_requests_of_a_fan_out_count_and_end_with_the_router() -> None:
    """A router that stops ends a read of several replicas as it ends all others."""
    world = VirtualWorld(partitions=1)
    written(world)
    world.groups[1].hold_replies = True
    inbox = read(world, "n1", ALL)
    assert world.routers["n1"].in_flight == 1
    world.routers["n1"].close()
    assert inbox.error.definite
    assert world.routers["n1"].in_flight == 0


def test_a_trace_shows_who_was_asked_and_who_was_chosen() -> None:
    """The steps of the chosen replica, those of the others, then the router's: asked, answered, chosen."""
    world = VirtualWorld(partitions=1)
    written(world)
    steps = read(world, "n2", ALL, trace=True).response.trace
    assert steps[0].node == "n1"
    assert {step.node for step in steps[:3]} == {"n1", "n2", "n3"}
    assert [(step.component, step.step) for step in steps][:5] == [
        *[("replica", "served")] * 3,
        ("router", "received"),
        ("router", "routed"),
    ]
    asked = [step.detail for step in steps if step.step == "sent"]
    assert sorted(asked) == ["n1", "n2", "n3"]
    assert (steps[-1].step, steps[-1].detail) == ("chosen", "n1")


@pytest.mark.parametrize("error", [NotLeader("x"), Overloaded("x"), Unavailable("x")])
def test_a_refusal_of_one_replica_does_not_end_the_read(error: KVError) -> None:
    """What another replica may do better is asked of another."""
    ward = Ward(2)
    ward.fail("n1", error)
    ward.answer("n2", 1)
    ward.answer("n3", 1)
    assert ward.inbox.ok
