"""The network of a trial: what arrives, in which order, and what does not."""

from __future__ import annotations

from random import Random

from kv.sim.stock.events import EventQueue
from kv.sim.stock.fault_sets import FAULT_SETS
from kv.sim.stock.links import Links
from kv.sim.stock.replica import Replica, Surroundings
from tests.sim.stock.test_checks import Puppet


class Mailbox(Puppet):
    """A replica that keeps what it gets."""

    def __init__(self, number: int, around: Surroundings) -> None:
        Replica.__init__(self, number, around)
        self.got: list[object] = []
        self.connected: list[bool] = []

    def receive(self, peer: int, message: object) -> None:
        self.got.append(message)

    def connection(self, peer: int, up: bool) -> None:
        self.connected.append(up)


class Pair:
    """Two mailboxes, connected after a second."""

    def __init__(self, *, lossy: bool = False, seed: int = 1) -> None:
        self.queue = EventQueue()
        self.links = Links(self.queue, Random(seed), lossy=lossy)
        around = Surroundings(
            faults=FAULT_SETS[0],
            queue=self.queue,
            post=self.links,
            rng=Random(seed),
            watch=lambda _: None,
            note=lambda _: None,
            erased=lambda _, __: None,
        )
        self.boxes = [Mailbox(number, around) for number in range(2)]
        self.links.join(self.boxes)
        for box in self.boxes:
            box.start()
            self.links.started(box.number)
        self.wait(1.0)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.queue.run(self.queue.now + seconds)


def test_a_connection_keeps_order() -> None:
    """Messages arrive once, in the order in which they were sent, however slow the link."""
    pair = Pair()
    for number in range(20):
        pair.links.slow(0, 1, 0.5 if number == 10 else 0.0)
        assert pair.links.send(0, 1, number)
    pair.wait(1.0)
    assert pair.boxes[1].got == list(range(20))


def test_a_stalled_link_holds_and_then_delivers() -> None:
    """Nothing arrives over a stalled link; all does, in order, after it heals. The other way goes on."""
    pair = Pair()
    pair.links.stall(0, 1)
    pair.links.send(0, 1, "first")
    pair.links.send(0, 1, "second")
    pair.links.send(1, 0, "back")
    pair.wait(1.0)
    assert (pair.boxes[1].got, pair.boxes[0].got) == ([], ["back"])
    pair.links.heal()
    pair.wait(1.0)
    assert pair.boxes[1].got == ["first", "second"]


def test_a_reset_loses_what_was_in_flight() -> None:
    """Both ends notice, what the connection carried is gone, and a new one comes."""
    pair = Pair()
    pair.links.send(0, 1, "lost")
    pair.links.reset(0, 1)
    assert not pair.links.send(0, 1, "refused")
    pair.wait(1.0)
    assert pair.links.send(0, 1, "new")
    pair.wait(1.0)
    assert pair.boxes[1].got == ["new"]
    assert [box.connected for box in pair.boxes] == [[True, False, True]] * 2


def test_no_connection_over_a_stalled_link() -> None:
    """While a link stalls it cannot be dialled; after it heals it is."""
    pair = Pair()
    pair.links.stall(1, 0)
    pair.links.reset(0, 1)
    pair.wait(5.0)
    assert not pair.links.send(0, 1, "refused")
    pair.links.heal()
    pair.wait(1.0)
    assert pair.links.send(0, 1, "new")


def test_a_dead_process_is_connected_again_when_it_starts() -> None:
    """Connections end with the process at either end, and come back with it."""
    pair = Pair()
    pair.boxes[1].crash(power=False)
    pair.links.stopped(1)
    pair.wait(5.0)
    assert not pair.links.send(0, 1, "refused")
    pair.boxes[1].start()
    pair.links.started(1)
    pair.wait(1.0)
    assert pair.links.send(0, 1, "new")


def test_a_lossy_network_loses_doubles_and_reorders(seed: int) -> None:
    """Of many messages some never come, some come twice, some overtake others; in calm none does."""
    pair = Pair(lossy=True, seed=seed)
    for number in range(1000):
        pair.links.send(0, 1, number)
    pair.wait(60.0)
    got = pair.boxes[1].got
    assert 0 < len(set(range(1000)) - set(got)) < 200
    assert len(got) > len(set(got))
    assert got != sorted(map(int, map(str, got)))
    pair.links.calm = True
    got.clear()
    for number in range(100):
        pair.links.send(0, 1, number)
    pair.wait(1.0)
    assert sorted(map(int, map(str, got))) == list(range(100))
