"""Named points at which a simulated process can be killed: wrappers around production objects.

Here lives where each point of `kv.sim.faults.POINTS` is. The wrappers are put on the objects of one
incarnation when it starts; production code knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kv.partition.partition import Replica
from kv.partition.store import Store
from kv.raft.group import Group
from kv.sim.inside import inside, put_inside


@dataclass(frozen=True, slots=True)
class Points:
    """Where a process is to die, and what is called there."""

    armed: Mapping[str, object]
    """The names of the points at which something is to happen; mostly there are none, so it is looked at first."""
    reach: Callable[[str], None]
    """Called with the name of each point while one is armed; does not return if the process dies there."""


def watch_process(points: Points, disk: object, links: object) -> None:
    """The points of what all groups of a process share."""
    _around(disk, "sync", points, "sync")
    _around(links, "send", points, "send")
    _before(disk, "remove", points, "in_segment_removal")


def watch_group(points: Points, group: Group) -> None:
    """The points of one replica."""
    journal, replica = group.journal, group.machine
    assert isinstance(replica, Replica)
    _around(journal, "append", points, "append")
    _after(journal, "compact_to", points, "in_compaction")
    _watch_votes(journal, points)
    _around(replica, "apply", points, "apply")
    store: Store = inside(replica, "_store")
    _before(store, "begin_checkpoint", points, "before_checkpoint")
    _around(store, "_run_commit", points, "in_checkpoint")
    _after(store, "end_checkpoint", points, "after_checkpoint")
    _around(store, "install", points, "install")
    _watch_snapshots(replica, points)


def _watch_votes(journal: Any, points: Points) -> None:  # noqa: ANN401 - its methods are replaced
    set_hard_state, armed, reach = journal.set_hard_state, points.armed, points.reach

    def watched(term: int, voted_for: str | None) -> None:
        if voted_for is None or not armed:
            set_hard_state(term, voted_for)
            return
        reach("before_vote")
        set_hard_state(term, voted_for)
        reach("after_vote")

    put_inside(journal, "set_hard_state", watched)


def _watch_snapshots(replica: Replica, points: Points) -> None:
    make_source, make_sink = replica.snapshot_source, replica.snapshot_sink

    def source() -> object:
        made = make_source()
        _after(made, "prepare", points, "in_snapshot_copy")
        return made

    def sink(index: int, total_bytes: int) -> object:
        made = make_sink(index, total_bytes)
        _after(made, "write", points, "in_snapshot_write")
        _around(made, "finish", points, "in_snapshot_write")
        return made

    put_inside(replica, "snapshot_source", source)
    put_inside(replica, "snapshot_sink", sink)


def _around(thing: object, name: str, points: Points, point: str) -> None:
    inner, armed, reach = getattr(thing, name), points.armed, points.reach
    before, after = (point, point) if point.startswith("in_") else (f"before_{point}", f"after_{point}")

    def watched(*args: Any) -> Any:  # noqa: ANN401 - passed on
        if armed:
            reach(before)
        result = inner(*args)
        if armed:
            reach(after)
        return result

    put_inside(thing, name, watched)


def _before(thing: object, name: str, points: Points, point: str) -> None:
    inner, armed, reach = getattr(thing, name), points.armed, points.reach

    def watched(*args: Any) -> Any:  # noqa: ANN401 - passed on
        if armed:
            reach(point)
        return inner(*args)

    put_inside(thing, name, watched)


def _after(thing: object, name: str, points: Points, point: str) -> None:
    inner, armed, reach = getattr(thing, name), points.armed, points.reach

    def watched(*args: Any) -> Any:  # noqa: ANN401 - passed on
        result = inner(*args)
        if armed:
            reach(point)
        return result

    put_inside(thing, name, watched)
