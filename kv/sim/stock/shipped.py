"""A replica as shipped: PySyncObj 0.3.17 with its own messages, votes, snapshots, compaction and files.

The one file of the simulator that imports the library. `shipped_library` lends it a clock, a random
source and files for the time of a trial: its module globals are replaced and put back, so that the
same globals as `kv.raft.core` has set are in force before and after.

The library runs as its own thread would run it (`autoTick`): a tick, then a wait for a message, a
command or `TICK_S`. Its timeouts are its defaults. Nodes are numbers, because it keeps them in sets.
An exception that escapes a tick or a handler is logged by that thread and the loop goes on; so here.
"""

from __future__ import annotations

import gzip
import logging
import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import IO, Any

import pysyncobj.serializer as _serializer
import pysyncobj.syncobj as _syncobj
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from kv.sim.stock.checks import step
from kv.sim.stock.events import EventQueue
from kv.sim.stock.replica import Acknowledge, LogEntry, Replica, ServeRead, State, Surroundings
from kv.sim.stock.shipped_disk import (
    WRITE_BACK_MAX_S,
    WRITE_BACK_MIN_S,
    DumpFiles,
    ShippedDisk,
    ShippedJournal,
)

BASE_INDEX = 1
"""A new replica begins with one no-op entry."""
TICK_S = 0.05
"""The library's `autoTickPeriod`."""
PROMPT_S = 0.0002
"""From a message to the tick that follows it."""
CLOCK_READING_S = 0.001
"""What each further look of the library at the clock takes within one event. It has loops that end by time
alone: with a clock that stands still, a leader whose dump is under way would send nothing for ever."""
_REGULAR = b"\x00"


class Counter(SyncObj):
    """The replicated object: counts commands and sums them up, so that its state tells what was applied."""

    def __init__(self, me: Node, others: list[Node], conf: SyncObjConf, transport: Transport) -> None:
        super().__init__(me, others, conf, transport=transport)
        self.tally: State = (0, 0)

    @replicated
    def apply(self, command: str) -> int:
        """Apply one command; returns the index at which it stands."""
        self.tally = step(self.tally, command)
        return int(self.raftLastApplied) + 1


class Edge(Transport):
    """The library's transport, on the network of the trial."""

    def __init__(self, send: Callable[[int, Any], bool]) -> None:
        super().__init__(None, None, None)
        self._carry = send

    def send(self, node: Node, message: Any) -> bool:
        """Send to a node."""
        return self._carry(node.id, message)

    def destroy(self) -> None:
        """Nothing to let go of."""


class Shipped(Replica):
    """One stock replica."""

    def __init__(self, number: int, surroundings: Surroundings, disk: ShippedDisk) -> None:
        super().__init__(number, surroundings)
        self.errors = 0
        self._disk = disk
        self._use_batch = surroundings.rng.random() < 0.5
        self._next_tick = math.inf
        self._seen = BASE_INDEX

    # ------------------------------------------------------------ life

    def _boot(self) -> None:
        faults = self.around.faults
        self._seen, self._next_tick = BASE_INDEX, math.inf
        erased = partial(self.around.erased, self.number)
        self._journal = ShippedJournal(self._disk, erased)
        self._edge = Edge(partial(self.around.post.send, self.number))
        conf = SyncObjConf(
            autoTick=False,
            useFork=False,
            appendEntriesUseBatch=self._use_batch,
            appendEntriesBatchSizeBytes=faults.batch_bytes,
            logCompactionMinEntries=faults.compact_entries,
            journalFile=self._journal,
            fullDumpFile=f"{self.number}/dump",
        )
        others = [Node(peer) for peer in self.peers]
        self._core = Counter(Node(self.number), others, conf, self._edge)
        self._tick_within(PROMPT_S)
        self._write_back_later()

    def _die(self, power: bool) -> None:
        if power:
            self._disk.power_loss(self.around.rng)

    def _write_back_later(self) -> None:
        self.later(self.around.rng.uniform(WRITE_BACK_MIN_S, WRITE_BACK_MAX_S), self._write_back)

    def _write_back(self) -> None:
        self._disk.write_back()
        self._write_back_later()

    # ------------------------------------------------------------ events

    def connection(self, peer: int, up: bool) -> None:
        """See `Replica`."""
        tell = self._edge._onNodeConnected if up else self._edge._onNodeDisconnected
        self._protected(tell, Node(peer))

    def receive(self, peer: int, message: object) -> None:
        """See `Replica`."""
        before = self._core.raftCommitIndex
        self._protected(self._edge._onMessageReceived, Node(peer), message)
        if isinstance(message, dict) and "serialized" in message and self._core.raftCommitIndex > before:
            self.around.note(
                f"a snapshot message of {peer} moves the commit index of {self.number} from {before}"
                f" to {self._core.raftCommitIndex}; its log ends with {self._disk.entries[-1][1:]} (index, term)"
            )
        self._tick_within(PROMPT_S)

    def write(self, command: str, acknowledge: Acknowledge) -> None:
        """See `Replica`."""

        def done(index: int | None, reason: int) -> None:
            if reason == FAIL_REASON.SUCCESS and index is not None:
                acknowledge(index)

        self._core.apply(command, callback=done)
        if not self._use_batch:  # with batches the command waits for the next tick
            self._tick_within(PROMPT_S)

    def read(self, serve: ServeRead) -> None:
        """See `Replica`. The library has no other read than of the local state."""
        serve(self.applied_index)

    def _tick_within(self, delay_s: float) -> None:
        when = self.around.queue.now + delay_s
        if when < self._next_tick:
            self._next_tick = when
            self.later(delay_s, lambda: self._tick(when))

    def _tick(self, when: float) -> None:
        if when != self._next_tick:
            return  # an earlier one has taken its place
        self._next_tick = math.inf
        self._protected(self._core.doTick, 0)
        self._tick_within(TICK_S)

    def _protected(self, call: Callable[..., object], *args: object) -> None:
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001 - the library's thread logs all of them and goes on
            self.errors += 1
            if self.errors == 1:
                self.around.note(f"replica {self.number}: {type(error).__name__}: {error}")

    # ------------------------------------------------------------ what can be seen

    @property
    def is_leader(self) -> bool:
        """See `Replica`."""
        return bool(self._core._isLeader())

    @property
    def term(self) -> int:
        """See `Replica`."""
        return int(self._core.raftCurrentTerm)

    @property
    def applied_index(self) -> int:
        """See `Replica`."""
        return int(self._core.raftLastApplied)

    @property
    def state(self) -> State:
        """See `Replica`."""
        return self._core.tally

    @property
    def failure(self) -> str | None:
        """See `Replica`."""
        return None

    def take_applied(self) -> list[LogEntry]:
        """See `Replica`. What a snapshot brought is not in the log, and is compared by its state."""
        seen, self._seen = self._seen, self.applied_index
        if seen == self._seen:
            return []
        first = self._disk.entries[0][1]
        return self._disk.entries[max(seen + 1 - first, 0) : max(self._seen + 1 - first, 0)]

    def holds(self, index: int, entry: LogEntry) -> bool:
        """See `Replica`."""
        entries = self._disk.entries
        position = index - entries[0][1]
        return position < 0 or (position < len(entries) and entries[position] == entry)

    @staticmethod
    def command(data: bytes) -> str | None:
        """See `Replica`."""
        if data[:1] != _REGULAR:
            return None
        _, (command,) = pickle.loads(data[1:])  # noqa: S301 - what the library itself pickled in this trial
        return str(command)


# ------------------------------------------------------------ lending the library a world


class _RunningClock:
    """The queue's time, and a little more for each look since the last event began."""

    def __init__(self, queue: EventQueue) -> None:
        self._queue = queue
        self._event = self._looks = 0

    def __call__(self) -> float:
        if self._queue.events != self._event:
            self._event, self._looks = self._queue.events, 0
        self._looks += 1
        return self._queue.now + self._looks * CLOCK_READING_S


class _NoPoller:
    def poll(self, _: float) -> None: ...


def _gzip_file(fileobj: IO[bytes], mode: str = "rb") -> gzip.GzipFile:
    """As `gzip.GzipFile`, but equal data gives equal bytes: no time of day in the header."""
    return gzip.GzipFile(fileobj=fileobj, mode=mode, compresslevel=1, mtime=0)


@contextmanager
def shipped_library(queue: EventQueue, rng: Random, disks: dict[int, ShippedDisk]) -> Iterator[None]:
    """For the time of a trial the library lives in it: its clock, its random numbers, its files."""
    files = DumpFiles(disks)
    lent: list[tuple[Any, str, object]] = [
        (_syncobj, "monotonicTime", _RunningClock(queue)),
        (_syncobj, "random", rng),
        (_syncobj, "createJournal", lambda journal: journal),
        (_syncobj, "createPoller", lambda _: _NoPoller()),
        (_syncobj, "PIPE_NOTIFIER_ENABLED", False),
        (_syncobj, "os", SimpleNamespace(path=SimpleNamespace(isfile=files.exists))),
        (_serializer, "open", files.open),
        (_serializer, "atomicReplace", files.replace),
        (_serializer, "gzip", SimpleNamespace(GzipFile=_gzip_file)),
    ]
    absent = object()
    before = [getattr(module, name, absent) for module, name, _ in lent]
    logger = logging.getLogger("pysyncobj")
    disabled, logger.propagate = logger.propagate, False
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        for module, name, value in lent:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(lent, before, strict=True):
            if value is absent:
                delattr(module, name)
            else:
                setattr(module, name, value)
        logger.removeHandler(handler)
        logger.propagate = disabled
