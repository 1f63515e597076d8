"""Which replica is asked first, by preference."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kv.client.directory import Directory
from kv.client.levels import Level, Preference
from kv.client.replicas import ADDRESSES_MAX, PROBE_EVERY, Latencies, ReplicaChooser
from kv.client.route import Kind, Route
from kv.client.types import ReadLevel
from tests.client.fakes import FakeCluster


def make() -> tuple[ReplicaChooser, dict[str, int], list[str], int]:
    """Return a chooser, the requests in flight that it sees, the replicas' addresses, and their partition."""
    cluster = FakeCluster()
    directory = Directory(["n9:1", "n1:7001"])
    directory.install(cluster.map)
    load: dict[str, int] = {}
    part = cluster.map.partitions[0]
    chooser = ReplicaChooser(directory, lambda address: load.get(address, 0))
    return chooser, load, [f"{node}:7001" for node in part.replicas], part.id


def route(prefer: str, level: ReadLevel = ReadLevel.STALE) -> Route:
    """Return a route of reads with a preference."""
    return Route(Kind.READ, Level(level), Preference.parse(prefer))


def test_the_nearest_is_asked_and_the_others_now_and_then() -> None:
    """After each was asked once the fastest is, but for one request of PROBE_EVERY."""
    chooser, _, replicas, partition = make()
    near = route("nearest")
    speed = dict(zip(replicas, (0.010, 0.001, 0.005), strict=True))
    asked = []
    for _ in range(10 * PROBE_EVERY):
        first = chooser.rank(near, partition)[0]
        asked.append(first)
        chooser.answered(near, first, speed[first])
    assert set(asked[:3]) == set(replicas)
    others = [address for address in asked[3:] if address != replicas[1]]
    assert 5 <= len(others) <= 10
    assert set(others) == {replicas[0], replicas[2]}


def test_a_change_of_speed_is_found() -> None:
    """When the nearest gets slow another takes its place, and it comes back when it is fast again."""
    chooser, _, replicas, partition = make()
    near = route("nearest")
    speed = dict(zip(replicas, (0.001, 0.002, 0.003), strict=True))

    def preferred() -> str:
        recent = []
        for _ in range(20 * PROBE_EVERY):
            first = chooser.rank(near, partition)[0]
            recent.append(first)
            chooser.answered(near, first, speed[first])
        return max(set(recent[-PROBE_EVERY:]), key=recent[-PROBE_EVERY:].count)

    assert preferred() == replicas[0]
    speed[replicas[0]] = 0.050
    assert preferred() == replicas[1]
    speed[replicas[0]] = 0.0001
    assert preferred() == replicas[0]


def test_a_failure_counts_as_slow() -> None:
    """A replica that failed is not asked again at once, though it was never measured."""
    chooser, _, replicas, partition = make()
    near = route("nearest")
    first = chooser.rank(near, partition)[0]
    chooser.failed(near, first)
    for other in replicas:
        if other != first:
            chooser.answered(near, other, 0.01)
    assert chooser.rank(near, partition)[0] != first
    assert chooser.rank(near, partition)[-1] == first


def test_levels_are_measured_apart() -> None:
    """What a linearizable read takes says nothing of a stale one."""
    chooser, _, replicas, partition = make()
    stale, strict = route("nearest"), route("nearest", ReadLevel.LINEARIZABLE)
    for address, seconds in zip(replicas, (0.1, 0.2, 0.3), strict=True):
        chooser.answered(stale, address, seconds)
        chooser.answered(strict, address, 1 - seconds)
    assert chooser.rank(stale, partition)[0] == replicas[0]
    assert chooser.rank(strict, partition)[0] == replicas[2]


def test_the_least_loaded_is_asked() -> None:
    """The replica with the fewest requests in flight comes first; equal ones take turns."""
    chooser, load, replicas, partition = make()
    least = route("least-loaded")
    load.update(zip(replicas, (2, 1, 3), strict=True))
    assert [*chooser.rank(least, partition)] == [replicas[1], replicas[0], replicas[2]]
    load.clear()
    assert {chooser.rank(least, partition)[0] for _ in range(3)} == set(replicas)


def test_named_places() -> None:
    """Leader: as usual; local: the first address that was given; a node: that node, if the map has it."""
    chooser, _, replicas, partition = make()
    assert [*chooser.rank(route("leader"), partition)] == []
    assert chooser.rank(route("local"), partition)[0] == "n9:1"
    assert [*chooser.rank(route(replicas[2].removesuffix(":7001")), partition)] == [replicas[2]]
    assert [*chooser.rank(route("stranger"), partition)] == []
    assert [*chooser.rank(route("least-loaded"), 99)] == [*chooser.rank(route("nearest"), 99)] == []


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 10)), max_size=100))
def test_an_order_holds_every_address_once(samples: list[tuple[int, float]]) -> None:
    """Whatever was measured, every address is in the order, once, the unmeasured ones first or probed."""
    latencies = Latencies()
    addresses = [f"a{number}" for number in range(5)]
    for number, seconds in samples:
        latencies.note(addresses[number], seconds)
        assert sorted(latencies.order(addresses)) == addresses


def test_memory_is_bounded() -> None:
    """Beyond ADDRESSES_MAX addresses the one that was not asked for the longest is forgotten."""
    latencies = Latencies()
    for number in range(ADDRESSES_MAX + 10):
        latencies.note(f"a{number}", 1.0)
        latencies.order([f"a{number}"])
    assert len(latencies._smoothed_s) == len(latencies._asked) == ADDRESSES_MAX


def test_a_lease_follows_no_preference() -> None:
    """Only the leader has a lease, so a preference for another replica is not sent with it."""
    leased = route("nearest", ReadLevel.LEASE)
    assert leased.preference is None
    assert leased.to_leader
    assert not route("nearest", ReadLevel.LINEARIZABLE).to_leader
    assert route("leader").to_leader
