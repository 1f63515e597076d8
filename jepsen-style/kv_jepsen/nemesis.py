"""Does what a schedule says to real processes and their network, and notes it in the history.

The seconds of a schedule are those since the load began. A host that is named by its role (`leader:1`) is looked up at that
moment; without an answer it is the first node. What a run cannot do is told before it starts: `unsupported`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from kv_jepsen.cuts.api import Cuts
from kv_jepsen.cuts.links import CLIENTS, ROUTER
from kv_jepsen.draw import blocked
from kv_jepsen.schedule import KINDS as SCHEDULE_KINDS
from kv_jepsen.schedule import Fault, Where, groups, links
from kv_jepsen.targets.api import HOST_KINDS, Target

Note: TypeAlias = Callable[[str, str], None]
"""Takes the kind of a fault and its target, as they are to stand in the history."""

PROCESS_KINDS: Final = frozenset({"crash", "start", "pause", "resume", "calm"})
_VALUE: Final[Mapping[str, str]] = {
    "slow_sync": "seconds",
    "clock_rate": "rate",
    "clock_jump": "seconds",
}
_ENDS: Final[Mapping[str, float]] = {"slow_sync": 0.0, "clock_rate": 1.0}
"""Kinds with a value that ends them."""


def unsupported(schedule: Iterable[Fault], cuts: Cuts, target: Target) -> list[str]:
    """Return, one sentence each, what of a schedule cannot be done here. Tells the target what will come."""
    problems: dict[str, None] = {}
    of_hosts: dict[str, None] = {}
    for one in schedule:
        if one.kind == "crash" and one.text("power") == "yes":
            of_hosts["power"] = None
        elif one.kind == "crash_at":
            problems["crash_at is the simulator's: real processes die at a time, take crash"] = None
        elif one.kind in HOST_KINDS:
            of_hosts[one.kind] = None
        elif one.kind not in PROCESS_KINDS and not cuts.offers(one.kind):
            problems[f"{one.kind} cannot be done by {type(cuts).__name__} to real processes"] = None
        elif f"{ROUTER}:" in one.target and (one.kind != "cut" or not cuts.offers(ROUTER)):
            problems[
                f"{one.kind} of a router cannot be done by {type(cuts).__name__}: only cut, by nft or proxy"
            ] = None
        elif CLIENTS in _hosts(one) and not cuts.offers(CLIENTS):
            problems[f"{one.kind} of {CLIENTS} cannot be done by {type(cuts).__name__}: take --cut proxy"] = (
                None
            )
        elif one.kind == "weather" and one.number("long_delay") > 0 and not cuts.offers("long_delay"):
            problems[f"weather with long_delay cannot be done by {type(cuts).__name__}: give loss alone"] = (
                None
            )
    return [*problems, *target.refuses(list(of_hosts))]


def _hosts(one: Fault) -> set[str]:
    """The hosts that a fault of the network names."""
    match SCHEDULE_KINDS[one.kind].where:
        case Where.LINK:
            return {host for link in links(one.target) for host in link}
        case Where.SPLIT:
            return {host for group in groups(one.target) for host in group}
        case _:
            return set()


def note_of(one: Fault) -> str:
    """What stands in the history of a fault of a host: its kind, or `stop-` and its kind if it ends one."""
    value = one.number(_VALUE[one.kind]) if one.kind in _ENDS else None
    return one.kind if value is None or value != _ENDS[one.kind] else f"stop-{one.kind}"


class Nemesis:
    """Applies faults to one run."""

    def __init__(self, target: Target, cuts: Cuts, note: Note) -> None:
        self._target, self._cuts, self._note = target, cuts, note

    async def run(self, schedule: Sequence[Fault]) -> None:
        """Apply each fault at its time; returns after the last one."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for one in schedule:
            await asyncio.sleep(max(0.0, began + one.at_s - loop.time()))
            await self.apply(one)

    async def apply(self, one: Fault) -> None:
        """Apply a fault now."""
        match SCHEDULE_KINDS[one.kind].where:
            case Where.NODE:
                await self._to_nodes(one)
            case Where.LINK:
                await self._to_links(one)
            case Where.SPLIT:
                await self._split(one)
            case Where.ALL:
                await self._to_all(one)

    async def _to_nodes(self, one: Fault) -> None:
        chosen = list(self._target.nodes) if one.target == "*" else [await self._host(one.target)]
        match one.kind:
            case "crash":
                self._target.kill(*chosen)
                for node in chosen if one.text("power") == "yes" else ():
                    self._target.afflict(node, "power")
            case "start":
                await self._target.start(*chosen)
            case "pause":
                self._target.pause(*chosen)
            case "resume":
                self._target.resume(*chosen)
            case _:
                self._to_hosts(one, chosen)
                return
        if one.target == "*" and one.kind in {"start", "resume"}:
            self._note(one.kind, "*")
        else:
            for node in chosen:
                self._note(one.kind, node)

    def _to_hosts(self, one: Fault, chosen: Sequence[str]) -> None:
        """Faults of disks and clocks."""
        assert one.kind in HOST_KINDS, f"`unsupported` lets no {one.kind} pass"
        value = one.number(_VALUE[one.kind]) if one.kind in _VALUE else 0.0
        for node in chosen:
            self._target.afflict(node, one.kind, value)
            self._note(note_of(one), node)

    async def _to_links(self, one: Fault) -> None:
        for source, end in [(await self._host(a), await self._host(b)) for a, b in links(one.target)]:
            match one.kind:
                case "cut":
                    self._cuts.cut(source, end)
                case "slow":
                    self._cuts.slow(source, end, one.number("seconds"))
                case "reset":
                    self._cuts.reset(source, end)
                case _:
                    raise AssertionError(f"`unsupported` lets no {one.kind} pass")
        if one.kind != "slow" or one.number("seconds") > 0:
            self._note(one.kind, one.target)

    async def _split(self, one: Fault) -> None:
        split = [[name if name == "*" else await self._host(name) for name in g] for g in groups(one.target)]
        for source, end in blocked(split, self._target.nodes):
            self._cuts.cut(source, end)
        self._note(one.kind, "/".join(",".join(group) for group in split))

    async def _to_all(self, one: Fault) -> None:
        match one.kind:
            case "heal":
                self._cuts.heal()
            case "weather":
                self._cuts.weather(one.number("loss"), one.number("long_delay"), one.number("seconds"))
                if not one.number("loss") and not one.number("long_delay"):
                    self._note("stop-weather", "*")
                    return
            case "calm":
                self._cuts.heal()
                self._target.relieve()
                self._target.resume(*self._target.nodes)
                await self._target.start()
            case _:
                raise AssertionError(f"`unsupported` lets no {one.kind} pass")
        self._note(one.kind, "*")

    async def _host(self, name: str) -> str:
        role, colon, partition = name.partition(":")
        nodes = self._target.nodes
        if role == ROUTER:
            return f"{ROUTER}:{await self._host(partition)}"
        if not colon:
            if name not in nodes and name != CLIENTS:
                raise ValueError(f"the cluster has no host {name!r}, it has {', '.join(nodes)}")
            return name
        leader = await self._target.leader(int(partition)) or nodes[0]
        return leader if role == "leader" else next(node for node in nodes if node != leader)
