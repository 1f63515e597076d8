"""How the library as shipped loses what it has acknowledged: the shortest schedules, step by step.

The trials find these and longer ones by chance. Here each message and each tick is moved by hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

from kv.sim.stock.events import EventQueue
from kv.sim.stock.fault_sets import FAULT_SETS, FaultSet
from kv.sim.stock.replica import Surroundings
from kv.sim.stock.shipped import Shipped, shipped_library
from kv.sim.stock.shipped_disk import ShippedDisk

TIMEOUT_S = 1.5
"""More than the library's longest election timeout."""
HEARTBEAT_S = 0.2
"""More than its heartbeat's interval."""


class Script:
    """Replicas whose messages wait until the test delivers them, in order, and who tick when told."""

    def __init__(self, queue: EventQueue, replicas: int, batch_bytes: int) -> None:
        self.queue = queue
        self.links: dict[tuple[int, int], deque[Any]] = {}
        self.acknowledged: dict[str, int] = {}
        faults = FaultSet("script", "by hand", (), replicas=replicas, batch_bytes=batch_bytes)
        around = Surroundings(
            faults=faults,
            queue=queue,
            post=self,
            rng=Random(1),
            watch=lambda _: None,
            note=lambda _: None,
            erased=lambda _, __: None,
        )
        self.disks = [ShippedDisk() for _ in range(replicas)]
        self.replicas = [Shipped(number, around, disk) for number, disk in enumerate(self.disks)]
        for replica in self.replicas:
            replica._use_batch = False
            replica.start()
            for peer in replica.peers:
                replica.connection(peer, True)

    def send(self, source: int, target: int, message: object) -> bool:
        """See `Post`."""
        self.links.setdefault((source, target), deque()).append(message)
        return True

    def tick(self, number: int, after_s: float = 0.0) -> None:
        """Let time pass, and one replica tick."""
        self.queue.now += after_s
        self.queue.events += 1
        self.replicas[number]._core.doTick(0)

    def deliver(self, source: int, target: int, count: int | None = None) -> None:
        """Deliver the first messages of a link, or all that wait there now."""
        waiting = self.links.setdefault((source, target), deque())
        for _ in range(len(waiting) if count is None else count):
            self.queue.events += 1
            self.replicas[target].receive(source, waiting.popleft())

    def lose(self, *numbers: int) -> None:
        """Lose what waits on all links of these replicas, as when their connections break."""
        for ends, waiting in self.links.items():
            if set(ends) & set(numbers):
                waiting.clear()

    def elect(self, number: int, voter: int) -> None:
        """Make a replica the leader with one vote, and its log the voter's."""
        self.tick(number, TIMEOUT_S)
        for _ in range(3):
            self.deliver(number, voter)
            self.deliver(voter, number)
            self.tick(number, HEARTBEAT_S)
        assert self.replicas[number].is_leader

    def write(self, number: int, *commands: str) -> None:
        """Clients write at a leader, each waiting for nobody."""
        for command in commands:
            self.replicas[number].write(command, partial(self.acknowledged.__setitem__, command))
            self.tick(number)

    def indexes(self, number: int) -> list[int]:
        """The indexes in a replica's log."""
        return [index for _, index, _ in self.disks[number].entries]

    def commands(self, number: int) -> list[str]:
        """The commands in a replica's log."""
        commands = [Shipped.command(data) for data, _, _ in self.disks[number].entries]
        return [command for command in commands if command is not None]


@contextmanager
def script(replicas: int, batch_bytes: int = FAULT_SETS[0].batch_bytes) -> Iterator[Script]:
    """A script of so many replicas, and the library in it."""
    queue = EventQueue()
    disks: dict[int, ShippedDisk] = {}
    with shipped_library(queue, Random(1), disks):
        made = Script(queue, replicas, batch_bytes)
        disks.update(enumerate(made.disks))
        yield made


def test_a_late_acknowledgement_costs_an_acknowledged_write() -> None:
    """Ordered links, one connection lost, one process dead, all files intact: an acknowledged write is gone.

    The acknowledgement of A moves the leader's next index back although B, C and D are on their way. What it
    sends again is split by size; the first part, B and C, makes the follower erase D, which it had acknowledged.
    """
    with script(3, batch_bytes=40) as s:
        s.elect(0, voter=1)
        s.lose(2)
        s.deliver(0, 1)
        s.deliver(1, 0)
        s.write(0, "A", "B", "C", "D")
        s.deliver(0, 1)  # 1 has all four, and its acknowledgements are on the way
        assert s.commands(1) == ["A", "B", "C", "D"]
        late = s.links[1, 0]
        while late[0]["next_node_idx"] <= s.indexes(0)[-4]:
            s.deliver(1, 0, 1)
        s.deliver(1, 0, 1)  # that of A: the leader goes back to B
        s.tick(0, HEARTBEAT_S)  # and sends B, C, D again, split by size
        s.deliver(1, 0)  # the other acknowledgements: all four are on a majority
        s.tick(0)
        assert list(s.acknowledged) == ["A", "B", "C", "D"]
        s.deliver(0, 1, 1)  # the first part arrives; then the connection breaks and 0 dies
        s.lose(0)
        s.elect(1, voter=2)
        for _ in range(3):
            s.tick(1, HEARTBEAT_S)
            s.deliver(1, 2)
            s.deliver(2, 1)
        assert s.replicas[1].is_leader
        assert s.commands(1) == s.commands(2) == ["A", "B", "C"]
        assert s.replicas[1].state[0] == 3


def test_a_doubled_vote_makes_two_leaders() -> None:
    """Votes are counted, not collected: in a group of five one vote that comes twice is a majority."""
    with script(5) as s:
        s.tick(0, TIMEOUT_S)
        s.tick(1)
        s.deliver(0, 2)
        s.deliver(1, 3)
        for voter, candidate in ((2, 0), (3, 1)):
            s.links[voter, candidate].append(s.links[voter, candidate][0])
            s.deliver(voter, candidate)
        leaders = [replica for replica in s.replicas if replica.is_leader]
        assert [(leader.number, leader.term) for leader in leaders] == [(0, 1), (1, 1)]
