"""The engine: the one driver of all Raft groups of a process, in turns.

A turn: take in (messages were received since), decide (each group that has work settles),
make durable once (one flush of the shared log for all groups), send out (what its log
records allow). Turns are asked for by events, never by a period; a slow timer looks only
at what time alone decides: heartbeats, elections, silent transfers.

The engine knows neither asyncio nor threads nor gRPC: the `Shell` runs things later or
elsewhere, the `Links` carry messages. The simulator implements both in virtual time.

Order of duties: appends leave while our own log still syncs (step 5 of a write), everything
else leaves after the records that it depends on are durable (step 6). A failed sync is
fatal to the process; a full disk is not: the engine leads nothing until there is room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from kv.config import RaftConfig
from kv.internal.v1 import raft_pb2
from kv.raft.group import Group
from kv.raft.pulse import BEATS_GROUP, Pulse
from kv.raft.wal import Compaction, Flush, Wal, WalCorruption, WalFull
from kv.telemetry import Metrics

FULL_RETRY_S = 1.0
"""How long the engine waits before it tries a full disk again."""
MAINTENANCE_S = 1.0
"""How often compaction of the log is looked at, and groups get a turn for their checkpoints."""

log = structlog.get_logger(__name__)


class Shell(Protocol):
    """Time, later and elsewhere: asyncio and threads in production, virtual in the simulator."""

    def now(self) -> float:
        """Seconds on a steady clock."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run the callback after what runs now."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Run the callback after a delay in seconds."""

    def run_blocking(
        self, lane: str, work: Callable[[], None], then: Callable[[BaseException | None], None]
    ) -> None:
        """Run `work` in the lane's worker thread, in order, then `then(error or None)` on the loop."""


class Links(Protocol):
    """The connections to the peers."""

    def send(self, peer: str, messages: Sequence[bytes], bulk: bool) -> None:
        """Send serialized messages, or lose them if the peer is not connected. Never blocks, never raises."""


class Engine:
    """All calls are on the loop's thread."""

    def __init__(
        self,
        *,
        me: str,
        wal: Wal,
        links: Links,
        shell: Shell,
        config: RaftConfig,
        metrics: Metrics,
        rng: Callable[[], float],
        fatal: Callable[[BaseException], None],
        maintained: Callable[[], None] = lambda: None,
    ) -> None:
        """`rng` draws from [0, 1). `maintained` is called each `MAINTENANCE_S`, for whoever keeps count of what the groups did."""
        # At most 28 attributes, as in `group.py`: the simulator puts one more in.
        self.wal, self.config = wal, config
        self.now = shell.now
        """Seconds on the node's steady clock."""
        self.groups: dict[int, Group] = {}
        self.disk_full = False
        self.pulse = Pulse(
            me=me,
            config=config,
            draw=rng(),
            groups=self.groups,
            send=self._send_beat,
            durable_seq=lambda: wal.durable_seq,
            failed=self._failed,
        )
        self._links, self._shell, self._metrics, self._fatal = links, shell, metrics, fatal
        self._maintained = maintained
        # Since the metrics were told: they take a lock for each count.
        self._received = self._sent = self._synced = self._synced_bytes = 0
        self._connected: set[str] = set()
        # Dictionaries as ordered sets: the order of work must not depend on hashes.
        self._dirty: dict[Group, None] = {}
        self._unsynced: dict[Group, None] = {}
        self._reminders: dict[Group, None] = {}
        self._ticking: dict[Group, None] = {}
        """Groups for which time alone may decide something: all but those that rest and wait for nothing."""
        self._scheduled = self._flushing = self._stopped = False
        self._compaction: Compaction | None = None
        self._removing = False
        self._maintained_at = shell.now()

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Starts the timer."""
        self._shell.call_later(self.config.heartbeat_s / 2, self._tick)

    def stop(self) -> None:
        """Stops turning; nothing is flushed or sent any more, as in a crash."""
        self._stopped = True

    def add(self, group: Group) -> None:
        """Takes a group on."""
        assert group.group_id not in self.groups, "a group is added once"
        self.groups[group.group_id] = group
        for peer in sorted(self._connected):
            group.connection(peer, True)
        group.suspend(self.disk_full, self._shell.now())
        self.pulse.introduce(group)
        self._ticking[group] = None
        self.wake(group)

    # ------------------------------------------------------------ events

    def deliver(self, peer: str, messages: Iterable[raft_pb2.RaftMessage]) -> None:
        """Messages came over the connection of `peer`."""
        if self._stopped:
            return
        count = 0
        answering: dict[Group, None] = {}  # they need no turn, but have something to send
        groups = self.groups
        for message in messages:
            count += 1
            group = groups.get(message.group)
            if group is not None:
                try:
                    group.receive(message, peer)
                except Exception as error:  # noqa: BLE001 - see `_failed`
                    self._failed(group, error)
                if group.wants_turn:
                    self._dirty[group] = None
                elif not group.outbox.empty:
                    answering[group] = None
            elif message.group == BEATS_GROUP:
                self.pulse.receive(message, peer, self._shell.now())
        self._received += count
        if answering:
            self._release(answering)
        if self._dirty:
            self._schedule()

    def connection(self, peer: str, up: bool) -> None:
        """The connection to `peer` came or went. A reset is told as gone, then as come."""
        self._connected.add(peer) if up else self._connected.discard(peer)
        for group in self.groups.values():
            group.connection(peer, up)
        self.pulse.connection(peer, up)

    @property
    def connected(self) -> list[str]:
        """Peers with a live connection."""
        return sorted(self._connected)

    def wake(self, group: Group) -> None:
        """Gives the group a turn soon."""
        self._dirty[group] = None
        self._schedule()

    def remind(self, group: Group, delay_s: float) -> None:
        """Calls the group's `reminded` once; one timer serves all groups that ask meanwhile."""
        if not self._reminders:
            self._shell.call_later(delay_s, self._remind)
        self._reminders[group] = None

    def _remind(self) -> None:
        reminders, self._reminders = self._reminders, {}
        if self._stopped:
            return
        waits: dict[Group, float] = {}
        for group in reminders:
            try:
                waits[group] = group.reminded()
            except Exception as error:  # noqa: BLE001 - see `_failed`
                self._failed(group, error)
        self._release(reminders)
        for group in sorted(waits, key=waits.__getitem__):  # the first of them sets the timer
            if waits[group]:
                self.remind(group, waits[group])

    def roused(self, group: Group) -> None:
        """A group rests no more."""
        self.pulse.roused(group)
        self._ticking[group] = None
        self.wake(group)

    def run_blocking(self, work: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """Runs a group's blocking work apart from the log's."""
        self._shell.run_blocking("bulk", work, then)

    # ------------------------------------------------------------ turns

    def _schedule(self) -> None:
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._shell.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        now = self.now()
        dirty, self._dirty = self._dirty, {}
        durable = self.wal.durable_seq
        for group in dirty:
            try:
                if group.settle(now):
                    self._dirty[group] = None
            except Exception as error:  # noqa: BLE001 - see `_failed`
                self._failed(group, error)
            suspended = self.disk_full or group.machine.store_full
            if suspended or group.suspended:
                group.suspend(suspended, now)
            if group not in self._ticking and not group.rest.dozing:
                self._ticking[group] = None
            if group.journal.seq > durable:
                self._unsynced[group] = None
        self._release(dirty)
        self._flush()
        if self._dirty:
            self._schedule()

    def _release(self, groups: Iterable[Group]) -> None:
        """Sends what the durable log allows, one hand-over for each peer."""
        durable = self.wal.durable_seq
        quick: dict[str, list[bytes]] = {}
        bulk: dict[str, list[bytes]] = {}
        for group in groups:
            if group.outbox.empty:
                continue
            last, raw = None, b""
            for outgoing in group.outbox.take(durable):
                # An append is one message for all followers, mostly.
                if (
                    last is None
                    or outgoing.message is not last.message
                    or outgoing.entries is not last.entries
                ):
                    last, raw = outgoing, outgoing.raw
                lane = bulk if outgoing.bulk else quick
                lane.setdefault(outgoing.peer, []).append(raw)
        for peer, messages in quick.items():
            self._sent += len(messages)
            self._links.send(peer, messages, False)
        for peer, messages in bulk.items():
            self._links.send(peer, messages, True)

    def _send_beat(self, peer: str, messages: Sequence[raft_pb2.RaftMessage], bulk: bool) -> None:
        self._sent += len(messages)
        self._links.send(peer, [message.SerializeToString() for message in messages], bulk)

    def _flush(self) -> None:
        if self._flushing or self._stopped:
            return
        flush = self.wal.begin_flush()
        if flush is None:
            return
        self._flushing = True
        began = self._shell.now()
        self._shell.run_blocking("log", flush.run, lambda error: self._flushed(flush, began, error))

    def _flushed(self, flush: Flush, began: float, error: BaseException | None) -> None:
        if self._stopped:
            return
        self._flushing = error is not None
        if isinstance(error, WalFull):
            self.wal.abandon_flush(flush)
            self._disk_is_full(error)
            return
        if error is not None:
            self._end(error)
            return
        self.wal.end_flush(flush)
        self._synced += 1
        self._synced_bytes += flush.bytes
        self._metrics.wal_sync_seconds.observe(self._shell.now() - began)
        self._after_sync()

    def _after_sync(self) -> None:
        """Sends what the sync allows at once; a turn follows for those who can make something of it."""
        if self.disk_full:
            self._disk_has_room(self._shell.now())
        durable = self.wal.durable_seq
        synced, self._unsynced = self._unsynced, {}
        for group in synced:
            try:
                if group.synced():
                    self._dirty[group] = None
            except Exception as error:  # noqa: BLE001 - see `_failed`
                self._failed(group, error)
            if group.journal.seq > durable:
                self._unsynced[group] = None
        self._release(synced)
        self._advance_compaction()
        if self._dirty or self.wal.dirty:
            self._schedule()

    # ------------------------------------------------------------ a full disk

    def _disk_is_full(self, error: WalFull) -> None:
        if not self.disk_full:
            self.disk_full = True
            log.error(
                "no room for the log: this node leads nothing and acknowledges nothing until space is freed",
                error=str(error),
                retry_s=FULL_RETRY_S,
            )
            now = self._shell.now()
            for group in self.groups.values():
                group.suspend(True, now)
                self._dirty[group] = None
            self._schedule()
        self._shell.call_later(FULL_RETRY_S, self._retry)

    def _retry(self) -> None:
        self._flushing = False
        self._flush()

    def _disk_has_room(self, now: float) -> None:
        self.disk_full = False
        log.warning("there is room for the log again")
        for group in self.groups.values():
            group.suspend(group.machine.store_full, now)
            self._dirty[group] = None

    # ------------------------------------------------------------ what time alone decides

    def _tick(self) -> None:
        if self._stopped:
            return
        now = self._shell.now()
        self.pulse.tick(now)
        for group in list(self._ticking):
            try:
                if group.timer(now) or not group.outbox.empty:
                    self._dirty[group] = None
                if group.core.is_leader and group.rest.due(now, self.wal.durable_seq):
                    self.pulse.rest(group, now)
                if group.rest.resting and group.rest.dozing:
                    del self._ticking[group]
            except Exception as error:  # noqa: BLE001 - see `_failed`
                self._failed(group, error)
        if now - self._maintained_at >= MAINTENANCE_S:
            self._maintained_at = now
            self._maintain()
        if self._dirty:
            self._schedule()
        self._shell.call_later(self.config.heartbeat_s / 2, self._tick)

    def _failed(self, group: Group, error: Exception) -> None:
        """The one place where what should never happen in a group stops that group, and no other.

        Each call into a group that the engine makes is caught for it: a wrapper would be a call more for each.
        """
        if isinstance(error, WalCorruption):  # the log is shared: nobody's log can be trusted
            self._end(error)
            return
        log.error("a replica failed", group=group.group_id, exc_info=error)
        group.stop(f"{type(error).__name__}: {error}")

    def _end(self, error: BaseException) -> None:
        log.critical("the log cannot be trusted any more: the process ends", error=repr(error))
        self._stopped = True
        self._fatal(error)

    def _maintain(self) -> None:
        for group in self.groups.values():
            if not group.rest.dozing or self._look_in(group):
                self._dirty[group] = None
        self._schedule()  # what was written meanwhile is flushed
        self.wal.trim_caches()
        leads = sum(group.is_leader for group in self.groups.values())
        self._metrics.leader_groups.set(leads)
        self._tell_metrics()
        self._maintained()
        if self._compaction is None and not self.disk_full:
            self._compaction = self.wal.plan_compaction()
            self._advance_compaction()

    def _tell_metrics(self) -> None:
        if self._received:
            self._metrics.raft_messages.labels("in").inc(self._received)
        if self._sent:
            self._metrics.raft_messages.labels("out").inc(self._sent)
        if self._synced:
            self._metrics.wal_syncs.inc(self._synced)
            self._metrics.wal_bytes.inc(self._synced_bytes)
        self._received = self._sent = self._synced = self._synced_bytes = 0

    def _look_in(self, group: Group) -> bool:
        """A group at rest makes its checkpoints too; True if anything came of it."""
        try:
            group.machine.maybe_checkpoint(self._shell.now())
        except Exception as error:  # noqa: BLE001 - see `_failed`
            self._failed(group, error)
        machine, unsynced = group.machine, group.journal.seq > self.wal.durable_seq
        return unsynced or machine.store_full or machine.failure is not None or group.suspended

    def _advance_compaction(self) -> None:
        """Removes segments once the records that free them are durable."""
        plan = self._compaction
        if plan is not None and not self._removing and plan.seq <= self.wal.durable_seq:
            self._removing = True  # a slow disk may take longer than the time to the next look
            self._shell.run_blocking("bulk", plan.run, lambda error: self._compacted(plan, error))

    def _compacted(self, plan: Compaction, error: BaseException | None) -> None:
        if self._stopped:
            return
        if error is not None:
            self._end(error)
            return
        self.wal.end_compaction(plan)
        self._compaction, self._removing = None, False
