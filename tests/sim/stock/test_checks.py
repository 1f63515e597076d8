"""Each check sees what it is there for, and lets pass what is allowed."""

from __future__ import annotations

from random import Random

import pytest

from kv.sim.stock.checks import Checks, Violation, step
from kv.sim.stock.events import EventQueue
from kv.sim.stock.fault_sets import FAULT_SETS
from kv.sim.stock.links import Links
from kv.sim.stock.replica import Acknowledge, LogEntry, Replica, ServeRead, State, Surroundings

BASE = 1


class Puppet(Replica):
    """A replica that is whatever the test says."""

    is_leader = False
    term = 1
    applied_index = BASE
    state: State = (0, 0)
    failure: str | None = None

    def __init__(self, number: int) -> None:
        queue = EventQueue()
        super().__init__(
            number,
            Surroundings(
                faults=FAULT_SETS[0],
                queue=queue,
                post=Links(queue, Random(1), lossy=False),
                rng=Random(1),
                watch=lambda _: None,
                note=lambda _: None,
                erased=lambda _, __: None,
            ),
        )
        self.log: list[LogEntry] = []
        self.fresh: list[LogEntry] = []

    def apply(self, *entries: LogEntry) -> None:
        """Apply entries of its log."""
        for entry in entries:
            self.log.append(entry)
            self.fresh.append(entry)
            self.applied_index = entry[1]
            self.state = step(self.state, self.command(entry[0]))

    def take_applied(self) -> list[LogEntry]:
        fresh, self.fresh = self.fresh, []
        return fresh

    def holds(self, index: int, entry: LogEntry) -> bool:
        return entry in self.log

    @staticmethod
    def command(data: bytes) -> str | None:
        return data.decode() or None

    def _boot(self) -> None: ...

    def _die(self, power: bool) -> None: ...

    def connection(self, peer: int, up: bool) -> None: ...

    def receive(self, peer: int, message: object) -> None: ...

    def write(self, command: str, acknowledge: Acknowledge) -> None: ...

    def read(self, serve: ServeRead) -> None: ...


@pytest.fixture
def pair() -> tuple[Puppet, Puppet]:
    """Two replicas."""
    return Puppet(0), Puppet(1)


def violation(checks: Checks, replica: Replica) -> str:
    """The kind of violation that a look at this replica raises."""
    with pytest.raises(Violation) as caught:
        checks.look(replica)
    return caught.value.kind


def test_replicas_that_apply_the_same_are_well(pair: tuple[Puppet, Puppet]) -> None:
    """The same entries in the same order are no violation, whoever is first."""
    checks = Checks(BASE)
    for replica in pair:
        replica.apply((b"a", 2, 1), (b"", 3, 1), (b"b", 4, 1))
        assert not checks.look(replica)
    assert checks.last_applied == 4


def test_different_entries_at_one_index_differ(pair: tuple[Puppet, Puppet]) -> None:
    """State machine safety, seen at the entry."""
    checks = Checks(BASE)
    pair[0].apply((b"a", 2, 1))
    checks.look(pair[0])
    pair[1].apply((b"b", 2, 1))
    assert violation(checks, pair[1]) == "differ"


def test_the_same_entry_of_another_term_differs(pair: tuple[Puppet, Puppet]) -> None:
    """Log matching: the same command in another term is another entry."""
    checks = Checks(BASE)
    pair[0].apply((b"a", 2, 1))
    checks.look(pair[0])
    pair[1].apply((b"a", 2, 2))
    assert violation(checks, pair[1]) == "differ"


def test_another_state_at_the_same_index_differs(pair: tuple[Puppet, Puppet]) -> None:
    """State machine safety, seen at the state: a snapshot brings no entries."""
    checks = Checks(BASE)
    pair[0].apply((b"a", 2, 1))
    checks.look(pair[0])
    pair[1].applied_index = 2
    assert violation(checks, pair[1]) == "differ"


def test_two_leaders_of_one_term(pair: tuple[Puppet, Puppet]) -> None:
    """Election safety; the same leader seen twice, and one of another term, are no violation."""
    checks = Checks(BASE)
    for replica in pair:
        replica.is_leader = True
    assert checks.look(pair[0])
    assert not checks.look(pair[0])
    pair[1].term = 2
    assert checks.look(pair[1])
    pair[1].term = 1
    assert violation(checks, pair[1]) == "two leaders"


def test_a_leader_without_a_committed_entry(pair: tuple[Puppet, Puppet]) -> None:
    """Leader completeness: what was applied in term 1 must be in the log of who leads term 2."""
    checks = Checks(BASE)
    pair[0].apply((b"a", 2, 1))
    checks.look(pair[0])
    pair[1].is_leader, pair[1].term = True, 2
    assert violation(checks, pair[1]) == "lost"


def test_a_leader_owes_nothing_to_later_terms(pair: tuple[Puppet, Puppet]) -> None:
    """A leader of term 1 that is seen late may lack what was committed in term 2."""
    checks = Checks(BASE)
    pair[0].term = 2
    pair[0].apply((b"a", 2, 2))
    checks.look(pair[0])
    pair[1].is_leader = True
    assert checks.look(pair[1])


def test_a_stopped_replica_is_a_violation(pair: tuple[Puppet, Puppet]) -> None:
    """No fault here is a reason to stop."""
    pair[0].failure = "a contradiction"
    assert violation(Checks(BASE), pair[0]) == "stopped"


def test_an_acknowledged_write_must_be_applied(pair: tuple[Puppet, Puppet]) -> None:
    """In the end each acknowledged command is what was applied at its index."""
    checks = Checks(BASE)
    pair[0].apply((b"a", 2, 1))
    checks.look(pair[0])
    checks.acknowledge("a", 2)
    checks.survive(pair[0])
    checks.acknowledge("b", 3)
    with pytest.raises(Violation, match="b was acknowledged at 3, where nothing is applied"):
        checks.survive(pair[0])


def test_a_read_below_what_a_client_knows_is_stale() -> None:
    """Stale is what misses an acknowledged write or goes behind an earlier read; the first is described."""
    checks = Checks(BASE)
    checks.acknowledge("a", 5)
    checks.read(checks.newest_seen, 5, "good")
    checks.read(checks.newest_seen, 7, "newer")
    checks.read(checks.newest_seen, 6, "back")
    checks.read(checks.newest_seen, 4, "far back")
    assert (checks.reads, checks.stale_reads, checks.first_stale_read) == (4, 2, "back")
