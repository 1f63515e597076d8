"""`kv serve`: run one node in this process.

Its options are the fields of `kv.config.NodeConfig`, one flag each, so that flags, variables and file can
never name different things. Composition itself is in `kv.node`.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
import typer.main

from kv.cli.settings import Settings, node_table, read_file

if TYPE_CHECKING:
    from kv.config import NodeConfig

NAME: Final = "serve"
STOP_FLAG: Final = "stop_on_stdin_eof"
SECTIONS: Final = (
    # The help groups the options under the first field of each section, in the order of the class.
    ("cluster", "Who and where"),
    ("partitions", "First cluster map"),
    ("heartbeat_ms", "Raft"),
    ("checkpoint_bytes_max", "Partition"),
    ("forward_in_flight_max", "Router"),
    ("log_level", "Program log"),
)


def load(path: Path | None, flags: Mapping[str, object]) -> NodeConfig:
    """Return the node's configuration: flags above `KV_*` variables above the file's `[node]` above defaults.

    Raises `InvalidArgument` that lists every problem.
    """
    from pydantic_settings import EnvSettingsSource  # noqa: PLC0415 - only this command needs it

    from kv.config import NodeConfig, load_config  # noqa: PLC0415

    in_file = node_table(read_file(path)) if path is not None else {}
    given = {name: value for name, value in flags.items() if value is not None}
    return load_config(None, **{**in_file, **EnvSettingsSource(NodeConfig)(), **given})


def stop_on_stdin_eof() -> None:
    """Ask this process to stop (SIGTERM) once its standard input closes: its supervisor is gone."""

    def watch() -> None:
        # Not sys.stdin: its lock, held here at the interpreter's end, would make that fatal.
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stdin-eof", daemon=True).start()


def serve(context: typer.Context, flags: dict[str, Any]) -> None:
    """Run a node until SIGTERM or Ctrl-C."""
    settings: Settings = context.obj
    if flags.pop(STOP_FLAG, False):
        stop_on_stdin_eof()
    config = load(settings.config_path, flags)

    from kv.gateway import HttpServer  # noqa: PLC0415 - grpc, lmdb and uvicorn are for this command only
    from kv.node import run  # noqa: PLC0415

    sys.exit(run(config, HttpServer) or 0)


def make_command() -> Any:  # noqa: ANN401 - typer's own command class, which has no public name
    """Return the command `serve`, with one option for each field of `NodeConfig`.

    The options take text: what it must be is checked by the class, not here.
    """
    from kv.config import NodeConfig  # noqa: PLC0415 - pydantic-settings is for this command only

    eof = typer.Option(f"--{STOP_FLAG.replace('_', '-')}", help="Stop when standard input closes.")
    parameters = [
        _keyword("context", typer.Context, inspect.Parameter.empty),
        _keyword(STOP_FLAG, Annotated[bool, eof], False),
    ]
    section, titles = "", dict(SECTIONS)
    for name, field in NodeConfig.model_fields.items():
        section = titles.get(name, section)
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            help=f"{_help(field)} \\[env: KV_{name.upper()}]",
            rich_help_panel=section,
            show_default=False,
        )
        parameters.append(_keyword(name, Annotated[str | None, option], None))
    return _build(parameters, frozenset(NodeConfig.model_fields))


def _build(parameters: list[inspect.Parameter], fields: frozenset[str]) -> Any:  # noqa: ANN401 - as above
    def command(**given: Any) -> None:  # noqa: ANN401 - values of the options
        serve(given.pop("context"), given)

    command.__doc__ = """Run one node until SIGTERM or Ctrl-C.

    Flags stand above KV_* variables, those above the \\[node] table of --config, that above the defaults.
    """
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # Typer makes options from a signature only, hence this detour.
    scratch = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    scratch.command(name=NAME)(command)
    made = typer.main.get_command(scratch)
    for option in made.params:
        if option.name in fields:
            vars(option)["allow_from_autoenv"] = False  # NodeConfig reads the variable itself, above the file
    return made


def _keyword(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _help(field: Any) -> str:  # noqa: ANN401 - pydantic's FieldInfo, which start-up does not import
    if field.description:
        return str(field.description)
    if field.is_required():
        return "Required."
    if field.default_factory is not None:
        return "Default: follows from others."
    return f"Default: {field.default}." if field.default not in (None, "") else "Default: none."
