"""Which consistency models an anomaly rules out.

Pure. Three families of the same six models: plain; `strong-session-`, in which the order of each process counts;
`strong-`, in which real time counts (`strict-serializable` is the usual name of `strong-serializable`). Sources:
Adya (1999) for what each model forbids; Cerone and Gotsman, "Analysing snapshot isolation", PODC 2016, for
G-nonadjacent; Bailis et al., "Scalable atomic visibility", SIGMOD 2014, for read atomic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

STRICT: Final = "strict-serializable"
"""What this store promises within a partition, and the model that forbids everything named here."""

_STRONGER: Final[dict[str, tuple[str, ...]]] = {
    "read-uncommitted": ("read-committed",),
    "read-committed": ("read-atomic",),
    "read-atomic": ("repeatable-read", "snapshot-isolation"),
    "repeatable-read": ("serializable",),
    "snapshot-isolation": ("serializable",),
    "serializable": (),
}
"""The next stronger models: what a model forbids these forbid too."""

_FORBIDDEN_BY: Final[dict[str, tuple[str, ...]]] = {
    "duplicate-elements": ("read-uncommitted",),
    "garbage-read": ("read-uncommitted",),
    "G0": ("read-uncommitted",),
    "incompatible-order": ("read-committed",),
    "dirty-update": ("read-committed",),
    "G1a": ("read-committed",),
    "G1b": ("read-committed",),
    "G1c": ("read-committed",),
    "internal": ("read-atomic",),
    "lost-update": ("repeatable-read", "snapshot-isolation"),
    "G-single": ("repeatable-read", "snapshot-isolation"),
    "G-nonadjacent": ("repeatable-read", "snapshot-isolation"),
    "G2-item": ("repeatable-read",),
}
"""The weakest models that forbid each anomaly."""

_FAMILIES: Final = ("", "strong-session-", "strong-")
"""From weak to strong; a family forbids what the weaker ones forbid."""

_FAMILY_OF_SUFFIX: Final = {"": 0, "-process": 1, "-realtime": 2}


def models() -> list[str]:
    """All models, by family and from weak to strong."""
    return [_name(family, model) for family in range(3) for model in _STRONGER]


def ruled_out(anomalies: Iterable[str]) -> frozenset[str]:
    """Every model that at least one of the anomalies contradicts."""
    out: set[str] = set()
    for anomaly in anomalies:
        name, family = split(anomaly)
        for model in _closure(_FORBIDDEN_BY[name]):
            out.update(_name(stronger, model) for stronger in range(family, 3))
    return frozenset(out)


def weakest(out: frozenset[str]) -> list[str]:
    """Of the models ruled out those that no weaker one explains: what to tell a person."""
    return [
        _name(family, model)
        for family in range(3)
        for model in _STRONGER
        if _name(family, model) in out
        and (family == 0 or _name(family - 1, model) not in out)
        and not any(_name(family, weaker) in out for weaker, nexts in _STRONGER.items() if model in nexts)
    ]


def split(anomaly: str) -> tuple[str, int]:
    """The anomaly's plain name, and the weakest family that forbids it (0 plain, 1 session, 2 real time)."""
    for suffix in ("-process", "-realtime"):
        if anomaly.endswith(suffix):
            return anomaly.removesuffix(suffix), _FAMILY_OF_SUFFIX[suffix]
    return anomaly, 0


def _closure(names: Iterable[str]) -> set[str]:
    closed: set[str] = set()
    todo = list(names)
    while todo:
        model = todo.pop()
        if model not in closed:
            closed.add(model)
            todo.extend(_STRONGER[model])
    return closed


def _name(family: int, model: str) -> str:
    name = _FAMILIES[family] + model
    return STRICT if name == "strong-serializable" else name
