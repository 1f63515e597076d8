"""A replica behind the guard: the production `Engine`, `Group` and write-ahead log on a simulated disk.

What lives here: what production does with threads, files and sockets (`Shell`, `Links`), in a trial's time.
What must not: any rule; they are the ones of production, all on.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import kv.raft.replication as _replication
from kv.config import RaftConfig
from kv.internal.v1 import peer_pb2
from kv.raft.api import BOOTSTRAP_INDEX, ENTRY_PREFIX, ReadProof
from kv.raft.engine import Engine
from kv.raft.frames import payload_of
from kv.raft.group import Group
from kv.raft.outbox import Outbox
from kv.raft.wal import Wal
from kv.sim.disk import Killed, MemoryFiles
from kv.sim.stock import tally
from kv.sim.stock.replica import Acknowledge, LogEntry, Replica, ServeRead, State, Surroundings
from kv.sim.stock.tally import Tally, TallyDisk
from kv.telemetry import Metrics

BASE_INDEX: Final = BOOTSTRAP_INDEX
GROUP, EPOCH = 1, 1

CONFIG: Final = RaftConfig(
    # The library's own timeouts, so that both kinds stand for election equally soon.
    heartbeat_s=0.1,
    election_min_s=0.4,
    election_max_s=1.4,
    leader_fallback_s=0.4,
    lease_s=0.0,
    clock_drift_max=0.0,
    # Small, so that segments, the cache and snapshots all turn over within a trial.
    segment_bytes=16_384,
    entry_bytes_max=4096,
    log_cache_bytes_max=8192,
    log_retain_bytes=1 << 20,
    log_retain_entries=1000,
    snapshot_chunk_bytes=8,
    snapshot_window=2,
)

Then = Callable[[BaseException | None], None]


class Guarded(Replica):
    """One guarded replica; the `Shell` and the `Links` of its engine."""

    def __init__(self, number: int, surroundings: Surroundings) -> None:
        super().__init__(number, surroundings)
        self._files, self._disk = MemoryFiles(), TallyDisk()
        self._metrics = Metrics.create()
        self._names = [_name(i) for i in range(surroundings.faults.replicas)]
        self._fatal: str | None = None
        self._in_worker: dict[str, deque[Callable[[], None]]] = {}
        self._free_at: dict[str, float] = {}

    # ------------------------------------------------------------ life

    def _boot(self) -> None:
        self._fatal = None
        self._in_worker, self._free_at = {}, {}
        rng = self.around.rng
        wal = Wal.open(
            self._files,
            salt=rng.getrandbits(64),
            segment_bytes=CONFIG.segment_bytes,
            cache_bytes_max=CONFIG.log_cache_bytes_max,
        )
        self._engine = Engine(
            me=_name(self.number),
            wal=wal,
            links=self,
            shell=self,
            config=CONFIG,
            metrics=self._metrics,
            rng=rng.random,
            fatal=self._died,
        )
        journal = wal.journal(GROUP)
        if not journal.base:
            journal.bootstrap()
        self._machine = Tally(self._disk, journal.base)
        self._group = Group(
            group_id=GROUP,
            epoch=EPOCH,
            me=_name(self.number),
            members=self._names,
            journal=journal,
            machine=self._machine,
            config=CONFIG,
            host=self._engine,
            rng=rng.random,
            now=self.now(),
        )
        self._group.outbox = Outbox(self.around.faults.batch_bytes)
        self._engine.add(self._group)
        self._engine.start()

    def _die(self, power: bool) -> None:
        self._interrupt_workers()
        self._engine.stop()
        if power:
            self._files.power_loss(self.around.rng)

    def _interrupt_workers(self) -> None:
        """What a worker thread was doing may have been done in part."""
        rng = self.around.rng
        for lane in self._in_worker.values():
            if lane and rng.random() < 0.7:
                self._files.calls_left = rng.randint(0, 4)
                with contextlib.suppress(Killed):
                    lane[0]()
                self._files.calls_left = None

    def _died(self, error: BaseException) -> None:
        self._fatal = repr(error)

    # ------------------------------------------------------------ Shell

    def now(self) -> float:
        """See `Shell`."""
        return self.around.queue.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        """See `Shell`."""
        self.later(0.0, callback)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """See `Shell`."""
        self.later(delay_s, callback)

    def run_blocking(self, lane: str, work: Callable[[], None], then: Then) -> None:
        """See `Shell`: done at the end of its time, unless a crash comes first."""
        begin = max(self._free_at.get(lane, 0.0), self.now())
        end = self._free_at[lane] = begin + self._disk_delay()
        self._in_worker.setdefault(lane, deque()).append(work)
        self.later(end - self.now(), lambda: self._finish(lane, then))

    def _finish(self, lane: str, then: Then) -> None:
        error: BaseException | None = None
        try:
            self._in_worker[lane].popleft()()
        except Exception as raised:  # noqa: BLE001 - a worker's error goes to `then`, as a future's does
            error = raised
        then(error)

    def _disk_delay(self) -> float:
        """Seconds of one sync: mostly quick, rarely very slow."""
        rng = self.around.rng
        luck = rng.random()
        if luck < 0.9:
            return rng.uniform(0.0003, 0.004)
        return rng.uniform(0.004, 0.05) if luck < 0.99 else rng.uniform(0.05, 0.6)

    # ------------------------------------------------------------ Links

    def send(self, peer: str, messages: Sequence[bytes], bulk: bool) -> None:  # noqa: ARG002
        """See `Links`; one connection carries both kinds."""
        self.around.post.send(self.number, int(peer.removeprefix("n")), payload_of(messages))

    # ------------------------------------------------------------ events

    def connection(self, peer: int, up: bool) -> None:
        """See `Replica`."""
        self._engine.connection(_name(peer), up)

    def receive(self, peer: int, message: object) -> None:
        """See `Replica`."""
        assert isinstance(message, bytes)
        self._engine.deliver(_name(peer), peer_pb2.RaftFrame.FromString(message).messages)

    def write(self, command: str, acknowledge: Acknowledge) -> None:
        """See `Replica`."""
        self._machine.write(ENTRY_PREFIX + command.encode(), acknowledge)
        self._engine.wake(self._group)

    def read(self, serve: ServeRead) -> None:
        """See `Replica`: ReadIndex."""

        def done(proof: ReadProof | None) -> None:
            serve(None if proof is None else self._machine.applied_index)

        self._group.read_index(done)

    # ------------------------------------------------------------ what can be seen

    @property
    def is_leader(self) -> bool:
        """See `Replica`."""
        return self._group.is_leader

    @property
    def term(self) -> int:
        """See `Replica`."""
        return self._group.term

    @property
    def applied_index(self) -> int:
        """See `Replica`."""
        return self._machine.applied_index

    @property
    def state(self) -> State:
        """See `Replica`."""
        return self._machine.image.state

    @property
    def failure(self) -> str | None:
        """See `Replica`."""
        return self._fatal or self._group.failure

    def take_applied(self) -> list[LogEntry]:
        """See `Replica`."""
        fresh, self._machine.fresh = self._machine.fresh, []
        return fresh

    def holds(self, index: int, entry: LogEntry) -> bool:
        """See `Replica`."""
        journal = self._group.journal
        if index <= journal.base:
            return True
        return journal.term_at(index) == entry[2] and self._group.data(index) == entry[0]

    @staticmethod
    def command(data: bytes) -> str | None:
        """See `Replica`."""
        return tally.command(data)


@contextmanager
def appends_of(batch_bytes: int) -> Iterator[None]:
    """For the time of a trial, appends are as small as the stock library's are set to be (and their outboxes)."""
    before = _replication.APPEND_BYTES_MAX
    try:
        _replication.APPEND_BYTES_MAX = batch_bytes
        yield
    finally:
        _replication.APPEND_BYTES_MAX = before


def _name(number: int) -> str:
    return f"n{number}"
