"""The simulated network: ordered connections between hosts, and how they fail.

A connection carries messages in order, each way, until it ends. A cut of a link (one way)
holds what is sent over it, as TCP does while it retransmits; if the cut lasts longer than the
keepalive, the connection is reset and what was in flight is lost. Loss, duplication and
reordering, which TCP hides, can be had for messages that are sent as datagrams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from kv.sim.loop import VirtualLoop

Deliver = Callable[[bytes], None]
Way = tuple[str, str]
"""From whom to whom."""

KEEPALIVE_S = 2.5
"""A connection over a cut link is reset after this."""
CONNECT_TIMEOUT_S = 1.0


class Host(Protocol):
    """One end of links: a process that can be up or down."""

    @property
    def name(self) -> str:
        """Unique name."""

    @property
    def up(self) -> bool:
        """Whether the process runs."""

    def enter(self, callback: Callable[..., object], *args: object) -> None:
        """Run the callback as an event of this process: later if it is paused, never if it is dead."""


@dataclass
class Conditions:
    """What the network does to messages. Delays in seconds, the others are probabilities."""

    delay_min_s: float = 0.0002
    delay_max_s: float = 0.002
    long_delay: float = 0.0
    long_delay_max_s: float = 0.3
    loss: float = 0.0
    duplication: float = 0.0


@dataclass(eq=False)
class Connection:
    """An ordered connection between two hosts; each end has its callbacks."""

    network: Network
    purpose: str
    ends: tuple[Host, Host]
    on_message: list[Deliver]
    on_closed: list[Callable[[], None]]
    open: bool = True
    held: list[list[bytes]] = field(default_factory=lambda: [[], []])
    last: list[float] = field(default_factory=lambda: [0.0, 0.0])
    ways: tuple[Way, Way] = field(init=False)
    """From whom to whom end 0 and end 1 send."""

    def __post_init__(self) -> None:
        one, other = self.ends[0].name, self.ends[1].name
        self.ways = ((one, other), (other, one))

    def send(self, end: int, message: bytes) -> None:
        """Send from end 0 or 1 to the other."""
        if not self.open:
            return
        if self.ways[end] in self.network.cuts:
            self.held[end].append(message)
            return
        self._carry(end, message)

    def _carry(self, end: int, message: bytes) -> None:
        network, last = self.network, self.last
        loop = network.loop
        when = loop.now_s + network.delay(self.ways[end])
        if when < last[end]:  # noqa: PLR1730  # a call of `max` costs more
            when = last[end]
        last[end] = when
        loop.post_at(when, self._arrive, end, message)

    def _arrive(self, end: int, message: bytes) -> None:
        if not self.open:
            return
        way, network = self.ways[end], self.network
        if way in network.cuts:
            self.held[end].append(message)
            return
        # What an instance holds is called by a name of its own: as a method it would be looked for in the class first.
        count, enter = network.count, self.ends[1 - end].enter
        count(self.purpose, way, message)
        enter(self._deliver, end, message)

    def _deliver(self, end: int, message: bytes) -> None:
        if self.open:
            self.on_message[1 - end](message)

    def release(self) -> None:
        """A cut healed: what it held goes on its way, in order."""
        for end in (0, 1):
            if self.held[end] and self.ways[end] not in self.network.cuts:
                held, self.held[end] = self.held[end], []
                for message in held:
                    self._carry(end, message)

    def close(self) -> None:
        """Reset: both ends are told, what was in flight is lost."""
        if not self.open:
            return
        self.open = False
        self.held = [[], []]
        self.network.forget(self)
        for end in (0, 1):
            self.network.loop.call_soon(self._tell_closed, end)

    def _tell_closed(self, end: int) -> None:
        self.ends[end].enter(self.on_closed[end])


class Network:
    """All links. `digest` is told of each message that arrives."""

    def __init__(
        self,
        loop: VirtualLoop,
        rng: Random,
        conditions: Conditions,
        count: Callable[[str, Way, bytes], None],
    ) -> None:
        self.loop, self.rng, self.conditions, self.count = loop, rng, conditions, count
        self._random = rng.random
        self.cuts: dict[Way, int] = {}
        """The links that stop messages, and how often each was cut."""
        self._slow: dict[Way, float] = {}
        self._connections: dict[Connection, None] = {}
        self.calm = False

    # ------------------------------------------------------------ faults

    def is_cut(self, source: str, target: str) -> bool:
        """Whether messages from source to target are stopped."""
        return (source, target) in self.cuts

    def cut(self, source: str, target: str) -> None:
        """Stop messages one way; connections over the link are reset if it lasts."""
        self.cuts[source, target] = self.cuts.get((source, target), 0) + 1
        mark = self.cuts[source, target]
        self.loop.call_later(KEEPALIVE_S, self._keepalive, source, target, mark)

    def _keepalive(self, source: str, target: str, mark: int) -> None:
        if self.cuts.get((source, target)) == mark:
            self.reset(source, target)

    def heal(self) -> None:
        """All links work again."""
        self.cuts.clear()
        for connection in list(self._connections):
            connection.release()

    def slow(self, source: str, target: str, extra_s: float) -> None:
        """Delay messages one way by this much more; 0 ends it."""
        self._slow[source, target] = extra_s

    def reset(self, one: str, other: str) -> None:
        """Reset every connection between two hosts."""
        for connection in list(self._connections):
            if {connection.ends[0].name, connection.ends[1].name} == {one, other}:
                connection.close()

    def reset_all(self, host: str) -> None:
        """Reset every connection of a host, as its death does."""
        for connection in list(self._connections):
            if host in (connection.ends[0].name, connection.ends[1].name):
                connection.close()

    # ------------------------------------------------------------ carrying

    def delay(self, way: Way) -> float:
        """Seconds that the next message takes."""
        conditions = self.conditions
        least = conditions.delay_min_s
        delay = least + (conditions.delay_max_s - least) * self._random()
        if not self.calm:
            if conditions.long_delay and self._random() < conditions.long_delay:
                delay += self.rng.uniform(0, conditions.long_delay_max_s)
            if self._slow:
                delay += self._slow.get(way, 0.0)
        return delay

    def datagram(self, source: Host, target: Host, message: bytes, deliver: Deliver) -> None:
        """Send a message that may be lost, doubled or overtaken."""
        way = (source.name, target.name)
        if way in self.cuts:
            return
        conditions, rng = self.conditions, self.rng
        copies = 1
        if not self.calm:
            if rng.random() < conditions.loss:
                copies = 0
            elif rng.random() < conditions.duplication:
                copies = 2
        for _ in range(copies):
            self.loop.post_at(
                self.loop.now_s + self.delay(way), self._drop_off, way, target, message, deliver
            )

    def _drop_off(self, way: Way, target: Host, message: bytes, deliver: Deliver) -> None:
        if target.up and way not in self.cuts:
            self.count("datagram", way, message)
            target.enter(deliver, message)

    def connect(
        self,
        purpose: str,
        source: Host,
        target: Host,
        opened: Callable[[Connection], None],
        failed: Callable[[], object],
    ) -> None:
        """Try to connect: `opened` gets a connection whose ends have no callbacks yet, at both hosts' cost."""
        there, back = (source.name, target.name), (target.name, source.name)
        blocked = there in self.cuts or back in self.cuts
        if blocked or not target.up:
            waits_s = CONNECT_TIMEOUT_S if blocked else self.delay(there)
            self.loop.post_at(self.loop.now_s + waits_s, source.enter, failed)
            return
        round_trip = self.delay(there) + self.delay(back)
        when = self.loop.now_s + round_trip
        self.loop.post_at(when, self._open, purpose, source, target, opened, failed)

    def _open(
        self,
        purpose: str,
        source: Host,
        target: Host,
        opened: Callable[[Connection], None],
        failed: Callable[[], object],
    ) -> None:
        if not target.up or not source.up:
            source.enter(failed)
            return
        connection = Connection(self, purpose, (source, target), [_nowhere, _nowhere], [_nothing, _nothing])
        self._connections[connection] = None
        source.enter(opened, connection)

    def forget(self, connection: Connection) -> None:
        """A connection ended."""
        self._connections.pop(connection, None)


def _nowhere(_: bytes) -> None:
    raise AssertionError("a message came to an end without a reader")


def _nothing() -> None:
    """The end of a connection that nobody waits for."""
