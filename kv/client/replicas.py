"""Which replica to ask first, by preference. Pure: latencies and requests in flight are told or asked for.

`nearest` is by a smoothed latency of each address, kept apart for each read level, since levels differ in what they
cost. An address without a sample is asked first; now and then the one that was not asked for the longest is asked
again, or a replica that was slow once would never be found to be fast. A failure counts as a slow answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kv.client.directory import Directory
from kv.client.levels import PreferenceKind
from kv.client.route import Route
from kv.client.types import ReadLevel
from kv.ids import GroupId

SMOOTHING_UP: Final = 0.2
SMOOTHING_DOWN: Final = 0.5
"""The weight of a new sample in the moving average, a slower and a faster one. One slow answer proves little; a
replica that was slow is asked so seldom that its recovery must show in a few."""
PROBE_EVERY: Final = 32
"""One of so many requests goes to the address that was not asked for the longest."""
FAILURE_S: Final = 1.0
"""What a failed attempt counts as."""
ADDRESSES_MAX: Final = 1024
"""More addresses than this are not remembered; the one that was not asked for the longest is forgotten."""


class Latencies:
    """Smoothed answer times by address, of one read level."""

    __slots__ = ("_asked", "_smoothed_s", "_turn")

    def __init__(self) -> None:
        """Know nothing."""
        self._smoothed_s: dict[str, float] = {}
        self._asked: dict[str, None] = {}  # by when they were asked, the longest ago first
        self._turn = 0

    def note(self, address: str, seconds: float) -> None:
        """Take one answer's time."""
        assert seconds >= 0.0, "time does not run backwards"
        known = self._smoothed_s.get(address, seconds)
        weight = SMOOTHING_UP if seconds > known else SMOOTHING_DOWN
        self._smoothed_s[address] = known + weight * (seconds - known)

    def order(self, addresses: Sequence[str]) -> list[str]:
        """Return the addresses in the order in which to ask them, and note that the first is asked."""
        self._turn += 1
        unknown = [address for address in addresses if address not in self._smoothed_s]
        ordered = unknown + sorted(
            (address for address in addresses if address in self._smoothed_s),
            key=self._smoothed_s.__getitem__,
        )
        if not unknown and len(ordered) > 1 and self._turn % PROBE_EVERY == 0:
            wanted = set(addresses)
            longest_ago = next((address for address in self._asked if address in wanted), ordered[0])
            ordered.remove(longest_ago)
            ordered.insert(0, longest_ago)
        self._ask(ordered[0])
        return ordered

    def _ask(self, address: str) -> None:
        self._asked.pop(address, None)
        self._asked[address] = None
        if len(self._asked) > ADDRESSES_MAX:
            forgotten = next(iter(self._asked))
            del self._asked[forgotten]
            self._smoothed_s.pop(forgotten, None)


class ReplicaChooser:
    """Orders addresses for requests whose route has a preference."""

    def __init__(self, directory: Directory, in_flight: Callable[[str], int]) -> None:
        """Ask `in_flight` how many of this client's requests are under way to an address."""
        self._directory = directory
        self._in_flight = in_flight
        self._latencies: dict[ReadLevel, Latencies] = {}
        self._turn = 0

    def rank(self, route: Route, partition: GroupId) -> Sequence[str]:
        """Return the addresses to ask before all others; empty: the leader's, as far as it is known."""
        assert route.preference is not None, "without a preference there is nothing to rank"
        match route.preference.kind:
            case PreferenceKind.LEADER:
                return ()
            case PreferenceKind.LOCAL:
                return self._directory.endpoints
            case PreferenceKind.NODE:
                address = self._directory.address_of(route.preference.node)
                return () if address is None else (address,)
            case PreferenceKind.NEAREST:
                replicas = self._directory.replicas(partition)
                return self._of(route.level.kind).order(replicas) if replicas else ()
            case PreferenceKind.LEAST_LOADED:
                return self._least_loaded(self._directory.replicas(partition))

    def answered(self, route: Route, address: str, seconds: float) -> None:
        """Note how long an answer took, where that matters."""
        if route.preference is not None and route.preference.kind is PreferenceKind.NEAREST:
            self._of(route.level.kind).note(address, seconds)

    def failed(self, route: Route, address: str) -> None:
        """Note that an attempt failed there."""
        self.answered(route, address, FAILURE_S)

    def _of(self, level: ReadLevel) -> Latencies:
        book = self._latencies.get(level)
        if book is None:
            book = self._latencies[level] = Latencies()
        return book

    def _least_loaded(self, addresses: Sequence[str]) -> Sequence[str]:
        """Order by requests in flight; those with as many take turns."""
        if not addresses:
            return ()
        self._turn += 1
        turn = self._turn % len(addresses)
        return sorted((*addresses[turn:], *addresses[:turn]), key=self._in_flight)
