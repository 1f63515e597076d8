"""`kv bench`: puts load on a cluster and shows what it did. The generator is `kv.bench`; here are options and printing."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kv.bench.kinds import Arrivals, Distribution, Kind
from kv.cli import output
from kv.cli.bench_progress import make_watcher
from kv.cli.data import Level, Prefer, WriteLevel
from kv.cli.output import Output
from kv.cli.settings import Settings
from kv.errors import InvalidArgument

if TYPE_CHECKING:
    from kv.bench.plan import Plan
    from kv.bench.result import Result

EXIT_NOTHING_SUCCEEDED = 1
STDOUT = "-"


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(bench)


def bench(
    context: typer.Context,
    kind: Annotated[Kind, typer.Argument(help="What to do, over and over.")],
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency", "-c", help="Tasks, each of which awaits its operation before the next."
        ),
    ] = 64,
    rate: Annotated[
        float | None,
        typer.Option(help="Operations that are due each second, however the store fares: an open loop."),
    ] = None,
    arrivals: Annotated[Arrivals, typer.Option(help="How they come, with --rate.")] = Arrivals.POISSON,
    outstanding_max: Annotated[
        int, typer.Option(help="With --rate: while so many have no answer, one that is due is dropped.")
    ] = 10_000,
    processes: Annotated[int, typer.Option("--processes", "-p", help="Client processes.")] = 1,
    connections: Annotated[int, typer.Option(help="Clients in each process, each with its own streams.")] = 1,
    duration: Annotated[str | None, typer.Option(help="Measure for so long: 500ms, 10s, 2m.")] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", help="So many operations instead.")] = None,
    warmup: Annotated[str, typer.Option(help="The same load before, not measured; 0 for none.")] = "1s",
    keys: Annotated[int, typer.Option(help="How many different keys; they begin with bench-.")] = 10_000,
    key_size: Annotated[int, typer.Option(help="Bytes of each key.")] = 16,
    value_size: Annotated[int, typer.Option(help="Bytes of each value.")] = 100,
    distribution: Annotated[
        str, typer.Option(help="Which keys: uniform, zipfian, or zipfian with its theta, as in zipfian:0.99.")
    ] = "uniform",
    read_ratio: Annotated[float, typer.Option(help="Of mixed: the share of gets.")] = 0.5,
    scan_length: Annotated[int, typer.Option(help="Of scan: keys of each scan.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Of batch: puts in each batch.")] = 100,
    level: Level = None,
    prefer: Prefer = None,
    write_level: WriteLevel = None,
    prefill: Annotated[
        bool | None,
        typer.Option(help="Write every key once before; default: for what reads (get, mixed, scan)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same keys and arrivals.")] = 1,
    local: Annotated[
        int | None, typer.Option(help="On a cluster of so many nodes, started here for the run.")
    ] = None,
    partitions: Annotated[int, typer.Option(min=1, max=256, help="Of the cluster of --local.")] = 8,
    as_json: Annotated[
        str | None, typer.Option("--json", help="Write everything as JSON to this file; - prints only that.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.")] = None,
) -> None:
    """Load a cluster and measure it. Writes keys that begin with bench-. Exit 1 if nothing succeeded."""
    from kv.bench.plan import Plan  # noqa: PLC0415 - brings the client

    settings: Settings = context.obj
    chosen, theta = _distribution(distribution)
    if count is not None and duration is not None:
        raise InvalidArgument("--count and --duration cannot be combined: give how many or how long")
    plan = Plan(
        kind,
        settings.url,
        level=level,
        prefer=prefer,
        write_level=write_level,
        timeout_s=settings.timeout_s,
        concurrency=concurrency,
        rate_per_s=rate,
        arrivals=arrivals,
        outstanding_max=outstanding_max,
        connections=connections,
        processes=processes,
        value_bytes=value_size,
        keys=keys,
        key_bytes=key_size,
        distribution=chosen,
        read_ratio=read_ratio,
        scan_length=scan_length,
        batch_ops=batch_size,
        duration_s=10.0 if duration is None else _seconds(duration),
        count=count,
        warmup_s=_seconds(warmup),
        prefill=kind in {Kind.GET, Kind.MIXED, Kind.SCAN} if prefill is None else prefill,
        seed=seed,
        **theta,
    )
    files = [html] if as_json in {None, STDOUT} else [html, Path(str(as_json))]
    _check_output(settings.output, files)
    with _cluster(plan, local, partitions) as ready:
        result = _run(ready)
    _write(result, files)
    _show(result, only_json=as_json == STDOUT or settings.output is Output.JSON)
    if not result.ok:
        sys.exit(EXIT_NOTHING_SUCCEEDED)


def _distribution(text: str) -> tuple[Distribution, dict[str, Any]]:
    """Return what "uniform", "zipfian" or "zipfian:0.9" means: a distribution, and its theta if there is one."""
    name, mark, theta = text.partition(":")
    if name not in list(Distribution) or (mark and name != Distribution.ZIPFIAN):
        raise InvalidArgument(
            f"there is no distribution {text!r}: give uniform, zipfian, or zipfian:THETA as in zipfian:0.99"
        )
    try:
        return Distribution(name), {"theta": float(theta)} if mark else {}
    except ValueError as error:
        raise InvalidArgument(f"the theta of {text!r} is not a number") from error


def _seconds(text: str) -> float:
    """Return the seconds of a duration; here 0 is one, too."""
    from kv.client.duration import parse_duration_s  # noqa: PLC0415 - the client brings grpc

    return 0.0 if text in {"0", "0s", "0ms", "0m"} else parse_duration_s(text)


def _check_output(form: Output, files: list[Path | None]) -> None:
    """Refuse before the run what could not be written after it."""
    if form is Output.RAW:
        raise InvalidArgument("-o raw has no meaning here: a table is the default, -o json is JSON")
    for file in files:
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise InvalidArgument(f"cannot write {file}: it is a folder, or its folder is not there")


@contextmanager
def _cluster(plan: Plan, nodes: int | None, partitions: int) -> Iterator[Plan]:
    """Give the plan, for a cluster of its own if `nodes` says so, which is removed afterwards."""
    if nodes is None:
        yield plan
        return
    from kv.cli.cluster_process import LocalCluster  # noqa: PLC0415 - brings grpc

    with (
        tempfile.TemporaryDirectory(prefix="ringkv-bench-") as folder,
        LocalCluster(Path(folder), nodes=nodes, partitions=partitions) as cluster,
    ):
        output.note(f"starting a cluster of its own, nodes: {nodes}")
        cluster.start()
        asyncio.run(cluster.wait_ready())
        yield replace(plan, url=cluster.url)


def _run(plan: Plan) -> Result:
    from kv.bench import fleet  # noqa: PLC0415 - brings the client
    from kv.bench.result import Result  # noqa: PLC0415

    started = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    with make_watcher(plan) as watcher:
        tally = asyncio.run(fleet.run(plan, watcher))
    return Result(plan, tally, started=started)


def _write(result: Result, files: list[Path | None]) -> None:
    """Write the page and the JSON, whichever is wanted."""
    from kv.bench.page import page  # noqa: PLC0415 - with the run
    from kv.bench.result import document  # noqa: PLC0415

    page_file, *json_files = files
    if page_file is not None:
        page_file.write_text(page(result), encoding="utf-8")
    for file in json_files:
        if file is not None:
            file.write_text(json.dumps(document(result)) + "\n", encoding="utf-8")


def _show(result: Result, *, only_json: bool) -> None:
    from kv.bench.page import HEADERS, cells, describe, figures  # noqa: PLC0415 - with the run
    from kv.bench.result import document  # noqa: PLC0415

    if only_json:
        output.record(document(result))
    else:
        output.line(f"{result.plan.kind}: {describe(result.plan)}")
        output.line(", ".join(f"{name} {number}" for number, name in figures(result)))
        output.line()
        output.table(HEADERS, map(cells, result.rows))
        output.line("\nlatencies in ms")
    for said in result.notes:
        output.note(f"note: {said}")
