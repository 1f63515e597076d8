"""A transaction as it travels. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kv.client.calls import OPERATION_OVERHEAD_BYTES, check_op, write_compare, write_op
from kv.client.types import Compare, Delete, Op, Put
from kv.errors import InvalidArgument
from kv.ids import check_request_bytes
from kv.v1 import kv_pb2


def make_txn(
    compare: Sequence[Compare], then: Sequence[Op], orelse: Sequence[Op]
) -> tuple[kv_pb2.Operation, list[bytes]]:
    """Return the operation and its keys; raise `InvalidArgument` or another definite error if it cannot be sent."""
    operation = kv_pb2.Operation()
    txn = operation.txn
    txn.compare.extend(write_compare(one) for one in compare)
    for ops, into in ((then, txn.then_operations), (orelse, txn.else_operations)):
        for op in ops:
            check_op(op)
            write_op(op, into.add())
            if _has_condition(op):
                raise InvalidArgument(
                    "an operation of a transaction has no condition of its own: use a Compare"
                )
    keys = [one.key for one in (*compare, *then, *orelse)]
    if not keys:
        raise InvalidArgument("a transaction names at least one key")
    check_request_bytes(operation.ByteSize() + OPERATION_OVERHEAD_BYTES)
    return operation, keys


def _has_condition(op: Op) -> bool:
    absent = isinstance(op, Put) and op.if_absent
    conditional = isinstance(op, Put | Delete) and (
        op.if_present or op.if_revision is not None or op.if_value is not None
    )
    return absent or conditional
