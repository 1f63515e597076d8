"""The command tree and its outermost frame: global options, and exit codes for every failure."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperGroup

from kv import __version__
from kv.cli import atomic, bench, cluster, data, demo, serve, sim
from kv.cli import explain as explanations
from kv.cli.output import Output, explain, note
from kv.cli.settings import ENDPOINTS_DEFAULT, Settings, cli_table, client_url, read_file
from kv.errors import KVError

EXIT_INTERRUPTED = 130
"""What shells report for SIGINT: 128 + 2."""

EPILOG = "Exit status: 0 done, 1 other, 2 usage, 3 not found, 4 conflict, 5 outcome unknown, 6 unavailable, 7 deadline."

NO_VARIABLE = frozenset({"version", "install_completion", "show_completion", "help"})
"""Options that act instead of the command: a variable such as KV_VERSION, set for something else, must not."""


class Group(TyperGroup):
    """Makes `serve` when it is asked for: its options cost more to import than the other commands to run."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer's context, vendored in new versions
        """Return all names, in the order of the help."""
        return [*super().list_commands(ctx), serve.NAME]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - as above
        """Return the command of that name, None if there is none."""
        return serve.make_command() if cmd_name == serve.NAME else super().get_command(ctx, cmd_name)


app = typer.Typer(
    cls=Group,
    name="kv",
    help="ringkv: a partitioned, linearizable key-value store.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "KV", "help_option_names": ["-h", "--help"]},
)


def _load_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's `[cli]` table the defaults of all options; eager, so that it runs before they are read."""
    if path is not None and not context.resilient_parsing:
        context.default_map = {**(context.default_map or {}), **cli_table(read_file(path))}
    return path


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ringkv {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    endpoints: Annotated[
        str, typer.Option("--endpoints", "-e", help="Any nodes of the cluster: kv://host:port,host:port.")
    ] = ENDPOINTS_DEFAULT,
    timeout: Annotated[
        str | None, typer.Option(help="For each operation, all its attempts together: 250ms, 2s, 1m.")
    ] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="raw writes bytes as they are.")
    ] = Output.TABLE,
    config: Annotated[
        Path | None,
        typer.Option(is_eager=True, callback=_load_file, help="TOML file with tables \\[cli] and \\[node]."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """ringkv: a partitioned, linearizable key-value store."""
    context.obj = Settings(client_url(endpoints), timeout, output, config)


for _module in (data, atomic, explanations, cluster, demo, sim, bench):
    _module.register(app)


def build() -> Any:  # noqa: ANN401 - typer's own command class, which has no public name
    """Return the command tree as it is run."""
    root = typer.main.get_command(app)
    for parameter in root.params:
        if parameter.name in NO_VARIABLE:
            vars(parameter)["allow_from_autoenv"] = False
    return root


def main() -> None:
    """Run the command line and exit: `kv.errors.ExitCode` for our errors, 130 after Ctrl-C."""
    try:
        build()()
    except KVError as error:
        note(explain(error))
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone. Python would fail once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
