"""How evidence and outcomes are shown: as cells of a table and as JSON fields. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kv.client.types import Evidence

SHORT_HEADERS: Final = ("partition", "served by", "term", "index")
LONG_HEADERS: Final = (*SHORT_HEADERS, "epoch", "level", "evidence revision", "age")

NOTHING: Final = "-"


def headers(*, full: bool) -> tuple[str, ...]:
    """Return the headers of `cells`."""
    return LONG_HEADERS if full else SHORT_HEADERS


def cells(evidence: Evidence | None, *, full: bool) -> tuple[str, ...]:
    """Return who served and where in the log; `full`: all that the reply says."""
    if evidence is None:
        return (NOTHING,) * len(headers(full=full))
    short = (str(evidence.partition), evidence.node, str(evidence.term), str(evidence.index))
    if not full:
        return short
    level = NOTHING if evidence.level is None else evidence.level.name.lower()
    age = NOTHING if evidence.age_ms is None else f"{evidence.age_ms} ms"
    return (*short, str(evidence.map_epoch), level, str(evidence.revision), age)


def fields(evidence: Evidence | None) -> dict[str, object] | None:
    """Return the evidence as JSON fields; a write has no level, and what cannot be old no age."""
    if evidence is None:
        return None
    found: dict[str, object] = {
        "partition": evidence.partition,
        "map_epoch": evidence.map_epoch,
        "term": evidence.term,
        "index": evidence.index,
        "node": evidence.node,
        "revision": evidence.revision,
    }
    if evidence.level is not None:
        found["level"] = evidence.level.name.lower()
    if evidence.age_ms is not None:
        found["age_ms"] = evidence.age_ms
    return found


def answers(found: Sequence[Evidence]) -> dict[str, object]:
    """Return what each replica of a QUORUM or ALL read said; nothing for other reads."""
    return {"answers": [fields(evidence) for evidence in found]} if found else {}
