"""Named points at which a simulated process can be killed: wrappers around production objects.

Here lives where each point of `kv.sim.faults.POINTS` is. The wrappers are put on the objects of one
incarnation when it starts; production code knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kv.partition.partition import Replica
from kv.partition.store import Store
from kv.raft.group import Group
from kv.sim.inside import inside

Reach = Callable[[str], None]
"""Called at each point with its name; does not return if the process dies there."""


def watch_process(reach: Reach, disk: object, links: object) -> None:
    """The points of what all groups of a process share."""
    _around(disk, "sync", reach, "sync")
    _around(links, "send", reach, "send")
    _before(disk, "remove", reach, "in_segment_removal")


def watch_group(reach: Reach, group: Group) -> None:
    """The points of one replica."""
    journal, replica = group.journal, group.machine
    assert isinstance(replica, Replica)
    _around(journal, "append", reach, "append")
    _after(journal, "compact_to", reach, "in_compaction")
    _watch_votes(journal, reach)
    _around(replica, "apply", reach, "apply")
    store: Store = inside(replica, "_store")
    _around(store, "checkpoint", reach, "checkpoint")
    _around(store, "install", reach, "install")
    _watch_snapshots(replica, reach)


def _watch_votes(journal: Any, reach: Reach) -> None:  # noqa: ANN401 - its methods are replaced
    set_hard_state = journal.set_hard_state

    def watched(term: int, voted_for: str | None) -> None:
        if voted_for is None:
            set_hard_state(term, voted_for)
            return
        reach("before_vote")
        set_hard_state(term, voted_for)
        reach("after_vote")

    vars(journal)["set_hard_state"] = watched


def _watch_snapshots(replica: Replica, reach: Reach) -> None:
    make_source, make_sink = replica.snapshot_source, replica.snapshot_sink

    def source() -> object:
        made = make_source()
        _after(made, "prepare", reach, "in_snapshot_copy")
        return made

    def sink(index: int, total_bytes: int) -> object:
        made = make_sink(index, total_bytes)
        _after(made, "write", reach, "in_snapshot_write")
        _around(made, "finish", reach, "in_snapshot_write")
        return made

    vars(replica)["snapshot_source"] = source
    vars(replica)["snapshot_sink"] = sink


def _around(thing: object, name: str, reach: Reach, point: str) -> None:
    inner = getattr(thing, name)
    before, after = (point, point) if point.startswith("in_") else (f"before_{point}", f"after_{point}")

    def watched(*args: Any) -> Any:  # noqa: ANN401 - passed on
        reach(before)
        result = inner(*args)
        reach(after)
        return result

    vars(thing)[name] = watched


def _before(thing: object, name: str, reach: Reach, point: str) -> None:
    inner = getattr(thing, name)

    def watched(*args: Any) -> Any:  # noqa: ANN401 - passed on
        reach(point)
        return inner(*args)

    vars(thing)[name] = watched


def _after(thing: object, name: str, reach: Reach, point: str) -> None:
    inner = getattr(thing, name)

    def watched(*args: Any) -> Any:  # noqa: ANN401 - passed on
        result = inner(*args)
        reach(point)
        return result

    vars(thing)[name] = watched
