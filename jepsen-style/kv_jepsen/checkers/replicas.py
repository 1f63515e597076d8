"""Replicas after heal: the same content at the same index, and all at the same index.

Pure: it is given what each replica says of itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kv_jepsen.checkers.finding import CheckResult, Finding, judged


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One look at one replica: the hash of its content when it had applied up to `index`."""

    node: str
    partition: int
    index: int
    content_hash: str


def replicas_equal(states: Iterable[ReplicaState], *, settled: bool = True) -> CheckResult:
    """Replicas of a partition with the same applied index have the same content; when settled, all have the same index.

    Args:
        states: looks at replicas; several of one replica at different indexes are fine.
        settled: the looks were taken after heal, with no writes under way, so that a replica that is behind is a finding.
    """
    partitions: dict[int, list[ReplicaState]] = {}
    for state in states:
        partitions.setdefault(state.partition, []).append(state)
    findings: list[Finding] = []
    compared = 0
    for partition, group in sorted(partitions.items()):
        same_index = _by_index(group)
        compared += sum(len({state.node for state in looks}) > 1 for looks in same_index.values())
        for looks in same_index.values():
            findings += _differing(looks)
        if settled:
            findings += _behind(partition, group)
    looks_at = sum(map(len, partitions.values()))
    counts = {"partitions": len(partitions), "looks": looks_at, "compared": compared}
    return judged(
        "replicas", findings, counts, "" if compared else "no two replicas were seen at the same index"
    )


def _by_index(group: Iterable[ReplicaState]) -> dict[int, list[ReplicaState]]:
    looks: dict[int, list[ReplicaState]] = {}
    for state in group:
        looks.setdefault(state.index, []).append(state)
    return looks


def _differing(looks: list[ReplicaState]) -> Iterator[Finding]:
    first = looks[0]
    for other in looks[1:]:
        if other.content_hash != first.content_hash:
            why = (
                f"Partition {first.partition} at index {first.index}: {first.node} has content"
                f" {first.content_hash}, {other.node} has {other.content_hash}."
            )
            yield Finding("content-differs", why)


def _behind(partition: int, group: Iterable[ReplicaState]) -> Iterator[Finding]:
    newest: dict[str, int] = {}
    for state in group:
        newest[state.node] = max(state.index, newest.get(state.node, -1))
    best = max(newest.values())
    for node, index in sorted(newest.items()):
        if index < best:
            why = f"Partition {partition}: {node} has applied {index} when all was quiet, and others {best}."
            yield Finding("behind", why)
