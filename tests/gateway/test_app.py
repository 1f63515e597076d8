"""The HTTP surface: what each path takes and answers, and that every refusal has one shape."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from kv.client.session_token import cluster_mark, parse_token, write_token
from kv.errors import REGISTRY, DeadlineExceeded, KVError, NoLeader, UnknownOutcome
from kv.gateway import make_app
from kv.gateway.app import LINGER_BYTES_MAX
from kv.outcome import OutcomeToken
from kv.v1 import kv_pb2
from tests.gateway.memory import PARTITION, Gateway, MemoryExecutor


def reason(response: httpx.Response) -> str:
    """Return the reason of an error reply, after a check of its shape."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) - {"token"} == {"reason", "message", "definite", "metadata"}
    assert isinstance(body["error"]["definite"], bool)
    return str(body["error"]["reason"])


async def test_put_then_get_then_delete(gateway: Gateway) -> None:
    """A value that was put is read back with its revision, and is gone after a delete."""
    put = await gateway.http.post("/put", json={"key": "a", "value": "1"})
    assert (put.status_code, put.json()) == (200, {"key": "a", "value": "1", "revision": 1, "version": 1})
    got = await gateway.http.get("/get", params={"key": "a"})
    expected = {"key": "a", "value": "1", "revision": 1, "create_revision": 1, "version": 1}
    assert (got.status_code, got.json()) == (200, expected)
    deleted = await gateway.http.post("/delete", json={"key": "a"})
    assert deleted.json() == {"key": "a", "deleted": True, "revision": 3}
    again = await gateway.http.delete("/delete", params={"key": "a"})
    assert (again.status_code, again.json()["deleted"]) == (200, False)
    missing = await gateway.http.get("/get", params={"key": "a"})
    assert (missing.status_code, reason(missing)) == (404, "NOT_FOUND")


async def test_evidence_is_in_the_headers(gateway: Gateway) -> None:
    """Each reply names who served it at which point of the log; of a read also the level, and its age where it has one."""
    put = await gateway.http.post("/put", json={"key": "a", "value": "1"})
    names = ("kv-partition", "kv-map-epoch", "kv-term", "kv-index", "kv-revision", "kv-node")
    assert [put.headers[name] for name in names] == ["7", "1", "3", "1", "0", "n2"]
    assert not {"kv-level", "kv-age-ms", "kv-answers"} & put.headers.keys()
    stale = await gateway.http.get("/get", params={"key": "a", "level": "stale"})
    assert [stale.headers[name] for name in ("kv-level", "kv-revision", "kv-age-ms")] == ["stale", "5", "12"]
    every = await gateway.http.get("/get", params={"key": "a", "level": "all"})
    assert every.headers["kv-answers"] == "n2:3,n3:2"


async def test_a_miss_and_a_failed_condition_have_evidence_too(gateway: Gateway) -> None:
    """That a key is not there, or not as expected, is an answer of a partition like any other."""
    missing = await gateway.http.get("/get", params={"key": "a", "level": "stale"})
    assert (missing.status_code, missing.headers["kv-index"], missing.headers["kv-level"]) == (
        404,
        "1",
        "stale",
    )
    refused = await gateway.http.post("/put", json={"key": "a", "value": "1", "if_present": True})
    assert (refused.status_code, refused.headers["kv-index"]) == (409, "2")


async def test_bytes_that_are_no_text_travel_as_base64(gateway: Gateway) -> None:
    """Any key and value can be written and read; base64 is used exactly where UTF-8 cannot be."""
    raw = base64.b64encode(b"\xff\x00").decode()
    put = await gateway.http.post("/put", json={"key_base64": raw, "value_base64": raw})
    assert put.json() == {"key_base64": raw, "value_base64": raw, "revision": 1, "version": 1}
    got = await gateway.http.get("/get", params={"key_base64": raw})
    assert got.json()["value_base64"] == raw
    assert b"\xff\x00" in gateway.executor.state.records
    text = await gateway.http.post("/put", json={"key": "b", "value_base64": base64.b64encode(b"x").decode()})
    assert text.json()["value"] == "x"


async def test_conditions(gateway: Gateway) -> None:
    """A condition that does not hold writes nothing and answers 409; one that holds writes."""
    first = {"key": "a", "value": "1", "if_absent": True}
    assert (await gateway.http.post("/put", json=first)).status_code == 200
    refused = await gateway.http.post("/put", json=first)
    assert (refused.status_code, reason(refused)) == (409, "CONDITION_FAILED")
    moved = await gateway.http.post("/put", json={"key": "a", "value": "2", "if_revision": 1})
    assert moved.json()["version"] == 2
    stale = await gateway.http.delete("/delete", params={"key": "a", "if_revision": "1"})
    assert stale.status_code == 409
    assert (await gateway.http.post("/delete", json={"key": "a", "if_revision": 3})).json()["deleted"]


async def test_empty_value_is_a_value(gateway: Gateway) -> None:
    """An empty value is stored and found, unlike a missing key."""
    await gateway.http.post("/put", json={"key": "a", "value": ""})
    assert (await gateway.http.get("/get", params={"key": "a"})).json()["value"] == ""


BAD_BODIES: list[tuple[str, object]] = [
    ("no JSON", b"{"),
    ("no UTF-8", b'{"key": "\xff"}'),
    ("too deep", b"[" * 4000),
    ("no object", b"[]"),
    ("nothing", b""),
    ("field twice", b'{"key": "a", "key": "b", "value": ""}'),
    ("no key", {"value": "1"}),
    ("no value", {"key": "a"}),
    ("both forms of the key", {"key": "a", "key_base64": "YQ==", "value": "1"}),
    ("unknown field", {"key": "a", "value": "1", "if_revisoin": 3}),
    ("key is a number", {"key": 1, "value": "1"}),
    ("key is null", {"key": None, "value": "1"}),
    ("value is an object", {"key": "a", "value": {}}),
    ("lone surrogate", b'{"key": "\\ud800", "value": ""}'),
    ("bad base64", {"key_base64": "*", "value": "1"}),
    ("base64 outside of ASCII", {"key_base64": "é", "value": "1"}),
    ("base64 without padding", {"key_base64": "YQ", "value": "1"}),
    ("if_absent is text", {"key": "a", "value": "1", "if_absent": "yes"}),
    ("if_revision is text", {"key": "a", "value": "1", "if_revision": "1"}),
    ("if_revision is a bool", {"key": "a", "value": "1", "if_revision": True}),
    ("if_revision is negative", {"key": "a", "value": "1", "if_revision": -1}),
    ("if_revision is above 64 bits", {"key": "a", "value": "1", "if_revision": 1 << 64}),
    ("two conditions", {"key": "a", "value": "1", "if_absent": True, "if_revision": 1}),
    ("a value and a revision", {"key": "a", "value": "1", "if_value": "x", "if_revision": 1}),
    ("if_present is text", {"key": "a", "value": "1", "if_present": "true"}),
    ("if_value is a number", {"key": "a", "value": "1", "if_value": 1}),
    ("if_value in both forms", {"key": "a", "value": "1", "if_value": "x", "if_value_base64": "eA=="}),
    ("return_previous is a number", {"key": "a", "value": "1", "return_previous": 1}),
    ("unknown write level", {"key": "a", "value": "1", "write": "some"}),
    ("write level is a number", {"key": "a", "value": "1", "write": 2}),
    ("wait for ever", {"key": "a", "value": "1", "write": "all", "all_timeout_ms": 60_001}),
    ("wait is negative", {"key": "a", "value": "1", "write": "all", "all_timeout_ms": -1}),
    ("a delta in a put", {"key": "a", "value": "1", "delta": 1}),
]


@pytest.mark.parametrize(("name", "body"), BAD_BODIES, ids=[name for name, _ in BAD_BODIES])
async def test_bad_bodies_are_refused(gateway: Gateway, name: str, body: object) -> None:
    """A body that is not exactly a put is INVALID_ARGUMENT and reaches no partition."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await gateway.http.post("/put", content=content)
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert gateway.executor.batches == []


async def test_key_and_value_limits(gateway: Gateway) -> None:
    """A key at its limit passes; an empty or a longer one is refused with the reason of its own."""
    assert (await gateway.http.post("/put", json={"key": "k" * 480, "value": ""})).status_code == 200
    longer = await gateway.http.post("/put", json={"key": "k" * 481, "value": ""})
    assert (longer.status_code, reason(longer)) == (400, "KEY_TOO_LONG")
    empty = await gateway.http.get("/get", params={"key": ""})
    assert (empty.status_code, reason(empty)) == (400, "KEY_EMPTY")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "key=a&key=b",
        "key=a&colour=red",
        "key=a&level=strong",
        "key=a&if_revision=1",
        "key=a&level=bounded",
        "key=a&level=bounded:0ms",
        "key=a&level=bounded:soon",
        "key=a&level=quorum:0",
        "key=a&level=quorum:99",
        "key=a&level=all:2",
        "key=a&level=",
        "key=a&prefer=",
        "key=a&prefer=a%20b",
        "key=a&write=all",
    ],
)
async def test_bad_queries_are_refused(gateway: Gateway, query: str) -> None:
    """A URL that is not exactly a get is INVALID_ARGUMENT."""
    response = await gateway.http.get(f"/get?{query}")
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("revision", ["x", "-1", "1.0", "²", "9" * 21, str(1 << 64)])
async def test_bad_revisions_in_a_url_are_refused(gateway: Gateway, revision: str) -> None:
    """A revision in a URL is a number of 64 bits or it is refused."""
    response = await gateway.http.delete("/delete", params={"key": "a", "if_revision": revision})
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")


async def test_fields_in_the_wrong_place_are_refused(gateway: Gateway) -> None:
    """A condition in the URL of a POST is refused, not ignored."""
    response = await gateway.http.post("/put?if_absent=true", json={"key": "a", "value": "1"})
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")


async def test_unknown_paths_and_methods_have_the_same_shape(gateway: Gateway) -> None:
    """404 and 405 are errors like all others, and 405 names what is allowed."""
    missing = await gateway.http.get("/nothing")
    assert (missing.status_code, reason(missing)) == (404, "NO_SUCH_PATH")
    wrong = await gateway.http.get("/put")
    assert (wrong.status_code, reason(wrong)) == (405, "METHOD_NOT_ALLOWED")
    assert "POST" in wrong.headers["allow"]


@pytest.mark.parametrize("cls", [REGISTRY[name] for name in sorted(REGISTRY)])
async def test_every_error_keeps_its_status_and_definiteness(gateway: Gateway, cls: type[KVError]) -> None:
    """An error of the router arrives with its own status, reason, metadata and outcome."""
    gateway.executor.failure = cls("no", metadata={"partition": 7})
    response = await gateway.http.post("/put", json={"key": "a", "value": "1"})
    assert (response.status_code, reason(response)) == (cls.http_status, cls.reason)
    error = response.json()["error"]
    assert error["definite"] == gateway.executor.failure.definite
    assert error["metadata"] == {"partition": "7"}
    assert cls.hint in error["message"]


async def test_a_defect_is_internal_and_indefinite(gateway: Gateway) -> None:
    """An exception that nobody foresaw is answered in the same shape, and claims nothing."""
    gateway.executor.failure = ZeroDivisionError()
    response = await gateway.http.post("/put", json={"key": "a", "value": "1"})
    assert (response.status_code, reason(response)) == (500, "INTERNAL")
    assert response.json()["error"]["definite"] is False


async def test_body_limit_holds_while_reading(gateway: Gateway) -> None:
    """A body above the limit is refused before its end; a bounded rest is dropped, so that the answer arrives."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            yield b" " * 1024
            sent += 1024

    response = await gateway.http.post("/put", content=endless())
    assert (response.status_code, reason(response)) == (413, "REQUEST_TOO_LARGE")
    assert sent <= 4096 + LINGER_BYTES_MAX + 2 * 1024
    body = b'{"key": "a", "value": "1"}'.ljust(4096)
    assert (await gateway.http.post("/put", content=body)).status_code == 200


async def test_a_slow_body_ends_at_the_timeout() -> None:
    """A body that stops arriving is a definite DEADLINE_EXCEEDED: nothing was executed."""
    executor = MemoryExecutor()
    app = make_app(executor, ready=lambda: None, registry=CollectorRegistry(), timeout_s=0.05)

    async def stuck() -> AsyncIterator[bytes]:
        yield b'{"key"'
        await asyncio.Event().wait()

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://kv") as http:
        response = await http.post("/put", content=stuck())
    assert (response.status_code, reason(response)) == (504, "DEADLINE_EXCEEDED")
    assert response.json()["error"]["definite"] is True
    assert executor.batches == []


async def test_requests_above_the_limit_are_refused_at_the_door(gateway: Gateway) -> None:
    """With as many requests in flight as allowed the next is OVERLOADED; when they end it passes."""
    gateway.executor.gate.clear()
    waiting = [
        asyncio.create_task(gateway.http.get("/get", params={"key": str(number)})) for number in range(2)
    ]
    for _ in waiting:
        await gateway.executor.arrived.acquire()
    refused = await gateway.http.get("/get", params={"key": "x"})
    assert (refused.status_code, reason(refused)) == (429, "OVERLOADED")
    gateway.executor.gate.set()
    assert {response.status_code for response in await asyncio.gather(*waiting)} == {404}
    assert (await gateway.http.get("/get", params={"key": "x"})).status_code == 404


async def test_body_bytes_in_flight_are_bounded_and_given_back(gateway: Gateway) -> None:
    """Bodies in flight share one limit; a request that ends, well or not, gives its bytes back."""
    body = b'{"key": "a", "value": "1"}'.ljust(4000)
    gateway.executor.gate.clear()
    first = asyncio.create_task(gateway.http.post("/put", content=body))
    await gateway.executor.arrived.acquire()
    refused = await gateway.http.post("/put", content=body)
    assert (refused.status_code, reason(refused)) == (429, "OVERLOADED")
    gateway.executor.gate.set()
    assert (await first).status_code == 200
    for _ in range(3):
        assert (await gateway.http.post("/put", content=body)).status_code == 200


async def test_health_readiness_and_metrics(gateway: Gateway) -> None:
    """Health says that the process lives, readiness that it serves, metrics show the node's registry."""
    assert (await gateway.http.get("/healthz")).json() == {"status": "ok"}
    assert (await gateway.http.get("/readyz")).json() == {"status": "ready"}
    gateway.unready.append("no leader in partition 3")
    unready = await gateway.http.get("/readyz")
    assert (unready.status_code, reason(unready)) == (503, "UNAVAILABLE")
    assert "partition 3" in unready.json()["error"]["message"]
    metrics = await gateway.http.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert "kv_test_total 1.0" in metrics.text


@pytest.mark.parametrize(
    ("query", "level", "options"),
    [
        ({}, kv_pb2.READ_LEVEL_LINEARIZABLE, {}),
        ({"level": "lease"}, kv_pb2.READ_LEVEL_LEASE, {}),
        ({"level": "session"}, kv_pb2.READ_LEVEL_SESSION, {}),
        ({"level": "bounded:200ms"}, kv_pb2.READ_LEVEL_BOUNDED, {"max_age_ms": 200}),
        ({"level": "bounded:1.5s"}, kv_pb2.READ_LEVEL_BOUNDED, {"max_age_ms": 1500}),
        ({"level": "STALE"}, kv_pb2.READ_LEVEL_STALE, {}),
        ({"level": "quorum"}, kv_pb2.READ_LEVEL_QUORUM, {}),
        ({"level": "quorum:2"}, kv_pb2.READ_LEVEL_QUORUM, {"replicas": 2}),
        ({"level": "all"}, kv_pb2.READ_LEVEL_ALL, {}),
        ({"prefer": "leader"}, 1, {"preference": kv_pb2.REPLICA_PREFERENCE_LEADER}),
        ({"prefer": "local"}, 1, {"preference": kv_pb2.REPLICA_PREFERENCE_LOCAL}),
        ({"prefer": "n3", "level": "stale"}, kv_pb2.READ_LEVEL_STALE, {"node": "n3"}),
    ],
)
async def test_levels_and_preferences_of_reads(
    gateway: Gateway, query: dict[str, str], level: int, options: dict[str, Any]
) -> None:
    """Each level and preference that a URL can say reaches the router; the default is linearizable."""
    assert (await gateway.http.get("/get", params={"key": "a", **query})).status_code == 404
    [batch] = gateway.executor.batches
    assert batch.level == level
    assert batch.read == kv_pb2.ReadOptions(**options)


async def test_increment_and_append(gateway: Gateway) -> None:
    """A counter counts by one or by its delta, a value grows; what is no number or too large is a conflict."""
    first = await gateway.http.post("/increment", json={"key": "n"})
    assert first.json() == {"key": "n", "value": 1, "revision": 1, "version": 1}
    least = await gateway.http.post("/increment", json={"key": "n", "delta": -(1 << 63)})
    assert least.json()["value"] == 1 - (1 << 63)
    over = await gateway.http.post("/increment", json={"key": "n", "delta": -2})
    assert (over.status_code, reason(over)) == (409, "INTEGER_OVERFLOW")
    grown = await gateway.http.post("/append", json={"key": "t", "value": "abc"})
    assert grown.json() == {"key": "t", "length": 3, "revision": 4, "version": 1}
    word = await gateway.http.post("/increment", json={"key": "t"})
    assert (word.status_code, reason(word)) == (409, "NOT_AN_INTEGER")
    late = await gateway.http.post("/append", json={"key": "t", "value": "d", "if_revision": 3})
    assert (late.status_code, reason(late)) == (409, "CONDITION_FAILED")
    raw = await gateway.http.post("/append", json={"key": "t", "value_base64": "/w==", "if_value": "abc"})
    assert raw.json()["length"] == 4


@pytest.mark.parametrize("delta", [1 << 63, -(1 << 63) - 1, "1", True, 1.0, None, []])
async def test_bad_deltas_are_refused(gateway: Gateway, delta: object) -> None:
    """A delta is a whole number of 64 bits, or nothing is counted."""
    response = await gateway.http.post("/increment", json={"key": "n", "delta": delta})
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert gateway.executor.batches == []


async def test_previous_values(gateway: Gateway) -> None:
    """What a put or a delete replaced comes back if asked for: null where there was nothing, and not unasked."""
    put = {"key": "a", "value": "1", "return_previous": True}
    assert (await gateway.http.post("/put", json=put)).json()["previous"] is None
    again = (await gateway.http.post("/put", json={**put, "value": "2"})).json()
    assert again["previous"] == {"key": "a", "value": "1", "revision": 1, "create_revision": 1, "version": 1}
    assert "previous" not in (await gateway.http.post("/put", json={"key": "a", "value": "3"})).json()
    gone = await gateway.http.delete("/delete", params={"key": "a", "return_previous": "true"})
    assert (gone.json()["deleted"], gone.json()["previous"]["value"]) == (True, "3")


async def test_conditions_on_presence_and_value(gateway: Gateway) -> None:
    """In a body as in a URL; a false flag is no condition."""
    await gateway.http.post("/put", json={"key": "a", "value": "1", "if_present": False})
    moved = await gateway.http.post("/put", json={"key": "a", "value": "2", "if_value": "1"})
    assert moved.json()["version"] == 2
    kept = await gateway.http.delete("/delete", params={"key": "a", "if_value": "1"})
    assert kept.status_code == 409
    assert (await gateway.http.delete("/delete", params={"key": "a", "if_present": "true"})).json()["deleted"]
    missing = await gateway.http.delete("/delete", params={"key": "a", "if_present": "true"})
    assert missing.status_code == 409
    for query in (
        {"if_present": "yes"},
        {"if_absent": "true"},
        {"return_previous": "1"},
        {"all_timeout_ms": "x"},
    ):
        bad = await gateway.http.delete("/delete", params={"key": "a", **query})
        assert (bad.status_code, reason(bad)) == (400, "INVALID_ARGUMENT")


async def test_write_levels(gateway: Gateway) -> None:
    """Every write takes its level and how long to wait; unsaid, the server's defaults."""
    level = {"write": "all", "all_timeout_ms": 60_000}
    await gateway.http.post("/put", json={"key": "a", "value": "1", **level})
    await gateway.http.post("/increment", json={"key": "n", **level})
    await gateway.http.post("/append", json={"key": "t", "value": "", **level})
    await gateway.http.delete("/delete", params={"key": "a", "write": "all", "all_timeout_ms": "60000"})
    found = [(batch.write_level, batch.all_timeout_ms) for batch in gateway.executor.batches]
    assert found == [(kv_pb2.WRITE_LEVEL_ALL, 60_000)] * 4
    await gateway.http.post("/put", json={"key": "a", "value": "1", "write": "quorum"})
    await gateway.http.post("/put", json={"key": "a", "value": "1"})
    levels = [batch.write_level for batch in gateway.executor.batches[4:]]
    assert levels == [kv_pb2.WRITE_LEVEL_QUORUM, kv_pb2.WRITE_LEVEL_UNSPECIFIED]


async def test_a_session_token_grows_and_binds_session_reads(gateway: Gateway) -> None:
    """What a reply shows comes out as a token; given back, a SESSION read waits for it and others do not."""
    put = await gateway.http.post("/put", json={"key": "a", "value": "1"})
    token = {"kv-session-token": put.headers["kv-session-token"]}
    assert parse_token(token["kv-session-token"]) == (cluster_mark("test"), {7: 1})
    read = await gateway.http.get("/get", params={"key": "a", "level": "session"}, headers=token)
    await gateway.http.get("/get", params={"key": "a", "level": "stale"}, headers=token)
    _, session, stale = gateway.executor.batches
    assert [(pair.partition, pair.index) for pair in session.read.after] == [(7, 1)]
    assert not stale.HasField("read")
    assert parse_token(read.headers["kv-session-token"])[1] == {7: 2}
    older = await gateway.http.get(
        "/get",
        params={"key": "a"},
        headers={"kv-session-token": write_token(cluster_mark("test"), {7: 99, 3: 4})},
    )
    assert parse_token(older.headers["kv-session-token"])[1] == {3: 4, 7: 99}


@pytest.mark.parametrize("token", ["", "x", "s1-00000000-7.1", write_token(cluster_mark("other"), {7: 1})])
async def test_a_bad_session_token_is_refused(gateway: Gateway, token: str) -> None:
    """What is no token, or one of another cluster, is not quietly ignored."""
    response = await gateway.http.get("/get", params={"key": "a"}, headers={"kv-session-token": token})
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert gateway.executor.batches == []


async def test_the_outcome_of_a_write(gateway: Gateway) -> None:
    """Applied with its results, not applied for good, or no longer known."""
    executor = gateway.executor
    opened = kv_pb2.Operation(open_session=kv_pb2.OpenSessionOperation())
    raw = await executor.execute(kv_pb2.BatchRequest(operations=[opened]).SerializeToString(), 1.0)
    session = kv_pb2.BatchResponse.FromString(raw).results[0].open_session.session
    missing = kv_pb2.DeleteOperation(key=b"b", condition=kv_pb2.Condition(present=True))
    inner = kv_pb2.Operation(increment=kv_pb2.IncrementOperation(key=b"n", delta=2))
    operations = [
        kv_pb2.Operation(put=kv_pb2.PutOperation(key=b"a", value=b"1", return_previous=True)),
        kv_pb2.Operation(delete=missing),
        kv_pb2.Operation(append=kv_pb2.AppendOperation(key=b"a", value=b"2")),
        kv_pb2.Operation(txn=kv_pb2.TxnOperation(then_operations=[inner])),
    ]
    identity = kv_pb2.RequestId(session=session, sequence=1)
    batch = kv_pb2.BatchRequest(operations=operations, request_id=identity)
    await executor.execute(batch.SerializeToString(), 1.0)
    told = (await gateway.http.get(f"/outcome/{OutcomeToken(PARTITION, session, 1)}")).json()
    assert told["outcome"] == "applied"
    put, conflict, append, txn = told["results"]
    assert put == {"put": {"revision": 2, "version": 1}}
    assert conflict["error"]["reason"] == "CONDITION_FAILED"
    assert append == {"append": {"length": 2, "revision": 2, "version": 2}}
    counted = {"increment": {"value": 2, "revision": 2, "version": 1}}
    assert txn == {"txn": {"succeeded": True, "revision": 2, "results": [counted]}}
    one = (await gateway.http.get(f"/outcome/{OutcomeToken(PARTITION, session, 1, 2, 1)}")).json()
    assert one["results"] == [append]
    never = await gateway.http.get(f"/outcome/{OutcomeToken(PARTITION, session, 9)}")
    assert never.json() == {"outcome": "not_applied", "results": []}
    assert never.headers["kv-partition"] == "7"
    forgotten = await gateway.http.get(f"/outcome/{OutcomeToken(PARTITION, 12345, 1)}")
    assert forgotten.json()["outcome"] == "unknown"


@pytest.mark.parametrize(
    "path", ["/outcome/x", "/outcome/w1-7-1-1-0", "/outcome/w1-0-1-1-0-0", "/outcome/w1-7-1-1-0-0?key=a"]
)
async def test_bad_outcome_tokens_are_refused(gateway: Gateway, path: str) -> None:
    """What is not a whole token, or has a field beside it, is INVALID_ARGUMENT."""
    response = await gateway.http.get(path)
    assert (response.status_code, reason(response)) == (400, "INVALID_ARGUMENT")
    assert gateway.executor.batches == []


async def test_an_unknown_outcome_shows_its_token(gateway: Gateway) -> None:
    """The token stands in the error itself; an error that has none has no such field."""
    gateway.executor.failure = UnknownOutcome("lost", metadata={"token": "w1-7-1-1-0-0"})
    response = await gateway.http.post("/put", json={"key": "a", "value": "1"})
    assert response.json()["error"]["token"] == "w1-7-1-1-0-0"
    gateway.executor.failure = UnknownOutcome("lost")
    response = await gateway.http.post("/put", json={"key": "a", "value": "1"})
    assert "token" not in response.json()["error"]


def test_statuses_of_the_commonest_failures() -> None:
    """503 invites a retry, 504 and 500 do not promise that nothing happened."""
    found = [cls("x").http_status for cls in (NoLeader, DeadlineExceeded, UnknownOutcome)]
    assert found == [503, 504, 500]
