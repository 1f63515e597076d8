"""The port of the gateway in memory: the real state machine, without log, disk or network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import httpx

from kv.errors import KVError
from kv.partition.batch import decode_batch
from kv.partition.machine import apply_command
from kv.partition.session import SessionLimits, SessionTable
from kv.v1 import kv_pb2

PARTITION = 7


class DictState:
    """The keys of a partition in a dict."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.records.get(key)

    def put(self, key: bytes, record: bytes, is_new: bool) -> None:
        assert is_new == (key not in self.records)
        self.records[key] = record

    def delete(self, key: bytes) -> None:
        del self.records[key]


@dataclass
class MemoryExecutor:
    """The port of the gateway: one partition whose log is a counter. `failure` is raised by the next calls."""

    state: DictState = field(default_factory=DictState)
    index: int = 0
    failure: BaseException | None = None
    batches: list[kv_pb2.BatchRequest] = field(default_factory=list)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        limits = SessionLimits(
            sessions_max=1, session_results_max=10, session_result_bytes_max=1 << 20, ttl_ms=1000
        )
        self.sessions = SessionTable(limits)
        self.gate.set()

    async def execute(self, raw_batch: bytes, timeout_s: float, partition: int = 0) -> bytes:
        assert timeout_s > 0
        self.arrived.release()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        batch = kv_pb2.BatchRequest.FromString(raw_batch)
        assert (partition == PARTITION) == batch.operations[0].HasField("outcome"), "who has a key names none"
        self.batches.append(batch)
        self.index += 1
        (outcome,) = apply_command(self.state, self.sessions, self.index, 0, [decode_batch(raw_batch)])
        if isinstance(outcome, KVError):
            raise outcome
        evidence = kv_pb2.Evidence(partition=PARTITION, map_epoch=1, term=3, index=self.index, node="n2")
        if batch.operations[0].HasField("get"):
            evidence.level = batch.level
            evidence.revision = 5
        if batch.level not in (0, kv_pb2.READ_LEVEL_LINEARIZABLE):
            evidence.age_ms = 12
        proofs = [evidence]
        if batch.level in (kv_pb2.READ_LEVEL_QUORUM, kv_pb2.READ_LEVEL_ALL):
            proofs.append(kv_pb2.Evidence(partition=PARTITION, index=self.index - 1, node="n3"))
        return outcome + kv_pb2.BatchResponse(evidence=proofs).SerializeToString()


@dataclass
class Gateway:
    """What a test holds in hand."""

    http: httpx.AsyncClient
    executor: MemoryExecutor
    unready: list[str]
