"""`kv demo`: a cluster of node processes on this machine, to play with, to script, or to be shown around.

The processes are those of `kv.cli.cluster_process`; the conversation is in `kv.cli.shell`, the tour in
`kv.cli.tour`.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kv.cli import output
from kv.cli.cluster import PARTITION_HEADERS, partition_rows
from kv.cli.output import Output
from kv.cli.settings import Settings
from kv.errors import InvalidArgument

if TYPE_CHECKING:
    from kv.cli.cluster_process import LocalCluster
    from kv.cli.view import ClusterView

PARTITIONS: Final = 8
NODES: Final = 3


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(demo)


def demo(
    context: typer.Context,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Keep data and logs here; default: a folder removed at the end."),
    ] = None,
    base_port: Annotated[int | None, typer.Option(help="First of the ports; default: free ones.")] = None,
    nodes: Annotated[int, typer.Option(min=1, max=9)] = NODES,
    partitions: Annotated[int, typer.Option(min=1, max=256)] = PARTITIONS,
    leave: Annotated[
        bool, typer.Option("--exit", help="Start, show, stop: for scripts that want to see it work.")
    ] = False,
    tour: Annotated[
        bool,
        typer.Option("--tour", help="Show what the cluster survives, check it, and exit with the verdict."),
    ] = False,
) -> None:
    """Start a cluster on this machine and open a prompt on it. Its nodes stop with it."""
    settings: Settings = context.obj
    if leave and tour:
        raise InvalidArgument("--exit and --tour cannot be combined: the tour exits by itself")
    from kv.cli.cluster_process import LocalCluster  # noqa: PLC0415 - brings grpc

    with (
        _stop_signals(),
        _folder(directory) as folder,
        LocalCluster(folder, nodes=nodes, partitions=partitions, base_port=base_port) as cluster,
    ):
        if tour:
            from kv.cli.tour import run_tour  # noqa: PLC0415 - brings the client

            asyncio.run(run_tour(cluster))
            return
        output.note(f"starting {nodes} nodes in {folder}")
        cluster.start()
        show_cluster(cluster, asyncio.run(cluster.wait_ready()), settings.output)
        if not leave:
            from kv.cli.shell import run_shell  # noqa: PLC0415 - brings the client

            run_shell(cluster)


def show_cluster(cluster: LocalCluster, view: ClusterView, form: Output) -> None:
    """Print where the nodes are, who leads what, and how to hurt them."""
    if form is not Output.TABLE:
        pids = {node: cluster.pid(node) for node in cluster.specs}
        leaders = {str(part): view.leader(part) for part in view.partition_ids}
        output.record({"endpoints": cluster.url, "pids": pids, "leaders": leaders})
        return
    output.line(f"endpoints: {cluster.url}")
    output.line(f"           export KV_ENDPOINTS={cluster.url}\n")
    show_nodes(cluster, view)
    output.line()
    output.table(PARTITION_HEADERS, partition_rows(view))
    output.line()


def show_nodes(cluster: LocalCluster, view: ClusterView) -> None:
    """Print a row for each node with its process and how to end it."""
    rows = []
    for spec in cluster.specs.values():
        pid = cluster.pid(spec.id)
        led = ", ".join(map(str, view.led_by(spec.id))) or "-"
        state = (
            (str(pid), f"kill -9 {pid}")
            if pid is not None
            else ("down", f"start {spec.id[1:]} (at the prompt)")
        )
        rows.append((spec.id, spec.address, f"http://{spec.http_address}", led, *state))
    output.table(("node", "grpc", "http", "leads", "pid", "to kill it"), rows)


@contextmanager
def _folder(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="ringkv-demo-") as name:
        yield Path(name)


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP (a closed terminal) into Ctrl-C, so that the nodes are stopped too."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
