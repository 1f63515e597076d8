"""The judge of answers: each kind of broken promise is noticed, and kept ones are not."""

from __future__ import annotations

import pytest

from kv.client.types import Evidence, Item, ReadLevel
from kv.errors import Conflict, DeadlineExceeded, NotLeader, UnknownOutcome
from kv.internal.v1 import log_pb2
from kv.sim.promises import Begun, Promises
from kv.sim.properties import Ledger
from kv.v1 import kv_pb2


class Court:
    """A judge over one partition whose log the test writes."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.ledger = Ledger(
            lambda name, _text, _nodes: self.violations.append(name), list, 1000, 10, lambda *_: None
        )
        self.now_s = 0.0
        self.on_disk: dict[str, int] = {}
        self.promises = Promises(self.ledger, lambda: self.now_s, durable=lambda _: self.on_disk)
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


def proof(
    index: int, level: ReadLevel | None = None, revision: int = 0, age_ms: int | None = None
) -> Evidence:
    """Evidence of partition 1."""
    return Evidence(1, 1, 1, index, "n1", level, revision, age_ms)


def read(
    court: Court,
    begun: Begun,
    found: Item | None,
    level: ReadLevel,
    index: int | None = None,
    age_ms: int | None = None,
    max_age_s: float | None = None,
) -> None:
    """A read of k ended with what it found, served at `index`: as the item says, if there is one."""
    at = index if index is not None else found.evidence.index if found and found.evidence else 0
    evidence = proof(at, level, 0 if found is None else found.mod_revision, age_ms)
    court.promises.read(begun, b"k", found, level, evidence, max_age_s)


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
    read(court, begun, item(b"b", 4, 4, 2), ReadLevel.LINEARIZABLE)
    assert court.violations == []
    read(court, begun, item(b"a", 3, 3), ReadLevel.LINEARIZABLE)
    assert court.violations == ["linearizable"]


def test_a_read_that_began_before_may_miss_the_write(court: Court) -> None:
    """Concurrent operations may take effect in either order."""
    begun = court.promises.begin("c2")
    court.commit((b"k", b"c"))
    court.put(b"c", 5, 3)
    read(court, begun, item(b"b", 4, 4, 2), ReadLevel.LINEARIZABLE)
    assert court.violations == []


def test_a_read_returns_the_state_at_its_index(court: Court) -> None:
    """At whatever level, a value that the key never had at that index is wrong."""
    begun = court.promises.begin("c2")
    read(court, begun, item(b"a", 3, 4), ReadLevel.STALE)
    assert court.violations == ["stale-reads-are-real"]
    read(court, begun, item(b"b", 4, 3, 2), ReadLevel.LINEARIZABLE)
    assert "linearizable" in court.violations[1:]


def test_a_stale_read_may_be_old(court: Court) -> None:
    """A stale read of an earlier index is what it says."""
    read(court, court.promises.begin("c2"), item(b"a", 3, 3), ReadLevel.STALE)
    assert court.violations == []


def test_a_key_that_exists_is_not_missing(court: Court) -> None:
    """Nothing was found although the key existed all the time."""
    read(court, court.promises.begin("c2"), None, ReadLevel.LINEARIZABLE, index=4)
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
    begun, level = court.promises.begin("c1"), ReadLevel.LINEARIZABLE
    court.promises.scanned(begun, b"k", [item(b"b", 4, 4, 2)], level)
    assert court.violations == []
    court.promises.scanned(begun, b"k", [], level)
    court.promises.scanned(begun, b"k", [item(b"a", 3, 3)], level)
    assert court.violations == ["scans-read-one-index"] * 2
    court.promises.scanned(begun, b"k", [item(b"b", 4, 4, 2), item(b"b", 4, 4, 2)], level)
    assert court.violations[2:] == ["linearizable"]
    court.promises.scanned(begun, b"k", [item(b"a", 3, 3)], ReadLevel.STALE)
    assert len(court.violations) == 3, "a stale scan may be old"


def test_a_scan_is_of_one_index(court: Court) -> None:
    """Two keys that were never together as the scan found them are noticed."""
    begun = court.promises.begin("c1")
    court.commit((b"k2", b"x"))
    court.commit((b"k", b"c"))
    old, new = item(b"b", 4, 5, 2), Item(b"k2", b"x", 5, 5, 1, proof(5))
    newest = item(b"c", 6, 6, 3)
    court.promises.scanned(begun, b"k", [old, new], ReadLevel.LINEARIZABLE)
    court.promises.scanned(begun, b"k", [newest, new], ReadLevel.LINEARIZABLE)
    assert court.violations == []
    court.promises.scanned(begun, b"k", [newest], ReadLevel.LINEARIZABLE)
    assert court.violations == ["scans-read-one-index"]


def test_a_session_read_sees_what_its_client_saw(court: Court) -> None:
    """The client that wrote must see its write; another client need not."""
    other, mine = court.promises.begin("c9.1"), court.promises.begin("c1.7")
    read(court, other, item(b"a", 3, 3), ReadLevel.SESSION)
    assert court.violations == []
    read(court, mine, item(b"a", 3, 3), ReadLevel.SESSION)
    assert court.violations == ["session-reads-see-what-was-seen"]


def test_a_session_never_goes_back(court: Court) -> None:
    """What a client has read at any level, its later SESSION reads see."""
    read(court, court.promises.begin("c2.0"), item(b"b", 4, 4, 2), ReadLevel.STALE)
    read(court, court.promises.begin("c2.1"), item(b"a", 3, 3), ReadLevel.SESSION)
    assert court.violations == ["session-reads-see-what-was-seen"]


def test_a_bounded_read_is_as_young_as_it_was_promised(court: Court) -> None:
    """What was acknowledged within the bound may be missing, what was before it may not."""
    court.now_s = 0.9
    read(court, court.promises.begin("c2"), item(b"a", 3, 3), ReadLevel.BOUNDED, max_age_s=1.0)
    assert court.violations == []
    court.now_s = 1.5
    read(court, court.promises.begin("c2"), item(b"a", 3, 3), ReadLevel.BOUNDED, max_age_s=1.0)
    assert court.violations == ["bounded-reads-are-young"]


def test_evidence_must_be_true(court: Court) -> None:
    """An age that is too young, another level, another revision: each is noticed."""
    court.now_s = 2.0
    begun = court.promises.begin("c2")
    read(court, begun, item(b"a", 3, 3), ReadLevel.STALE, age_ms=2500)
    assert court.violations == []
    read(court, begun, item(b"a", 3, 3), ReadLevel.STALE, age_ms=1000)
    assert court.violations == ["evidence-is-true"]
    wrong = (proof(4, ReadLevel.STALE, 4), proof(4, ReadLevel.LINEARIZABLE, 3))
    for evidence in wrong:
        court.promises.read(begun, b"k", item(b"b", 4, 4, 2), ReadLevel.LINEARIZABLE, evidence)
    assert court.violations == ["evidence-is-true"] * 3


def test_what_a_weaker_read_returns_is_counted(court: Court) -> None:
    """A read that no linearizable one could have been is counted by its level, with an example in words."""
    read(court, court.promises.begin("c2"), item(b"b", 4, 4, 2), ReadLevel.STALE)
    assert not court.promises.weaker
    read(court, court.promises.begin("c2"), item(b"a", 3, 3), ReadLevel.STALE)
    assert court.promises.weaker == {"STALE": 1}
    assert "b'a'" in court.promises.examples["STALE"]


def test_all_means_every_disk(court: Court) -> None:
    """A write acknowledged at level ALL that one replica lacks is noticed."""
    begun = court.promises.begin("c1")
    court.on_disk = {"n1": 4, "n2": 5}
    court.promises.on_all(begun, proof(4))
    assert court.violations == []
    court.promises.on_all(begun, proof(5))
    assert court.violations == ["all-means-all"]


def test_outcomes_are_true_for_good(court: Court) -> None:
    """Told applied and not there, told not applied and there, or there later: each is noticed."""
    begun = court.promises.begin("c1")
    court.promises.decided(begun, [b"b"], applied=True)
    court.promises.decided(begun, [b"later"], applied=False)
    assert court.violations == []
    assert b"later" in court.ledger.forbidden
    court.promises.decided(begun, [b"never"], applied=True)
    court.promises.decided(begun, [b"a"], applied=False)
    assert court.violations == ["outcomes-are-true", "definite-failures-never-applied"]
