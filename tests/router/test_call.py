"""The state of a request in flight."""

from __future__ import annotations

import asyncio

import pytest

from kv.errors import NoLeader
from kv.router.call import Call, End, Gather
from kv.router.routing import split, traits_of
from kv.v1 import kv_pb2
from tests.router.world import Inbox, VirtualWorld, batch, get, keys_of_distinct_partitions, put

WORLD = VirtualWorld(partitions=2)
LOCAL = kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LOCAL)


def described(request: kv_pb2.BatchRequest, *, pinned: bool = False) -> Call:
    """Return a call for the request."""
    call = Call(request.SerializeToString(), WORLD.map.partitions[0], 1, 5.0, Inbox())
    call.describe(traits_of(request), pinned=pinned)
    return call


@pytest.mark.parametrize(
    ("request_", "shows"),
    [
        (batch(put(b"k")), True),
        (batch(get(b"k")), True),
        (batch(get(b"k"), level=kv_pb2.READ_LEVEL_LEASE, read=LOCAL), True),
        (batch(get(b"k"), read=LOCAL), False),
        (batch(get(b"k"), read=kv_pb2.ReadOptions(node="n3")), False),
        (batch(get(b"k"), level=kv_pb2.READ_LEVEL_STALE), False),
        (batch(put(b"k"), level=kv_pb2.READ_LEVEL_STALE, read=LOCAL), True),
    ],
)
def test_an_answer_shows_the_leader_if_only_the_leader_gives_it(
    request_: kv_pb2.BatchRequest, shows: bool
) -> None:
    """What a follower may have answered teaches nothing about who leads; nor does a call for one node alone."""
    assert described(request_).shows_leader == shows
    assert not described(request_, pinned=True).shows_leader


def test_an_undecoded_call_shows_the_leader() -> None:
    """Only what asks for the defaults is passed on undecoded, and that the leader answers."""
    assert Call(b"", WORLD.map.partitions[0], 1, 5.0, Inbox()).shows_leader


def test_a_gathered_batch_replies_once_with_the_last_part() -> None:
    """The parts may end in any order; a batch without parts ends at once."""
    first, second = keys_of_distinct_partitions(WORLD.ring, 2)
    whole = batch(get(first), get(second))
    inbox = Inbox()
    gather = Gather(split(whole, whole.SerializeToString(), WORLD.ring), inbox)
    gather.take(1, NoLeader("second"))
    assert inbox.empty
    gather.take(0, NoLeader("first"))
    assert [result.error.reason for result in inbox.response.results] == ["NO_LEADER"] * 2
    refused, inbox = batch(kv_pb2.Operation(range=kv_pb2.RangeOperation())), Inbox()
    Gather(split(refused, refused.SerializeToString(), WORLD.ring), inbox)
    assert inbox.response.results[0].error.reason == "INVALID_ARGUMENT"


async def test_an_end_gives_the_response_or_raises_the_error() -> None:
    """Who awaits a request gets its response, or its error as an exception."""
    good, bad = End(), End()
    good.resolve(b"response")
    bad.resolve(NoLeader("nobody leads"))
    assert await good.response() == b"response"
    with pytest.raises(NoLeader):
        await bad.response()


async def test_an_end_that_nobody_awaits_any_more_is_harmless() -> None:
    """A caller may cancel its call; the request goes on to its end all the same."""
    end = End()
    waiting = asyncio.ensure_future(end.response())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    end.resolve(b"response")
