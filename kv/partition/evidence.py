"""The evidence that comes with each answer: which state it speaks of, and how old that may be.

Here live its wire form and the arithmetic of ages. Pure: the present is a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from kv.v1 import kv_pb2
from kv.wire import varint

_EVIDENCE: Final = b"\x12"
"""Tag of `BatchResponse.evidence`, field 2."""

_REVISION: Final = b"\x38"
"""Tag of `Evidence.revision`, field 7."""


class Witness:
    """Writes the evidence of one replica."""

    def __init__(self, partition: int, node: str, map_epoch: Callable[[], int]) -> None:
        self._partition = partition
        self._node = node
        self._map_epoch = map_epoch

    def form(self, term: int, index: int, level: int, age_ms: int | None = None) -> Form:
        """Return the evidence of answers that share all this. `level`: a `kv.v1.ReadLevel`."""
        evidence = kv_pb2.Evidence(
            partition=self._partition,
            map_epoch=self._map_epoch(),
            term=term,
            index=index,
            node=self._node,
            level=level,  # type: ignore[arg-type]
            age_ms=age_ms,
        )
        return Form(evidence.SerializeToString())


class Form:
    """Evidence but for the revision, serialized once for many answers."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes) -> None:
        self._body = body

    def part(self, revision: int) -> bytes:
        """Return it in a form that can be put behind any serialized `BatchResponse`."""
        body = self._body + _REVISION + varint(revision) if revision else self._body
        return _EVIDENCE + varint(len(body)) + body


def age_ms(began_at: float, now: float) -> int:
    """Return how old what was proved at `began_at` is, in whole milliseconds, never less than it is."""
    return max(0, math.ceil((now - began_at) * 1000))


def state_of(response: bytes) -> str:
    """Return in words which state a response speaks of, and how old that may be if it is known."""
    evidence = kv_pb2.BatchResponse.FromString(response).evidence
    if not evidence:
        return ""
    age = f", age {evidence[0].age_ms} ms" if evidence[0].HasField("age_ms") else ""
    return f"index {evidence[0].index}{age}"


def results_of(response: bytes) -> Sequence[kv_pb2.OperationResult]:
    """Return the results in a serialized `BatchResponse`."""
    return kv_pb2.BatchResponse.FromString(response).results


def wrote(result: kv_pb2.OperationResult) -> bool:
    """Return whether an operation changed anything: what failed, what only read and what found nothing to delete did not."""
    match result.WhichOneof("result"):
        case "put" | "put_many" | "increment" | "append":
            return True
        case "delete":
            return result.delete.deleted
        case "txn":
            return any(map(wrote, result.txn.results))
    return False


def revision_of(response: bytes) -> int:
    """Return the revision of the writes that a response tells of; 0 if none of them was done."""
    for result in results_of(response):
        match result.WhichOneof("result"):
            case "put" | "put_many" | "delete" | "txn" | "increment" | "append" as name:
                revision: int = getattr(result, name).revision
                return revision
    return 0
