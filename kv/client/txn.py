"""A transaction as it travels. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kv.client.operations import OPERATION_OVERHEAD_BYTES, check_op, condition_of, write_compare, write_op
from kv.client.types import Compare, Op, Txn, TxnOp
from kv.errors import InvalidArgument
from kv.ids import check_request_bytes
from kv.v1 import kv_pb2


def make_txn(
    compare: Sequence[Compare], then: Sequence[TxnOp], orelse: Sequence[TxnOp]
) -> tuple[kv_pb2.Operation, list[bytes]]:
    """Return the operation and its keys; raise `InvalidArgument` or another definite error if it cannot be sent."""
    operation = kv_pb2.Operation()
    keys = _write_txn(compare, then, orelse, operation.txn, inner=False)
    check_request_bytes(operation.ByteSize() + OPERATION_OVERHEAD_BYTES)
    return operation, keys


def _write_txn(
    compare: Sequence[Compare],
    then: Sequence[TxnOp],
    orelse: Sequence[TxnOp],
    txn: kv_pb2.TxnOperation,
    *,
    inner: bool,
) -> list[bytes]:
    """Write a transaction, and those inside it; return all keys."""
    txn.compare.extend(write_compare(one) for one in compare)
    keys = [one.key for one in compare]
    for ops, into in ((then, txn.then_operations), (orelse, txn.else_operations)):
        for op in ops:
            if not isinstance(op, Txn):
                keys.append(_write_plain(op, into.add()))
            elif inner:
                raise InvalidArgument("a transaction inside a transaction holds no further one: nest once")
            else:
                keys += _write_txn(op.compare, op.then, op.orelse, into.add().txn, inner=True)
    if not keys:
        raise InvalidArgument("a transaction names at least one key")
    return keys


def _write_plain(op: Op, operation: kv_pb2.Operation) -> bytes:
    check_op(op)
    if condition_of(op) is not None:
        raise InvalidArgument("an operation of a transaction has no condition of its own: use a Compare")
    write_op(op, operation)
    return op.key
