"""Targets for what comes from a socket above the Raft floor: from clients, from other nodes, from servers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from kv.cluster.map import NodeInfo, decode, initial_map
from kv.errors import (
    DETAILS_KEY,
    ERROR_DOMAIN,
    MESSAGE_CHARS_MAX,
    REGISTRY,
    InvalidArgument,
    KVError,
    NotLeader,
    RequestTooLarge,
    Unavailable,
    from_grpc,
    from_proto,
    to_grpc,
    to_proto,
)
from kv.gateway import codec, replies
from kv.internal.v1 import peer_pb2, pipeline_pb2
from kv.partition.batch import REFUSED, decode_batch
from kv.router.forward import ForwardLink
from kv.router.forward_server import ForwardInbox
from kv.router.limits import PEER_MESSAGE_BYTES_MAX, RouterConfig
from kv.router.pipeline import Pipeline
from kv.router.ring import Ring
from kv.router.routing import merge, split
from kv.router.server import RouterServer
from kv.router.streams import parse as parse_message
from kv.v1 import kv_pb2
from tests.fuzz.engine import Check, Target, gist, plain
from tests.fuzz.mutate import mutate_message, mutate_text
from tests.fuzz.partition_targets import batches, input_of, strings_in
from tests.partition.tools import batch, get, put
from tests.router.world import VirtualWorld

MESSAGES_MAX = 20
"""Messages of one input that are taken in."""
TURNS_MAX = 4000
"""Turns of the loop, a second of virtual time each, after which a call should have ended."""
LONGEST_WAIT_S = 4000.0
"""Above the longest timeout that a request can ask for."""
REFUSALS = (InvalidArgument, RequestTooLarge)


def _in_loop(
    check: Callable[[bytes], Coroutine[Any, Any, str]],
) -> Callable[[Path], AbstractContextManager[Check]]:
    """The `make` of a check that needs a running event loop; all inputs share it."""

    @contextmanager
    def make(_: Path) -> Iterator[Check]:
        with asyncio.Runner() as runner:
            yield lambda data: runner.run(check(data))

    return make


# --- the cluster map ------------------------------------------------------------------------------------------


def _map_seeds() -> list[bytes]:
    infos = [NodeInfo(f"n{i}", f"h{i}:7000", f"h{i}:8000", f"z{i % 2}") for i in range(1, 5)]
    return [
        initial_map("c", infos[:nodes], partitions=partitions, replication_factor=factor, virtual_nodes=8,
                    load_factor=1.25).encode()
        for nodes, partitions, factor in ((1, 1, 1), (3, 4, 3), (4, 7, 2))
    ]  # fmt: skip


def _check_map(data: bytes) -> str:
    try:
        found = decode(data)
    except InvalidArgument as refusal:
        return gist(refusal)
    assert decode(found.encode()) == found
    ring = Ring(found.partitions)
    for key in (b"", b"a", b"{tag}b"):
        assert found.partition(ring.partition_of(key)) is not None
    return f"map of {min(len(found.nodes), 4)} and {min(len(found.partitions), 7)}"


# --- a client's Pipeline ---------------------------------------------------------------------------------------


def _pipeline_seeds() -> list[bytes]:
    def message(*raws: bytes, partition: int = 0, timeout_ms: int = 0) -> bytes:
        made = kv_pb2.PipelineRequest()
        for number, raw in enumerate(raws, 1):
            made.batches.add(
                id=number,
                batch=kv_pb2.BatchRequest.FromString(raw),
                partition=partition,
                timeout_ms=timeout_ms,
            )
        return made.SerializeToString()

    runs = batches()
    return [
        *(input_of(*(message(raw) for raw in run)) for run in runs),
        *(input_of(message(*run, partition=1, timeout_ms=100)) for run in runs),
        input_of(message(batch(put(b"a", b"1"), put(b"b", b"2"), get(b"c"), get(b"d"))), message()),
    ]


async def _check_pipeline(data: bytes) -> str:
    world = VirtualWorld()
    world.lead("n2")
    counts: Counter[str] = Counter()
    pipeline = Pipeline(world.routers["n1"], lambda outcome: counts.update([outcome]))
    asked: Counter[int] = Counter()
    for raw in strings_in(data)[:MESSAGES_MAX]:
        try:
            pipeline.take_in(raw)
        except REFUSALS:
            break
        asked.update(one.id for one in pipeline_pb2.RawPipelineRequest.FromString(raw).batches)
    world.time.advance(LONGEST_WAIT_S)
    answered: Counter[int] = Counter()
    while (message := pipeline.take_out()) is not None:
        answered.update(reply.id for reply in kv_pb2.PipelineResponse.FromString(message).replies)
    assert answered == asked, f"asked {asked}, answered {answered}"
    assert pipeline.in_flight == 0
    assert world.routers["n1"].in_flight == 0
    return f"{min(asked.total(), 3)}: " + " ".join(sorted(counts))


# --- the other calls of a client ------------------------------------------------------------------------------------

METHODS = ("Get", "Put", "Delete", "Batch", "Txn", "Scan")


class Ended(Exception):
    """The call was aborted; its argument is the reason."""


class Call:
    """The server's view of a call, as far as the handlers use it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def time_remaining(self) -> float | None:
        return None

    async def write(self, message: bytes) -> None:
        self.written.append(message)

    async def abort(self, code: object, text: str, trailing: tuple[tuple[str, bytes], ...]) -> None:
        raise Ended(from_grpc(2, text, trailing, sent=True).reason)


async def _check_rpc(data: bytes) -> str:
    """The first byte chooses the method."""
    world = VirtualWorld()
    world.lead("n2")
    server = RouterServer(world.routers["n1"], peer_pb2.Hello)
    method = METHODS[data[0] % len(METHODS)] if data else METHODS[0]
    task = asyncio.get_running_loop().create_task(_call(server, method, data[1:]))
    for _ in range(TURNS_MAX):
        await asyncio.sleep(0)
        if task.done():
            break
        world.time.advance(1.0)
    assert task.done(), "a call that never ends"
    try:
        responses = task.result()
    except Ended as ended:
        if ended.args[0] == "INTERNAL":
            raise  # a request met a defect of the server
        return f"{method} {ended.args[0]}"
    for raw in responses:
        getattr(kv_pb2, f"{method}Response").FromString(raw)
    assert world.routers["n1"].in_flight == 0
    return f"{method} OK"


async def _call(server: RouterServer, method: str, raw: bytes) -> list[bytes]:
    call = Call()
    if method == "Scan":
        await server._scan(raw, call)  # type: ignore[arg-type]
        return call.written
    handler: Any = server._kv().service(_Details(method))  # type: ignore[arg-type]
    return [await handler.unary_unary(raw, call)]


class _Details:
    """Names the method that is called."""

    def __init__(self, method: str) -> None:
        self.method = f"/kv.v1.KVService/{method}"


def _rpc_seeds() -> list[bytes]:
    exists = kv_pb2.Compare(key=b"a", comparator=kv_pb2.COMPARATOR_EQUAL, exists=False)
    requests = [
        (0, kv_pb2.GetRequest(key=b"a", level=kv_pb2.READ_LEVEL_STALE)),
        (1, kv_pb2.PutRequest(key=b"a", value=b"v", condition=kv_pb2.Condition(absent=True))),
        (1, kv_pb2.PutRequest(key=b"a", request_id=kv_pb2.RequestId(session=1, sequence=2, acknowledged=1))),
        (2, kv_pb2.DeleteRequest(key=b"a", condition=kv_pb2.Condition(revision=7))),
        (4, kv_pb2.TxnRequest(compare=[exists], then_operations=[put(b"a", b"1"), get(b"a")])),
        (5, kv_pb2.ScanRequest(start=b"a", end=b"z", limit=3, level=kv_pb2.READ_LEVEL_LINEARIZABLE)),
        (5, kv_pb2.ScanRequest(prefix=b"a", keys_only=True)),
    ]
    whole = [b"\x03" + raw for run in batches() for raw in run]
    return [bytes([method]) + request.SerializeToString() for method, request in requests] + whole


def _mutate_call(data: bytes, other: bytes, rng: Random) -> bytes:
    """Mutates the message behind the byte that chooses the method, seldom that byte."""
    method = rng.randbytes(1) if rng.random() < 0.05 else data[:1]
    return method + mutate_message(data[1:], other[1:], rng)


# --- forwarding between nodes --------------------------------------------------------------------------------------


def _forward_seeds() -> list[bytes]:
    made = []
    for run in batches():
        message = peer_pb2.ForwardRequest(hello=peer_pb2.Hello(cluster="test", node="n2"))
        for number, raw in enumerate(run):
            message.batches.add(id=number, partition=1 + number % 3, map_epoch=1, timeout_ms=50, batch=raw)
        made.append(message.SerializeToString())
    return [input_of(raw) for raw in made] + [input_of(*made)]


def _check_inbox(data: bytes) -> str:
    world = VirtualWorld()
    world.lead("n1")
    inbox = ForwardInbox(world.nodes["n1"], RouterConfig(), lambda: None)
    asked: Counter[int] = Counter()
    for raw in strings_in(data)[:MESSAGES_MAX]:
        try:
            request = parse_message(peer_pb2.ForwardRequest, raw, PEER_MESSAGE_BYTES_MAX)
        except REFUSALS:
            break
        asked.update(one.id for one in request.batches)
        inbox.take_in(request)
    answered: Counter[int] = Counter()
    kinds: set[str] = set()
    while (message := inbox.take_out()) is not None:
        for reply in peer_pb2.ForwardResponse.FromString(message).replies:
            answered[reply.id] += 1
            kinds.add(reply.error.reason or "OK")
    assert answered == asked
    return f"{min(asked.total(), 3)}: " + " ".join(sorted(kinds))


def _reply_seeds() -> list[bytes]:
    result = kv_pb2.BatchResponse(
        results=[kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=7, version=1))]
    )
    evidence = kv_pb2.Evidence(partition=1, map_epoch=1, term=2, index=7, node="n2")
    good = result.SerializeToString() + kv_pb2.BatchResponse(evidence=[evidence]).SerializeToString()
    message = peer_pb2.ForwardResponse()
    message.replies.add(id=1, batch=good)
    message.replies.add(id=2, error=to_proto(NotLeader("no", metadata={"leader": "n3", "partition": 1})))
    message.replies.add(id=3)
    return [
        input_of(message.SerializeToString()),
        input_of(good, good, b""),
        input_of(message.SerializeToString()[:9]),
    ]


def _check_link(data: bytes) -> str:
    link = ForwardLink("n2", RouterConfig(), lambda: None)
    link.opened()
    answers: list[list[bytes | KVError]] = [[] for _ in range(4)]
    for answer in answers:
        link.send(1, 1, 100, b"raw", answer.append)
    assert link.take()
    for raw in strings_in(data)[:MESSAGES_MAX]:
        try:
            link.answered(peer_pb2.ForwardResponse.FromString(raw))
        except DecodeError:
            break
    link.lost(Unavailable("the stream ended"))
    assert [len(answer) for answer in answers] == [1] * 4, "each request has one answer"
    kinds = {one.reason if isinstance(one, KVError) else "OK" for [one] in answers}
    return " ".join(sorted(kinds))


@contextmanager
def _make_merge(_: Path) -> Iterator[Check]:
    ring = VirtualWorld().ring
    keys = [b"k%d" % n for n in range(8)]
    asked = kv_pb2.BatchRequest.FromString(batch(*(put(key, b"v") for key in keys), get(b"")))
    plan = split(asked, asked.SerializeToString(), ring)

    def check(data: bytes) -> str:
        given = strings_in(data)
        outcomes = [given[i] if i < len(given) else Unavailable("no answer") for i in range(len(plan.parts))]
        response = kv_pb2.BatchResponse.FromString(merge(plan, outcomes))
        assert len(response.results) == plan.size, "each operation has one result"
        kinds = Counter(one.WhichOneof("result") for one in response.results)
        return " ".join(f"{kind} {min(count, 4)}" for kind, count in sorted(kinds.items(), key=str))

    yield check


def _merge_seeds() -> list[bytes]:
    def response(count: int) -> bytes:
        result = kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=7, version=1))
        made = kv_pb2.BatchResponse(results=[result] * count, evidence=[kv_pb2.Evidence(partition=1)])
        return made.SerializeToString()

    return [
        input_of(*(response(count) for count in counts)) for counts in ((2, 2, 2, 2), (1, 2, 3), (8,), (4, 4))
    ]


# --- errors ----------------------------------------------------------------------------------------------------------------


def _check_error(data: bytes) -> str:
    try:
        error = from_proto(kv_pb2.Error.FromString(data))
    except DecodeError:
        return "no error"  # the message around it does not parse either
    again = from_proto(to_proto(error))
    assert (again.reason, again.definite) == (error.reason, error.definite)
    assert len(to_proto(error).message) <= MESSAGE_CHARS_MAX
    code, text, trailing = to_grpc(error)
    back = from_grpc(code, text, trailing, sent=True)
    assert (back.reason, back.definite) == (error.reason, error.definite)
    return _told(error)


def _told(error: KVError) -> str:
    return f"{error.reason if error.reason in REGISTRY else 'unknown'} {error.definite}"


def _error_seeds() -> list[bytes]:
    known = [NotLeader("no", metadata={"leader": "n2"}), Unavailable("x"), InvalidArgument("y" * 600)]
    return [to_proto(error).SerializeToString() for error in known]


def _check_status(data: bytes) -> str:
    error = from_grpc(data[0] if data else 2, "text", ((DETAILS_KEY, data[1:]),), sent=True)
    assert isinstance(error, KVError)
    code, _, _ = to_grpc(error)
    assert 0 < code <= 16
    if error.definite:
        assert _claims_definite(data[1:]) or error.reason == "UNIMPLEMENTED", "certainty out of nothing"
    return _told(error)


def _claims_definite(raw: bytes) -> bool:
    """Whether the status says, in our own domain, that nothing happened."""
    try:
        details = Status.FromString(raw).details
    except DecodeError:
        return False
    return any(ERROR_DOMAIN.encode() in one.value and b"true" in one.value for one in details)


def _status_seeds() -> list[bytes]:
    known = [NotLeader("no", metadata={"leader": "n2"}), Unavailable("x"), InvalidArgument("y" * 600)]
    ours = [bytes([code]) + trailing[0][1] for code, _, trailing in map(to_grpc, known)]
    foreign = Status(code=3, message="foreign")
    foreign.details.add().Pack(ErrorInfo(reason="NOT_LEADER", domain="other", metadata={"definite": "true"}))
    return [*ours, b"\x03" + foreign.SerializeToString(), b"\x0e", b"\x00"]


# --- HTTP -------------- -----------------------------------------------------------------------------------------------------


def _check_gateway(data: bytes) -> str:
    """The first byte chooses the path, and whether the fields come from a body or a query."""
    choice, rest = (data[0], data[1:]) if data else (0, b"")
    forms = (
        codec.put_request,
        codec.get_request,
        codec.delete_request,
        codec.increment_request,
        codec.append_request,
    )
    request = forms[choice % len(forms)]
    try:
        if choice & 64:
            text = rest.decode("latin-1")
            fields = codec.read_query(parse_qsl(text, keep_blank_values=True))
        else:
            fields = codec.read_json(rest)
        made = request(fields)
    except KVError as refusal:
        body = replies.error_reply(refusal)["error"]
        return f"{gist(refusal)} {sorted(body) if isinstance(body, dict) else body}"
    decoded = decode_batch(made.SerializeToString())
    assert decoded.operations[0][0] != REFUSED, "the gateway lets through what the partition refuses"
    return str(made.operations[0].WhichOneof("operation"))


def _gateway_seeds() -> list[bytes]:
    bodies = [
        b'{"key": "a", "value": "1"}',
        b'{"key_base64": "AP8=", "value_base64": "AAE=", "if_absent": true}',
        b'{"key": "\\u00e9\\ud83d\\ude00", "value": "", "if_revision": 18446744073709551615}',
        b'{"key": "a", "level": "stale"}',
        b'{"key": "a", "if_revision": 7}',
        b'{"key": "a", "delta": -9223372036854775808, "if_value": "1", "write": "all", "all_timeout_ms": 5}',
        b'{"key": "a", "value": "b", "if_present": true, "return_previous": true, "write": "quorum"}',
        b'{"key": "a", "level": "bounded:200ms", "prefer": "n3"}',
    ]
    queries = [
        b"key=a&level=linearizable",
        b"key_base64=AP8%3D",
        b"key=a%20b&if_revision=7",
        b"key=a&value=b",
        b"key=a&level=quorum:2&prefer=nearest",
        b"key=a&if_present=true&return_previous=false&write=all&all_timeout_ms=7",
    ]
    return [bytes([path]) + body for path in range(5) for body in bodies] + [
        bytes([64 + path]) + query for path in range(5) for query in queries
    ]


TARGETS = (
    Target("cluster-map", "a cluster map is refused, or valid and encodes to itself", _map_seeds,
           plain(_check_map), mutate_message),
    Target("pipeline", "each batch of a client's stream is answered once; else the stream ends",
           _pipeline_seeds, _in_loop(_check_pipeline), mutate_message),
    Target("rpc", "each call has an answer or an error that says what was wrong with it", _rpc_seeds,
           _in_loop(_check_rpc), _mutate_call),
    Target("forward-inbox", "each forwarded batch is answered once; else the stream ends", _forward_seeds,
           plain(_check_inbox), mutate_message),
    Target("forward-link", "whatever a peer answers, each request sent to it ends once", _reply_seeds,
           plain(_check_link), mutate_message),
    Target("merge", "whatever partitions answer, each operation of a batch has one result", _merge_seeds,
           _make_merge, mutate_message),
    Target("error", "an error keeps its reason and definiteness through both encodings", _error_seeds,
           plain(_check_error), mutate_message),
    Target("status", "no foreign or damaged status makes a failure definite", _status_seeds,
           plain(_check_status), mutate_message),
    Target("gateway", "an HTTP request is refused or becomes a batch that the partition takes", _gateway_seeds,
           plain(_check_gateway), mutate_text),
)  # fmt: skip
