"""Writes at level ALL, and what became of writes without an answer, in virtual time over a fake network."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from kv.client.aio import AsyncClient
from kv.client.limits import OPS_PER_REQUEST_MAX, Limits
from kv.client.types import Get, Increment, IncrementReply, Item, OutcomeState, Put, PutReply
from kv.errors import Conflict, DiskFull, InvalidArgument, NotOnAllReplicas, OutcomeDecided, UnknownOutcome
from kv.outcome import OutcomeToken
from tests.client.fakes import FakeCluster, FakeTransport, Fault
from tests.client.playing import always, identities, once, play
from tests.client.test_options import last

# --- write level ALL --------------------------------------------------------------------------------


def test_a_write_that_is_not_everywhere_says_that_it_stands() -> None:
    """NOT_ON_ALL_REPLICAS: applied, once, with revision and who lags; its sequence ends as usual."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1", write_level="all")
        cluster.partitions[1].lagging = {"n3"}
        with pytest.raises(NotOnAllReplicas) as caught:
            await client.put(b"a", b"2", write_level="all")
        assert caught.value.applied
        assert caught.value.metadata["missing"] == "n3"
        assert caught.value.token is None
        item = await client.get(b"a")
        assert item is not None
        assert caught.value.metadata["revision"] == str(item.mod_revision)
        assert cluster.partitions[1].applied == [(b"a", b"1"), (b"a", b"2")]
        await client.put(b"a", b"3")
        assert len({session for session, _ in identities(cluster)}) == 1

    play(scenario)


def test_what_failed_by_itself_is_not_said_to_be_applied() -> None:
    """Of writes that travelled together at level ALL, one whose condition failed gets Conflict, definite."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        cluster.partitions[1].lagging = {"n3"}
        outcomes = await asyncio.gather(
            client.put(b"a", b"2", if_absent=True, write_level="all"),
            client.put(b"b", b"2", write_level="all"),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [Conflict, NotOnAllReplicas]
        results = await client.batch(
            [Get(b"a"), Put(b"a", b"3", if_absent=True), Put(b"c", b"3")], write_level="all"
        )
        assert [type(result) for result in results] == [Item, Conflict, NotOnAllReplicas]
        assert cluster.partitions[1].applied == [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]

    play(scenario)


def test_the_wait_for_all_replicas_leaves_time_for_the_answer() -> None:
    """The leader is told to wait for less than the attempt's time, and never for no time at all."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1", write_level="all")
        assert last(cluster)[1].all_timeout_ms == 1000
        await client.put(b"a", b"1", write_level="all", timeout=0.4)
        assert 0 < last(cluster)[1].all_timeout_ms <= 200
        assert last(cluster)[1].all_timeout_ms < cluster.requests[-1][1].timeout_ms

    play(scenario)


# --- outcomes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "state", "applied"),
    [
        (Fault.SILENT_AFTER, OutcomeState.APPLIED, [(b"a", b"1")]),
        (Fault.SILENT_BEFORE, OutcomeState.NOT_APPLIED, []),
        (Fault.LATE, OutcomeState.NOT_APPLIED, []),
    ],
)
def test_an_unknown_outcome_can_be_asked_for(
    fault: Fault, state: OutcomeState, applied: list[tuple[bytes, bytes]]
) -> None:
    """The error's token tells whether it was applied; an answer NOT_APPLIED is for good, whatever arrives later."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, transport: FakeTransport) -> None:
        transport.late_s = lambda: 30.0
        cluster.rule = always(fault)
        with pytest.raises(UnknownOutcome) as caught:
            await client.put(b"a", b"1", timeout=1.0)
        assert caught.value.token is not None
        outcome = await client.outcome(caught.value)
        assert outcome.state is state
        assert outcome.evidence.partition == 1
        if state is OutcomeState.APPLIED:
            [result] = outcome.results
            assert isinstance(result, PutReply)
            assert result.version == 1
        cluster.rule = lambda _node, _request: None
        await client.put(b"b", b"2")
        await asyncio.sleep(60.0)
        assert cluster.partitions[1].applied == [*applied, (b"b", b"2")]
        assert (await client.outcome(caught.value.token)).state is state

    play(scenario)


def test_another_process_may_ask() -> None:
    """The token alone is enough, in any client of the cluster."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(Fault.SILENT_AFTER)
        with pytest.raises(UnknownOutcome) as caught:
            await client.put(b"a", b"1", timeout=1.0)
        await client.close()
        async with AsyncClient(["n1:7001"], transport=FakeTransport(cluster)) as other:
            assert (await other.outcome(str(caught.value.token))).state is OutcomeState.APPLIED

    play(scenario)


def test_each_call_of_a_joined_request_has_its_own_token() -> None:
    """Calls that travelled together ask for their own results, parts of a batch too."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"n", b"10")
        cluster.rule = always(Fault.SILENT_AFTER, "increment")
        one, other, parts = await asyncio.gather(
            client.increment(b"n", 1, timeout=1.0),
            client.increment(b"m", 2, timeout=1.0),
            client.batch([Increment(b"x", 3), Increment(b"y", 4)], timeout=1.0),
            return_exceptions=True,
        )
        assert isinstance(parts, list)
        values = []
        for error in (one, other, *parts):
            assert isinstance(error, UnknownOutcome)
            outcome = await client.outcome(error)
            assert outcome.state is OutcomeState.APPLIED
            [result] = outcome.results
            values.append(cast(IncrementReply, result).value)
        assert values == [11, 2, 3, 4]

    play(scenario)


def test_who_was_told_unknown_can_ask_though_the_request_was_answered_later() -> None:
    """A token stays good when the request's other callers waited longer and got their answers."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"0")
        cluster.rule = once(Fault.SILENT_AFTER)
        short, long = await asyncio.gather(
            client.put(b"a", b"1", timeout=0.5), client.put(b"b", b"1", timeout=5.0), return_exceptions=True
        )
        assert isinstance(long, PutReply)
        assert isinstance(short, UnknownOutcome)
        for number in range(5):
            await client.put(b"c", b"%d" % number)
        assert (await client.outcome(short)).state is OutcomeState.APPLIED

    play(scenario)


def test_closing_gives_tokens() -> None:
    """A write under way when the client is closed can be asked for afterwards."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"0")
        cluster.rule = always(Fault.SILENT_AFTER)
        write = asyncio.ensure_future(client.put(b"a", b"1"))
        await asyncio.sleep(0.01)
        await client.close()
        error = (await asyncio.gather(write, return_exceptions=True))[0]
        assert isinstance(error, UnknownOutcome)
        async with AsyncClient(["n1:7001"], transport=FakeTransport(cluster)) as other:
            assert (await other.outcome(error)).state is OutcomeState.APPLIED

    play(scenario)


def test_a_write_that_is_asked_for_while_it_is_under_way_ends_definitely() -> None:
    """After NOT_APPLIED the write's own next attempt is refused for good, and its caller is told so."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"0")
        cluster.rule = once(Fault.SILENT_BEFORE)
        write = asyncio.ensure_future(client.put(b"a", b"1", timeout=5.0))
        await asyncio.sleep(0.01)
        session, sequence = identities(cluster)[-1]
        asked = await client.outcome(OutcomeToken(1, session, sequence))
        assert asked.state is OutcomeState.NOT_APPLIED
        with pytest.raises(OutcomeDecided) as caught:
            await write
        assert caught.value.definite
        assert cluster.partitions[1].applied == [(b"a", b"0")]

    play(scenario)


def test_asking_survives_faults() -> None:
    """The question may be repeated, so a lost answer costs an attempt only."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.rule = always(Fault.SILENT_AFTER)
        with pytest.raises(UnknownOutcome) as caught:
            await client.put(b"a", b"1", timeout=1.0)
        cluster.rule = once(Fault.CUT_AFTER, "outcome")
        assert (await client.outcome(caught.value)).state is OutcomeState.APPLIED
        cluster.partitions[1].sessions.clear()
        forgotten = await client.outcome(caught.value)
        assert (forgotten.state, forgotten.results) == (OutcomeState.UNKNOWN, ())

    play(scenario)


def test_bad_questions_are_refused_unsent() -> None:
    """What is no token, an error without one, and a partition that is not there are definite errors."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        with pytest.raises(InvalidArgument, match="not an outcome token"):
            await client.outcome("nonsense")
        with pytest.raises(InvalidArgument, match="no outcome token: its outcome is known"):
            await client.outcome(DiskFull("no room"))
        with pytest.raises(InvalidArgument, match="no outcome token: it is not of a write"):
            await client.outcome(UnknownOutcome("a read"))
        with pytest.raises(InvalidArgument, match="no partition 9"):
            await client.outcome(OutcomeToken(9, 1, 1))
        with pytest.raises(TypeError, match="by an error or its token"):
            await client.outcome(cast(str, 7))
        assert cluster.requests == []

    play(scenario)


def test_every_position_fits_into_a_token() -> None:
    """A request has no more operations than a token can name."""
    token = OutcomeToken(1, 2, 3, OPS_PER_REQUEST_MAX - 1, 1)
    assert OutcomeToken.parse(str(token)) == token
    Limits(ops_per_request_max=OPS_PER_REQUEST_MAX)
    with pytest.raises(InvalidArgument, match="ops_per_request_max 10000 is above 9999"):
        Limits(ops_per_request_max=OPS_PER_REQUEST_MAX + 1)
