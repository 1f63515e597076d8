"""What an answer tells beside its results, and what becomes of results when a promise was not kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kv.client.operations import read_evidence
from kv.client.types import Evidence
from kv.errors import BehindSession, NotOnAllReplicas, to_proto
from kv.ids import GroupId
from kv.v1 import kv_pb2

_CHANGED_NOTHING: Final = frozenset({"error", "get"})
"""Results of operations that wrote nothing, so that no replica can lack it."""


def proofs_of(response: kv_pb2.BatchResponse, partition: GroupId, *, write: bool) -> tuple[Evidence, ...]:
    """Return the evidence of an answer, at least one; the first is that of the results."""
    evidence = response.evidence
    if len(evidence) == 1:  # nearly always
        return (read_evidence(evidence[0], write=write),)
    proofs = tuple(read_evidence(proof, write=write) for proof in evidence)
    return proofs or (Evidence(partition, 0, 0, 0, "", None),)


def not_before(response: kv_pb2.BatchResponse, index: int) -> kv_pb2.BatchResponse | BehindSession:
    """Return the answer to a SESSION read, or an error if it is from before the index that was asked for.

    The replica checks it too; what a session has seen is not left to one check.
    """
    had = response.evidence[0].index if response.evidence else 0
    if had >= index:
        return response
    return BehindSession(
        f"the answer is of index {had}, the session has seen {index}",
        metadata={"index": index, "applied_index": had},
    )


def without_promise(
    results: Sequence[kv_pb2.OperationResult], not_on_all: NotOnAllReplicas | None
) -> Sequence[kv_pb2.OperationResult]:
    """Return the results; with `not_on_all` each write that was applied fails with it, and what failed stays so."""
    if not_on_all is None:
        return results
    failed = kv_pb2.OperationResult(error=to_proto(not_on_all))
    return [result if result.WhichOneof("result") in _CHANGED_NOTHING else failed for result in results]
