"""One trial: one kind of replica, one fault set, one seed. Faults for a while, then calm, then the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from kv.sim.stock import guarded, shipped
from kv.sim.stock.checks import Checks, Violation
from kv.sim.stock.events import EventQueue
from kv.sim.stock.fault_sets import FaultSet
from kv.sim.stock.guarded import Guarded, appends_of
from kv.sim.stock.links import Links
from kv.sim.stock.nemesis import Nemesis
from kv.sim.stock.replica import LogEntry, Replica, Surroundings
from kv.sim.stock.shipped import Shipped, shipped_library
from kv.sim.stock.shipped_disk import ShippedDisk

Kind = Literal["stock", "guarded"]

QUIET_START_S: Final = 2.0
"""Before the first fault."""
CALM_S: Final = 20.0
"""After the last fault, before progress is asked for: over 14 of the longest election timeouts."""
PROGRESS_S: Final = 3.0
"""In this time after the calm a write must be acknowledged."""
WRITE_GAP_S: Final = 0.05
BURSTS: Final = (1, 1, 2, 3, 6, 12)
PADDING: Final = (0, 5, 20)
READ_SHARE: Final = 0.3
WAITING_WRITES_MAX: Final = 100
"""Clients wait for their writes: with so many unanswered they send no more."""
GIVE_UP_S: Final = 5.0
"""After this a client takes its write for lost in transit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one trial showed."""

    kind: Kind
    fault_set: str
    seed: int
    violation: str | None
    """One of `checks.KINDS`, or None."""
    no_progress: bool
    text: str
    """What was violated, or what did not progress."""
    time_s: float
    """Virtual seconds until the violation, or the end."""
    events: int
    faults: int
    acknowledged: int
    reads: int
    stale_reads: int
    first_stale_read: str
    history: tuple[str, ...]


class Trial:
    """See the file's docstring. Two trials with equal arguments go through equal events."""

    def __init__(self, kind: Kind, faults: FaultSet, seed: int, minutes: float, calm_s: float) -> None:
        self.kind, self.faults, self.seed = kind, faults, seed
        self._minutes, self._calm_s = minutes, calm_s
        # Separate streams, so that both kinds meet faults of the same distribution at the same times.
        self._clients = Random(f"{seed} clients")
        self._queue = EventQueue()
        self._links = Links(self._queue, Random(f"{seed} links"), lossy=faults.lossy)
        self._checks = Checks(shipped.BASE_INDEX if kind == "stock" else guarded.BASE_INDEX)
        self._history: list[str] = []
        self._erasures, self._last_erasure = 0, ""
        around = Surroundings(
            faults=faults,
            queue=self._queue,
            post=self._links,
            rng=Random(f"{seed} replicas"),
            watch=self._watch,
            note=self._note,
            erased=self._erased,
        )
        self._world: AbstractContextManager[None]
        self.replicas: list[Replica]
        if kind == "stock":
            disks = {number: ShippedDisk() for number in range(faults.replicas)}
            self.replicas = [Shipped(number, around, disk) for number, disk in disks.items()]
            self._world = shipped_library(self._queue, Random(f"{seed} library"), disks)
        else:
            self.replicas = [Guarded(number, around) for number in range(faults.replicas)]
            self._world = appends_of(faults.batch_bytes)
        self._links.join(self.replicas)
        nemesis_rng = Random(f"{seed} nemesis")
        self._nemesis = Nemesis(faults, self._queue, self._links, self.replicas, nemesis_rng, self._note)
        self._commands = 0
        self._waiting: dict[str, float] = {}
        """Writes without an answer, oldest first, with the time at which their client gives up."""

    def run(self) -> Outcome:
        """Go through it."""
        violation: str | None = None
        text = ""
        with self._world:
            try:
                text = self._play()
            except Violation as violated:
                violation, text = violated.kind, str(violated)
                self._note(f"VIOLATION ({violation}): {text}")
            except Exception as error:
                error.add_note(
                    f"in {self.kind}, {self.faults.name}, seed {self.seed}, {self._queue.now:.3f} s"
                )
                raise
        return Outcome(
            kind=self.kind,
            fault_set=self.faults.name,
            seed=self.seed,
            violation=violation,
            no_progress=violation is None and bool(text),
            text=text,
            time_s=round(self._queue.now, 3),
            events=self._queue.events,
            faults=self._nemesis.inflicted,
            acknowledged=len(self._checks.acknowledged),
            reads=self._checks.reads,
            stale_reads=self._checks.stale_reads,
            first_stale_read=self._checks.first_stale_read,
            history=tuple(self._history),
        )

    def _play(self) -> str:
        """The whole course; what did not progress in the end, or ''. Raises `Violation`."""
        for replica in self.replicas:
            replica.start()
            self._links.started(replica.number)
        self._queue.after(1.0, self._client)
        self._queue.after(QUIET_START_S, self._nemesis.begin)
        self._queue.run(QUIET_START_S + 60 * self._minutes)
        self._note("calm")
        self._nemesis.end()
        self._queue.run(self._queue.now + self._calm_s)
        acknowledged, due = len(self._checks.acknowledged), self._checks.newest_seen
        self._queue.run(self._queue.now + PROGRESS_S)
        self._checks.survive(self.replicas[0])
        return self._no_progress(acknowledged, due)

    def _no_progress(self, acknowledged: int, due: int) -> str:
        applied = [replica.applied_index for replica in self.replicas]
        if len(self._checks.acknowledged) <= acknowledged:
            terms = [replica.term for replica in self.replicas]
            leaders = [replica.number for replica in self.replicas if replica.is_leader]
            return f"no write is acknowledged: applied {applied}, terms {terms}, leaders {leaders}"
        if min(applied) < due:
            return f"a replica stays behind: applied {applied}, all should have {due}"
        return ""

    # ------------------------------------------------------------ clients

    def _client(self) -> None:
        rng = self._clients
        self._queue.after(rng.expovariate(1 / WRITE_GAP_S), self._client)
        burst, reads, pick = rng.choice(BURSTS), rng.random() < READ_SHARE, rng.random()
        leaders = [replica for replica in self.replicas if replica.up and replica.is_leader]
        if not leaders:
            return
        replica = leaders[int(pick * len(leaders))]
        self._give_up()
        for _ in range(min(burst, WAITING_WRITES_MAX - len(self._waiting))):
            self._write(replica)
        if reads:
            self._read(replica)
        self._watch(replica)

    def _write(self, replica: Replica) -> None:
        self._commands += 1
        command = f"c{self._commands}" + "x" * self._clients.choice(PADDING)
        self._waiting[command] = self._queue.now + GIVE_UP_S

        def acknowledged(index: int) -> None:
            self._waiting.pop(command, None)
            self._checks.acknowledge(command, index)

        replica.write(command, acknowledged)

    def _give_up(self) -> None:
        while self._waiting and next(iter(self._waiting.values())) <= self._queue.now:
            self._waiting.pop(next(iter(self._waiting)))

    def _read(self, replica: Replica) -> None:
        begun_at, begun_s = self._checks.newest_seen, self._queue.now

        def served(index: int | None) -> None:
            if index is not None:
                text = (
                    f"at {begun_s:.3f} s replica {replica.number} serves entry {index}, {begun_at} was known"
                )
                self._checks.read(begun_at, index, text)

        replica.read(served)

    # ------------------------------------------------------------ what is noted

    def _watch(self, replica: Replica) -> None:
        if replica.up and self._checks.look(replica):
            self._note(f"{replica.number} leads term {replica.term}")

    def _erased(self, number: int, entries: Sequence[LogEntry]) -> None:
        lost = [entry for entry in entries if self._checks.applied.get(entry[1]) == entry]
        if lost:
            self._erasures += 1
            self._last_erasure = f"{self._queue.now:8.3f} s  {number} erases committed entries from its log:"
            self._last_erasure += f" {lost[0][1]} to {lost[-1][1]}"

    def _note(self, text: str) -> None:
        """Write a line; the many erasures since the last one are one line together."""
        if self._erasures:
            before = f", after {self._erasures - 1} like it" if self._erasures > 1 else ""
            self._history.append(self._last_erasure + before)
            self._erasures = 0
        self._history.append(f"{self._queue.now:8.3f} s  {text}")


def run_trial(
    kind: Kind, faults: FaultSet, seed: int, minutes: float = 1.0, calm_s: float = CALM_S
) -> Outcome:
    """Run one trial of so many virtual minutes of faults and seconds of calm."""
    return Trial(kind, faults, seed, minutes, calm_s).run()
