"""The face behind which a stock and a guarded replica look alike to a trial.

What lives here: what both have in common (incarnations, what was applied and not yet looked at). What must
not: anything of either kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol, TypeAlias

from kv.sim.stock.events import EventQueue, Work
from kv.sim.stock.fault_sets import FaultSet

LogEntry: TypeAlias = tuple[bytes, int, int]
"""(data, index, term)."""
State: TypeAlias = tuple[int, int]
"""How many commands were applied, and a rolling checksum of them."""
Acknowledge: TypeAlias = Callable[[int], None]
"""Told the index at which a write was applied; never if it was not, or if that is unknown."""
ServeRead: TypeAlias = Callable[[int | None], None]
"""Told the applied index that a read saw, or None if the replica refused to serve it."""


class Post(Protocol):
    """The network, as a replica uses it. Replicas are numbers."""

    def send(self, source: int, target: int, message: object) -> bool:
        """Send; False if there is no connection."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a trial gives to each of its replicas."""

    faults: FaultSet
    queue: EventQueue
    post: Post
    rng: Random
    watch: Callable[[Replica], None]
    """To be called after every event of a replica; raises `Violation`."""
    note: Callable[[str], None]
    """Writes a line into the history of the trial."""
    erased: Callable[[int, Sequence[LogEntry]], None]
    """To be told what a replica of this number removes from the end of its log."""


class Replica(ABC):
    """One replica on one host. It starts down; `start` and `crash` alternate."""

    def __init__(self, number: int, surroundings: Surroundings) -> None:
        self.number = number
        self.peers = [i for i in range(surroundings.faults.replicas) if i != number]
        self.around = surroundings
        self.up = False
        self.starts = 0

    # ------------------------------------------------------------ one incarnation after the other

    def start(self) -> None:
        """Start the process from what the disk holds."""
        assert not self.up, "it runs already"
        self.up = True
        self.starts += 1
        self._boot()

    def crash(self, *, power: bool) -> None:
        """End the process; a power loss takes also what the disk had not been made to keep."""
        assert self.up, "it does not run"
        self.up = False
        self._die(power)

    def later(self, delay_s: float, work: Work) -> None:
        """Do `work` in this incarnation, and have it watched."""
        incarnation = self.starts

        def enter() -> None:
            if self.up and self.starts == incarnation:
                work()
                self.around.watch(self)

        self.around.queue.after(delay_s, enter)

    # ------------------------------------------------------------ what each kind does

    @abstractmethod
    def _boot(self) -> None:
        """Begin an incarnation."""

    @abstractmethod
    def _die(self, power: bool) -> None:
        """Leave behind what survives."""

    @abstractmethod
    def connection(self, peer: int, up: bool) -> None:
        """The connection to a peer came or went."""

    @abstractmethod
    def receive(self, peer: int, message: object) -> None:
        """A message of a peer arrived."""

    @abstractmethod
    def write(self, command: str, acknowledge: Acknowledge) -> None:
        """A client asks this replica, which believes to lead, to write."""

    @abstractmethod
    def read(self, serve: ServeRead) -> None:
        """A client asks this replica, which believes to lead, to read."""

    # ------------------------------------------------------------ what can be seen of each

    @property
    @abstractmethod
    def is_leader(self) -> bool:
        """Whether it believes to lead."""

    @property
    @abstractmethod
    def term(self) -> int:
        """Its current term."""

    @property
    @abstractmethod
    def applied_index(self) -> int:
        """Index of the last entry that it applied."""

    @property
    @abstractmethod
    def state(self) -> State:
        """What it has applied."""

    @property
    @abstractmethod
    def failure(self) -> str | None:
        """Why it stopped itself, if it did."""

    @abstractmethod
    def take_applied(self) -> list[LogEntry]:
        """The entries that it applied one by one since this was last called."""

    @abstractmethod
    def holds(self, index: int, entry: LogEntry) -> bool:
        """Whether its log has this entry at `index`, or a snapshot in place of it."""

    @staticmethod
    @abstractmethod
    def command(data: bytes) -> str | None:
        """The command in an entry's data; None if it is not a client's."""
