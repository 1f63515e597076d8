"""What each fault of a schedule does to a simulated cluster.

Here lives the meaning of faults in virtual time, one short method for each kind; their form is in
`kv.sim.faults`. A fault that finds nothing to do (a start of a node that runs) does nothing.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final

from kv.errors import InvalidArgument
from kv.sim.disk import MemoryFiles
from kv.sim.faults import Fault, groups, sides
from kv.sim.network import Conditions, Network
from kv.sim.node import SimNode

FLIP_BYTES_FROM: Final = 512
"""Bits are flipped behind the header block of a segment: most bytes are there."""


class Injector:
    """Applies faults to nodes and network."""

    def __init__(
        self,
        nodes: Sequence[SimNode],
        hosts: Sequence[str],
        network: Network,
        rng: Random,
        calm: Callable[[], None],
    ) -> None:
        """`hosts` names all hosts, those of clients too; `calm` is told when everything was healed."""
        self._nodes = {node.name: node for node in nodes}
        self._hosts, self._network, self._rng, self._calm = hosts, network, rng, calm
        self.injected: Counter[str] = Counter()
        self._do: dict[str, Callable[[Fault], None]] = {
            "cut": self._cut,
            "partition": self._partition,
            "heal": lambda _: self._heal(),
            "slow": self._slow,
            "reset": self._reset,
            "weather": self._weather,
            "slow_sync": self._slow_sync,
            "fail_sync": self._fail_sync,
            "fill": self._fill,
            "free": self._free,
            "flip": self._flip,
            "crash": self._crash,
            "crash_at": self._crash_at,
            "start": self._start,
            "pause": self._pause,
            "resume": self._resume,
            "clock_rate": self._clock_rate,
            "clock_jump": self._clock_jump,
            "calm": lambda _: self._everything_heals(),
        }

    def inject(self, fault: Fault) -> None:
        """Let the fault happen now."""
        self.injected[fault.kind] += 1
        self._do[fault.kind](fault)

    # ------------------------------------------------------------ targets

    def _host(self, name: str) -> str:
        """Resolve `leader:3` and `follower:3`; falls back to the first node where there is none."""
        role, colon, number = name.partition(":")
        if not colon:
            if name not in self._hosts:
                raise InvalidArgument(f"the cluster has no host {name!r}, it has {', '.join(self._hosts)}")
            return name
        names = sorted(self._nodes)
        leads = [one for one in names if self._leads(self._nodes[one], int(number))]
        if role == "leader":
            return leads[0] if leads else names[0]
        return next((one for one in names if one not in leads), names[0])

    def _leads(self, node: SimNode, partition: int) -> bool:
        group = node.cluster.engine.groups.get(partition) if node.up else None
        return group is not None and group.is_leader

    def _targets(self, fault: Fault) -> Iterable[SimNode]:
        if fault.target == "*":
            return list(self._nodes.values())
        name = self._host(fault.target)
        if name not in self._nodes:
            raise InvalidArgument(f"{fault.kind} is for nodes, {name!r} is none")
        return [self._nodes[name]]

    # ------------------------------------------------------------ network

    def _cut(self, fault: Fault) -> None:
        for source, target in sides(fault.target):
            self._cut_link(self._host(source), self._host(target))

    def _cut_link(self, source: str, target: str) -> None:
        if source != target and not self._network.is_cut(source, target):
            self._network.cut(source, target)

    def _partition(self, fault: Fault) -> None:
        sets = [[self._host(name) for name in group if name != "*"] for group in groups(fault.target)]
        named = {name for group in sets for name in group}
        for group, written in zip(sets, groups(fault.target), strict=True):
            if "*" in written:
                group += [name for name in self._hosts if name not in named]
        for i, group in enumerate(sets):
            for other in sets[:i] + sets[i + 1 :]:
                for source in group:
                    for target in other:
                        self._cut_link(source, target)

    def _heal(self) -> None:
        self._network.heal()
        for source in self._hosts:
            for target in self._hosts:
                self._network.slow(source, target, 0.0)

    def _slow(self, fault: Fault) -> None:
        for source, target in sides(fault.target):
            self._network.slow(self._host(source), self._host(target), fault.number("seconds"))

    def _reset(self, fault: Fault) -> None:
        one, other = sides(fault.target)[0]
        self._network.reset(self._host(one), self._host(other))

    def _weather(self, fault: Fault) -> None:
        self._network.conditions = Conditions(
            loss=fault.number("loss"),
            duplication=fault.number("duplication"),
            long_delay=fault.number("long_delay"),
            long_delay_max_s=fault.number("seconds"),
        )

    # ------------------------------------------------------------ disk

    def _slow_sync(self, fault: Fault) -> None:
        for node in self._targets(fault):
            node.sync_extra_s = fault.number("seconds")

    def _fail_sync(self, fault: Fault) -> None:
        for node in self._targets(fault):
            node.disk.sync_error = errno.EIO
            node.expects_death = True

    def _fill(self, fault: Fault) -> None:
        for node in self._targets(fault):
            node.disk.full = True

    def _free(self, fault: Fault) -> None:
        for node in self._targets(fault):
            node.disk.full = False

    def _flip(self, fault: Fault) -> None:
        """Kill the node and flip a bit in its log."""
        for node in self._targets(fault):
            if node.up:
                node.crash(power=False, why="killed, a bit of its log flipped")
            if flip_bit(node.disk, self._rng):
                node.damaged = True

    # ------------------------------------------------------------ processes

    def _crash(self, fault: Fault) -> None:
        for node in self._targets(fault):
            if node.up:
                node.crash(power=fault.flag("power"))

    def _crash_at(self, fault: Fault) -> None:
        for node in self._targets(fault):
            node.points[fault.text("point")] = (int(fault.number("count")), fault.flag("power"))

    def _start(self, fault: Fault) -> None:
        for node in self._targets(fault):
            if not node.up and not node.gone:
                node.start()

    def _pause(self, fault: Fault) -> None:
        for node in self._targets(fault):
            node.life.pause()

    def _resume(self, fault: Fault) -> None:
        for node in self._targets(fault):
            if node.life.paused:
                node.life.resume()

    def _clock_rate(self, fault: Fault) -> None:
        for node in self._targets(fault):
            node.clock.run_at(fault.number("rate"))

    def _clock_jump(self, fault: Fault) -> None:
        for node in self._targets(fault):
            node.clock.jump_wall(fault.number("seconds"))

    # ------------------------------------------------------------ the end of a spell

    def _everything_heals(self) -> None:
        self._heal()
        self._network.conditions = Conditions()
        for node in self._nodes.values():
            node.points.clear()
            node.sync_extra_s, node.disk.full, node.disk.sync_error = 0.0, False, None
            node.clock.run_at(1.0)
            if node.life.paused:
                node.life.resume()
            if not node.up and not node.gone:
                node.start()
        self._calm()


def flip_bit(disk: MemoryFiles, rng: Random) -> bool:
    """Flip one bit of what was written to a segment; False if nothing was written yet."""
    written = [name for name in disk.names() if disk.files[name].data.rstrip(b"\0")]
    if not written:
        return False
    name = rng.choice(written)
    length = len(disk.files[name].data.rstrip(b"\0"))
    offset = rng.randrange(min(FLIP_BYTES_FROM, length - 1), length)
    disk.flip(name, offset, 1 << rng.randrange(8))
    return True
