"""The client's promises under every fault the network has, in virtual time.

A random schedule of lost connections, lost replies, silence, copies that arrive late, refusals, expired
sessions and leader changes; whatever the callers were told must be true of what the partitions applied.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from kv.client.aio import AsyncClient
from kv.client.limits import Limits
from kv.client.types import OutcomeState, Put, PutReply
from kv.errors import (
    DeadlineExceeded,
    DiskFull,
    KVError,
    NoLeader,
    NotLeader,
    Overloaded,
    SessionExpired,
    Unavailable,
    UnknownOutcome,
)
from kv.ids import NodeId
from kv.v1 import kv_pb2
from tests.client.fakes import FakeCluster, FakeTransport, Fault
from tests.client.virtual import run_virtual

TASKS = 6
WRITES_PER_TASK = 6
TIMEOUT_S = 3.0
LATE_MAX_S = 8.0
"""A copy may arrive long after its caller has given up."""


class Storm:
    """Faults drawn from a seed, with a probability that is drawn too."""

    def __init__(self, cluster: FakeCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.probability = rng.choice([0.1, 0.3, 0.6])

    def __call__(self, node: NodeId, request: kv_pb2.PipelinedBatch) -> Fault | KVError | None:
        """Return what happens to this request."""
        rng = self.rng
        if rng.random() < 0.02:
            self.cluster.partitions[request.partition].sessions.clear()
        if rng.random() < 0.05:
            self.cluster.leaders[request.partition] = rng.choice([*self.cluster.addresses, None])
        if rng.random() >= self.probability:
            return None
        hint = {"leader": rng.choice(["n1", "n2", "n3", "", "stranger"])}
        suffered: list[Fault | KVError] = [
            *Fault,
            *Fault,
            NotLeader("no", metadata=hint),
            NoLeader("no"),
            Overloaded("no"),
            DiskFull("no"),
            Unavailable("no"),
            SessionExpired("no"),
            UnknownOutcome("lost on the way"),
            DeadlineExceeded("the server's own", definite=True),
        ]
        return rng.choice(suffered)


async def one_task(client: AsyncClient, name: int, told: dict[bytes, PutReply | KVError]) -> None:
    """Write unique values, singly and in batches, and note what was said of each."""
    for number in range(WRITES_PER_TASK):
        value = f"{name}-{number}".encode()
        if number % 3 == 2:
            ops = [Put(b"key%d" % key, value + b"-%d" % key) for key in range(4)]
            for op, result in zip(ops, await client.batch(ops), strict=True):
                assert isinstance(result, PutReply | KVError)
                told[op.value] = result
            continue
        try:
            told[value] = await client.put(b"key%d" % (number % 4), value)
        except KVError as error:
            told[value] = error


@dataclass
class Told:
    """What the callers were told, by value."""

    first: dict[bytes, PutReply | KVError] = field(default_factory=dict)
    asked: dict[bytes, OutcomeState] = field(default_factory=dict)
    """What became of the writes whose outcome was unknown, as it was said when somebody asked."""


async def weather(seed: int) -> tuple[Told, list[bytes]]:
    """Run the tasks through a storm; return what they were told and what was applied in the end.

    Who was told that the outcome is unknown asks for it as soon as the storm is over, while copies of the write
    may still be on their way.
    """
    rng = random.Random(seed)
    cluster = FakeCluster(partitions=2)
    cluster.forwards = rng.random() < 0.5
    cluster.rule = Storm(cluster, rng)
    transport = FakeTransport(cluster, late_s=lambda: rng.uniform(0.0, LATE_MAX_S))
    limits = Limits(ops_per_request_max=4, pipeline_ops_min=2, session_requests_max=3, attempt_timeout_s=0.4)
    told = Told()
    addresses = list(cluster.addresses.values())
    async with AsyncClient(
        addresses, timeout=TIMEOUT_S, limits=limits, transport=transport, jitter=rng.random
    ) as client:
        await asyncio.gather(*(one_task(client, name, told.first) for name in range(TASKS)))
        cluster.rule = lambda _node, _request: None
        cluster.leaders = {part.id: part.replicas[0] for part in cluster.map.partitions}
        for value, error in told.first.items():
            if isinstance(error, KVError) and error.token is not None:
                told.asked[value] = (await client.outcome(error)).state
        await asyncio.sleep(LATE_MAX_S)
    return told, [value for part in cluster.partitions.values() for _, value in part.applied]


@given(st.integers(0, 2**32))
def test_what_callers_are_told_is_true(seed: int) -> None:
    """Each write is applied at most once; once if acknowledged; never if its error was definite."""
    check(*run_virtual(lambda: weather(seed)))


def check(told: Told, applied: list[bytes]) -> None:
    """Compare what the callers were told with what was applied."""
    assert len(told.first) == TASKS * (WRITES_PER_TASK // 3) * (2 + 4)
    assert len(applied) == len(set(applied)), "applied twice"
    for value, state in told.asked.items():
        if state is not OutcomeState.UNKNOWN:
            assert (value in applied) is (state is OutcomeState.APPLIED), (
                f"{value!r} was said to be {state!r}"
            )
    for value, outcome in told.first.items():
        if isinstance(outcome, PutReply):
            assert value in applied, f"{value!r} was acknowledged and is not there"
        elif outcome.definite:
            assert value not in applied, f"{value!r} was refused with {outcome!r} and is there"
        else:
            # RESULT_EVICTED would mean that the client acknowledged what it still sends.
            assert isinstance(outcome, UnknownOutcome)
            assert value in told.asked, f"{value!r} has no token"


def test_calm_weather_loses_nothing() -> None:
    """Without faults every write is acknowledged: the storm's test cannot pass by refusing everything."""

    async def main() -> None:
        cluster = FakeCluster(partitions=2)
        told: dict[bytes, PutReply | KVError] = {}
        async with AsyncClient(["n1:7001"], transport=FakeTransport(cluster)) as client:
            await asyncio.gather(*(one_task(client, name, told) for name in range(TASKS)))
        assert all(isinstance(outcome, PutReply) for outcome in told.values())

    run_virtual(main)
