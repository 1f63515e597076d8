"""What a person asked for in a run, and the same as data, so that the run can be made once more. Pure.

The schedule of faults is not in it: a run has it in a file of its own, beside the file `plan.json` that this is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Final

from kv_jepsen.checkers.evidence import LINEARIZABLE_LEVELS

VERSION: Final = 1
"""Of `plan.json`; it only grows."""


class UnreadablePlan(ValueError):
    """Data that is no plan of a run; the message says what is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One run, all but its schedule.

    Attributes:
        name: of the run.
        target: name of the system under test, or module:Class.
        workload: name of what clients do.
        faults: families of faults with commas, or the name of the schedule file.
        seconds: of load.
        cut: how the network is cut.
        nodes: how many.
        processes: clients.
        rate: operations a second, of all clients.
        seed: of everything that is drawn.
        options: name=value, for the target.
        levels: read levels of the clients' reads; `*` for all of the target.
        linearizable: read levels that are held to be linearizable, beside those that promise it.
        recovery_ms_max: within which every partition must serve again after a heal; None only measures.
    """

    name: str
    target: str
    workload: str
    faults: str
    seconds: float
    cut: str
    nodes: int
    processes: int
    rate: float
    seed: int
    options: tuple[str, ...] = ()
    levels: tuple[str, ...] = ("linearizable",)
    linearizable: tuple[str, ...] = ()
    recovery_ms_max: float | None = None

    def facts(self) -> dict[str, str]:
        """What stands in the report beside the verdict."""
        facts = {
            "target": self.target,
            "workload": self.workload,
            "nodes": str(self.nodes),
            "clients": str(self.processes),
            "faults": self.faults,
            "cut": self.cut,
            "levels": ", ".join(self.levels),
            "seed": str(self.seed),
            "options": ", ".join(self.options),
            "held linearizable": ", ".join(self.linearizable),
        }
        return {name: value for name, value in facts.items() if value}

    def held(self) -> frozenset[str]:
        """The read levels that are held to be linearizable."""
        return LINEARIZABLE_LEVELS | frozenset(self.linearizable)

    def document(self) -> dict[str, Any]:
        """Return the choice as values that JSON knows."""
        return {"version": VERSION, **asdict(self)}


def chosen(loaded: Any) -> Choice:  # noqa: ANN401 - what JSON gives has no narrower type
    """Return the choice of a document that was read back; members that are not known here are left out.

    Raises:
        UnreadablePlan: it is no document of this version.
    """
    if not isinstance(loaded, Mapping) or loaded.get("version") != VERSION:
        raise UnreadablePlan(f"no plan of version {VERSION}")
    try:
        known = [one for one in fields(Choice) if one.name in loaded or one.default is MISSING]
        return Choice(**{one.name: _member(one.type, loaded[one.name]) for one in known})
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadablePlan(f"the plan is broken: {type(error).__name__}: {error}") from error


def _member(kind: Any, value: Any) -> Any:  # noqa: ANN401 - as above
    """The value of a member, whose type is known by its name."""
    if kind == "tuple[str, ...]":
        if not isinstance(value, list):
            raise TypeError(f"a list was expected, this is {value!r}")
        return tuple(map(str, value))
    if kind == "float | None":
        return None if value is None else float(value)
    return {"str": str, "int": int, "float": float}[kind](value)
