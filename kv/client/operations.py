"""Operations on the wire and back: from our types to `kv.v1` and from its results to our replies. Pure.

Here too are the checks of what a caller gives, so that what can never succeed is refused before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeGuard

from kv.client.types import (
    Append,
    AppendReply,
    Compare,
    Delete,
    DeleteReply,
    Evidence,
    Get,
    Increment,
    IncrementReply,
    Item,
    Op,
    Outcome,
    OutcomeState,
    Put,
    PutReply,
    ReadLevel,
    Result,
    TxnReply,
)
from kv.errors import Internal, InvalidArgument, KVError, from_proto
from kv.ids import check_key, check_value
from kv.outcome import OutcomeToken
from kv.v1 import kv_pb2

OPERATION_OVERHEAD_BYTES: Final = 40
"""Upper bound of what one operation adds to a request besides its keys and values: tags, lengths, a revision."""

DELTA_MIN: Final = -(2**63)
DELTA_MAX: Final = 2**63 - 1
"""What an increment may add."""

_OPS: Final = (Get, Put, Delete, Increment, Append)
_CARRIES_VALUE: Final = (Put, Append)
"""Tuples: a union would be made anew for each test."""

_LEVELS: Final = {int(level): level for level in ReadLevel}
_STATES: Final = frozenset(map(int, OutcomeState))


def fresh(error: KVError) -> KVError:
    """Return a copy of `error`: an exception instance belongs to one raiser, or their tracebacks mix."""
    copy = type(error).__new__(type(error), error.message)
    copy.__dict__.update(error.__dict__)  # under overload there are many: a third of what `__init__` takes
    copy.metadata = error.metadata.copy()
    return copy


# --- from our types to the wire ---------------------------------------------------------------------


def make_condition(
    if_absent: bool = False,
    if_present: bool = False,
    if_revision: int | None = None,
    if_value: bytes | None = None,
) -> kv_pb2.Condition | None:
    """Return the one condition that is given, None if none is; raise `InvalidArgument` for two."""
    given = if_absent + if_present + (if_revision is not None) + (if_value is not None)
    if given == 0:
        return None
    if given > 1:
        raise InvalidArgument("give at most one of if_absent, if_present, if_revision and if_value")
    if if_absent:
        return kv_pb2.Condition(absent=True)
    if if_present:
        return kv_pb2.Condition(present=True)
    if if_value is not None:
        return kv_pb2.Condition(value=check_bytes(if_value, "if_value"))
    revision = if_revision or 0
    if not 0 <= revision < 2**64:
        raise InvalidArgument(f"the revision {revision} is not in 0 to 2^64 - 1")
    return kv_pb2.Condition(revision=revision)


def check_bytes(value: bytes, name: str) -> bytes:
    """Return `value`; raise `TypeError` unless it is bytes: the store has no text and chooses no encoding."""
    if not isinstance(value, bytes):
        raise TypeError(f"{name} must be bytes, not {type(value).__name__}: encode text first")
    return value


def check_op(op: Op) -> None:
    """Raise a definite error, or `TypeError`, unless the operation can be sent."""
    if isinstance(op, Get):
        check_key(check_bytes(op.key, "key"))
        return
    if not isinstance(op, _OPS):
        raise TypeError(f"an operation is a Get, Put, Delete, Increment or Append, not {type(op).__name__}")
    check_key(check_bytes(op.key, "key"))
    if isinstance(op, _CARRIES_VALUE):
        check_value(check_bytes(op.value, "value"))
    elif isinstance(op, Increment):
        check_delta(op.delta)
    condition_of(op)


def check_delta(delta: int) -> None:
    """Raise `InvalidArgument`, or `TypeError`, unless `delta` is a signed 64-bit integer."""
    if isinstance(delta, bool) or not isinstance(delta, int):
        raise TypeError(f"the delta of an increment is an int, not {type(delta).__name__}")
    if not DELTA_MIN <= delta <= DELTA_MAX:
        raise InvalidArgument(f"the delta {delta} does not fit into a signed 64-bit integer")


def op_size(op: Op) -> int:
    """Return how many bytes `op` adds to a request, at most."""
    size = OPERATION_OVERHEAD_BYTES + len(op.key)
    if isinstance(op, Get):
        return size
    if isinstance(op, _CARRIES_VALUE):
        size += len(op.value)
    if op.if_value is not None:
        size += len(op.if_value)
    return size


def write_op(op: Op, operation: kv_pb2.Operation) -> None:
    """Write `op` into an empty `operation`."""
    if isinstance(op, Get):
        operation.get.key = op.key
        return
    if is_plain_put(op):
        put = operation.put
        put.key = op.key
        put.value = op.value
        return
    condition = condition_of(op)
    written = _write_fields(op, operation)
    written.key = op.key
    if condition is not None:
        written.condition.CopyFrom(condition)


def is_plain_put(op: Op) -> TypeGuard[Put]:
    """Return whether it is a put without a condition that does not ask for what was there before."""
    return isinstance(op, Put) and not op.return_previous and _unconditional(op)


def _unconditional(op: Put | Delete | Increment | Append) -> bool:
    return not (op.if_absent or op.if_present) and op.if_revision is None and op.if_value is None


def _write_fields(
    op: Put | Delete | Increment | Append, operation: kv_pb2.Operation
) -> kv_pb2.PutOperation | kv_pb2.DeleteOperation | kv_pb2.IncrementOperation | kv_pb2.AppendOperation:
    """Write what only this kind of operation has, and return where the rest goes."""
    match op:
        case Put():
            operation.put.value = op.value
            if op.return_previous:
                operation.put.return_previous = True
            return operation.put
        case Delete():
            if op.return_previous:
                operation.delete.return_previous = True
            return operation.delete
        case Increment():
            operation.increment.delta = op.delta
            return operation.increment
        case Append():
            operation.append.value = op.value
            return operation.append


def condition_of(op: Op) -> kv_pb2.Condition | None:
    """Return the condition of an operation, if it has one; raise `InvalidArgument` for two."""
    if isinstance(op, Get) or _unconditional(op):
        return None
    return make_condition(op.if_absent, op.if_present, op.if_revision, op.if_value)


def write_compare(compare: Compare) -> kv_pb2.Compare:
    """Return `compare` as it travels; raise `InvalidArgument` unless exactly one target is given."""
    check_key(check_bytes(compare.key, "key"))
    targets = {
        name: target
        for name in ("value", "mod_revision", "create_revision", "version", "exists")
        if (target := getattr(compare, name)) is not None
    }
    if len(targets) != 1:
        raise InvalidArgument(f"a Compare has exactly one target, not {len(targets)}: {sorted(targets)}")
    # The enum numbers are equal (a test holds them so); mypy-protobuf gives them a type of their own.
    comparator = kv_pb2.Comparator.ValueType(int(compare.relation))
    return kv_pb2.Compare(key=compare.key, comparator=comparator, **targets)


# --- from the wire to our types ---------------------------------------------------------------------


def read_item(item: kv_pb2.KeyValue, evidence: Evidence | None) -> Item:
    """Return `item` as callers see it."""
    return Item(item.key, item.value, item.create_revision, item.mod_revision, item.version, evidence)


def read_evidence(proof: kv_pb2.Evidence, *, write: bool) -> Evidence:
    """Return who served; a level that only a newer node knows is none that was asked for here."""
    level = None if write else _LEVELS.get(proof.level)
    return Evidence(
        proof.partition,
        proof.map_epoch,
        proof.term,
        proof.index,
        proof.node,
        level,
        proof.revision,
        proof.age_ms if proof.HasField("age_ms") else None,
    )


def read_result(result: kv_pb2.OperationResult, evidence: Evidence) -> Result:
    """Return the result of one operation of a batch, a transaction or an outcome."""
    kind = result.WhichOneof("result")
    read = _READERS.get(kind or "")
    return failure(result, kind, "an operation") if read is None else read(result, evidence)


def read_get(get: kv_pb2.GetResult, evidence: Evidence) -> Item | None:
    """Return the item that was found, if one was."""
    if not get.HasField("item"):
        return None
    item = get.item
    return read_item(item, evidence_of(evidence, item.mod_revision))


def evidence_of(evidence: Evidence, revision: int) -> Evidence:
    """Return the evidence of one read: calls that travelled together share all of it but the revision."""
    if evidence.revision == revision:
        return evidence
    partition, map_epoch, term, index, node, level, _, age_ms = (
        evidence  # on the hot path: faster than _replace
    )
    return Evidence(partition, map_epoch, term, index, node, level, revision, age_ms)


def read_put(result: kv_pb2.OperationResult, evidence: Evidence) -> PutReply:
    """Return the reply to a put."""
    put = result.put
    previous = read_item(put.previous, evidence) if put.HasField("previous") else None
    return PutReply(put.revision, put.version, evidence, previous)


def read_delete(result: kv_pb2.OperationResult, evidence: Evidence) -> DeleteReply:
    """Return the reply to a delete."""
    delete = result.delete
    previous = read_item(delete.previous, evidence) if delete.HasField("previous") else None
    return DeleteReply(delete.deleted, delete.revision, evidence, previous)


def read_increment(result: kv_pb2.OperationResult, evidence: Evidence) -> IncrementReply:
    """Return the reply to an increment."""
    increment = result.increment
    return IncrementReply(increment.value, increment.revision, increment.version, evidence)


def read_append(result: kv_pb2.OperationResult, evidence: Evidence) -> AppendReply:
    """Return the reply to an append."""
    append = result.append
    return AppendReply(append.length, append.revision, append.version, evidence)


def read_txn(result: kv_pb2.OperationResult, evidence: Evidence) -> TxnReply:
    """Return the reply to a transaction."""
    txn = result.txn
    results = tuple(read_result(inner, evidence) for inner in txn.results)
    return TxnReply(txn.succeeded, txn.revision, results, evidence)


def read_outcome(result: kv_pb2.OperationResult, evidence: Evidence, token: OutcomeToken) -> Outcome:
    """Return what became of the operations that `token` names; a state that only a newer node knows is UNKNOWN."""
    outcome = result.outcome
    state = OutcomeState(outcome.outcome) if outcome.outcome in _STATES else OutcomeState.UNKNOWN
    end = token.position + token.count if token.count else len(outcome.results)
    named = outcome.results[token.position : end]
    return Outcome(state, tuple(read_result(one, evidence) for one in named), evidence)


_READERS: Final[dict[str, Callable[[kv_pb2.OperationResult, Evidence], Result]]] = {
    "get": lambda result, evidence: read_get(result.get, evidence),
    "put": read_put,
    "delete": read_delete,
    "increment": read_increment,
    "append": read_append,
    "txn": read_txn,
}


def failure(result: kv_pb2.OperationResult, kind: str | None, wanted: str) -> KVError:
    """Return the error that `result` is, where the answer to `wanted` was looked for."""
    if kind == "error":
        return from_proto(result.error)
    return Internal(f"the answer to {wanted} was {kind}: client and node do not understand each other")
