"""How the answer to a request becomes the answers to its calls. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kv.client.answers import without_promise
from kv.client.calls import BareCall, Call, Proofs, all_bare
from kv.client.columns import Column, items_of, replies_of
from kv.client.operations import fresh
from kv.client.request import Request
from kv.client.types import Item, PutReply
from kv.errors import Internal, KVError
from kv.v1 import kv_pb2


def resolve(request: Request, results: Sequence[kv_pb2.OperationResult], proofs: Proofs) -> list[Call]:
    """Answer the calls of the request by the results; return those that have to be asked for again."""
    results = without_promise(results, request.not_on_all)
    if request.column is not None and len(results) == 1:
        result = results[0]
        if result.WhichOneof("result") == request.column:
            if request.column is Column.GETS:
                return _resolve_gets(request.calls, result.get_many, proofs)
            _resolve_puts(request, result.put_many, proofs)
            return []
        results = [result] * request.count  # all rows failed for the same reason
    if len(results) != request.count:
        fail_all(request.calls, _miscounted(request.count, len(results)))
        return []
    answers = iter(results)
    for call in request.calls:
        call.resolve(answers, proofs)
    return []


def _resolve_puts(request: Request, many: kv_pb2.PutManyResult, proofs: Proofs) -> None:
    replies = replies_of(many.revision, many.versions[:], proofs[0])
    if len(replies) != request.count:
        fail_all(request.calls, _miscounted(request.count, len(replies)))
        return
    if all_bare(request.calls):
        _answer_bare(request.calls, replies)
        return
    row = 0
    for call in request.calls:
        count = call.count
        call.resolve_puts(replies[row : row + count])
        row += count


def _resolve_gets(calls: Sequence[Call], many: kv_pb2.GetManyResult, proofs: Proofs) -> list[Call]:
    """Answer as many calls as there are rows: an answer is full at some size, and values may be large."""
    items = items_of(calls, many, proofs[0])
    if not items:
        fail_all(calls, _miscounted(sum(call.count for call in calls), 0))
        return []
    if all_bare(calls):
        _answer_bare(calls, items)
        return [*calls[len(items) :]]
    unanswered: list[Call] = []
    row = 0
    for call in calls:
        count = call.count
        if not call.resolve_gets(items[row : row + count], proofs):
            unanswered.append(call)
        row += count
    return unanswered


def _answer_bare(calls: Iterable[BareCall], rows: Iterable[PutReply | Item | None]) -> None:
    """Answer each call with its row, as far as there are rows. No call of ours for each: the client's hottest loop."""
    for call, row in zip(calls, rows, strict=False):
        future = call.future
        if not future.done():
            future.set_result(row)


def fail_all(calls: Iterable[Call], error: KVError) -> None:
    """Fail those that still wait, each with its own instance of `error`."""
    for call in calls:
        if not call.done:
            call.fail(fresh(error))


def _miscounted(asked: int, answered: int) -> KVError:
    return Internal(f"{asked} operations were answered by {answered} results")
