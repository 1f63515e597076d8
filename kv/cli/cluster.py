"""Commands on the cluster: status, ring."""

from __future__ import annotations

import asyncio
from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kv.cli import output
from kv.cli.output import Output
from kv.cli.settings import Settings
from kv.cli.text import json_field, show, show_duration, show_hash, show_size, to_bytes
from kv.errors import ExitCode

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from kv.cli.view import ClusterView
    from kv.v1 import cluster_pb2

PROBE_TIMEOUT_S: Final = 2.0
"""How long a silent node may hold up `kv status`, unless --timeout says otherwise."""

HASH_SPACE: Final = 1 << 64

Row = tuple[str, ...]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (status, ring):
        app.command()(command)


def view_of(settings: Settings) -> ClusterView:
    """Ask the endpoints for the map, and every node of it for its status. Raises `KVError` without a map."""
    from kv.cli.probe import fetch_view  # noqa: PLC0415 - brings grpc

    return asyncio.run(fetch_view(settings.endpoints, settings.timeout_s or PROBE_TIMEOUT_S))


def status(context: typer.Context) -> None:
    """Show every node and partition. Ends with status 6 if a partition has no leader."""
    settings: Settings = context.obj
    view = view_of(settings)
    assert view.cluster_map is not None
    if settings.output is Output.TABLE:
        output.line(f"cluster {view.cluster_map.cluster}, map epoch {view.cluster_map.epoch}\n")
        output.table(NODE_HEADERS, node_rows(view))
        output.line()
        output.table(PARTITION_HEADERS, partition_rows(view))
    else:
        output.record(status_fields(view))
    for node, why in view.silent.items():
        output.note(f"{node} is silent: {why}")
    for (node, partition), failure in view.stopped().items():
        output.note(f"replica of partition {partition} on {node} has stopped: {failure}")
    if unready := view.unready():
        output.note(f"error: NO_LEADER: {unready}")
        raise typer.Exit(int(ExitCode.UNAVAILABLE))


def ring(
    context: typer.Context, key: Annotated[str, typer.Argument(help="The key; it need not exist.")]
) -> None:
    """Show where a key lives: its hash and tag, the partition, its replicas and its leader."""
    settings: Settings = context.obj
    view = view_of(settings)
    fields = placement(view, to_bytes(key))
    if settings.output is Output.TABLE:
        cells = {
            "key": show(to_bytes(key)),
            **{name: _cell(value) for name, value in fields.items() if not name.startswith("key")},
        }
        output.table(("", ""), cells.items(), show_header=False)
    else:
        output.record(fields)


def placement(view: ClusterView, key: bytes) -> dict[str, object]:
    """Return where `key` lives as fields: key, tag, hash, partition, range, replicas, leader."""
    from kv.router.ring import hash_tag, key_hash  # noqa: PLC0415 - not needed by other commands

    assert view.cluster_map is not None
    hashed = key_hash(key)
    owner = next(part for part in view.cluster_map.partitions if part.hash_start <= hashed < range_end(part))
    tag = hash_tag(key)
    return {
        **json_field("key", key),
        "tag": None if tag == key else show(tag),
        "hash": show_hash(hashed),
        "partition": owner.id,
        "range": [show_hash(owner.hash_start), show_hash(range_end(owner))],
        "replicas": list(owner.replicas),
        "leader": view.leader(owner.id),
    }


def range_end(partition: cluster_pb2.Partition) -> int:
    """Return the exclusive end of the hash range; the wire writes 2^64 as 0."""
    return partition.hash_end or HASH_SPACE


NODE_HEADERS: Final = (
    "node",
    "address",
    "http",
    "state",
    "version",
    "leads",
    "replicas",
    "log (segments)",
    "up for",
)


def node_rows(view: ClusterView) -> list[Row]:
    """Return a row for each node of the map, those that did not answer too."""
    assert view.cluster_map is not None
    rows: list[Row] = []
    for node in view.cluster_map.nodes:
        found = view.statuses.get(node.id)
        http = node.http_address if found is None else found.http_address
        head = (node.id, node.address, http or "-")
        if found is None:
            rows.append((*head, "silent", "-", "-", "-", "-", "-"))
            continue
        rows.append(
            (
                *head,
                "disk full" if found.disk_full else "up",
                found.version,
                str(len(view.led_by(node.id))),
                str(len(found.replicas)),
                f"{show_size(found.log_bytes)} ({found.log_segments})",
                show_duration(found.uptime_ms / 1000),
            )
        )
    return rows


PARTITION_HEADERS: Final = ("partition", "hash range", "replicas", "leader", "term", "applied/commit", "keys")


def partition_rows(view: ClusterView) -> list[Row]:
    """Return a row for each partition; its figures are the leader's."""
    assert view.cluster_map is not None
    rows: list[Row] = []
    for part in view.cluster_map.partitions:
        leader = view.leader(part.id)
        replica = view.replicas(part.id).get(leader) if leader else None
        figures: Row = ("-", "-", "-")
        if replica is not None:
            applied = f"{replica.applied_index}/{replica.commit_index}"
            figures = (str(replica.term), applied, str(replica.keys))
        hashes = f"{show_hash(part.hash_start)}-{show_hash(range_end(part))}"
        rows.append((str(part.id), hashes, " ".join(part.replicas), leader or "none", *figures))
    return rows


def status_fields(view: ClusterView) -> dict[str, object]:
    """Return the view as JSON: the map, and each node's own status or why there is none."""
    assert view.cluster_map is not None
    return {
        "map": message_fields(view.cluster_map),
        "leaders": {str(part): view.leader(part) for part in view.partition_ids},
        "nodes": {node: message_fields(found) for node, found in view.statuses.items()},
        "silent": dict(view.silent),
    }


def message_fields(message: Message) -> dict[str, object]:
    """Return every field of a message under its own name: 64-bit numbers as numbers, enums by name.

    protobuf's JSON form would write such numbers as strings and leave zeros out.
    """
    return {field.name: _plain(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields}


def _plain(field: Any, value: Any) -> object:  # noqa: ANN401 - a descriptor of either protobuf backend
    if isinstance(value, MutableSequence):
        return [_single(field, part) for part in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> object:  # noqa: ANN401 - as above
    if field.message_type is not None:
        return message_fields(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case list():
            return " ".join(map(str, value))
        case _:
            return str(value)
