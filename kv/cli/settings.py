"""What every command needs to know: endpoints, timeout, form of output; and the configuration file.

A flag stands above the `KV_*` variable, that above the file's `[cli]` table, that above the default.
The table `[node]` of the same file is for `kv serve`; a file without tables is all of `[node]`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kv.cli.output import Output
from kv.errors import InvalidArgument

ENDPOINTS_DEFAULT: Final = "kv://127.0.0.1:7001"
TABLES: Final = frozenset({"cli", "node"})
CLI_OPTIONS: Final = frozenset({"endpoints", "timeout", "output"})


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that stand before the command."""

    url: str
    timeout: str | None  # None: the URL's, else the client's own
    output: Output
    config_path: Path | None

    @property
    def timeout_s(self) -> float | None:
        """The timeout in seconds; raises `InvalidArgument` for what is no duration."""
        from kv.client.duration import parse_duration_s  # noqa: PLC0415 - the client brings grpc

        return None if self.timeout is None else parse_duration_s(self.timeout)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The addresses in the URL."""
        from kv.client.url import parse_url  # noqa: PLC0415 - the client brings grpc

        return parse_url(self.url).endpoints


def client_url(endpoints: str) -> str:
    """Return `endpoints` as a `kv://` URL; "host:port,host:port" is enough."""
    return endpoints if "://" in endpoints else f"kv://{endpoints}"


def read_file(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises `InvalidArgument` that names the file and what is wrong."""
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise InvalidArgument(f"cannot read the configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the configuration file {path} is not TOML: {error}") from error
    strangers = sorted(content.keys() - TABLES)
    if TABLES & content.keys() and strangers:
        raise InvalidArgument(f"{strangers[0]!r} in {path} stands outside of the tables [cli] and [node]")
    return content


def node_table(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the node: the table `[node]`, or all of a file that has none of our tables."""
    return _table(content, "node") if TABLES & content.keys() else dict(content)


def cli_table(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the command line; a sub-table such as `[cli.scan]` is for that command."""
    table = _table(content, "cli")
    for name, value in table.items():
        if name not in CLI_OPTIONS and not isinstance(value, dict):
            raise InvalidArgument(f"[cli] has no {name!r}: it takes {', '.join(sorted(CLI_OPTIONS))}")
    return table


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name, {})
    if not isinstance(found, dict):
        raise InvalidArgument(
            f"{name!r} in the configuration file is not a table: write [{name}] above its settings"
        )
    return found
