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
        limits = SessionLimits(sessions_max=1, session_results_max=1, session_result_bytes_max=1, ttl_ms=1000)
        self.sessions = SessionTable(limits)
        self.gate.set()

    async def execute(self, raw_batch: bytes, timeout_s: float) -> bytes:
        assert timeout_s > 0
        self.arrived.release()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.batches.append(kv_pb2.BatchRequest.FromString(raw_batch))
        self.index += 1
        (outcome,) = apply_command(self.state, self.sessions, self.index, 0, [decode_batch(raw_batch)])
        if isinstance(outcome, KVError):
            raise outcome
        evidence = kv_pb2.Evidence(partition=7, term=3, index=self.index, node="n2")
        return outcome + kv_pb2.BatchResponse(evidence=[evidence]).SerializeToString()


@dataclass
class Gateway:
    """What a test holds in hand."""

    http: httpx.AsyncClient
    executor: MemoryExecutor
    unready: list[str]
