"""What open scans read while writes go on."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kv.errors import SnapshotGone
from kv.partition.scan_snapshots import (
    CAUSES_MAX,
    RECORD_OVERHEAD_BYTES,
    RememberingView,
    ScanSnapshots,
    SnapshotLimits,
)
from tests.partition.tools import DictState


class Scene:
    """A state and the snapshots over it; each write is an entry of its own."""

    def __init__(self, **changes: float) -> None:
        values: dict[str, float] = {
            "scan_snapshots_max": 3,
            "scan_snapshot_bytes_max": 10_000,
            "scan_snapshot_idle_s": 10.0,
        }
        self.state = DictState()
        self.snapshots: ScanSnapshots[str] = ScanSnapshots(SnapshotLimits(**(values | changes)))  # type: ignore[arg-type]
        self.view = RememberingView(self.state, self.snapshots)
        self.index = 2

    def put(self, key: bytes, record: bytes) -> None:
        """Write one key."""
        self.index += 1
        self.view.put(key, record, self.state.get(key) is None)

    def delete(self, key: bytes) -> None:
        """Delete one key, if it exists."""
        self.index += 1
        if self.state.get(key) is not None:
            self.view.delete(key)

    def open(self, now: float = 0.0) -> int:
        """Open a snapshot."""
        return self.snapshots.open(self.index, "told", now)

    def read(self, number: int, now: float = 0.0) -> dict[bytes, bytes]:
        """Return all that a snapshot holds."""
        self.snapshots.get(number, now)
        return dict(self.snapshots.view(number, self.state).range(b"", b""))


def cause_of(scene: Scene, number: int) -> str:
    """Return why a snapshot is gone."""
    with pytest.raises(SnapshotGone) as gone:
        scene.snapshots.get(number, 0.0)
    assert gone.value.definite
    return gone.value.metadata["cause"]


def test_keeps_what_was() -> None:
    """A snapshot shows changed, deleted and created keys as they were; a later one as they were then."""
    scene = Scene()
    for key in (b"b", b"d", b"f"):
        scene.put(key, b"old")
    first = scene.open()
    scene.put(b"a", b"new")
    scene.put(b"d", b"new")
    second = scene.open()
    scene.delete(b"b")
    scene.delete(b"d")
    scene.put(b"d", b"newer")
    assert scene.read(first) == {b"b": b"old", b"d": b"old", b"f": b"old"}
    assert scene.read(second) == {b"a": b"new", b"b": b"old", b"d": b"new", b"f": b"old"}
    assert dict(scene.state.range(b"", b"")) == {b"a": b"new", b"d": b"newer", b"f": b"old"}


def test_range_bounds() -> None:
    """The start is in the range and the end is not, for kept records as for those of the state."""
    scene = Scene()
    for key in (b"a", b"b", b"c", b"d"):
        scene.put(key, b"v")
    number = scene.open()
    for key in (b"a", b"b", b"c", b"d"):
        scene.delete(key)
    view = scene.snapshots.view(number, scene.state)
    assert [key for key, _ in view.range(b"b", b"d")] == [b"b", b"c"]
    assert [key for key, _ in view.range(b"c", b"")] == [b"c", b"d"]


def test_two_at_one_index() -> None:
    """Two scans that begin at the same index have ids of their own and see the same."""
    scene = Scene()
    scene.put(b"k", b"old")
    first, second = scene.open(), scene.open()
    assert first != second
    scene.put(b"k", b"new")
    assert scene.read(first) == scene.read(second) == {b"k": b"old"}
    scene.snapshots.close(second)
    assert scene.read(first) == {b"k": b"old"}


def test_writes_without_a_scan_keep_nothing() -> None:
    """Nothing is kept before the first snapshot, nor after the last is closed."""
    scene = Scene()
    scene.put(b"k", b"v")
    number = scene.open()
    scene.put(b"k", b"w")
    assert scene.snapshots.kept_bytes > 0
    scene.snapshots.close(number)
    assert (len(scene.snapshots), scene.snapshots.kept_bytes) == (0, 0)
    scene.put(b"k", b"x")
    assert scene.snapshots.kept_bytes == 0
    assert "end" in cause_of(scene, number)


def test_snapshots_max() -> None:
    """scan_snapshots_max scans may be open; one more costs the one that was not read for the longest time."""
    scene = Scene()
    numbers = [scene.open(now=float(n)) for n in range(3)]
    scene.read(numbers[0], now=5.0)
    fourth = scene.open(now=6.0)
    assert "too many" in cause_of(scene, numbers[1])
    for number in (numbers[0], numbers[2], fourth):
        assert scene.read(number, now=7.0) == {}


def test_bytes_max() -> None:
    """Replaced records are kept up to the limit exactly; one byte more costs a snapshot."""
    room = 2 * (RECORD_OVERHEAD_BYTES + 1 + 10)
    for record_bytes, kept in ((10, True), (11, False)):
        scene = Scene(scan_snapshot_bytes_max=room)
        scene.put(b"a", bytes(10))
        scene.put(b"b", bytes(record_bytes))
        number = scene.open()
        scene.put(b"a", b"")
        scene.put(b"b", b"")
        if kept:
            assert scene.snapshots.kept_bytes == room
            assert len(scene.read(number)) == 2
        else:
            assert "more than may be kept" in cause_of(scene, number)
            assert (len(scene.snapshots), scene.snapshots.kept_bytes) == (0, 0)


def test_idle() -> None:
    """A snapshot goes when no page was read for the idle time, and not before."""
    scene = Scene()
    number = scene.open(now=0.0)
    scene.read(number, now=5.0)
    scene.snapshots.expire(14.9)
    assert len(scene.snapshots) == 1
    scene.snapshots.expire(15.0)
    assert "no page" in cause_of(scene, number)


def test_drop_all() -> None:
    """When the state is replaced every snapshot goes, with that cause."""
    scene = Scene()
    numbers = [scene.open(), scene.open()]
    scene.put(b"k", b"v")
    scene.snapshots.drop_all("rolled back")
    assert [cause_of(scene, number) for number in numbers] == ["rolled back"] * 2
    assert scene.snapshots.kept_bytes == 0


def test_causes_are_bounded() -> None:
    """Causes of the newest that went are remembered; an older or unknown id is gone all the same."""
    scene = Scene()
    numbers = [scene.open() for _ in range(CAUSES_MAX + 1)]
    scene.snapshots.drop_all("dropped")
    assert "does not know" in cause_of(scene, numbers[0])
    assert cause_of(scene, numbers[1]) != cause_of(scene, 12345)
    assert cause_of(scene, numbers[-1]) == "dropped"


KEYS = st.sampled_from([b"a", b"ab", b"b", b"c", b"d"])


class Pages(RuleBasedStateMachine):
    """Any interleaving of writes, scans that open, read and close, and bounds that drop some of them."""

    @initialize(room=st.sampled_from([600, 1_000_000]))
    def begin(self, room: int) -> None:
        self.room = room
        self.scene = Scene(scan_snapshot_bytes_max=room)
        self.expected: dict[int, dict[bytes, bytes]] = {}
        self.now = 0.0

    @rule(key=KEYS, record=st.binary(min_size=1, max_size=3))
    def put(self, key: bytes, record: bytes) -> None:
        self.scene.put(key, record)

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        self.scene.delete(key)

    @rule()
    def open(self) -> None:
        self.expected[self.scene.open(self.now)] = dict(self.scene.state.records)

    @rule(data=st.data(), start=st.just(b"") | KEYS, end=st.just(b"") | KEYS)
    def read(self, data: st.DataObject, start: bytes, end: bytes) -> None:
        if not self.expected:
            return
        number = data.draw(st.sampled_from(sorted(self.expected)))
        held = self.expected[number]
        try:
            self.scene.snapshots.get(number, self.now)
        except SnapshotGone:
            del self.expected[number]
            return
        found = list(self.scene.snapshots.view(number, self.scene.state).range(start, end))
        assert found == sorted((key, held[key]) for key in held if key >= start and (not end or key < end))
        for key in (b"a", b"ab", b"b", b"c", b"d"):
            assert self.scene.snapshots.view(number, self.scene.state).get(key) == held.get(key)

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.expected:
            number = data.draw(st.sampled_from(sorted(self.expected)))
            try:
                self.scene.snapshots.get(number, self.now)
            except SnapshotGone:
                pass
            else:
                self.scene.snapshots.close(number)
            del self.expected[number]

    @rule(seconds=st.floats(0.0, 12.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.scene.snapshots.expire(self.now)

    @invariant()
    def bounded(self) -> None:
        """What is counted is what is kept, within the bounds."""
        if hasattr(self, "scene"):
            snapshots = self.scene.snapshots
            assert len(snapshots) <= 3
            assert snapshots.kept_bytes <= self.room
            assert snapshots.kept_bytes == 0 or len(snapshots)


Pages.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestPages = Pages.TestCase
