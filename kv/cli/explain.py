"""`kv explain`: one request and the whole way that it took, step by step.

The request is an ordinary one with `trace` set, sent as a batch to one node; what the nodes say of it is put
together with where the key lives. How it is drawn is `kv.cli.timeline`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kv.cli import evidence, output
from kv.cli.cluster import placement, view_of
from kv.cli.data import Key, Level, Prefer, WriteLevel, read_value
from kv.cli.output import Output
from kv.cli.settings import Settings
from kv.cli.text import show, to_bytes
from kv.cli.view import addresses
from kv.errors import Internal, InvalidArgument, KVError, Unavailable, from_proto

if TYPE_CHECKING:
    from kv.cli.timeline import Span
    from kv.cli.view import ClusterView
    from kv.client.types import Evidence
    from kv.v1 import kv_pb2

TIMEOUT_S_DEFAULT: Final = 5.0

_PEER_STEPS: Final = {
    "read index confirmed by": "confirmed",
    "read index asked of": "asked leader",
    "on disk here": "synced",
    "acknowledged by": "acknowledged",
    "committed": "committed",
    "applied": "applied",
}
"""What of the trace is said above the timeline, and the step that it is."""

Via = Annotated[
    str | None, typer.Option(help="The node to ask; the first endpoint that answers if not given.")
]

app = typer.Typer(
    name="explain",
    help="Run one request and show the whole way that it took.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(parent: typer.Typer) -> None:
    """Add the commands of this file."""
    parent.add_typer(app)


@app.command("get")
def explain_get(
    context: typer.Context, key: Key, level: Level = None, prefer: Prefer = None, via: Via = None
) -> None:
    """Read one key and show how. A missing key is no error here."""
    from kv.client.levels import LINEARIZABLE, level_of, preference_of, read_options  # noqa: PLC0415 - brings protobuf
    from kv.v1 import kv_pb2  # noqa: PLC0415 - as above

    name = to_bytes(key)
    chosen = LINEARIZABLE if level is None else level_of(level)
    batch = kv_pb2.BatchRequest(
        operations=[kv_pb2.Operation(get=kv_pb2.GetOperation(key=name))],
        level=kv_pb2.ReadLevel.ValueType(int(chosen.kind)),
        read=read_options(chosen, None if prefer is None else preference_of(prefer)),
        trace=True,
    )
    _explain(context.obj, name, batch, via)


@app.command("put")
def explain_put(
    context: typer.Context,
    key: Key,
    value: Annotated[str | None, typer.Argument(help="The value; - reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read the value from this file.")] = None,
    write_level: WriteLevel = None,
    via: Via = None,
) -> None:
    """Write one key and show how."""
    from kv.client.levels import write_level_of  # noqa: PLC0415 - brings protobuf
    from kv.ids import check_value  # noqa: PLC0415 - for this command only
    from kv.v1 import kv_pb2  # noqa: PLC0415 - as above

    name, data = to_bytes(key), read_value(value, file)
    check_value(data)
    level = 0 if write_level is None else int(write_level_of(write_level))
    batch = kv_pb2.BatchRequest(
        operations=[kv_pb2.Operation(put=kv_pb2.PutOperation(key=name, value=data))],
        write_level=kv_pb2.WriteLevel.ValueType(level),
        trace=True,
    )
    _explain(context.obj, name, batch, via)


@dataclass(frozen=True, slots=True)
class Explained:
    """A request that was answered."""

    asked: str
    """The address that was asked."""
    response: kv_pb2.BatchResponse
    took_us: int
    """On the clock of this process, the connection already made."""


def _explain(settings: Settings, key: bytes, batch: kv_pb2.BatchRequest, via: str | None) -> None:
    from kv.ids import check_key  # noqa: PLC0415 - for this command only

    check_key(key)
    view = view_of(settings)
    done = asyncio.run(ask(_addresses(settings, view, via), batch, settings.timeout_s or TIMEOUT_S_DEFAULT))
    if len(done.response.results) != 1:
        raise Internal(f"one operation was answered by {len(done.response.results)} results")
    if done.response.results[0].HasField("error"):
        raise from_proto(done.response.results[0].error)
    if settings.output is Output.TABLE:
        _show(key, view, done)
    else:
        output.record(fields_of(key, view, done))


def _addresses(settings: Settings, view: ClusterView, via: str | None) -> tuple[str, ...]:
    """Return whom to ask, in order."""
    if via is None:
        return settings.endpoints
    assert view.cluster_map is not None, "there is no view without a map"
    known = addresses(view.cluster_map)
    if via not in known:
        raise InvalidArgument(f"the cluster has no node {via!r}: {', '.join(known)}")
    return (known[via],)


async def ask(asked: tuple[str, ...], batch: kv_pb2.BatchRequest, timeout_s: float) -> Explained:
    """Send the batch to the first address that can be reached. Raises `KVError`."""
    import grpc.aio  # noqa: PLC0415 - heavy

    from kv.cli.probe import CHANNEL_OPTIONS, kv_error  # noqa: PLC0415 - brings grpc
    from kv.v1 import kv_pb2_grpc  # noqa: PLC0415 - as above

    cause: KVError | None = None
    for address in asked:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            try:
                await asyncio.wait_for(channel.channel_ready(), timeout_s)
            except TimeoutError:
                cause = Unavailable(f"no connection to {address} within {timeout_s} s")
                continue
            begin = time.monotonic()
            try:
                response = await kv_pb2_grpc.KVServiceStub(channel).Batch(batch, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                raise kv_error(error, address, sent=not _reads(batch)) from error
            return Explained(address, response, round((time.monotonic() - begin) * 1e6))
    assert cause is not None, "there is an address to ask"
    raise cause


def _reads(batch: kv_pb2.BatchRequest) -> bool:
    return all(operation.HasField("get") for operation in batch.operations)


def _proofs(done: Explained) -> list[Evidence]:
    from kv.client.operations import read_evidence  # noqa: PLC0415 - brings protobuf

    write = not done.response.results[0].HasField("get")
    return [read_evidence(proof, write=write) for proof in done.response.evidence]


def _result(done: Explained) -> dict[str, object]:
    """Return what the operation gave."""
    from kv.cli.data import item_fields  # noqa: PLC0415 - with the next
    from kv.client.operations import read_item  # noqa: PLC0415 - brings protobuf

    result = done.response.results[0]
    if result.HasField("put"):
        return {"revision": result.put.revision, "version": result.put.version}
    return {"item": item_fields(read_item(result.get.item, None)) if result.get.HasField("item") else None}


def fields_of(key: bytes, view: ClusterView, done: Explained) -> dict[str, object]:
    """Return everything as JSON."""
    from kv.cli import timeline  # noqa: PLC0415 - brings protobuf

    proofs = _proofs(done)
    return {
        **placement(view, key),
        "asked": done.asked,
        "result": _result(done),
        "evidence": evidence.fields(proofs[0] if proofs else None),
        **evidence.answers(proofs if len(proofs) > 1 else []),
        "client_us": done.took_us,
        "spans": timeline.span_fields(timeline.spans_of(done.response.trace)),
    }


def _show(key: bytes, view: ClusterView, done: Explained) -> None:
    from kv.cli import timeline  # noqa: PLC0415 - brings protobuf

    spans = timeline.spans_of(done.response.trace)
    output.table(("", ""), facts(key, view, done, spans), show_header=False)
    output.line()
    if not spans:
        output.note("the node gave no trace: it is of an older version")
        return
    bar = "\u2588" if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8" else "#"
    headers = ("who", "step", "", "since receipt", "")
    output.table(headers, timeline.cells(timeline.rows_of(spans, done.took_us), bar=bar))
    output.line(
        "\nEach node's times are on its own clock, since it received the request; what a node did is drawn in the"
        "\nmiddle of the time that its caller waited for it. Clocks of two nodes are not compared."
    )


def facts(key: bytes, view: ClusterView, done: Explained, spans: tuple[Span, ...]) -> list[tuple[str, str]]:
    """Return where the key lives, who served, and what the trace tells at a glance; a name and a text each."""
    from kv.cli import timeline  # noqa: PLC0415 - brings protobuf

    place = placement(view, key)
    found = [("key", show(key))]
    for name in ("tag", "hash", "partition", "range", "replicas", "leader"):
        value = place[name]
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        found.append((name, evidence.NOTHING if value is None else text))
    found.append(("asked", done.asked))
    for proof in _proofs(done):
        cells = evidence.cells(proof, full=True)
        pairs = dict(zip(evidence.LONG_HEADERS, cells, strict=True))
        found.append(("evidence", ", ".join(f"{name} {cell}" for name, cell in pairs.items())))
    for name, step in _PEER_STEPS.items():
        if text := timeline.confirmations(spans, step):
            found.append((name, text))
    found += [(name, _short(value)) for name, value in _result(done).items()]
    found.append(("took", timeline.show_us(done.took_us)))
    return found


def _short(value: object) -> str:
    match value:
        case None:
            return "no such key"
        case dict():
            return ", ".join(f"{name} {show(str(part).encode())}" for name, part in value.items())
        case _:
            return str(value)
