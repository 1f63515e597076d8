"""Commands on one key beyond put and get: increment, append; and what became of a write: outcome."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kv.cli import evidence, output
from kv.cli.data import (
    IfAbsent,
    IfPresent,
    IfRevision,
    IfValue,
    Key,
    Verbose,
    WriteLevel,
    call,
    conditions,
    item_fields,
    read_value,
    show_write,
)
from kv.cli.output import Output
from kv.cli.settings import Settings
from kv.cli.text import show, to_bytes
from kv.errors import ExitCode, KVError

if TYPE_CHECKING:
    from kv.client.types import Outcome, Result


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    # "-5" is a number here, not an option.
    app.command(context_settings={"ignore_unknown_options": True})(increment)
    app.command()(append)
    app.command()(outcome)


def increment(
    context: typer.Context,
    key: Key,
    delta: Annotated[int, typer.Argument(help="What to add; it may be negative.")] = 1,
    if_absent: IfAbsent = False,
    if_present: IfPresent = False,
    if_revision: IfRevision = None,
    if_value: IfValue = None,
    write_level: WriteLevel = None,
    verbose: Verbose = False,
) -> None:
    """Add to the signed 64-bit integer that a key holds as decimal text; a missing key counts as 0."""
    settings: Settings = context.obj
    name, condition = to_bytes(key), conditions(if_absent, if_present, if_revision, if_value)
    options: dict[str, Any] = {"write_level": write_level, "timeout": settings.timeout_s}
    reply = call(settings, lambda client: client.increment(name, delta, **condition, **options))
    fields: dict[str, object] = {
        "value": reply.value,
        "revision": reply.revision,
        "version": reply.version,
    }
    show_write(settings, name, fields, reply.evidence, verbose, raw=b"%d\n" % reply.value)


def append(
    context: typer.Context,
    key: Key,
    value: Annotated[str | None, typer.Argument(help="What to add; - reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read what to add from this file.")] = None,
    if_absent: IfAbsent = False,
    if_present: IfPresent = False,
    if_revision: IfRevision = None,
    if_value: IfValue = None,
    write_level: WriteLevel = None,
    verbose: Verbose = False,
) -> None:
    """Add bytes to the end of a key's value; a missing key counts as empty."""
    settings: Settings = context.obj
    data, name = read_value(value, file), to_bytes(key)
    condition = conditions(if_absent, if_present, if_revision, if_value)
    options: dict[str, Any] = {"write_level": write_level, "timeout": settings.timeout_s}
    reply = call(settings, lambda client: client.append(name, data, **condition, **options))
    fields: dict[str, object] = {
        "length": reply.length,
        "revision": reply.revision,
        "version": reply.version,
    }
    show_write(settings, name, fields, reply.evidence, verbose, raw=b"%d\n" % reply.length)


def outcome(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="From the error of the write.")],
    verbose: Verbose = False,
) -> None:
    """Tell what became of a write, and decide it. Status 0: applied, 4: it was not and never will be, 5: unknown."""
    settings: Settings = context.obj
    found = call(settings, lambda client: client.outcome(token, timeout=settings.timeout_s))
    state = found.state.name.lower()
    match settings.output:
        case Output.TABLE:
            results = "; ".join(_result_text(result) for result in found.results) or evidence.NOTHING
            headers = ("outcome", "results", *evidence.headers(full=verbose))
            output.table(headers, [(state, results, *evidence.cells(found.evidence, full=verbose))])
        case Output.JSON:
            results_fields = [_result_fields(result) for result in found.results]
            proof = evidence.fields(found.evidence)
            output.record({"outcome": state, "results": results_fields, "evidence": proof})
        case Output.RAW:
            output.raw(state.encode(), b"\n")
    raise typer.Exit(status_of(found))


def status_of(found: Outcome) -> int:
    """Return the exit status that tells what became of the write."""
    from kv.client.types import OutcomeState  # noqa: PLC0415 - the client brings grpc

    statuses = {
        OutcomeState.APPLIED: 0,
        OutcomeState.NOT_APPLIED: int(ExitCode.CONFLICT),
        OutcomeState.UNKNOWN: int(ExitCode.UNKNOWN_OUTCOME),
    }
    return statuses[found.state]


def _result_fields(result: Result) -> dict[str, object] | None:
    """Return one result as JSON: a reply without its evidence, an error by its reason."""
    from kv.client.types import Item, TxnReply  # noqa: PLC0415 - as above

    match result:
        case None:
            return None
        case KVError():
            return {"error": result.reason, "message": result.message}
        case Item():
            return item_fields(result)
        case TxnReply():
            inner = [_result_fields(one) for one in result.results]
            return {"succeeded": result.succeeded, "revision": result.revision, "results": inner}
    fields: dict[str, object] = {
        name: value for name, value in result._asdict().items() if name not in ("evidence", "previous")
    }
    previous = getattr(result, "previous", None)
    return fields if previous is None else {**fields, "previous": item_fields(previous)}


def _result_text(result: Result) -> str:
    fields = _result_fields(result)
    if fields is None:
        return "no such key"
    return ", ".join(f"{name} {show(str(value).encode())}" for name, value in fields.items())
