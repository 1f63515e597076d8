"""The simulated network: order, cuts, resets, datagrams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random

import pytest

from kv.sim.loop import VirtualLoop
from kv.sim.network import KEEPALIVE_S, Conditions, Connection, Network


class End:
    """A host that is up."""

    up = True

    def __init__(self, name: str) -> None:
        self.name = name

    def enter(self, callback: Callable[..., object], *args: object) -> None:
        callback(*args)


class Pair:
    """Two hosts with a connection, and what came."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.network = Network(self.loop, Random(1), Conditions(), lambda *_: None)
        self.a, self.b = End("a"), End("b")
        self.got: list[bytes] = []
        self.closed: list[float] = []
        self.connections: list[Connection] = []
        self.network.connect("test", self.a, self.b, self._opened, self._refused)
        self.pass_time(0.1)

    def _opened(self, connection: Connection) -> None:
        self.connections.append(connection)
        connection.on_message[1] = self.got.append
        connection.on_closed[0] = lambda: self.closed.append(self.loop.time())

    def _refused(self) -> None:
        self.closed.append(-1.0)

    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A connected pair."""
    made = Pair()
    yield made
    made.loop.close()


def test_a_connection_keeps_the_order(pair: Pair) -> None:
    """Messages arrive in the order in which they were sent, whatever the delays."""
    pair.network.conditions = Conditions(long_delay=0.5)
    for number in range(50):
        pair.connections[0].send(0, b"%d" % number)
    pair.pass_time(20.0)
    assert pair.got == [b"%d" % number for number in range(50)]


def test_a_short_cut_delays_and_a_long_one_resets(pair: Pair) -> None:
    """What is sent over a cut link arrives after it heals, unless the keepalive ended the connection."""
    pair.network.cut("a", "b")
    pair.connections[0].send(0, b"held")
    pair.pass_time(KEEPALIVE_S / 2)
    assert pair.got == []
    pair.network.heal()
    pair.pass_time(1.0)
    assert pair.got == [b"held"]
    pair.network.cut("a", "b")
    pair.connections[0].send(0, b"lost")
    pair.pass_time(KEEPALIVE_S + 0.1)
    pair.network.heal()
    pair.pass_time(1.0)
    assert pair.got == [b"held"]
    assert len(pair.closed) == 1


def test_a_reset_loses_what_is_in_flight(pair: Pair) -> None:
    """A message that has not arrived when the connection is reset never does."""
    pair.connections[0].send(0, b"in flight")
    pair.network.reset("b", "a")
    pair.pass_time(1.0)
    assert pair.got == []
    assert len(pair.closed) == 1


def test_nobody_answers_a_dial_over_a_cut_link(pair: Pair) -> None:
    """Connecting needs both ways."""
    pair.network.cut("b", "a")
    pair.network.connect("test", pair.a, pair.b, pair._opened, pair._refused)
    pair.pass_time(2.0)
    assert len(pair.connections) == 1
    assert pair.closed == [-1.0]


def test_datagrams_are_lost_doubled_and_overtaken(pair: Pair) -> None:
    """Each of the three happens with its probability."""
    pair.network.conditions = Conditions(loss=0.2, duplication=0.2)
    got: list[bytes] = []
    sent = [b"%d" % number for number in range(300)]
    for message in sent:
        pair.network.datagram(pair.a, pair.b, message, got.append)
    pair.pass_time(1.0)
    assert set(got) < set(sent)
    assert any(got.count(message) == 2 for message in sent)
    assert got != sorted(got, key=sent.index)
