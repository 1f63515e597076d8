"""The JSON forms of replies and errors, and the headers of evidence. Pure: from `kv.v1` messages to fields.

Keys and values are text where they are valid UTF-8, else base64 in a field whose name ends so.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Final

from kv.client.session_token import Seen
from kv.errors import KVError, NotFound, from_proto
from kv.outcome import OutcomeToken
from kv.router.routing import cut
from kv.v1 import kv_pb2

Reply = dict[str, object]

SESSION_HEADER: Final = "kv-session-token"
"""In: what the caller has seen, for SESSION reads. Out: that, and what this reply shows."""


def put_reply(request: kv_pb2.BatchRequest, result: kv_pb2.OperationResult) -> Reply:
    """Return what a put answers."""
    put = request.operations[0].put
    previous = _previous(result.put) if put.return_previous else {}
    return {**_field("key", put.key), **_field("value", put.value), **_version(result.put), **previous}


def get_reply(request: kv_pb2.BatchRequest, result: kv_pb2.OperationResult) -> Reply:
    """Return what a get answers. Raises `NotFound`."""
    if not result.get.HasField("item"):
        raise NotFound("there is no such key", metadata=_text(_field("key", request.operations[0].get.key)))
    return _item(result.get.item)


def delete_reply(request: kv_pb2.BatchRequest, result: kv_pb2.OperationResult) -> Reply:
    """Return what a delete answers."""
    delete = request.operations[0].delete
    previous = _previous(result.delete) if delete.return_previous else {}
    return {**_field("key", delete.key), **_deleted(result.delete), **previous}


def increment_reply(request: kv_pb2.BatchRequest, result: kv_pb2.OperationResult) -> Reply:
    """Return what an increment answers."""
    return {**_field("key", request.operations[0].increment.key), **_incremented(result.increment)}


def append_reply(request: kv_pb2.BatchRequest, result: kv_pb2.OperationResult) -> Reply:
    """Return what an append answers."""
    return {**_field("key", request.operations[0].append.key), **_appended(result.append)}


def outcome_reply(token: OutcomeToken, result: kv_pb2.OperationResult) -> Reply:
    """Return what the question for an outcome answers; `results` is empty if they are no longer kept."""
    outcome = result.outcome
    name = kv_pb2.WriteOutcome.Name(outcome.outcome).removeprefix("WRITE_OUTCOME_").lower()
    return {"outcome": name, "results": [_any_result(each) for each in cut(outcome.results, token)]}


def only_result(response: kv_pb2.BatchResponse) -> kv_pb2.OperationResult:
    """Return the result of a batch of one; raises the `KVError` that it holds."""
    assert len(response.results) == 1, "one operation has one result"
    result = response.results[0]
    if result.HasField("error"):
        raise from_proto(result.error)
    return result


def evidence_headers(response: kv_pb2.BatchResponse, seen: Seen) -> dict[str, str]:
    """Return who served, at which point of the partition's log and at which level, as HTTP headers.

    `seen` takes in what the reply shows, and becomes the session token.
    """
    for proof in response.evidence:
        seen.note(proof.partition, proof.index)
    headers = {SESSION_HEADER: seen.token()}
    if not response.evidence:
        return headers
    evidence = response.evidence[0]
    headers |= {
        "kv-partition": str(evidence.partition),
        "kv-map-epoch": str(evidence.map_epoch),
        "kv-term": str(evidence.term),
        "kv-index": str(evidence.index),
        "kv-revision": str(evidence.revision),
        "kv-node": evidence.node,
    }
    if evidence.level:
        headers["kv-level"] = _level(evidence.level)
    if evidence.HasField("age_ms"):
        headers["kv-age-ms"] = str(evidence.age_ms)
    if len(response.evidence) > 1:
        headers["kv-answers"] = ",".join(f"{proof.node}:{proof.index}" for proof in response.evidence)
    return headers


def error_reply(error: KVError) -> Reply:
    """Return the body for `error`."""
    return error_body(
        error.reason, str(error), definite=error.definite, metadata=error.metadata, token=error.token
    )


def error_body(
    reason: str, message: str, *, definite: bool, metadata: Mapping[str, str], token: str | None = None
) -> Reply:
    """Return the body of every reply that is not a success. `token`: GET /outcome/TOKEN tells what became of it."""
    fields: Reply = {"reason": reason, "message": message, "definite": definite, "metadata": dict(metadata)}
    return {"error": fields if token is None else {**fields, "token": token}}


def _level(level: kv_pb2.ReadLevel.ValueType) -> str:
    if level not in kv_pb2.ReadLevel.values():
        return str(level)  # of a newer node
    return kv_pb2.ReadLevel.Name(level).removeprefix("READ_LEVEL_").lower()


def _any_result(result: kv_pb2.OperationResult) -> Reply:
    """Return one result under the name of its kind."""
    kind = result.WhichOneof("result")
    if kind == "error":
        return error_reply(from_proto(result.error))
    form = _FORMS.get(kind or "")
    return {} if form is None else {str(kind): form(getattr(result, str(kind)))}


def _version(result: kv_pb2.PutResult | kv_pb2.IncrementResult | kv_pb2.AppendResult) -> Reply:
    return {"revision": result.revision, "version": result.version}


def _deleted(result: kv_pb2.DeleteResult) -> Reply:
    return {"deleted": result.deleted, "revision": result.revision}


def _incremented(result: kv_pb2.IncrementResult) -> Reply:
    return {"value": result.value, **_version(result)}


def _appended(result: kv_pb2.AppendResult) -> Reply:
    return {"length": result.length, **_version(result)}


def _previous(result: kv_pb2.PutResult | kv_pb2.DeleteResult) -> Reply:
    return {"previous": _item(result.previous) if result.HasField("previous") else None}


def _item(item: kv_pb2.KeyValue) -> Reply:
    return {
        **_field("key", item.key),
        **_field("value", item.value),
        "revision": item.mod_revision,
        "create_revision": item.create_revision,
        "version": item.version,
    }


def _past_put(result: kv_pb2.PutResult) -> Reply:
    return _version(result) | (_previous(result) if result.HasField("previous") else {})


def _past_delete(result: kv_pb2.DeleteResult) -> Reply:
    return _deleted(result) | (_previous(result) if result.HasField("previous") else {})


def _past_get(result: kv_pb2.GetResult) -> Reply:
    return {"item": _item(result.item) if result.HasField("item") else None}


def _past_txn(result: kv_pb2.TxnResult) -> Reply:
    inner = [_any_result(each) for each in result.results]
    return {"succeeded": result.succeeded, "revision": result.revision, "results": inner}


_FORMS: Final[Mapping[str, Callable[..., Reply]]] = {
    "get": _past_get,
    "put": _past_put,
    "delete": _past_delete,
    "increment": _incremented,
    "append": _appended,
    "txn": _past_txn,
}
"""Results as they stand in the answer to the question for an outcome."""


def _field(name: str, data: bytes) -> Reply:
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode("ascii")}


def _text(fields: Reply) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items()}
