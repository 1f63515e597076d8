"""A client without our client: it speaks the Pipeline protocol, without sessions, and never retries.

Here lives what users of the bare gRPC stubs do. Their batches may span partitions, so the router
splits them, attaches sessions of its own, and retries; what it must not do is apply one twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from random import Random

from kv.errors import KVError, UnknownOutcome, from_proto
from kv.sim.network import Host, Network
from kv.sim.promises import Begun, Promises
from kv.sim.wire import Node, SimStream
from kv.sim.workload import Pace, keys_of
from kv.v1 import kv_pb2

TIMEOUT_MS = 4000
ANSWER_WITHIN_S = 10.0
"""A client of the stubs gives up after this; the outcome is then unknown to it."""


class PlainWorker:
    """One task that sends a batch at a time to one node after the other."""

    def __init__(
        self,
        host: Host,
        network: Network,
        nodes: Callable[[], Collection[Node]],
        promises: Promises,
        rng: Random,
        pace: Pace,
        tags: int,
    ) -> None:
        self._host, self._network, self._nodes = host, network, nodes
        self._promises, self._rng, self._pace, self._tags = promises, rng, pace, tags
        self._made = 0

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._pace.think_mean_s))
            await self._batch()

    async def _batch(self) -> None:
        puts = [self._put() for _ in range(self._rng.randint(1, 3))]
        batch = kv_pb2.BatchRequest(operations=[kv_pb2.Operation(put=put) for put in puts])
        values = [put.value for put in puts]
        begun = self._promises.begin(self._host.name)
        try:
            response = await self._ask(batch)
        except KVError as error:
            self._promises.failed(begun, values, error)
            return
        for put, result in zip(puts, response.results, strict=True):
            self._judge(begun, put, result)

    def _put(self) -> kv_pb2.PutOperation:
        self._made += 1
        key = self._rng.choice(keys_of(self._rng.randrange(self._tags)))
        return kv_pb2.PutOperation(key=key, value=b"%s-%d" % (self._host.name.encode(), self._made))

    def _judge(self, begun: Begun, put: kv_pb2.PutOperation, result: kv_pb2.OperationResult) -> None:
        if result.HasField("error"):
            self._promises.failed(begun, [put.value], from_proto(result.error))
        else:
            done = result.put
            self._promises.wrote_somewhere(begun, put.key, put.value, done.revision, done.version)

    async def _ask(self, batch: kv_pb2.BatchRequest) -> kv_pb2.BatchResponse:
        """Send one batch on a stream of its own; raise how it failed."""
        answer: asyncio.Future[kv_pb2.BatchResponse | KVError] = asyncio.get_running_loop().create_future()

        def end(outcome: kv_pb2.BatchResponse | KVError) -> None:
            if not answer.done():
                answer.set_result(outcome)

        def replied(message: kv_pb2.PipelineResponse) -> None:
            for reply in message.replies:
                end(from_proto(reply.error) if reply.HasField("error") else reply.batch)

        node = self._rng.choice(list(self._nodes()))
        stream = SimStream(self._network, self._host, node, replied, lambda why, _: end(why))
        request = kv_pb2.PipelineRequest(
            batches=[kv_pb2.PipelinedBatch(id=1, batch=batch, timeout_ms=TIMEOUT_MS)]
        )
        stream.send(1, request.SerializeToString())
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                outcome = await answer
        except TimeoutError:
            raise UnknownOutcome("no answer in time") from None
        finally:
            stream.close()
        if isinstance(outcome, KVError):
            raise outcome
        return outcome
