"""The JSON forms of requests, replies and errors. Pure: from fields to `kv.v1` messages and back.

Keys and values are text in `key` and `value`, or any bytes in `key_base64` and `value_base64`; replies use
the second form only for bytes that are not UTF-8. Whatever is unknown, given twice or of a wrong type is
refused with `InvalidArgument`: a misspelled condition must not become an unconditional write.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from kv.errors import InvalidArgument, KVError, NotFound, from_proto
from kv.ids import check_key, check_value
from kv.v1 import kv_pb2

REVISION_MAX: Final = (1 << 64) - 1
LEVELS: Final[Mapping[str, kv_pb2.ReadLevel.ValueType]] = {
    "linearizable": kv_pb2.READ_LEVEL_LINEARIZABLE,
    "stale": kv_pb2.READ_LEVEL_STALE,
}

_KEY: Final = frozenset({"key", "key_base64"})
_PUT: Final = _KEY | {"value", "value_base64", "if_absent", "if_revision"}
_GET: Final = _KEY | {"level"}
_DELETE: Final = _KEY | {"if_revision"}

Fields = Mapping[str, Any]
Reply = dict[str, object]


def read_json(body: bytes) -> Fields:
    """Return the object that `body` holds. Raises `InvalidArgument`."""
    try:
        found = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, a number of 5000 digits
        raise InvalidArgument(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArgument('the body is not a JSON object: send {"key": ..., ...}')
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidArgument("a field is given twice")
    return fields


def read_query(pairs: list[tuple[str, str]]) -> Fields:
    """Return the parameters of a URL; `if_revision` becomes a number. Raises `InvalidArgument`."""
    fields: dict[str, Any] = _once(list(pairs))
    revision = fields.get("if_revision")
    if revision is not None:
        if not (revision.isascii() and revision.isdigit() and len(revision) <= len(str(REVISION_MAX))):
            raise InvalidArgument("if_revision is not a number", metadata={"field": "if_revision"})
        fields["if_revision"] = int(revision)
    return fields


def put_request(fields: Fields) -> kv_pb2.BatchRequest:
    """Return the batch for POST /put. Raises `InvalidArgument`."""
    _known(fields, _PUT)
    put = kv_pb2.PutOperation(key=_key(fields), value=_bytes(fields, "value"), condition=_condition(fields))
    check_value(put.value)
    return kv_pb2.BatchRequest(operations=[kv_pb2.Operation(put=put)])


def get_request(fields: Fields) -> kv_pb2.BatchRequest:
    """Return the batch for GET /get. Raises `InvalidArgument`."""
    _known(fields, _GET)
    level = fields.get("level", "linearizable")
    if level not in LEVELS:
        raise InvalidArgument(f"level is not one of {', '.join(LEVELS)}", metadata={"field": "level"})
    operation = kv_pb2.Operation(get=kv_pb2.GetOperation(key=_key(fields)))
    return kv_pb2.BatchRequest(operations=[operation], level=LEVELS[level])


def delete_request(fields: Fields) -> kv_pb2.BatchRequest:
    """Return the batch for POST or DELETE /delete. Raises `InvalidArgument`."""
    _known(fields, _DELETE)
    delete = kv_pb2.DeleteOperation(key=_key(fields), condition=_condition(fields))
    return kv_pb2.BatchRequest(operations=[kv_pb2.Operation(delete=delete)])


def put_reply(request: kv_pb2.BatchRequest, result: kv_pb2.OperationResult) -> Reply:
    """Return what a put answers."""
    put = request.operations[0].put
    return {
        **_field("key", put.key),
        **_field("value", put.value),
        "revision": result.put.revision,
        "version": result.put.version,
    }


def get_reply(request: kv_pb2.BatchRequest, result: kv_pb2.OperationResult) -> Reply:
    """Return what a get answers. Raises `NotFound`."""
    if not result.get.HasField("item"):
        raise NotFound("there is no such key", metadata=_text(_field("key", request.operations[0].get.key)))
    item = result.get.item
    return {
        **_field("key", item.key),
        **_field("value", item.value),
        "revision": item.mod_revision,
        "create_revision": item.create_revision,
        "version": item.version,
    }


def delete_reply(request: kv_pb2.BatchRequest, result: kv_pb2.OperationResult) -> Reply:
    """Return what a delete answers."""
    key = _field("key", request.operations[0].delete.key)
    return {**key, "deleted": result.delete.deleted, "revision": result.delete.revision}


def only_result(response: kv_pb2.BatchResponse) -> kv_pb2.OperationResult:
    """Return the result of a batch of one; raises the `KVError` that it holds."""
    assert len(response.results) == 1, "one operation has one result"
    result = response.results[0]
    if result.HasField("error"):
        raise from_proto(result.error)
    return result


def evidence_headers(response: kv_pb2.BatchResponse) -> dict[str, str]:
    """Return who served, and where in the partition's log, as HTTP headers."""
    if not response.evidence:
        return {}
    evidence = response.evidence[0]
    return {
        "kv-partition": str(evidence.partition),
        "kv-term": str(evidence.term),
        "kv-index": str(evidence.index),
        "kv-node": evidence.node,
    }


def error_reply(error: KVError) -> Reply:
    """Return the body for `error`."""
    return error_body(error.reason, str(error), definite=error.definite, metadata=error.metadata)


def error_body(reason: str, message: str, *, definite: bool, metadata: Mapping[str, str]) -> Reply:
    """Return the body of every reply that is not a success."""
    fields = {"reason": reason, "message": message, "definite": definite, "metadata": dict(metadata)}
    return {"error": fields}


def _known(fields: Fields, names: frozenset[str]) -> None:
    unknown = sorted(fields.keys() - names)
    if unknown:
        raise InvalidArgument(
            f"unknown field {unknown[0]!r}: this path takes {', '.join(sorted(names))}",
            metadata={"field": unknown[0]},
        )


def _key(fields: Fields) -> bytes:
    key = _bytes(fields, "key")
    check_key(key)
    return key


def _bytes(fields: Fields, name: str) -> bytes:
    """Return the bytes of `name` or `name_base64`, of which exactly one must be given."""
    encoded = f"{name}_base64"
    if (name in fields) == (encoded in fields):
        raise InvalidArgument(f"give {name} or {encoded}, one of them", metadata={"field": name})
    field = name if name in fields else encoded
    text = fields[field]
    if not isinstance(text, str):
        raise InvalidArgument(f"{field} is not a string", metadata={"field": field})
    try:
        return (
            text.encode("utf-8") if field == name else base64.b64decode(text.encode("ascii"), validate=True)
        )
    except UnicodeEncodeError as error:  # a lone surrogate, which JSON can write and UTF-8 cannot
        raise InvalidArgument(f"{field} is not valid text: {error}", metadata={"field": field}) from error
    except binascii.Error as error:
        raise InvalidArgument(f"{field} is not base64: {error}", metadata={"field": field}) from error


def _condition(fields: Fields) -> kv_pb2.Condition | None:
    absent, revision = fields.get("if_absent", False), fields.get("if_revision")
    if not isinstance(absent, bool):
        raise InvalidArgument("if_absent is not true or false", metadata={"field": "if_absent"})
    if revision is None:
        return kv_pb2.Condition(absent=True) if absent else None
    if absent:
        raise InvalidArgument("if_absent and if_revision cannot be combined", metadata={"field": "if_absent"})
    if isinstance(revision, bool) or not isinstance(revision, int) or not 0 <= revision <= REVISION_MAX:
        raise InvalidArgument("if_revision is not a revision", metadata={"field": "if_revision"})
    return kv_pb2.Condition(revision=revision)


def _field(name: str, data: bytes) -> Reply:
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode("ascii")}


def _text(fields: Reply) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items()}
