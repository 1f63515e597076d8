"""All lanes of a client: found by route and partition, bounded in number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kv.client.lane import Lane
from kv.client.levels import LINEARIZABLE, Level, Preference
from kv.client.limits import Limits
from kv.client.route import Kind, Route, RouteKey
from kv.client.types import WriteLevel
from kv.errors import Overloaded
from kv.ids import GroupId

ROUTES_MAX: Final = 256
"""Different combinations of level, preference and write level with calls that wait; one more is refused."""


class Lanes:
    """Routes by what they ask for, and their lanes."""

    def __init__(
        self, *, level: Level, preference: Preference | None, write_level: WriteLevel, limits: Limits
    ) -> None:
        """Make the routes of calls that name no options; these are kept for good."""
        self._limits = limits
        self.write = Route(Kind.WRITE, write_level=write_level)
        self.read = Route(Kind.READ, level, preference)
        self.alone = Route(Kind.ALONE)
        asked: tuple[RouteKey, ...] = (
            (Kind.WRITE, LINEARIZABLE, None, write_level),
            (Kind.READ, level, preference, WriteLevel.QUORUM),
            (Kind.ALONE, LINEARIZABLE, None, WriteLevel.QUORUM),
        )
        self._kept = dict(zip(asked, (self.write, self.read, self.alone), strict=True))
        self._routes: dict[RouteKey, Route] = dict(self._kept)
        self._lanes: dict[Lane, None] = {}  # in order: the end of all must not depend on addresses

    def __iter__(self) -> Iterator[Lane]:
        """Iterate over the lanes as they are now."""
        return iter(tuple(self._lanes))

    def read_route(self, level: Level, preference: Preference | None) -> Route:
        """Return the route for reads at `level`. Raises `Overloaded`, definite."""
        return self._route((Kind.READ, level, preference, WriteLevel.QUORUM))

    def write_route(self, write_level: WriteLevel) -> Route:
        """Return the route for writes at `write_level`."""
        return self._route((Kind.WRITE, LINEARIZABLE, None, write_level))

    def lane(self, route: Route, partition: GroupId) -> Lane:
        """Return a new lane of `route`, which has none for the partition."""
        assert partition not in route.lanes, "a partition has one lane in each route"
        lane = route.lanes[partition] = Lane(partition, route, self._limits.lane_waiting_ops_max)
        self._lanes[lane] = None
        return lane

    def _route(self, key: RouteKey) -> Route:
        found = self._routes.get(key)
        if found is None:
            if len(self._routes) >= ROUTES_MAX:
                self._forget_idle()
            found = self._routes[key] = Route(*key)
        return found

    def _forget_idle(self) -> None:
        """Drop the lanes in which nothing waits or is under way, and the routes that are left without one."""
        kept = tuple(self._kept.values())
        for lane in self:
            if lane.idle and lane.route not in kept:
                del self._lanes[lane]
                del lane.route.lanes[lane.partition]
        self._routes = {key: route for key, route in self._routes.items() if route.lanes or key in self._kept}
        if len(self._routes) >= ROUTES_MAX:
            raise Overloaded(
                f"reads with {len(self._routes)} different options wait already",
                metadata={"routes_max": ROUTES_MAX},
            )
