"""Looking into production objects: the one place where the simulator reads what is private, and replaces what is public.

Never by `vars`: that gives an object a dictionary of its own, and every access to it is slower from then on.
"""

from __future__ import annotations

from typing import Any


def inside(thing: object, name: str) -> Any:  # noqa: ANN401 - the caller names the type
    """Return the private attribute `name`; `AttributeError` if production renamed it."""
    return getattr(thing, name)


def put_inside(thing: object, name: str, value: object) -> None:
    """Give the object another `name`, a method or a value, which must exist."""
    assert hasattr(thing, name), f"production has no {name} any more"
    setattr(thing, name, value)
