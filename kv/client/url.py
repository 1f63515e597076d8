"""The address of a cluster: `kv://host:port,host:port/?timeout=2s&level=bounded:200ms&prefer=nearest&write=all`.

Pure: from text to `ClientOptions`, with an error that names the part at fault.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn

from kv.client.duration import parse_duration_s
from kv.client.levels import LINEARIZABLE, Level, Preference, write_level_of
from kv.client.types import WriteLevel
from kv.errors import InvalidArgument

SCHEME: Final = "kv"
TIMEOUT_S_DEFAULT: Final = 5.0
TIMEOUT_S_MAX: Final = 3600.0
"""Longer waits are mistakes: milliseconds given as seconds."""
ENDPOINTS_MAX: Final = 64
"""More addresses than this in one URL are a mistake: the client learns the others from the cluster map."""

_PARAMETERS = ("timeout", "level", "prefer", "write")
# A name, an IPv4 address, or an IPv6 address in brackets; then the port.
_ENDPOINT = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What a URL says."""

    endpoints: tuple[str, ...]
    timeout_s: float = TIMEOUT_S_DEFAULT
    level: Level = LINEARIZABLE
    prefer: Preference | None = None
    """None: the leader for levels that it serves, else the replicas in turn."""
    write: WriteLevel = WriteLevel.QUORUM


def parse_url(url: str) -> ClientOptions:
    """Return what `url` says; raise `InvalidArgument` naming the part that is wrong."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme != SCHEME:
        _refuse(url, f"it must begin with {SCHEME}://")
    rest, _, query = rest.partition("?")
    addresses, _, path = rest.partition("/")
    if path:
        _refuse(url, f"the path {path!r} is not used: end the addresses with / or nothing")
    endpoints = parse_endpoints(addresses.split(","))
    options = _parameters(url, query)
    return ClientOptions(
        endpoints,
        check_timeout_s(parse_duration_s(options["timeout"])) if "timeout" in options else TIMEOUT_S_DEFAULT,
        Level.parse(options["level"]) if "level" in options else LINEARIZABLE,
        Preference.parse(options["prefer"]) if "prefer" in options else None,
        write_level_of(options["write"]) if "write" in options else WriteLevel.QUORUM,
    )


def parse_endpoints(addresses: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses, each once; raise `InvalidArgument` unless each is host:port."""
    for address in addresses:
        check_endpoint(address)
    if not 1 <= len(addresses) <= ENDPOINTS_MAX:
        raise InvalidArgument(f"give 1 to {ENDPOINTS_MAX} addresses, not {len(addresses)}")
    return tuple(dict.fromkeys(addresses))


def check_endpoint(address: str) -> None:
    """Raise `InvalidArgument` unless `address` is host:port, or [IPv6]:port."""
    found = _ENDPOINT.fullmatch(address)
    if not found:
        raise InvalidArgument(f"the address {address!r} is not host:port")
    if not 1 <= int(found[2]) <= 65535:
        raise InvalidArgument(f"the port of {address!r} is not in 1 to 65535")


def check_timeout_s(timeout_s: float) -> float:
    """Return the timeout; raise `InvalidArgument` unless it is above 0 and at most `TIMEOUT_S_MAX` seconds."""
    if not 0.0 < timeout_s <= TIMEOUT_S_MAX:
        raise InvalidArgument(f"the timeout {timeout_s} is not above 0 and at most {TIMEOUT_S_MAX} seconds")
    return float(timeout_s)


def _parameters(url: str, query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, separator, value = part.partition("=")
        if name not in _PARAMETERS:
            _refuse(url, f"there is no parameter {name!r}: the known ones are {', '.join(_PARAMETERS)}")
        if not separator or not value:
            _refuse(url, f"the parameter {name!r} has no value")
        if name in found:
            _refuse(url, f"the parameter {name!r} is given twice")
        found[name] = value
    return found


def _refuse(url: str, why: str) -> NoReturn:
    raise InvalidArgument(f"the address {url!r} cannot be used: {why}", metadata={"url": url})
