"""Looking into production objects: the one place where the simulator reads what is private."""

from __future__ import annotations

from typing import Any


def inside(thing: object, name: str) -> Any:  # noqa: ANN401 - the caller names the type
    """Return the private attribute `name`; `KeyError` if production renamed it."""
    return vars(thing)[name]
