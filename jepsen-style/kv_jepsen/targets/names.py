"""Which targets there are. Their files are imported when they are chosen, since they need packages of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from kv_jepsen.cuts.api import Cuts
from kv_jepsen.records import Records
from kv_jepsen.targets.api import Places, Target
from kv_jepsen.unsupported import Unsupported

TARGETS: Final[Mapping[str, str]] = {
    "ringkv": "kv_jepsen.targets.ringkv:RingKV",
    "etcd": "kv_jepsen.targets.etcd:Etcd",
}
"""Name to module and class. A name that has a colon itself is taken as such: `my_package.my_target:MyTarget`."""


def by_name(
    name: str, nodes: Sequence[str], places: Places, cuts: Cuts, records: Records, options: Mapping[str, str]
) -> Target:
    """Make the target.

    Args:
        name: one of `TARGETS`, or `module:Class` of your own.
        nodes: names of its nodes.
        places: for its data and logs.
        cuts: the network between its nodes.
        records: where processes are noted.
        options: of the target, as given on the command line.

    Raises:
        Unsupported: no such target, or a package that it needs is missing.
    """
    target = class_of(name)(nodes, places, cuts, records, options)
    if not isinstance(target, Target):
        raise Unsupported(f"{name} is no Target: derive it from kv_jepsen.targets.Target")
    return target


def class_of(name: str) -> Any:  # noqa: ANN401 - whatever a user's module has there; `by_name` checks what it makes
    """Load the class of a target.

    Raises:
        Unsupported: as of `by_name`.
    """
    module, colon, cls = TARGETS.get(name, name).partition(":")
    if not colon:
        raise Unsupported(f"there is no target {name!r}: give {', '.join(TARGETS)}, or module:Class of yours")
    try:
        return getattr(import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise Unsupported(f"the target {name} cannot be loaded: {error}") from error
