"""Commands on keys: put, get, delete, scan."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from kv.cli import output
from kv.cli.output import Output
from kv.cli.settings import Settings
from kv.cli.text import json_field, show, to_bytes
from kv.errors import InvalidArgument, NotFound
from kv.ids import VALUE_BYTES_MAX

if TYPE_CHECKING:
    from kv.client import AsyncClient
    from kv.client.types import Evidence, Item

T = TypeVar("T")

SCAN_ROWS_PER_TABLE: Final = 500
"""A table is aligned over this many rows, so that a scan of any length prints while it reads."""

Key = Annotated[str, typer.Argument(help="The key; its {tag}, if any, chooses the partition.")]
IfRevision = Annotated[
    int | None, typer.Option(min=0, help="Only if the key's last write has this revision.")
]
Level = Annotated[
    str | None, typer.Option(help="linearizable (the default), or stale: whatever the replica asked has.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (put, get, delete, scan):
        app.command()(command)


def call(settings: Settings, action: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """Run `action` with a client that is closed afterwards."""
    from kv.client import AsyncClient  # noqa: PLC0415 - brings grpc

    async def run() -> T:
        async with AsyncClient.from_url(settings.url) as client:
            return await action(client)

    return asyncio.run(run())


def conditions(
    if_absent: bool, if_present: bool, if_revision: int | None, if_value: str | None
) -> dict[str, Any]:
    """Return the keyword of the one condition that is given, or nothing; raise `InvalidArgument` for several."""
    given: dict[str, Any] = {}
    if if_absent:
        given["if_absent"] = True
    if if_present:
        given["if_present"] = True
    if if_revision is not None:
        given["if_revision"] = if_revision
    if if_value is not None:
        given["if_value"] = to_bytes(if_value)
    if len(given) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InvalidArgument(f"{names} cannot be combined: a write has one condition")
    return given


def read_value(value: str | None, file: Path | None) -> bytes:
    """Return the value to write: the argument itself, standard input for "-", or a file's content."""
    if (value is None) == (file is None):
        raise InvalidArgument("give the value once: as VALUE, as - for standard input, or as --file PATH")
    if file is not None:
        try:
            with file.open("rb") as source:
                return source.read(VALUE_BYTES_MAX + 1)  # one more than allowed: the client then refuses it
        except OSError as error:
            raise InvalidArgument(f"cannot read {file}: {error.strerror}") from error
    assert value is not None
    return sys.stdin.buffer.read(VALUE_BYTES_MAX + 1) if value == "-" else to_bytes(value)


def put(
    context: typer.Context,
    key: Key,
    value: Annotated[str | None, typer.Argument(help="The value; - reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read the value from this file.")] = None,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only if the key does not exist.")] = False,
    if_present: Annotated[bool, typer.Option("--if-present", help="Only if the key exists.")] = False,
    if_revision: IfRevision = None,
    if_value: Annotated[str | None, typer.Option(help="Only if the key has this value.")] = None,
) -> None:
    """Write one key. A condition that does not hold writes nothing and ends with status 4."""
    settings: Settings = context.obj
    data, name = read_value(value, file), to_bytes(key)
    condition = conditions(if_absent, if_present, if_revision, if_value)
    reply = call(settings, lambda client: client.put(name, data, timeout=settings.timeout_s, **condition))
    match settings.output:
        case Output.TABLE:
            cells = (show(name), str(reply.revision), str(reply.version), *_evidence_cells(reply.evidence))
            output.table(("key", "revision", "version", *_EVIDENCE_HEADERS), [cells])
        case Output.JSON:
            fields = {"revision": reply.revision, "version": reply.version}
            output.record({**json_field("key", name), **fields, "evidence": evidence_fields(reply.evidence)})
        case Output.RAW:
            output.raw(b"%d\n" % reply.revision)


def get(context: typer.Context, key: Key, level: Level = None) -> None:
    """Read one key. A missing one ends with status 3; with -o raw the value is written byte for byte."""
    settings: Settings = context.obj
    name = to_bytes(key)
    item = call(settings, lambda client: client.get(name, level=level, timeout=settings.timeout_s))
    if item is None:
        raise NotFound(f"there is no key {show(name)}", metadata={"key": show(name)})
    match settings.output:
        case Output.TABLE:
            cells = (show(name), show(item.value), str(item.mod_revision), str(item.version))
            headers = ("key", "value", "revision", "version", *_EVIDENCE_HEADERS)
            output.table(headers, [(*cells, *_evidence_cells(item.evidence))])
        case Output.JSON:
            output.record({**item_fields(item), "evidence": evidence_fields(item.evidence)})
        case Output.RAW:
            output.raw(item.value)


def delete(
    context: typer.Context,
    key: Key,
    if_present: Annotated[bool, typer.Option("--if-present", help="Only if the key exists.")] = False,
    if_revision: IfRevision = None,
    if_value: Annotated[str | None, typer.Option(help="Only if the key has this value.")] = None,
) -> None:
    """Remove one key. A missing one is no error, unless a condition asks for it."""
    settings: Settings = context.obj
    name = to_bytes(key)
    condition = conditions(False, if_present, if_revision, if_value)
    reply = call(settings, lambda client: client.delete(name, timeout=settings.timeout_s, **condition))
    match settings.output:
        case Output.TABLE:
            cells = (show(name), "yes" if reply.deleted else "no", str(reply.revision))
            headers = ("key", "deleted", "revision", *_EVIDENCE_HEADERS)
            output.table(headers, [(*cells, *_evidence_cells(reply.evidence))])
        case Output.JSON:
            fields = {"deleted": reply.deleted, "revision": reply.revision}
            output.record({**json_field("key", name), **fields, "evidence": evidence_fields(reply.evidence)})
        case Output.RAW:
            output.raw(b"%d\n" % reply.deleted)


def scan(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(help="Keys that begin with this; excludes --start and --end.")] = "",
    start: Annotated[str, typer.Option(help="First key, inclusive.")] = "",
    end: Annotated[str, typer.Option(help="End, exclusive.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most this many keys; 0: all.")] = 0,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Leave the values out.")] = False,
    level: Level = None,
) -> None:
    """Read keys in order over all partitions. -o raw: key, tab, value, newline, without escapes."""
    settings: Settings = context.obj
    if prefix and (start or end):
        raise InvalidArgument("--prefix cannot be combined with --start or --end")

    async def run(client: AsyncClient) -> None:
        printer = ScanPrinter(settings.output, keys_only)
        items = client.scan(
            prefix=to_bytes(prefix),
            start=to_bytes(start),
            end=to_bytes(end),
            limit=limit,
            keys_only=keys_only,
            level=level,
        )
        async for item in items:
            printer.add(item)
        printer.finish()

    call(settings, run)


class ScanPrinter:
    """Prints items as they come; a table in slices of `SCAN_ROWS_PER_TABLE` rows under one header."""

    def __init__(self, form: Output, keys_only: bool) -> None:
        self._form = form
        self._keys_only = keys_only
        self._rows: list[tuple[str, ...]] = []
        self._header = True

    def add(self, item: Item) -> None:
        """Print `item`, or keep it for the table's next slice."""
        match self._form:
            case Output.TABLE:
                value = () if self._keys_only else (show(item.value),)
                self._rows.append((show(item.key), *value, str(item.mod_revision), str(item.version)))
                if len(self._rows) >= SCAN_ROWS_PER_TABLE:
                    self.finish()
            case Output.JSON:
                fields = item_fields(item)
                output.record({name: fields[name] for name in fields if not self._is_value(name)})
            case Output.RAW:
                output.raw(item.key, *(() if self._keys_only else (b"\t", item.value)), b"\n")

    def _is_value(self, name: str) -> bool:
        return self._keys_only and name.startswith("value")

    def finish(self) -> None:
        """Print what is kept."""
        if self._form is Output.TABLE and (self._rows or self._header):
            value = () if self._keys_only else ("value",)
            output.table(("key", *value, "revision", "version"), self._rows, show_header=self._header)
            self._rows, self._header = [], False


def item_fields(item: Item) -> dict[str, object]:
    """Return an item as JSON fields."""
    return {
        **json_field("key", item.key),
        **json_field("value", item.value),
        "revision": item.mod_revision,
        "create_revision": item.create_revision,
        "version": item.version,
    }


_EVIDENCE_FIELDS: Final = ("partition", "map_epoch", "term", "index", "node")
_EVIDENCE_HEADERS: Final = ("partition", "served by", "term", "index")


def _evidence_cells(evidence: Evidence | None) -> tuple[str, ...]:
    if evidence is None:
        return ("-",) * len(_EVIDENCE_HEADERS)
    return (str(evidence.partition), evidence.node, str(evidence.term), str(evidence.index))


def evidence_fields(evidence: Evidence | None) -> dict[str, object] | None:
    """Return the evidence as JSON fields."""
    if evidence is None:
        return None
    fields: dict[str, object] = {name: getattr(evidence, name) for name in _EVIDENCE_FIELDS}
    # A write has no level.
    return fields if evidence.level is None else {**fields, "level": evidence.level.name.lower()}
