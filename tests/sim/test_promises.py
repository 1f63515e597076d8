"""The judge of answers: each kind of broken promise is noticed, and kept ones are not."""

from __future__ import annotations

import pytest

from kv.client.types import Evidence, Item, ReadLevel
from kv.errors import Conflict, DeadlineExceeded, NotLeader, UnknownOutcome
from kv.internal.v1 import log_pb2
from kv.sim.promises import Promises
from kv.sim.properties import Ledger
from kv.v1 import kv_pb2


class Court:
    """A judge over one partition whose log the test writes."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.ledger = Ledger(
            lambda name, _text, _nodes: self.violations.append(name), list, 1000, 10, lambda *_: None
        )
        self.promises = Promises(self.ledger)
        self.model = self.ledger.model(1)

    def commit(self, *puts: tuple[bytes, bytes]) -> int:
        """Commit an entry of puts; returns its index."""
        operations = [kv_pb2.Operation(put=kv_pb2.PutOperation(key=key, value=value)) for key, value in puts]
        batch = kv_pb2.BatchRequest(operations=operations).SerializeToString()
        self.model.apply(self.model.index + 1, b"\x01" + log_pb2.Command(batches=[batch]).SerializeToString())
        return self.model.index

    def put(self, value: bytes, index: int, version: int = 1) -> None:
        """A put of k was begun and acknowledged now."""
        begun = self.promises.begin("c1")
        self.promises.wrote(begun, b"k", value, index, version, proof(index))


def proof(index: int, level: ReadLevel | None = None) -> Evidence:
    """Evidence of partition 1."""
    return Evidence(1, 1, 1, index, "n1", level)


def item(value: bytes, modified: int, index: int, version: int = 1, created: int = 3) -> Item:
    """What a read of k at `index` returned."""
    return Item(b"k", value, created, modified, version, proof(index))


@pytest.fixture
def court() -> Court:
    """A court whose log holds k = a at 3 and k = b at 4, both acknowledged."""
    made = Court()
    assert made.commit((b"k", b"a")) == 3
    made.put(b"a", 3)
    assert made.commit((b"k", b"b")) == 4
    made.put(b"b", 4, 2)
    assert made.violations == []
    return made


def test_an_acknowledged_write_must_be_in_the_log(court: Court) -> None:
    """A write that the log does not hold, or holds elsewhere, was not kept."""
    court.put(b"never", 5)
    assert court.violations == ["acknowledged-writes-survive"]
    court.commit((b"k", b"c"))
    court.put(b"c", 4, 2)
    assert "acknowledged-writes-survive" in court.violations[1:]


def test_a_linearizable_read_is_not_stale(court: Court) -> None:
    """A read that began after a write was acknowledged sees it."""
    begun = court.promises.begin("c2")
    court.promises.read(begun, b"k", item(b"b", 4, 4, 2), ReadLevel.LINEARIZABLE)
    assert court.violations == []
    court.promises.read(begun, b"k", item(b"a", 3, 3), ReadLevel.LINEARIZABLE)
    assert court.violations == ["linearizable"]


def test_a_read_that_began_before_may_miss_the_write(court: Court) -> None:
    """Concurrent operations may take effect in either order."""
    begun = court.promises.begin("c2")
    court.commit((b"k", b"c"))
    court.put(b"c", 5, 3)
    court.promises.read(begun, b"k", item(b"b", 4, 4, 2), ReadLevel.LINEARIZABLE)
    assert court.violations == []


def test_a_read_returns_the_state_at_its_index(court: Court) -> None:
    """At whatever level, a value that the key never had at that index is wrong."""
    begun = court.promises.begin("c2")
    court.promises.read(begun, b"k", item(b"a", 3, 4), ReadLevel.STALE)
    assert court.violations == ["stale-reads-are-real"]
    court.promises.read(begun, b"k", item(b"b", 4, 3, 2), ReadLevel.LINEARIZABLE)
    assert "linearizable" in court.violations[1:]


def test_a_stale_read_may_be_old(court: Court) -> None:
    """A stale read of an earlier index is what it says."""
    court.promises.read(court.promises.begin("c2"), b"k", item(b"a", 3, 3), ReadLevel.STALE)
    assert court.violations == []


def test_a_key_that_exists_is_not_missing(court: Court) -> None:
    """Nothing was found although the key existed all the time."""
    court.promises.read(court.promises.begin("c2"), b"k", None, ReadLevel.LINEARIZABLE)
    assert court.violations == ["linearizable"]


def test_a_definite_failure_is_never_applied(court: Court) -> None:
    """Neither before nor after the failure was told."""
    begun = court.promises.begin("c1")
    court.promises.failed(begun, [b"b"], NotLeader("no"))
    assert court.violations == ["definite-failures-never-applied"]
    court.promises.failed(begun, [b"later"], DeadlineExceeded("late", definite=True))
    assert b"later" in court.ledger.forbidden


def test_an_unknown_outcome_may_be_either(court: Court) -> None:
    """A write whose end is not known may be applied, or not."""
    begun = court.promises.begin("c1")
    court.promises.failed(begun, [b"b", b"later"], UnknownOutcome("?"))
    assert court.violations == []
    assert court.ledger.forbidden == {}


def test_a_conflict_needs_a_reason(court: Court) -> None:
    """A conditional write is refused only if the key was not as expected at some moment."""
    begun = court.promises.begin("c1")
    court.promises.conflicted(begun, b"k", [b"x"], Conflict("no"), b"a")
    assert court.violations == []
    court.promises.conflicted(begun, b"k", [b"y"], Conflict("no"), b"b")
    assert court.violations == ["linearizable"]


def test_a_scan_shows_what_was_there(court: Court) -> None:
    """A key is missing, old, or out of order in a scan: each is noticed."""
    begun = court.promises.begin("c1")
    court.promises.scanned(begun, b"k", [item(b"b", 4, 4, 2)])
    assert court.violations == []
    court.promises.scanned(begun, b"k", [])
    court.promises.scanned(begun, b"k", [item(b"a", 3, 3)])
    court.promises.scanned(begun, b"k", [item(b"b", 4, 4, 2), item(b"b", 4, 4, 2)])
    assert court.violations == ["linearizable"] * 3
