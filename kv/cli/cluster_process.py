"""A cluster of real node processes on this machine: start, kill, restart, wait until ready.

For the demo, and for tests that need what only processes give: SIGKILL, SIGSTOP and a disk that
survives them. Only processes that were started here are ever signalled, each by its own handle.

Each node gets its end of a pipe as standard input and stops itself when that closes
(`kv serve --stop-on-stdin-eof`), so that no node outlives a supervisor that was killed hard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from kv.cli.probe import fetch_any_map, fetch_statuses
from kv.cli.view import ClusterView
from kv.errors import InvalidArgument, KVError, Unavailable

HOST: Final = "127.0.0.1"

PORT_FIRST: Final = 20_000
PORT_LAST: Final = 31_999
"""Below 32768, where Linux takes the ports of outgoing connections: the port of a node that is down
for a moment must still be free when it comes back."""

PORT_ATTEMPTS_MAX: Final = 200
PORTS_PER_NODE: Final = 3
"""gRPC, HTTP, Raft."""
NODES_MAX: Final = 9
POLL_S: Final = 0.05
PROBE_TIMEOUT_S: Final = 1.0
STOP_TIMEOUT_S: Final = 10.0
READY_TIMEOUT_S: Final = 30.0
LOG_TAIL_BYTES_MAX: Final = 4096

Lacking: TypeAlias = Callable[[ClusterView], str | None]
"""Says what a view still lacks, None when it is as awaited."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """Where one node lives."""

    id: str
    address: str
    http_address: str
    raft_address: str
    data_dir: Path
    log_path: Path


@dataclass(slots=True)
class LocalCluster:
    """Node processes n1..nN under one folder; a context manager that stops them all at its end.

    `options` are further settings of `kv.config.NodeConfig` for every node, by field name; `extra` adds
    settings for one node, by node id. Data and logs stay in `directory` when the cluster is closed.

    >>> with LocalCluster(tmp_path, partitions=4) as cluster:
    ...     cluster.start()
    ...     asyncio.run(cluster.wait_ready())
    ...     cluster.kill("n2")
    """

    directory: Path
    nodes: int = 3
    partitions: int = 8
    base_port: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    extra: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    specs: dict[str, NodeSpec] = field(init=False)
    _processes: dict[str, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise InvalidArgument(f"{self.nodes} nodes is not 1 to {NODES_MAX}")
        self.directory = Path(self.directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        ports = _free_ports(PORTS_PER_NODE * self.nodes, self.base_port)
        names = [f"n{number}" for number in range(1, self.nodes + 1)]
        self.specs = {
            name: NodeSpec(
                id=name,
                address=f"{HOST}:{ports[2 * place]}",
                http_address=f"{HOST}:{ports[2 * place + 1]}",
                raft_address=f"{HOST}:{ports[2 * self.nodes + place]}",  # behind those that people type
                data_dir=self.directory / name,
                log_path=self.directory / f"{name}.log",
            )
            for place, name in enumerate(names)
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- names and addresses ---

    @property
    def url(self) -> str:
        """The `kv://` URL of all nodes."""
        return f"kv://{','.join(spec.address for spec in self.specs.values())}"

    def url_of(self, node: str) -> str:
        """Return the `kv://` URL of one node."""
        return f"kv://{self._spec(node).address}"

    def pid(self, node: str) -> int | None:
        """Return the process id of a node that runs, else None."""
        process = self._processes.get(self._spec(node).id)
        return process.pid if process is not None and process.poll() is None else None

    @property
    def running(self) -> tuple[str, ...]:
        """The nodes whose process is alive (a paused one is)."""
        return tuple(node for node in self.specs if self.pid(node) is not None)

    def log_tail(self, node: str) -> str:
        """Return the end of a node's log, for an error that a person reads."""
        path = self._spec(node).log_path
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES_MAX))
            return file.read().decode("utf-8", "replace")

    def _spec(self, node: str) -> NodeSpec:
        spec = self.specs.get(node)
        if spec is None:
            raise InvalidArgument(f"there is no node {node!r}: the nodes are {', '.join(self.specs)}")
        return spec

    # --- life and death ---

    def command(self, node: str) -> list[str]:
        """Return the command line that starts `node`."""
        spec = self._spec(node)
        settings: dict[str, object] = {
            "node_id": spec.id,
            "data_dir": spec.data_dir,
            "listen": spec.address,
            "http_listen": spec.http_address,
            "peers": ",".join(f"{peer.id}={peer.address}" for peer in self.specs.values()),
            "raft_peers": ",".join(f"{peer.id}={peer.raft_address}" for peer in self.specs.values()),
            "partitions": self.partitions,
            **self.options,
            **self.extra.get(node, {}),
        }
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        return [sys.executable, "-m", "kv", "serve", "--stop-on-stdin-eof", *flags]

    def start(self, *nodes: str) -> None:
        """Start `nodes` (all, if none is named); one that runs already is left alone. Does not wait."""
        for node in nodes or self.specs:
            if self.pid(node) is None:
                self._start(self._spec(node))

    def _start(self, spec: NodeSpec) -> None:
        self._forget(spec.id)
        spec.log_path.parent.mkdir(parents=True, exist_ok=True)
        with spec.log_path.open("ab") as log:
            self._processes[spec.id] = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self.command(spec.id),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=node_environment(os.environ),
                # Ctrl-C in a terminal goes to the supervisor alone, which then stops the nodes in order.
                start_new_session=True,
            )

    def kill(self, *nodes: str) -> None:
        """End `nodes` (all, if none is named) by SIGKILL and wait until they are gone."""
        chosen = [self._processes[node] for node in self._alive(nodes)]
        for process in chosen:
            process.kill()
        for process in chosen:
            process.wait(STOP_TIMEOUT_S)

    def stop(self, *nodes: str, timeout_s: float = STOP_TIMEOUT_S) -> dict[str, int]:
        """End `nodes` (all, if none is named) by SIGTERM; one that stays on after `timeout_s` is killed.

        Returns the exit status of each; a killed one has -9.
        """
        alive = self._alive(nodes)
        for node in alive:
            process = self._processes[node]
            process.send_signal(signal.SIGCONT)  # a paused process would not hear the next one
            process.terminate()
        end = time.monotonic() + timeout_s
        return {node: _wait_or_kill(self._processes[node], end - time.monotonic()) for node in alive}

    def restart(self, *nodes: str) -> None:
        """Kill `nodes` (all, if none is named) and start them again from their disks. Does not wait."""
        self.kill(*nodes)
        self.start(*nodes)

    def pause(self, *nodes: str) -> None:
        """Stop `nodes` by SIGSTOP: their connections stay open and nothing answers."""
        for node in self._alive(nodes):
            self._processes[node].send_signal(signal.SIGSTOP)

    def resume(self, *nodes: str) -> None:
        """Let paused `nodes` go on."""
        for node in self._alive(nodes):
            self._processes[node].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop every node. May be called twice."""
        self.stop()
        for node in list(self._processes):
            self._forget(node)

    def _alive(self, nodes: Iterable[str]) -> list[str]:
        wanted = tuple(nodes) or tuple(self.specs)
        return [node for node in wanted if self.pid(node) is not None]

    def _forget(self, node: str) -> None:
        process = self._processes.pop(node, None)
        if process is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # nothing was written; the reader is gone
                process.stdin.close()

    # --- looking ---

    async def view(self) -> ClusterView:
        """Return what the running nodes say; without any map the view has none."""
        nodes = {node: self.specs[node].address for node in self.running}
        try:
            cluster_map = await fetch_any_map(list(nodes.values()), PROBE_TIMEOUT_S)
        except KVError:  # not an error here: a node that starts has no map yet, and the view says so
            cluster_map = None
        return await fetch_statuses(cluster_map, nodes, PROBE_TIMEOUT_S)

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> ClusterView:
        """Return once all started nodes answer and every partition has a leader.

        Raises `Unavailable`, with the end of the log at fault, if a node exits or time runs out.
        """
        return await self.wait_until(self._unready, timeout_s)

    async def wait_caught_up(
        self, node: str, targets: Mapping[int, int], timeout_s: float = READY_TIMEOUT_S
    ) -> ClusterView:
        """Return once `node` has applied the index that `targets` names for each partition it holds."""

        def lacking(view: ClusterView) -> str | None:
            behind = view.behind(node, targets)
            return f"{node} lacks {behind} entries by partition" if behind else None

        return await self.wait_until(lacking, timeout_s)

    async def wait_until(self, lacking: Lacking, timeout_s: float = READY_TIMEOUT_S) -> ClusterView:
        """Look until `lacking(view)` is None, which says what is still awaited; else raise `Unavailable`."""
        end = time.monotonic() + timeout_s
        while True:
            self._check_alive()
            view = await self.view()
            missing = lacking(view)
            if missing is None:
                return view
            if time.monotonic() > end:
                raise Unavailable(f"after {timeout_s:.0f} s: {missing}. Logs: {self.directory}/*.log")
            await asyncio.sleep(POLL_S)  # another process's state: there is no event to await

    def _unready(self, view: ClusterView) -> str | None:
        if view.silent:
            return "; ".join(f"{node} does not answer: {why}" for node, why in view.silent.items())
        return view.unready()

    def _check_alive(self) -> None:
        """Raise if a node that nobody stopped has exited."""
        for node, process in self._processes.items():
            status = process.poll()
            if status is not None and status not in (-signal.SIGKILL, -signal.SIGTERM, 0):
                raise Unavailable(
                    f"{node} exited with status {status}; the end of its log:\n{self.log_tail(node)}",
                    metadata={"node": node, "exit_status": status},
                )


def node_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` for a node: without `KV_*`, which would reach every node of the cluster alike."""
    kept = {name: value for name, value in environment.items() if not name.startswith("KV_")}
    # The package that supervises is the package that serves, installed or not.
    root = str(Path(__file__).resolve().parents[2])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH", "")]))
    kept["PYTHONUNBUFFERED"] = "1"
    return kept


def _wait_or_kill(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    try:
        return process.wait(max(timeout_s, 0.0))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(STOP_TIMEOUT_S)


def _free_ports(count: int, base_port: int | None) -> list[int]:
    """Return `count` ports that nobody listens on: from `base_port` upward, or a free row of our range."""
    if base_port is not None:
        ports = list(range(base_port, base_port + count))
        taken = [port for port in ports if not _is_free(port)]
        if taken:
            raise InvalidArgument(f"port {taken[0]} is taken: choose another --base-port or end its owner")
        return ports
    for _ in range(PORT_ATTEMPTS_MAX):
        first = random.randrange(PORT_FIRST, PORT_LAST - count)
        ports = list(range(first, first + count))
        if all(map(_is_free, ports)):
            return ports
    raise Unavailable(f"found no row of {count} free ports between {PORT_FIRST} and {PORT_LAST}")


def _is_free(port: int) -> bool:
    if not 0 < port < 1 << 16:
        return False
    with socket.socket() as probe:
        # As the node itself binds: connections of a predecessor that linger do not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
