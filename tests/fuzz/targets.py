"""All targets by name."""

from __future__ import annotations

from tests.fuzz import client_targets, disk_targets, partition_targets, raft_targets, wire_targets
from tests.fuzz.engine import Target

_FLOORS = (disk_targets, raft_targets, partition_targets, wire_targets, client_targets)

TARGETS: dict[str, Target] = {target.name: target for floor in _FLOORS for target in floor.TARGETS}
