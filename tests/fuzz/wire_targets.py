"""Targets for what comes from a socket above the Raft floor: from clients, from other nodes, from servers."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from kv.client.aio import AsyncClient
from kv.client.transport import OnClosed, OnReply
from kv.client.types import Get, Put
from kv.client.url import ENDPOINTS_MAX, TIMEOUT_S_MAX, check_endpoint, parse_url
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
from kv.gateway import codec
from kv.internal.v1 import peer_pb2, pipeline_pb2
from kv.partition.batch import REFUSED, decode_batch
from kv.router.forward import ForwardLink
from kv.router.forward_server import ForwardInbox
from kv.router.limits import PEER_MESSAGE_BYTES_MAX, RouterConfig
from kv.router.pipeline import Pipeline
from kv.router.ring import Ring
from kv.router.routing import merge, split
from kv.router.streams import parse as parse_message
from kv.v1 import cluster_pb2, kv_pb2
from tests.client.fakes import FakeCluster, FakeTransport, run_virtual
from tests.fuzz.engine import Check, Target, plain
from tests.fuzz.mutate import Field, mutate_message, mutate_text, serialize
from tests.fuzz.partition_targets import batches, input_of, strings_in
from tests.partition.tools import batch, get, put
from tests.router.world import VirtualWorld

MESSAGES_MAX = 20
"""Messages of one input that are taken in."""
ID_OF_REQUEST = 1
"""In an answer of a scripted server, it stands for the id of the request that it answers."""
LONGEST_WAIT_S = 4000.0
"""Above the longest timeout that a request can ask for."""
REFUSALS = (InvalidArgument, RequestTooLarge)


def _gist(refusal: KVError) -> str:
    """A refusal without what varies: the reason, and the words before and after anything quoted."""
    text = re.sub(r"""(['"]).*\1|[0-9.]+""", "_", refusal.message, flags=re.DOTALL)
    words = re.findall(r"[a-z_]{2,}", text)
    return f"{refusal.reason}: {' '.join([*words[:4], *words[4:][-3:]])}"


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
        return _gist(refusal)
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


# --- what a client reads from servers -----------------------------------------------------------------------------------


class Scripted(FakeTransport):
    """A transport whose nodes answer each request with the next message of the input."""

    def __init__(self, cluster: FakeCluster, data: bytes) -> None:
        super().__init__(cluster)
        self.messages = strings_in(data, 1)[:MESSAGES_MAX]
        self.maps = strings_in(data, 2)[:1]
        self.pages = strings_in(data, 3)[:MESSAGES_MAX]

    def open(self, address: str, on_reply: OnReply, on_closed: OnClosed) -> Any:  # noqa: ANN401 - a fake
        return ScriptedStream(self, on_reply, on_closed)

    async def get_map(self, address: str, timeout_s: float) -> cluster_pb2.GetMapResponse:
        await asyncio.sleep(0.001)
        raw = self.maps.pop() if self.maps else self.good_map()
        parsed: cluster_pb2.GetMapResponse = _parsed(cluster_pb2.GetMapResponse, raw)
        return parsed

    def good_map(self) -> bytes:
        return cluster_pb2.GetMapResponse(map=self.cluster.map.to_proto()).SerializeToString()

    async def scan(
        self, address: str, request: kv_pb2.ScanRequest, timeout_s: float
    ) -> AsyncGenerator[kv_pb2.ScanResponse, None]:
        for raw in self.pages:
            await asyncio.sleep(0.001)
            yield _parsed(kv_pb2.ScanResponse, raw)


def _parsed(kind: Any, raw: bytes) -> Any:  # noqa: ANN401 - messages have no useful common type
    """As gRPC does it: what does not parse is the failure of the call."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise from_grpc(13, str(error), None, sent=True) from error


class ScriptedStream:
    """One stream of `Scripted`."""

    def __init__(self, transport: Scripted, on_reply: OnReply, on_closed: OnClosed) -> None:
        self._transport, self._on_reply, self._on_closed = transport, on_reply, on_closed
        self._open = True

    def send(self, request_id: int, raw: bytes) -> None:
        asyncio.get_running_loop().call_later(0.001, self._answer, request_id)

    def withdraw(self, request_id: int) -> bool:
        return False

    def close(self) -> None:
        self._open = False

    def _answer(self, request_id: int) -> None:
        if not self._open or not self._transport.messages:
            return
        try:
            response = _parsed(kv_pb2.PipelineResponse, self._transport.messages.pop(0))
        except KVError as error:
            self._open = False
            self._on_closed(error, [])
            return
        for reply in response.replies:
            if reply.id == ID_OF_REQUEST:
                reply.id = request_id
        self._on_reply(response)


def _check_client(data: bytes) -> str:
    ends: list[str] = []

    async def end(work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except KVError as error:
            ends.append(error.reason)
        else:
            ends.append("OK")

    async def main() -> None:
        cluster = FakeCluster(partitions=1)
        addresses = list(cluster.addresses.values())
        transport = Scripted(cluster, data)
        async with AsyncClient(addresses, transport=transport, timeout=1.0, jitter=lambda: 0.5) as client:
            await end(client.get(b"a"))
            await asyncio.gather(
                end(client.put(b"a", b"1")),
                end(client.delete(b"b")),
                end(client.batch([Put(b"c", b"2"), Get(b"d")])),
            )
            await end(_scan(client))

    run_virtual(main)
    return " ".join(ends)


async def _scan(client: AsyncClient) -> None:
    async for _ in client.scan(b"a"):
        pass


def _client_seeds() -> list[bytes]:
    def message(*results: kv_pb2.OperationResult) -> bytes:
        made = kv_pb2.PipelineResponse()
        evidence = kv_pb2.Evidence(
            partition=1, map_epoch=1, term=2, index=7, node="n1", level=kv_pb2.READ_LEVEL_LINEARIZABLE
        )
        made.replies.add(id=ID_OF_REQUEST, batch=kv_pb2.BatchResponse(results=results, evidence=[evidence]))
        return made.SerializeToString()

    item = kv_pb2.KeyValue(key=b"a", value=b"1", create_revision=3, mod_revision=7, version=2)
    got = kv_pb2.OperationResult(get=kv_pb2.GetResult(item=item))
    opened = kv_pb2.OperationResult(open_session=kv_pb2.OpenSessionResult(session=99, ttl_ms=1000))
    done = kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=9, version=1))
    gone = kv_pb2.OperationResult(delete=kv_pb2.DeleteResult(deleted=True, revision=9))
    failed = kv_pb2.PipelineResponse()
    failed.replies.add(
        id=ID_OF_REQUEST, error=to_proto(NotLeader("no", metadata={"leader": "n2", "partition": 1}))
    )
    pages = [kv_pb2.ScanResponse(items=[kv_pb2.KeyValue(key=key)]) for key in (b"a", b"ab")]
    runs = [
        [message(got), message(opened), message(done, gone, done, got)],
        [failed.SerializeToString(), message(got), message(opened), message(done)],
        [message(opened), message(got), b"", message()],
    ]
    fake = Scripted(FakeCluster(partitions=1), b"")
    rest = [Field(2, 2, fake.good_map()), *(Field(3, 2, page.SerializeToString()) for page in pages)]
    return [input_of(*run) + serialize(rest) for run in runs]


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


# --- HTTP and addresses -----------------------------------------------------------------------------------------------------


def _check_gateway(data: bytes) -> str:
    """The first byte chooses the path, and whether the fields come from a body or a query."""
    choice, rest = (data[0], data[1:]) if data else (0, b"")
    request = (codec.put_request, codec.get_request, codec.delete_request)[choice % 3]
    try:
        if choice & 64:
            text = rest.decode("latin-1")
            fields = codec.read_query(parse_qsl(text, keep_blank_values=True))
        else:
            fields = codec.read_json(rest)
        made = request(fields)
    except KVError as refusal:
        body = codec.error_reply(refusal)["error"]
        return f"{_gist(refusal)} {sorted(body) if isinstance(body, dict) else body}"
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
    ]
    queries = [
        b"key=a&level=linearizable",
        b"key_base64=AP8%3D",
        b"key=a%20b&if_revision=7",
        b"key=a&value=b",
    ]
    return [bytes([path]) + body for path in range(3) for body in bodies] + [
        bytes([64 + path]) + query for path in range(63, 66) for query in queries
    ]


def _check_url(data: bytes) -> str:
    try:
        options = parse_url(data.decode("utf-8", errors="surrogateescape"))
    except InvalidArgument as refusal:
        return _gist(refusal)
    assert 0 < len(options.endpoints) <= ENDPOINTS_MAX
    assert 0 < options.timeout_s <= TIMEOUT_S_MAX
    for endpoint in options.endpoints:
        check_endpoint(endpoint)
    return f"{min(len(options.endpoints), 3)} {options.level.name}"


def _url_seeds() -> list[bytes]:
    return [b"kv://h:1", b"kv://h1:7000,h2:7000/?timeout=2s&level=stale", b"kv://[::1]:7000?timeout=500ms",
            b"kv://a.b-c:65535/?level=linearizable&timeout=1.5m"]  # fmt: skip


TARGETS = (
    Target("cluster-map", "a cluster map is refused, or valid and encodes to itself", _map_seeds,
           plain(_check_map), mutate_message),
    Target("pipeline", "each batch of a client's stream is answered once; else the stream ends",
           _pipeline_seeds, _in_loop(_check_pipeline), mutate_message),
    Target("forward-inbox", "each forwarded batch is answered once; else the stream ends", _forward_seeds,
           plain(_check_inbox), mutate_message),
    Target("forward-link", "whatever a peer answers, each request sent to it ends once", _reply_seeds,
           plain(_check_link), mutate_message),
    Target("merge", "whatever partitions answer, each operation of a batch has one result", _merge_seeds,
           _make_merge, mutate_message),
    Target("client", "whatever servers answer, each call of a client ends once, with a result or an error",
           _client_seeds, plain(_check_client), mutate_message),
    Target("error", "an error keeps its reason and definiteness through both encodings", _error_seeds,
           plain(_check_error), mutate_message),
    Target("status", "no foreign or damaged status makes a failure definite", _status_seeds,
           plain(_check_status), mutate_message),
    Target("gateway", "an HTTP request is refused or becomes a batch that the partition takes", _gateway_seeds,
           plain(_check_gateway), mutate_text),
    Target("url", "an address is refused or gives options within their limits", _url_seeds,
           plain(_check_url), mutate_text),
)  # fmt: skip
