"""One run: a cluster of production nodes, clients, faults and judges, from one seed.

Here lives the composition of the simulator, and its interface for those who script it:

    world = World(seed, setup=Setup(nodes=3), schedule=parse_schedule(text), mutant=mutant)
    report = world.run()          # report.violation is None, or the first property that was violated

A `Mutant` switches a rule off (`rules`) or replaces production methods on the objects of a node when it
starts (`started`, `group_started`); DESIGN.md shows one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Protocol

from kv.client import AsyncClient
from kv.config import NodeConfig
from kv.errors import KVError
from kv.partition.heap import map_large_blocks
from kv.raft.group import Group
from kv.raft.guard import Rules
from kv.sim.convergence import Convergence
from kv.sim.faults import Fault, fault
from kv.sim.injector import Injector
from kv.sim.inside import inside, put_inside
from kv.sim.loop import VirtualLoop
from kv.sim.network import Conditions, Network
from kv.sim.node import SimNode
from kv.sim.plain import PlainWorker
from kv.sim.promises import Promises
from kv.sim.properties import CutByDamage, Ledger
from kv.sim.schedule import CALM_S, Plan, generate
from kv.sim.setup import Setup, draw_limits, setup_of
from kv.sim.trace import Trace, capture_logs
from kv.sim.wire import SimTransport
from kv.sim.workload import TAGS, Worker

MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - a name of ours is made in it, and removed
PLAIN_CLIENT: Final = "s1"
"""The host of the client that speaks the protocol without our client."""
LOOK_S: Final = 1.0
"""How often limits and stray errors are looked at."""


class Mutant(Protocol):
    """A build with a rule switched off; the simulator must notice."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def rules(self) -> Rules:
        """The rules of the guard that stay in force."""

    def started(self, node: SimNode) -> None:
        """A process is composed, without replicas yet: replace what is to be wrong in `node.cluster`."""

    def group_started(self, node: SimNode, group: Group) -> None:
        """A replica was made, before it takes part: replace what is to be wrong in it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A property that did not hold."""

    name: str
    detail: str
    nodes: tuple[str, ...]
    at_s: float
    last_events: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """What a run covered, and how it ended."""

    seed: int
    setup: Setup
    simulated_s: float = 0.0
    events: int = 0
    commits: int = 0
    reads: int = 0
    stale_reads: int = 0
    writes: int = 0
    unknown: int = 0
    elections: int = 0
    snapshots: int = 0
    checkpoints: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    digest: str = ""
    violation: Violation | None = None


class Task(Protocol):
    """What a client's task does."""

    async def run(self) -> None:
        """Work until cancelled."""


class ClientHost:
    """The host of a client: always up, perhaps cut off."""

    up = True

    def __init__(self, name: str) -> None:
        self.name = name

    def enter(self, callback: Callable[..., object], *args: object) -> None:
        """See `Host`."""
        callback(*args)


class World:
    """See the file's docstring. A world runs once."""

    def __init__(
        self,
        seed: int,
        *,
        setup: Setup | None = None,
        schedule: Sequence[Fault] | None = None,
        mutant: Mutant | None = None,
        on_look: Callable[[World], None] | None = None,
        work: Callable[[World], Sequence[Task]] | None = None,
        finish: Callable[[World], Awaitable[None]] | None = None,
    ) -> None:
        """Compose a run.

        Args:
            seed: decides everything that is not given.
            setup: the circumstances.
            schedule: the faults.
            mutant: what is left out of production.
            on_look: called each simulated second.
            work: makes the tasks of the clients, instead of the usual workload.
            finish: awaited after the last calm, before the tasks are cancelled.
        """
        self.seed, self._mutant, self._on_look = seed, mutant, on_look
        self._work, self._finish = work, finish
        self._rng = Random(seed)
        self.setup = setup_of(seed) if setup is None else setup
        limits = draw_limits(Random(self._rng.getrandbits(64)), lossy=self.setup.lossy)
        self._schedule_rng = Random(self._rng.getrandbits(64))
        self._work_rng = Random(self._rng.getrandbits(64))
        self.loop = VirtualLoop()
        self.trace = Trace(self.loop.time)
        self.network = Network(self.loop, self._rng, Conditions(), self.trace.message)
        assert self.setup.nodes >= 1, "a cluster has a node"
        self._folder = Path(
            tempfile.mkdtemp(
                prefix=f"kv-sim-{os.getpid()}-", dir=MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
            )
        )
        names = [f"n{number + 1}" for number in range(self.setup.nodes)]
        self.nodes = [self._make_node(name, names, limits) for name in names]
        config = self.nodes[0].config
        self.ledger = Ledger(
            self.fail,
            lambda: self.nodes,
            config.session_ttl_s * 1000,
            config.sessions_max,
            self._committed,
        )
        self.promises = Promises(
            self.ledger, self.loop.time, slowest=self._slowest_clock(schedule), durable=self._durable_indexes
        )
        self.clients = [ClientHost(f"c{number + 1}") for number in range(self.setup.clients)]
        hosts = [*names, *(client.name for client in self.clients), PLAIN_CLIENT]
        self.injector = Injector(self.nodes, hosts, self.network, self._schedule_rng, self._calm)
        self.convergence = Convergence(self.nodes, self.ledger, self.fail, self.trace, self.setup.scale)
        self.schedule = list(self._draw_schedule(names) if schedule is None else schedule)
        self._end_with_calm()
        self.report = Report(seed, self.setup)
        self._open: list[AsyncClient] = []
        self._deaths: Counter[str] = Counter()
        self._ended_at: float | None = None

    # ------------------------------------------------------------ making

    def _make_node(self, name: str, names: Sequence[str], limits: Mapping[str, int]) -> SimNode:
        config = NodeConfig(
            node_id=name,
            data_dir=self._folder / name,
            peers={one: f"{one}:1" for one in names},
            partitions=self.setup.partitions,
        ).model_copy(update={**limits, **self.setup.timers, **self.setup.limits})
        return SimNode(
            config,
            loop=self.loop,
            network=self.network,
            rng=Random(self._rng.getrandbits(64)),
            stores=self._folder,
            peers=lambda: [node for node in self.nodes if node.name != name],
            lossy=self.setup.lossy,
            rules=Rules() if self._mutant is None else self._mutant.rules,
            watcher=self,
        )

    def _draw_schedule(self, names: Sequence[str]) -> list[Fault]:
        plan = Plan(
            nodes=tuple(names),
            clients=tuple(client.name for client in self.clients),
            partitions=self.setup.partitions,
            scale=self.setup.scale,
            mixes=self.setup.mixes,
            rates=self.setup.rates,
            flips_max=1 if len(names) > 2 else 0,
        )
        return generate(self._schedule_rng, plan, self.setup.duration_s)

    def _end_with_calm(self) -> None:
        if not self.schedule or self.schedule[-1].kind != "calm":
            last = (
                self.schedule[-1].at_s if self.schedule else self.setup.duration_s - CALM_S * self.setup.scale
            )
            self.schedule.append(fault(max(last, 0.0), "calm", "*"))

    # ------------------------------------------------------------ the run

    def run(self) -> Report:
        """Run to the end or to the first violation, and clean up."""
        capture_logs(self.trace.aside)
        map_large_blocks()
        try:
            with suppress(RuntimeError):  # the loop was stopped by a violation
                self.loop.run_until_complete(self._main())
            if self.report.violation is None:
                self._look_for_errors()
        finally:
            self._clean_up()
        return self.progress()

    async def _main(self) -> None:
        for node in self.nodes:
            node.start()
        workers = [asyncio.ensure_future(worker.run()) for worker in self._workers()]
        self.loop.call_later(LOOK_S, self._look)
        for one in self.schedule:
            await asyncio.sleep(max(0.0, one.at_s - self.loop.time()))
            self.convergence.stop_waiting()
            self.trace.note("", f"fault: {one}")
            self.injector.inject(one)
            self._watch_workers(workers)
        await self.convergence.wait()
        if self._finish is not None:
            await self._finish(self)
        self._watch_workers(workers)
        for worker in workers:
            worker.cancel()
        await self.convergence.compare_all()

    def _workers(self) -> Sequence[Task]:
        workers = list(self._usual_work() if self._work is None else self._work(self))
        self.convergence.use(self.make_client(ClientHost("p1")), self.setup.partitions)
        return workers

    def _usual_work(self) -> list[Task]:
        workers: list[Task] = []
        for host in self.clients:
            client = self.make_client(host)
            for number in range(self.setup.pace.tasks):
                rng = Random(self._work_rng.getrandbits(64))
                name, leases = f"{host.name}.{number}", self.setup.sober_clocks
                workers.append(
                    Worker(
                        name,
                        client,
                        self.promises,
                        rng,
                        self.setup.pace,
                        leases=leases,
                        scale=self.setup.scale,
                    )
                )
        plain = ClientHost(PLAIN_CLIENT)
        rng = Random(self._work_rng.getrandbits(64))
        nodes, pace = self.nodes, self.setup.pace
        workers.append(PlainWorker(plain, self.network, lambda: nodes, self.promises, rng, pace, TAGS))
        return workers

    def make_client(self, host: ClientHost) -> AsyncClient:
        """A production client on a host of its own, closed at the end of the run."""
        nodes = {node.name: node for node in self.nodes}
        client = AsyncClient(
            [f"{name}:1" for name in nodes],
            transport=SimTransport(self.network, host, lambda address: nodes[address.split(":")[0]]),
            jitter=Random(self._work_rng.getrandbits(64)).random,
        )
        self._open.append(client)
        return client

    def _slowest_clock(self, schedule: Sequence[Fault] | None) -> float:
        """The least rate at which any host's clock may run."""
        scripted = [one.number("rate") for one in schedule or () if one.kind == "clock_rate"]
        return min(*self.setup.rates, *scripted)

    def _durable_indexes(self, partition: int) -> dict[str, int]:
        """Up to where each undamaged member has the log on its disk, whether it runs or not."""
        return {
            node.name: journal.durable_index
            for node in self.nodes
            if not node.damaged and (journal := node.journals.get(partition)) is not None
        }

    def _calm(self) -> None:
        self.convergence.expect()

    def _watch_workers(self, workers: Sequence[asyncio.Future[None]]) -> None:
        for worker in workers:
            if worker.done() and not worker.cancelled() and (error := worker.exception()) is not None:
                self.fail("no-stray-error", f"a client's task ended with {error!r}", [])

    # ------------------------------------------------------------ watching

    def fail(self, name: str, detail: str, nodes: Sequence[str]) -> None:
        """A property does not hold: the run ends here."""
        if self.report.violation is None:
            last = tuple(self.trace.last(nodes))
            self.report.violation = Violation(name, detail, tuple(nodes), self.loop.time(), last)
            self.loop.stop()

    def _committed(self, group: int, index: int, data: bytes) -> None:
        self.trace.note("", f"committed {group}/{index} {len(data)}")

    def _look(self) -> None:
        self.loop.call_later(LOOK_S, self._look)
        self._look_for_errors()
        for node in self.nodes:
            if node.up:
                self.convergence.check_bounds(node)
        if self._on_look is not None:
            self._on_look(self)

    def _look_for_errors(self) -> None:
        for context in self.loop.failures:
            error = context.get("exception")
            self.fail("no-stray-error", f"{context.get('message')}: {error!r}", [])
        for node in self.nodes:
            for number, group in node.cluster.engine.groups.items() if node.up else ():
                if group.failure is not None and not node.damaged:
                    text = f"{node.name} group {number} stopped: {group.failure}"
                    self.fail("no-replica-stops", text, [node.name])

    # Watcher

    def started(self, node: SimNode) -> None:
        """See `Watcher`."""
        self.trace.note(node.name, "starts")
        if self._mutant is not None:
            self._mutant.started(node)
        self.ledger.watch_log(node, node.cluster.wal)

    def group_started(self, node: SimNode, group: Group) -> None:
        """See `Watcher`."""
        window = inside(group.replication, "_window")
        put_inside(window, "_bytes_max", self.setup.window_bytes)
        put_inside(group.outbox, "_append_bytes_max", self.setup.window_bytes)
        if self._mutant is not None:
            self._mutant.group_started(node, group)
        self.ledger.attach(node, group)

    def died(self, node: SimNode, why: str) -> None:
        """See `Watcher`."""
        self.trace.note(node.name, self._without_folder(f"dies: {why}"))
        self._deaths["death"] += 1
        if why.startswith("killed at "):
            self._deaths[why.removeprefix("killed ")] += 1
        self._count_group_events(node)
        cluster = node.cluster
        checkpoints = {number: replica.checkpoint_index for number, replica in cluster.replicas.items()}
        self.ledger.died(node, cluster.wal.durable_seq, checkpoints)
        node.expects_death = node.disk.sync_error is not None

    def refused(self, node: SimNode, error: Exception) -> None:
        """See `Watcher`."""
        self.trace.note(node.name, self._without_folder(f"refuses to start: {error}"))
        if node.damaged:
            node.gone = True
            self._deaths["cut" if isinstance(error, CutByDamage) else "refused"] += 1
        elif node.expects_death and isinstance(error, OSError):
            node.expects_death = False  # the failing sync met it while it recovered
        else:
            self.fail("no-replica-stops", f"{node.name} refuses to start: {error!r}", [node.name])

    def ended_itself(self, node: SimNode, error: BaseException) -> None:
        """See `Watcher`."""
        self.trace.note(node.name, self._without_folder(f"ends itself: {error}"))
        if node.damaged:
            node.gone = True
        elif not node.expects_death:
            self.fail("no-replica-stops", f"{node.name} ended itself: {error!r}", [node.name])

    def _without_folder(self, text: str) -> str:
        """The folder has another name in each run: it must not enter the digest."""
        return text.replace(str(self._folder), "DIR")

    # ------------------------------------------------------------ the end

    def _count_group_events(self, node: SimNode) -> None:
        for group in node.cluster.engine.groups.values():
            self.report.snapshots += group.install.snapshots_installed

    def progress(self) -> Report:
        """What the run covered so far."""
        report, promises = self.report, self.promises
        report.simulated_s, report.events, report.digest = self._time(), self.trace.count, self.trace.digest
        report.commits, report.elections = self.ledger.commits, self.ledger.elections
        report.checkpoints = self.ledger.checkpoints_compared
        report.reads, report.stale_reads = promises.reads, promises.stale_reads
        report.writes, report.unknown = promises.writes, promises.unknown
        report.faults = self._deaths + self.injector.injected
        return report

    def _time(self) -> float:
        return self.loop.time() if self._ended_at is None else self._ended_at

    def _clean_up(self) -> None:
        self._ended_at = self.loop.time()
        stopping = self.report.violation is None
        for node in self.nodes:
            if node.up:
                if stopping:
                    self._count_group_events(node)
                node.abandon()
        with suppress(KVError, RuntimeError):
            self.loop.run_until_complete(self._cancel_all())
        self.loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _cancel_all(self) -> None:
        for client in self._open:
            with suppress(KVError):
                await client.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
