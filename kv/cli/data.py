"""Commands on keys: put, get, delete, scan."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from kv.cli import evidence, output
from kv.cli.output import Output
from kv.cli.settings import Settings
from kv.cli.text import json_field, show, to_bytes
from kv.errors import InvalidArgument, NotFound
from kv.ids import VALUE_BYTES_MAX

if TYPE_CHECKING:
    from kv.client import AsyncClient
    from kv.client.types import Evidence, Item, Reading, ScanPage

T = TypeVar("T")

SCAN_ROWS_PER_TABLE: Final = 500
"""A table is aligned over this many rows, so that a scan of any length prints while it reads."""

Key = Annotated[str, typer.Argument(help="The key; its {tag}, if any, chooses the partition.")]
IfRevision = Annotated[
    int | None, typer.Option(min=0, help="Only if the key's last write has this revision.")
]
Level = Annotated[
    str | None,
    typer.Option(
        help="linearizable (the default), lease, session, bounded:200ms, stale, quorum, quorum:2, all."
    ),
]
Prefer = Annotated[
    str | None,
    typer.Option(help="The replica that should serve: leader, nearest, least-loaded, local, or a node."),
]
WriteLevel = Annotated[
    str | None, typer.Option(help="quorum (the default), or all: wait until every replica has it on disk.")
]
Verbose = Annotated[bool, typer.Option("--evidence", "-v", help="Show all of the evidence.")]
IfAbsent = Annotated[bool, typer.Option("--if-absent", help="Only if the key does not exist.")]
IfPresent = Annotated[bool, typer.Option("--if-present", help="Only if the key exists.")]
IfValue = Annotated[str | None, typer.Option(help="Only if the key has this value.")]


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
    if_absent: IfAbsent = False,
    if_present: IfPresent = False,
    if_revision: IfRevision = None,
    if_value: IfValue = None,
    get_previous: Annotated[
        bool, typer.Option("--get-previous", help="Show what the key held before; -o raw writes that.")
    ] = False,
    write_level: WriteLevel = None,
    verbose: Verbose = False,
) -> None:
    """Write one key. A condition that does not hold writes nothing and ends with status 4."""
    settings: Settings = context.obj
    data, name = read_value(value, file), to_bytes(key)
    condition = conditions(if_absent, if_present, if_revision, if_value)
    options: dict[str, Any] = {
        "return_previous": get_previous,
        "write_level": write_level,
        "timeout": settings.timeout_s,
    }
    reply = call(settings, lambda client: client.put(name, data, **condition, **options))
    show_write(
        settings,
        name,
        {"revision": reply.revision, "version": reply.version},
        reply.evidence,
        verbose,
        raw=_previous_raw(reply.previous) if get_previous else b"%d\n" % reply.revision,
        previous=_Previous(get_previous, reply.previous),
    )


@dataclass(frozen=True, slots=True)
class _Previous:
    """What a key held before a write, if it was asked for."""

    asked: bool = False
    item: Item | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """One cell, or none."""
        return ((evidence.NOTHING if self.item is None else show(self.item.value)),) if self.asked else ()

    @property
    def fields(self) -> dict[str, object]:
        """One field, or none."""
        if not self.asked:
            return {}
        return {"previous": None if self.item is None else item_fields(self.item)}


def _previous_raw(item: Item | None) -> bytes:
    return b"" if item is None else item.value


def show_write(
    settings: Settings,
    key: bytes,
    fields: dict[str, object],
    proof: Evidence,
    verbose: bool,
    *,
    raw: bytes,
    previous: _Previous | None = None,
) -> None:
    """Print the reply to a write of one key: `fields` in their order, what it held before, the evidence."""
    previous = previous or _Previous()
    match settings.output:
        case Output.TABLE:
            headers = (
                "key",
                *fields,
                *(("previous",) if previous.asked else ()),
                *evidence.headers(full=verbose),
            )
            shown = (_yes_no(value) for value in fields.values())
            output.table(
                headers, [(show(key), *shown, *previous.cells, *evidence.cells(proof, full=verbose))]
            )
        case Output.JSON:
            found = {"evidence": evidence.fields(proof)}
            output.record({**json_field("key", key), **fields, **previous.fields, **found})
        case Output.RAW:
            output.raw(raw)


def _yes_no(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def get(
    context: typer.Context, key: Key, level: Level = None, prefer: Prefer = None, verbose: Verbose = False
) -> None:
    """Read one key. A missing one ends with status 3; with -o raw the value is written byte for byte."""
    settings: Settings = context.obj
    name = to_bytes(key)
    options: dict[str, Any] = {"level": level, "prefer": prefer, "timeout": settings.timeout_s}
    reading = call(settings, lambda client: client.read(name, **options))
    item = reading.item
    if item is None:
        raise NotFound(
            f"there is no key {show(name)}{_where(reading, verbose)}", metadata={"key": show(name)}
        )
    match settings.output:
        case Output.TABLE:
            cells = (show(name), show(item.value), str(item.mod_revision), str(item.version))
            headers = ("key", "value", "revision", "version", *evidence.headers(full=verbose))
            output.table(headers, [(*cells, *evidence.cells(reading.evidence, full=verbose))])
            _show_answers(reading, verbose)
        case Output.JSON:
            found = {"evidence": evidence.fields(reading.evidence), **evidence.answers(reading.answers)}
            output.record({**item_fields(item), **found})
        case Output.RAW:
            output.raw(item.value)


def _where(reading: Reading, verbose: bool) -> str:
    """Return the evidence of a miss, for its message."""
    if not verbose:
        return ""
    pairs = zip(evidence.headers(full=True), evidence.cells(reading.evidence, full=True), strict=True)
    return " (" + ", ".join(f"{name} {cell}" for name, cell in pairs) + ")"


def _show_answers(reading: Reading, verbose: bool) -> None:
    """Show what each replica said, below a read that asked several."""
    if verbose and reading.answers:
        output.line("\nwhat each replica said, the chosen one first:")
        rows = [evidence.cells(answer, full=True) for answer in reading.answers]
        output.table(evidence.headers(full=True), rows)


def delete(
    context: typer.Context,
    key: Key,
    if_absent: IfAbsent = False,
    if_present: IfPresent = False,
    if_revision: IfRevision = None,
    if_value: IfValue = None,
    get_previous: Annotated[
        bool, typer.Option("--get-previous", help="Show what the key held before; -o raw writes that.")
    ] = False,
    write_level: WriteLevel = None,
    verbose: Verbose = False,
) -> None:
    """Remove one key. A missing one is no error, unless a condition asks for it."""
    settings: Settings = context.obj
    name = to_bytes(key)
    condition = conditions(if_absent, if_present, if_revision, if_value)
    options: dict[str, Any] = {
        "return_previous": get_previous,
        "write_level": write_level,
        "timeout": settings.timeout_s,
    }
    reply = call(settings, lambda client: client.delete(name, **condition, **options))
    show_write(
        settings,
        name,
        {"deleted": reply.deleted, "revision": reply.revision},
        reply.evidence,
        verbose,
        raw=_previous_raw(reply.previous) if get_previous else b"%d\n" % reply.deleted,
        previous=_Previous(get_previous, reply.previous),
    )


def scan(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(help="Keys that begin with this; excludes --start and --end.")] = "",
    start: Annotated[str, typer.Option(help="First key, inclusive.")] = "",
    end: Annotated[str, typer.Option(help="End, exclusive.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most this many keys; 0: all.")] = 0,
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Leave the values out.")] = False,
    level: Level = None,
    prefer: Prefer = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="If it breaks half way, go on at another index.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Read keys in order over all partitions. -o raw: key, tab, value, newline, without escapes."""
    settings: Settings = context.obj
    if prefix and (start or end):
        raise InvalidArgument("--prefix cannot be combined with --start or --end")

    async def run(client: AsyncClient) -> None:
        printer = ScanPrinter(settings.output, keys_only)
        pages = client.scan_pages(
            prefix=to_bytes(prefix),
            start=to_bytes(start),
            end=to_bytes(end),
            limit=limit,
            keys_only=keys_only,
            level=level,
            prefer=prefer,
            resume=resume,
            timeout=settings.timeout_s,
        )
        async for page in pages:
            printer.add_page(page)
        printer.finish(verbose=verbose)

    call(settings, run)


class ScanPrinter:
    """Prints items as they come; a table in slices of `SCAN_ROWS_PER_TABLE` rows under one header."""

    def __init__(self, form: Output, keys_only: bool) -> None:
        self._form = form
        self._keys_only = keys_only
        self._rows: list[tuple[str, ...]] = []
        self._header = True
        self._evidence: dict[int, dict[Evidence, None]] = {}

    def add_page(self, page: ScanPage) -> None:
        """Print the items of a page, and keep its evidence: each partition is read at one index, or it shows."""
        for proof in page.evidence:
            self._evidence.setdefault(proof.partition, {})[proof] = None
        for item in page:
            self.add(item)

    def add(self, item: Item) -> None:
        """Print `item`, or keep it for the table's next slice."""
        match self._form:
            case Output.TABLE:
                value = () if self._keys_only else (show(item.value),)
                self._rows.append((show(item.key), *value, str(item.mod_revision), str(item.version)))
                if len(self._rows) >= SCAN_ROWS_PER_TABLE:
                    self._flush()
            case Output.JSON:
                fields = item_fields(item)
                output.record({name: fields[name] for name in fields if not self._is_value(name)})
            case Output.RAW:
                output.raw(item.key, *(() if self._keys_only else (b"\t", item.value)), b"\n")

    def _is_value(self, name: str) -> bool:
        return self._keys_only and name.startswith("value")

    def finish(self, *, verbose: bool = False) -> None:
        """Print what is kept, and the evidence of each partition if it is wanted."""
        self._flush()
        proofs = [proof for part in sorted(self._evidence) for proof in self._evidence[part]]
        if verbose and self._form is Output.TABLE:
            output.line()
            rows = [evidence.cells(proof, full=True) for proof in proofs]
            output.table(evidence.headers(full=True), rows)
        elif verbose and self._form is Output.JSON:
            output.record({"evidence": [evidence.fields(proof) for proof in proofs]})

    def _flush(self) -> None:
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
