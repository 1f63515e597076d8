"""ringkv, by its command `kv serve` and its public client.

Nodes are told the proxies as their peers' addresses, and listen behind them. Options: `partitions` (default 4), and any other
setting of `kv serve` by the name of its flag, such as `lease-ms=0`; `reads=own`: each client reads from a node of its own; `mutant=NAME`
for one of the simulator's mutants.

Disk faults, rates of clocks and mutants are the work of the store's test build (`panel`), which is run where they are asked for; jumps
of wall clocks are libfaketime's (`clocks`). Which is needed is known from the schedule: `hosts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, Final

from kv.client import AsyncClient, Compare, Evidence, Get, Item, Put, PutReply
from kv.errors import Conflict, InvalidArgument, KVError
from kv_jepsen.checkers.replicas import ReplicaState
from kv_jepsen.cuts.api import Cuts
from kv_jepsen.cuts.links import ROUTER
from kv_jepsen.history import Value
from kv_jepsen.records import Records
from kv_jepsen.targets.api import Answer, Client, Places, Refused, Unknown
from kv_jepsen.targets.content import content
from kv_jepsen.targets.hosts import Hosts
from kv_jepsen.targets.process_target import ProcessTarget
from kv_jepsen.targets.processes import free_ports
from kv_jepsen.unsupported import Unsupported

DEFAULTS: Final[Mapping[str, str]] = {
    "partitions": "4",
    # Small, so that a short run rotates and compacts the log, checkpoints, and sends snapshots to who was away.
    "segment-bytes": str(9 << 20),
    "checkpoint-ops-max": "300",
    "log-retain-entries": "200",
    "log-retain-bytes": str(1 << 20),
}
"""Settings of the nodes, under those that are given."""
CALL_TIMEOUT_S: Final = 3.0
READS: Final = ("leader", "own")
STATUS_TIMEOUT_S: Final = 1.0
READY_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1
REFUSAL_TIMEOUT_S: Final = 30.0
"""For a node to refuse a damaged log."""


class RingKV(ProcessTarget):
    """A cluster of `kv serve`."""

    name = "ringkv"
    own_variables = "KV_"
    levels = ("linearizable", "lease", "session", "bounded:500ms", "quorum", "all", "stale")

    def __init__(
        self,
        nodes: Sequence[str],
        places: Places,
        cuts: Cuts,
        records: Records,
        options: Mapping[str, str],
    ) -> None:
        super().__init__(nodes, places, cuts, records)
        self._options = {**DEFAULTS, **options}
        self._hosts = Hosts(self.nodes, places.data, self._options.pop("mutant", None))
        self._reads = self._options.pop("reads", "leader")
        if self._reads not in READS:
            raise Unsupported(f"reads={self._reads} is not known: give one of {', '.join(READS)}")
        self._problems: list[str] = []
        self.processes.pardoned = self._hosts.pardoned
        ports = free_ports(2 * len(self.nodes), Random())
        self._ports = dict(zip(self.nodes, ports[::2], strict=True))
        self._raft_ports = dict(zip(self.nodes, ports[1::2], strict=True))
        self._peers: dict[str, str] = {}
        self._raft_peers: dict[str, str] = {}
        self._observer: AsyncClient | None = None

    async def start(self, *nodes: str) -> None:
        """See `Target`."""
        if not self._peers:
            self._peers = {
                node: await self.cuts.exposed(node, self._ports[node], ROUTER) for node in self.nodes
            }
            self._raft_peers = {
                node: await self.cuts.exposed(node, self._raft_ports[node]) for node in self.nodes
            }
        await super().start(*nodes)

    def command(self, node: str) -> list[str]:
        """See `ProcessTarget`."""
        settings = {
            "node-id": node,
            "data-dir": str(self.places.data / node),
            "listen": f"{self.cuts.host(node)}:{self._ports[node]}",
            "raft-listen": f"{self.cuts.host(node)}:{self._raft_ports[node]}",
            "peers": ",".join(f"{peer}={address}" for peer, address in self._peers.items()),
            "raft-peers": ",".join(f"{peer}={address}" for peer, address in self._raft_peers.items()),
            **self._options,
        }
        flags = ["--stop-on-stdin-eof", *(f"--{name}={value}" for name, value in settings.items())]
        return [*self._hosts.program(node), *flags]

    def variables(self, node: str) -> dict[str, str]:
        """See `ProcessTarget`."""
        return self._hosts.variables(node, super().variables(node))

    async def ready(self) -> None:
        """See `Target`: every partition has a leader."""
        async with asyncio.timeout(READY_TIMEOUT_S):
            while True:
                if ended := self.processes.exited():
                    raise Unsupported(f"nodes ended at their start: {ended}; see {self.places.logs}")
                if stopped := await self._stopped_replicas():
                    raise Unsupported("; ".join(stopped))
                leaders = await asyncio.gather(
                    *(self.leader(number) for number in range(1, int(self._options["partitions"]) + 1))
                )
                if all(leaders):
                    return
                await asyncio.sleep(POLL_S)

    async def _stopped_replicas(self) -> list[str]:
        """Replicas that stopped themselves, since their state machine or their log contradicted itself."""
        looks = await asyncio.gather(*(self._status(node) for node in self.nodes))
        return [
            f"{node} stopped its replica of partition {replica.partition}: {replica.failure}"
            for node, status in zip(self.nodes, looks, strict=True)
            for replica in (status.replicas if status is not None else ())
            if replica.failure
        ]

    # ------------------------------------------------------------ disks and clocks

    def refuses(self, kinds: Collection[str]) -> list[str]:
        """See `Target`: from here on it is known which build is run, and with which clocks."""
        return self._hosts.refuses(kinds)

    def afflict(self, node: str, kind: str, value: float = 0.0) -> None:
        """See `Target`."""
        if kind == "flip":
            self.processes.kill([node])
        self._hosts.afflict(node, kind, value)

    def relieve(self) -> None:
        """See `Target`."""
        self._hosts.relieve()

    def ended(self) -> list[str]:
        """See `Target`."""
        return [*super().ended(), *self._problems]

    async def _refusals(self) -> None:
        """Whoever has a damaged log must have refused it."""
        end = asyncio.get_running_loop().time() + REFUSAL_TIMEOUT_S
        while running := [
            n for n in self.nodes if self._hosts.to_refuse(n) and self.processes.pid(n) is not None
        ]:
            if asyncio.get_running_loop().time() > end:
                self._problems += [f"{node} runs, and its log is damaged" for node in running]
                return
            await asyncio.sleep(POLL_S)  # a child's end is no event of the loop

    async def stop(self) -> None:
        """See `Target`."""
        await self._refusals()
        if self._observer is not None:
            await self._observer.close()
            self._observer = None
        await super().stop()

    @property
    def addresses(self) -> list[str]:
        """host:port of each node, for clients; known once it was started."""
        return list(self._peers.values())

    def client(self, process: int) -> Client:
        """See `Target`."""
        addresses = self.addresses
        first = process % len(addresses)
        near = self.nodes[first] if self._reads == "own" else None
        return RingKVClient([*addresses[first:], *addresses[:first]], near)

    async def contents(self) -> list[ReplicaState]:
        """See `Target`: every partition of every node that runs, as the node itself hashes it."""
        looks = await asyncio.gather(*(self._content(*one) for one in self._replicas()))
        return [look for look in looks if look is not None]

    def _replicas(self) -> list[tuple[str, int]]:
        running = [node for node in self.nodes if self.processes.pid(node) is not None]
        return [(node, part) for node in running for part in range(1, int(self._options["partitions"]) + 1)]

    async def _content(self, node: str, partition: int) -> ReplicaState | None:
        address = f"{self.cuts.host(node)}:{self._ports[node]}"
        try:
            found = await content(address, partition)
        except OSError:  # with more than three nodes, not every one has every partition
            return None
        return ReplicaState(node, partition, found.index, found.content_hash)

    async def leader(self, partition: int) -> str | None:
        """See `Target`: of the nodes that say they lead, the one of the highest term."""
        looks = await asyncio.gather(*(self._term_led(node, partition) for node in self.nodes))
        led = [(term, node) for term, node in zip(looks, self.nodes, strict=True) if term]
        return max(led)[1] if led else None

    async def _term_led(self, node: str, partition: int) -> int:
        status = await self._status(node)
        replicas = () if status is None else status.replicas
        return max((r.term for r in replicas if r.partition == partition and r.leader == node), default=0)

    async def _status(self, node: str) -> Any:  # noqa: ANN401 - the client's message, whose class is not ours to import
        """What a node says of itself; None if it is down, paused or starting."""
        if self._observer is None:
            self._observer = AsyncClient(list(self._peers.values()))
        try:
            return await self._observer.status(node, timeout=STATUS_TIMEOUT_S)
        except KVError:
            return None


class RingKVClient(Client):
    """The public client. A refusal that it calls definite did not happen; everything else is unknown."""

    def __init__(self, addresses: Sequence[str], near: str | None = None) -> None:
        """`near` is the node to which its reads go first; by default the client chooses."""
        prefer = None if near is None else f"node:{near}"
        self._client = AsyncClient(addresses, timeout=CALL_TIMEOUT_S, prefer=prefer)

    async def read(self, key: str, level: str) -> Answer:
        """See `Client`."""
        try:
            reading = await self._client.read(key.encode(), level=level)
        except KVError as error:
            raise Refused(error.reason) from error  # a read changes nothing
        told = _evidence(reading.evidence)
        told["level"] = level.partition(":")[0]
        if reading.item is None:
            told.pop("revision", None)
            return Answer(None, told)
        told |= {"revision": reading.item.mod_revision, "version": reading.item.version}
        return Answer(reading.item.value.decode(), told)

    async def write(self, key: str, value: str) -> Answer:
        """See `Client`."""
        try:
            return _written(await self._client.put(key.encode(), value.encode()), None)
        except KVError as error:
            raise _outcome(error) from error

    async def cas(self, key: str, expected: str | None, value: str) -> Answer:
        """See `Client`."""
        wanted = None if expected is None else expected.encode()
        try:
            return _written(await self._client.compare_and_set(key.encode(), wanted, value.encode()), True)
        except Conflict:
            return Answer(False)
        except KVError as error:
            raise _outcome(error) from error

    async def swap(self, expected: Mapping[str, str | None], new: Mapping[str, str]) -> Answer:
        """See `Client`."""
        compare = [
            Compare(key.encode(), exists=False)
            if value is None
            else Compare(key.encode(), value=value.encode())
            for key, value in expected.items()
        ]
        then = [Put(key.encode(), value.encode()) for key, value in new.items()]
        try:
            reply = await self._client.txn(compare, then)
        except KVError as error:
            raise _outcome(error) from error
        return Answer(reply.succeeded, _effect(reply.evidence, reply.revision if reply.succeeded else None))

    async def delete(self, key: str) -> Answer:
        """See `Client`."""
        try:
            reply = await self._client.delete(key.encode())
        except KVError as error:
            raise _outcome(error) from error
        return Answer(reply.deleted, _effect(reply.evidence, reply.revision if reply.deleted else None))

    async def read_many(self, keys: Sequence[str]) -> Answer:
        """See `Client`."""
        try:
            reply = await self._client.txn(then=[Get(key.encode()) for key in keys])
        except KVError as error:
            raise Refused(error.reason) from error
        values = [one.value.decode() if isinstance(one, Item) else None for one in reply.results]
        return Answer(tuple(values), _evidence(reply.evidence))

    async def scan(self, prefix: str) -> Answer:
        """See `Client`."""
        try:
            pages = self._client.scan(prefix.encode(), keys_only=True)
            found = [item.key.decode() async for item in pages]
        except KVError as error:
            raise Refused(error.reason) from error
        return Answer(tuple(found))

    async def append(self, key: str, word: str) -> Answer:
        """See `Client`: its own operation."""
        try:
            reply = await self._client.append(key.encode(), f" {word}".encode())
        except KVError as error:
            raise _outcome(error) from error
        return Answer(None, {**_effect(reply.evidence, reply.revision), "version": reply.version})

    async def add(self, key: str, number: int) -> Answer:
        """See `Client`: its own operation."""
        try:
            reply = await self._client.increment(key.encode(), number)
        except KVError as error:
            raise _outcome(error) from error
        told = {**_effect(reply.evidence, reply.revision), "version": reply.version}
        return Answer(reply.value, told)

    async def close(self) -> None:
        """See `Client`."""
        await self._client.close()


def _written(reply: PutReply, value: Value) -> Answer:
    return Answer(value, {**_effect(reply.evidence, reply.revision), "version": reply.version})


def _effect(evidence: Evidence, revision: int | None) -> dict[str, Value]:
    """The evidence of a write: its index is where it took effect.

    The index in the reply is that of the entry which answered. For an attempt that was repeated that is a later one, which
    found in the session that the write had been applied; the revision is where it was.
    """
    told = _evidence(evidence)
    del told["index"]
    return told if revision is None else {**told, "index": revision, "revision": revision}


def _evidence(evidence: Evidence) -> dict[str, Value]:
    return {
        "partition": evidence.partition,
        "index": evidence.index,
        "term": evidence.term,
        "node": evidence.node,
    }


def _outcome(error: KVError) -> Exception:
    if isinstance(error, InvalidArgument):
        return error  # a mistake of the harness
    return Refused(error.reason) if error.definite else Unknown(error.reason)
